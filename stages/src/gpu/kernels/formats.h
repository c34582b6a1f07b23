// Weight formats: each reads a part of eight neighbouring weights of a row. `weight = scale * value + minimum`. The
// layouts are facts of ggml's formats, as in `stages/src/kernels/block.rs`.

// A part of eight weights.
#define PART 8

struct Part {
    float values[PART];
    float scale;
    float minimum;
};

// Eight bytes.
struct Bytes {
    uint low;
    uint high;
};

inline uint byte_of(Bytes bytes, uint at) { return ((at < 4 ? bytes.low : bytes.high) >> (8 * (at % 4))) & 255; }

// Eight bytes at an even address, as are those of all formats but MXFP4.
inline Bytes bytes_at(IN(uchar) at) {
    IN(ushort) pairs = (IN(ushort))at;
    Bytes bytes;
    bytes.low = uint(pairs[0]) | uint(pairs[1]) << 16;
    bytes.high = uint(pairs[2]) | uint(pairs[3]) << 16;
    return bytes;
}

inline Bytes bytes_at_odd(IN(uchar) at) {
    Bytes bytes;
    bytes.low = uint(at[0]) | uint(at[1]) << 8 | uint(at[2]) << 16 | uint(at[3]) << 24;
    bytes.high = uint(at[4]) | uint(at[5]) << 8 | uint(at[6]) << 16 | uint(at[7]) << 24;
    return bytes;
}

inline float half_at(IN(uchar) at) { return from_half(((IN(ushort))at)[0]); }

inline int signed_byte(uint byte) { return int(byte ^ 128) - 128; }

TABLE(schar, IQ4_STEPS, 16) = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
TABLE(schar, E2M1_DOUBLED, 16) = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// === floats ===

struct F32 {
    static Part part(IN(uchar) row, uint index) {
        IN(float) values = (IN(float))row + PART * index;
        Part part;
        for (uint at = 0; at < PART; at++) {
            part.values[at] = values[at];
        }
        part.scale = 1.0f;
        part.minimum = 0.0f;
        return part;
    }
};

struct F16 {
    static Part part(IN(uchar) row, uint index) {
        IN(ushort) values = (IN(ushort))row + PART * index;
        Part part;
        for (uint at = 0; at < PART; at++) {
            part.values[at] = from_half(values[at]);
        }
        part.scale = 1.0f;
        part.minimum = 0.0f;
        return part;
    }
};

struct BF16 {
    static Part part(IN(uchar) row, uint index) {
        IN(ushort) values = (IN(ushort))row + PART * index;
        Part part;
        for (uint at = 0; at < PART; at++) {
            part.values[at] = from_bits(uint(values[at]) << 16);
        }
        part.scale = 1.0f;
        part.minimum = 0.0f;
        return part;
    }
};

// === blocks of 32: four parts. The low nibbles of 16 bytes come first, then the high ones. ===

// The bytes whose nibbles are the part's values, and their shift.
inline IN(uchar) nibbles_of(IN(uchar) bytes, uint part) { return bytes + PART * (part % 2); }
inline uint nibble_shift(uint part) { return 4 * (part / 2 % 2); }

struct Q4_0 {
    static Part part(IN(uchar) row, uint index) {
        IN(uchar) block = row + size_t(index / 4) * 18;
        Bytes bytes = bytes_at(nibbles_of(block + 2, index % 4));
        Part part;
        for (uint at = 0; at < PART; at++) {
            part.values[at] = float(int(byte_of(bytes, at) >> nibble_shift(index) & 15) - 8);
        }
        part.scale = half_at(block);
        part.minimum = 0.0f;
        return part;
    }
};

struct Q4_1 {
    static Part part(IN(uchar) row, uint index) {
        IN(uchar) block = row + size_t(index / 4) * 20;
        Bytes bytes = bytes_at(nibbles_of(block + 4, index % 4));
        Part part;
        for (uint at = 0; at < PART; at++) {
            part.values[at] = float(byte_of(bytes, at) >> nibble_shift(index) & 15);
        }
        part.scale = half_at(block);
        part.minimum = half_at(block + 2);
        return part;
    }
};

