// The kernel language in CUDA's C++. Compiled by NVRTC with `--fmad=false` and `--device-as-default-execution-space`;
// needs no header of the toolkit.
typedef signed char schar;
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;

#define KERNEL(name) extern "C" __global__ void name
#define INPUT(index, T, name) const T *name
#define OUTPUT(index, T, name) T *name
#define SIZES(index, T) const T sizes
#define PLACE Place{blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.x & 31, threadIdx.x >> 5}
#define THREADGROUP(T, name, count) __shared__ T name[count]
#define TABLE(T, name, count) __constant__ T name[count]

#define IN(T) const T *
#define OUT(T) T *
#define SHARED(T) T *
#define OWN(T) T *
#define SIZES_OF(T) const T &

inline float fused(float a, float b, float c) { return fmaf(a, b, c); }
inline float exponential(float x) { return expf(x); }
inline float logarithm(float x) { return logf(x); }
inline float square_root(float x) { return __fsqrt_rn(x); }
inline uint product_high(uint a, uint b) { return __umulhi(a, b); }
inline float nearest(float x) { return rintf(x); }
inline float from_half(ushort bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}
inline ushort to_half(float x) {
    ushort bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
inline float from_bits(uint bits) { return __uint_as_float(bits); }
inline uint to_bits(float x) { return __float_as_uint(x); }
inline float exchange_lanes(float x, uint mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
inline uint exchange_lanes(uint x, uint mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
inline void group_barrier() { __syncthreads(); }
