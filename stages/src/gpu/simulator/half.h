// Half precision by bits, as processors may lack it: rounded to the nearest, ties to even.
#pragma once
#include <cstdint>
#include <cstring>

namespace simulator {

template <typename To, typename From> inline To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "of one size");
    To to;
    std::memcpy(&to, &from, sizeof(to));
    return to;
}

inline float from_half(std::uint16_t half) {
    std::uint32_t sign = std::uint32_t(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 1023;
    if (exponent == 31) {
        return bits_as<float>(sign | 0x7f800000u | fraction << 13);
    }
    if (exponent == 0) {
        float value = float(fraction) * (1.0f / 16777216.0f);
        return sign ? -value : value;
    }
    return bits_as<float>(sign | (exponent + 112) << 23 | fraction << 13);
}

inline std::uint16_t to_half(float value) {
    std::uint32_t bits = bits_as<std::uint32_t>(value), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (size > 0x7f800000) {
        return std::uint16_t(sign | 0x7e00);
    }
    // From here on the nearest half is infinite.
    if (size >= 0x477ff000) {
        return std::uint16_t(sign | 0x7c00);
    }
    if (size < 0x38800000) {
        // Subnormal: adding 0.5 leaves its bits, rounded, at the end of the float's.
        float shifted = bits_as<float>(size) + 0.5f;
        return std::uint16_t(sign | (bits_as<std::uint32_t>(shifted) - 0x3f000000u));
    }
    std::uint32_t odd = size >> 13 & 1;
    return std::uint16_t(sign | ((size - 0x38000000u + 0xfff + odd) >> 13));
}

} // namespace simulator