struct Q5_0 {
    static Part part(IN(uchar) row, uint index) {
        IN(uchar) block = row + size_t(index / 4) * 22;
        Bytes bytes = bytes_at(nibbles_of(block + 6, index % 4));
        uint high = block[2 + index % 4];
        Part part;
        for (uint at = 0; at < PART; at++) {
            uint value = (byte_of(bytes, at) >> nibble_shift(index) & 15) | (high >> at & 1) << 4;
            part.values[at] = float(int(value) - 16);
        }
        part.scale = half_at(block);
        part.minimum = 0.0f;
        return part;
    }
};

struct Q5_1 {
    static Part part(IN(uchar) row, uint index) {
        IN(uchar) block = row + size_t(index / 4) * 24;
        Bytes bytes = bytes_at(nibbles_of(block + 8, index % 4));
        uint high = block[4 + index % 4];
        Part part;
        for (uint at = 0; at < PART; at++) {
            part.values[at] = float((byte_of(bytes, at) >> nibble_shift(index) & 15) | (high >> at & 1) << 4);
        }
        part.scale = half_at(block);
        part.minimum = half_at(block + 2);
        return part;
    }
};

struct Q8_0 {
    static Part part(IN(uchar) row, uint index) {
        IN(uchar) block = row + size_t(index / 4) * 34;
        Bytes bytes = bytes_at(block + 2 + PART * (index % 4));
        Part part;
        for (uint at = 0; at < PART; at++) {
            part.values[at] = float(signed_byte(byte_of(bytes, at)));
        }
        part.scale = half_at(block);
        part.minimum = 0.0f;
        return part;
    }
};

struct IQ4_NL {
    static Part part(IN(uchar) row, uint index) {
        IN(uchar) block = row + size_t(index / 4) * 18;
        Bytes bytes = bytes_at(nibbles_of(block + 2, index % 4));
        Part part;
        for (uint at = 0; at < PART; at++) {
            part.values[at] = float(IQ4_STEPS[byte_of(bytes, at) >> nibble_shift(index) & 15]);
        }
        part.scale = half_at(block);
        part.minimum = 0.0f;
        return part;
    }
};

struct MXFP4 {
    static Part part(IN(uchar) row, uint index) {
        IN(uchar) block = row + size_t(index / 4) * 17;
        Bytes bytes = bytes_at_odd(nibbles_of(block + 1, index % 4));
        Part part;
        for (uint at = 0; at < PART; at++) {
            part.values[at] = float(E2M1_DOUBLED[byte_of(bytes, at) >> nibble_shift(index) & 15]);
        }
        // Half of the scale, as the table is doubled. The smallest two are below the smallest normal number.
        uint exponent = block[0];
        part.scale = from_bits(exponent < 2 ? 0x00200000u << exponent : (exponent - 1) << 23);
        part.minimum = 0.0f;
        return part;
    }
};

// === blocks of 256: 32 parts, four in a sub-block of 32 ===

// Q4_K and Q5_K: eight scales and eight minimums of 6 bits in 12 bytes after the two factors.
inline Part with_packed_scales(IN(uchar) block, uint sub, Part part) {
    IN(uchar) packed = block + 4;
    uint scale, minimum;
    if (sub < 4) {
        scale = packed[sub] & 63;
        minimum = packed[sub + 4] & 63;
    } else {
        scale = (packed[sub + 4] & 15) | packed[sub - 4] >> 6 << 4;
        minimum = uint(packed[sub + 4] >> 4) | packed[sub] >> 6 << 4;
    }
    part.scale = half_at(block) * float(scale);
    part.minimum = -(half_at(block + 2) * float(minimum));
    return part;
}

struct Q4_K {
    static Part part(IN(uchar) row, uint index) {
        IN(uchar) block = row + size_t(index / 32) * 144;
        uint sub = index / 4 % 8;
        Bytes bytes = bytes_at(block + 16 + 32 * (sub / 2) + PART * (index % 4));
        Part part;
        for (uint at = 0; at < PART; at++) {
            part.values[at] = float(byte_of(bytes, at) >> (4 * (sub % 2)) & 15);
        }
        return with_packed_scales(block, sub, part);
    }
};

struct Q5_K {
    static Part part(IN(uchar) row, uint index) {
        IN(uchar) block = row + size_t(index / 32) * 176;
        uint sub = index / 4 % 8;
        Bytes high = bytes_at(block + 16 + PART * (index % 4));
        Bytes bytes = bytes_at(block + 48 + 32 * (sub / 2) + PART * (index % 4));
        Part part;
        for (uint at = 0; at < PART; at++) {
            uint value = (byte_of(bytes, at) >> (4 * (sub % 2)) & 15) | (byte_of(high, at) >> sub & 1) << 4;
            part.values[at] = float(value);
        }
        return with_packed_scales(block, sub, part);
    }
};

