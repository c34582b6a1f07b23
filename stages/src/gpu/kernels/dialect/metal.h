// The kernel language in Metal's C++. Compiled on the Mac, with fast math off.
#include <metal_stdlib>
using namespace metal;
#pragma clang fp contract(off)

typedef char schar;

#define KERNEL(name) kernel void name
#define INPUT(index, T, name) device const T *name [[buffer(index)]]
#define OUTPUT(index, T, name) device T *name [[buffer(index)]]
#define SIZES(index, T)                                                                                                \
    constant T &sizes [[buffer(index)]], uint3 group_at [[threadgroup_position_in_grid]],                              \
        uint thread_at [[thread_index_in_threadgroup]], uint lane_at [[thread_index_in_simdgroup]],                    \
        uint simdgroup_at [[simdgroup_index_in_threadgroup]]
#define PLACE Place{group_at.x, group_at.y, group_at.z, thread_at, lane_at, simdgroup_at}
#define THREADGROUP(T, name, count) threadgroup T name[count]
#define TABLE(T, name, count) constant T name[count]

#define IN(T) device const T *
#define OUT(T) device T *
#define SHARED(T) threadgroup T *
#define OWN(T) thread T *
#define SIZES_OF(T) constant T &

inline float fused(float a, float b, float c) { return fma(a, b, c); }
inline float exponential(float x) { return precise::exp(x); }
inline float logarithm(float x) { return precise::log(x); }
inline float square_root(float x) { return precise::sqrt(x); }
inline uint product_high(uint a, uint b) { return mulhi(a, b); }
inline float nearest(float x) { return rint(x); }
inline float from_half(ushort bits) { return float(as_type<half>(bits)); }
inline ushort to_half(float x) { return as_type<ushort>(half(x)); }
inline float from_bits(uint bits) { return as_type<float>(bits); }
inline uint to_bits(float x) { return as_type<uint>(x); }
inline float exchange_lanes(float x, uint mask) { return simd_shuffle_xor(x, ushort(mask)); }
inline uint exchange_lanes(uint x, uint mask) { return simd_shuffle_xor(x, ushort(mask)); }
inline void group_barrier() { threadgroup_barrier(mem_flags::mem_threadgroup); }
