// The kernel language on a processor: each thread of a group is a fiber, and memory that is written is watched. The
// simulator (`stages/src/gpu/simulator`) defines `Watched` and what is called here.
#include "../../simulator/group.h"
#include <cmath>

#define KERNEL(name) static void name
#define INPUT(index, T, name) const T *name
#define OUTPUT(index, T, name) simulator::Watched<T> name
#define SIZES(index, T) const T &sizes
#define PLACE simulator::place<Place>()
#define THREADGROUP(T, name, count) simulator::Watched<T> name = simulator::threadgroup<T>(__COUNTER__, count)
#define TABLE(T, name, count) const T name[count]

#define IN(T) const T *
#define OUT(T) simulator::Watched<T>
#define SHARED(T) simulator::Watched<T>
#define OWN(T) T *
#define SIZES_OF(T) const T &

inline float fused(float a, float b, float c) { return std::fma(a, b, c); }
inline float exponential(float x) { return std::exp(x); }
inline float logarithm(float x) { return std::log(x); }
inline float square_root(float x) { return std::sqrt(x); }
inline uint product_high(uint a, uint b) { return uint(std::uint64_t(a) * b >> 32); }
inline float nearest(float x) { return std::nearbyint(x); }
inline float from_bits(uint bits) { return simulator::bits_as<float>(bits); }
inline uint to_bits(float x) { return simulator::bits_as<uint>(x); }
using simulator::from_half;
using simulator::to_half;
inline float exchange_lanes(float x, uint mask) { return from_bits(simulator::exchange(to_bits(x), mask)); }
inline uint exchange_lanes(uint x, uint mask) { return simulator::exchange(x, mask); }
#define group_barrier() simulator::barrier(__COUNTER__)
