// The kernel language as Metal's address spaces alone: compiled by clang for its errors, never run. A pointer of one
// space that is taken for one of another does not compile.
typedef signed char schar;
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long size_t;

#define DEVICE_SPACE __attribute__((address_space(1)))
#define CONSTANT_SPACE __attribute__((address_space(2)))
#define THREADGROUP_SPACE __attribute__((address_space(3)))

#define KERNEL(name) void name
#define INPUT(index, T, name) const T DEVICE_SPACE *name
#define OUTPUT(index, T, name) T DEVICE_SPACE *name
#define SIZES(index, T) const T CONSTANT_SPACE &sizes
#define PLACE place_of_thread()
#define THREADGROUP(T, name, count) static T THREADGROUP_SPACE name[count]
#define TABLE(T, name, count) const T CONSTANT_SPACE name[count]

#define IN(T) const T DEVICE_SPACE *
#define OUT(T) T DEVICE_SPACE *
#define SHARED(T) T THREADGROUP_SPACE *
#define OWN(T) T *
#define SIZES_OF(T) const T CONSTANT_SPACE &

float fused(float, float, float);
float exponential(float);
float logarithm(float);
float square_root(float);
uint product_high(uint, uint);
float nearest(float);
float from_half(ushort);
ushort to_half(float);
float from_bits(uint);
uint to_bits(float);
float exchange_lanes(float, uint);
uint exchange_lanes(uint, uint);
void group_barrier();
struct Place place_of_thread();