struct Q6_K {
    static Part part(IN(uchar) row, uint index) {
        IN(uchar) block = row + size_t(index / 32) * 210;
        uint sub = index / 4 % 8;
        uint quarter = sub % 4;
        uint first = PART * (index % 4);
        Bytes low = bytes_at(block + 64 * (sub / 4) + 32 * (quarter % 2) + first);
        Bytes high = bytes_at(block + 128 + 32 * (sub / 4) + first);
        Part part;
        for (uint at = 0; at < PART; at++) {
            uint value = (byte_of(low, at) >> (4 * (quarter / 2)) & 15) | (byte_of(high, at) >> (2 * quarter) & 3) << 4;
            part.values[at] = float(int(value) - 32);
        }
        part.scale = half_at(block + 208) * float(signed_byte(block[192 + 2 * sub + first / 16]));
        part.minimum = 0.0f;
        return part;
    }
};

struct Q2_K {
    static Part part(IN(uchar) row, uint index) {
        IN(uchar) block = row + size_t(index / 32) * 84;
        uint sub = index / 4 % 8;
        uint first = PART * (index % 4);
        Bytes bytes = bytes_at(block + 16 + 32 * (sub / 4) + first);
        uint packed = block[2 * sub + first / 16];
        Part part;
        for (uint at = 0; at < PART; at++) {
            part.values[at] = float(byte_of(bytes, at) >> (2 * (sub % 4)) & 3);
        }
        part.scale = half_at(block + 80) * float(packed & 15);
        part.minimum = -(half_at(block + 82) * float(packed >> 4));
        return part;
    }
};

struct Q3_K {
    static Part part(IN(uchar) row, uint index) {
        IN(uchar) block = row + size_t(index / 32) * 110;
        uint sub = index / 4 % 8;
        uint first = PART * (index % 4);
        Bytes high = bytes_at(block + first);
        Bytes low = bytes_at(block + 32 + 32 * (sub / 4) + first);
        Part part;
        for (uint at = 0; at < PART; at++) {
            uint value = (byte_of(low, at) >> (2 * (sub % 4)) & 3) | (byte_of(high, at) >> sub & 1) << 2;
            part.values[at] = float(int(value) - 4);
        }
        // One of 16 scales: four low bits in the first 8 bytes, two high bits in the last 4.
        uint half_block = 2 * sub + first / 16;
        uint scale = (block[96 + half_block % 8] >> (4 * (half_block / 8)) & 15) |
                     (block[104 + half_block % 4] >> (2 * (half_block / 4)) & 3) << 4;
        part.scale = half_at(block + 108) * float(int(scale) - 32);
        part.minimum = 0.0f;
        return part;
    }
};

struct IQ4_XS {
    static Part part(IN(uchar) row, uint index) {
        IN(uchar) block = row + size_t(index / 32) * 136;
        uint sub = index / 4 % 8;
        Bytes bytes = bytes_at(nibbles_of(block + 8 + 16 * sub, index % 4));
        uint low = block[4 + sub / 2] >> (4 * (sub % 2)) & 15;
        uint high = block[2 + sub / 4] >> (2 * (sub % 4)) & 3;
        Part part;
        for (uint at = 0; at < PART; at++) {
            part.values[at] = float(IQ4_STEPS[byte_of(bytes, at) >> nibble_shift(index) & 15]);
        }
        part.scale = half_at(block) * float(int(low | high << 4) - 32);
        part.minimum = 0.0f;
        return part;
    }
};

// Calls `apply(type, name)` for each format. A build may define it for fewer, to compile in less time.
#ifndef FOR_EACH_FORMAT
#define FOR_EACH_FORMAT(apply)                                                                                         \
    apply(F32, f32) apply(F16, f16) apply(BF16, bf16) apply(Q4_0, q4_0) apply(Q4_1, q4_1) apply(Q5_0, q5_0)            \
    apply(Q5_1, q5_1) apply(Q8_0, q8_0) apply(Q2_K, q2_k) apply(Q3_K, q3_k) apply(Q4_K, q4_k) apply(Q5_K, q5_k)        \
    apply(Q6_K, q6_k) apply(IQ4_NL, iq4_nl) apply(IQ4_XS, iq4_xs) apply(MXFP4, mxfp4)
#endif
