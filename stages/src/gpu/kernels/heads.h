// What follows a row's queries, keys and values: norms of heads, rotation by position, and the writing of keys and
// values to their blocks. A simdgroup computes a head.
//
// A block holds `BLOCK_TOKENS` tokens. Its keys are `[head][dimension][token]`, so that lanes read the keys of
// neighbouring tokens together; its values are `[head][token][dimension]`. In 8 bits, 32 neighbouring dimensions of a
// key or value share a scale in half precision, which lies in a buffer of its own: `[head][group][token]`.

#define BLOCK_TOKENS 32
#define HEAD_MAX 512
// Dimensions that share a scale in 8 bits.
#define SCALED 32
#define BYTE_LARGEST 127.0f
// Flags of `HeadSizes`.
#define NORM_QUERIES 1
#define NORM_KEYS 2
#define PAIRS_OF_HALVES 4

struct HeadSizes {
    uint heads;
    uint kv_heads;
    // Dimensions of a key and of a value.
    uint key;
    uint value;
    // Rotated pairs of dimensions.
    uint pairs;
    uint flags;
    float epsilon;
    // Factor of queries.
    float query_scale;
};

// Norms the head of `width` dimensions.
inline void norm_head(SHARED(float) head, IN(float) weights, uint width, float epsilon, Place place) {
    float squares = 0.0f;
    for (uint at = place.lane; at < width; at += LANES) {
        float value = head[at];
        squares = fused(value, value, squares);
    }
    float scale = 1.0f / square_root(sum_of_lanes(squares) / float(width) + epsilon);
    for (uint at = place.lane; at < width; at += LANES) {
        head[at] = head[at] * scale * weights[at];
    }
    group_barrier();
}

// Rotates the head by `angles`: a cosine for each pair, then a sine for each.
inline void rotate_head(SHARED(float) head, IN(float) angles, SIZES_OF(HeadSizes) sizes, Place place) {
    bool halves = (sizes.flags & PAIRS_OF_HALVES) != 0;
    for (uint pair = place.lane; pair < sizes.pairs; pair += LANES) {
        uint first = halves ? pair : 2 * pair;
        uint second = halves ? pair + sizes.pairs : 2 * pair + 1;
        float a = head[first];
        float b = head[second];
        float cosine = angles[pair];
        float sine = angles[sizes.pairs + pair];
        head[first] = a * cosine - b * sine;
        head[second] = a * sine + b * cosine;
    }
    group_barrier();
}

// Loads one head of a row to `head`, norms and rotates it as its kind asks. Heads are numbered queries first, then
// keys, then values.
inline void prepare_head(IN(float) row, IN(float) angles, IN(float) query_norm, IN(float) key_norm, SHARED(float) head,
                         SIZES_OF(HeadSizes) sizes, Place place) {
    uint at = place.group_x;
    bool is_query = at < sizes.heads;
    bool is_key = !is_query && at < sizes.heads + sizes.kv_heads;
    uint width = is_query || is_key ? sizes.key : sizes.value;
    uint keys_before = at < sizes.heads + sizes.kv_heads ? at : sizes.heads + sizes.kv_heads;
    IN(float) from = row + keys_before * sizes.key + (at - keys_before) * sizes.value;
    for (uint dimension = place.lane; dimension < width; dimension += LANES) {
        head[dimension] = from[dimension];
    }
    group_barrier();
    if (is_query && (sizes.flags & NORM_QUERIES) != 0) {
        norm_head(head, query_norm, width, sizes.epsilon, place);
    }
    if (is_key && (sizes.flags & NORM_KEYS) != 0) {
        norm_head(head, key_norm, width, sizes.epsilon, place);
    }
    if (is_query || is_key) {
        rotate_head(head, angles, sizes, place);
    }
}

// Values in a row of queries, keys and values.
inline uint row_width(SIZES_OF(HeadSizes) sizes) {
    return (sizes.heads + sizes.kv_heads) * sizes.key + sizes.kv_heads * sizes.value;
}

inline void write_query(SHARED(float) head, OUT(float) queries, SIZES_OF(HeadSizes) sizes, Place place) {
    OUT(float) to = queries + (size_t(place.group_y) * sizes.heads + place.group_x) * sizes.key;
    for (uint dimension = place.lane; dimension < sizes.key; dimension += LANES) {
        to[dimension] = head[dimension] * sizes.query_scale;
    }
}

// The place of a dimension in the buffer of keys, and in that of values.
inline size_t key_place(uint block, uint head, uint dimension, uint token, uint kv_heads, uint width) {
    return ((size_t(block) * kv_heads + head) * width + dimension) * BLOCK_TOKENS + token;
}
inline size_t value_place(uint block, uint head, uint dimension, uint token, uint kv_heads, uint width) {
    return ((size_t(block) * kv_heads + head) * BLOCK_TOKENS + token) * width + dimension;
}

KERNEL(write_heads_f16)
(INPUT(0, float, rows), INPUT(1, float, angles), INPUT(2, uint, slots), INPUT(3, float, query_norm),
 INPUT(4, float, key_norm), OUTPUT(5, float, queries), OUTPUT(6, ushort, keys), OUTPUT(7, ushort, values),
 SIZES(8, HeadSizes)) {
    THREADGROUP(float, head, HEAD_MAX);
    Place place = PLACE;
    IN(float) row = rows + size_t(place.group_y) * row_width(sizes);
    prepare_head(row, angles + size_t(place.group_y) * 2 * sizes.pairs, query_norm, key_norm, head, sizes, place);
    if (place.group_x < sizes.heads) {
        write_query(head, queries, sizes, place);
        return;
    }
    uint block = slots[place.group_y] / BLOCK_TOKENS;
    uint token = slots[place.group_y] % BLOCK_TOKENS;
    uint at = place.group_x - sizes.heads;
    if (at < sizes.kv_heads) {
        for (uint dimension = place.lane; dimension < sizes.key; dimension += LANES) {
            keys[key_place(block, at, dimension, token, sizes.kv_heads, sizes.key)] = to_half(head[dimension]);
        }
    } else {
        for (uint dimension = place.lane; dimension < sizes.value; dimension += LANES) {
            values[value_place(block, at - sizes.kv_heads, dimension, token, sizes.kv_heads, sizes.value)] =
                to_half(head[dimension]);
        }
    }
}

// The scale of the 32 values that the lanes have: half precision, and not a number if it cannot scale them.
inline ushort byte_scale(float x) {
    float largest = largest_of_lanes(x < 0.0f ? -x : x);
    float unusable = sum_of_lanes(x == x ? 0.0f : 1.0f);
    ushort scale = to_half(largest / BYTE_LARGEST);
    return unusable > 0.0f || (scale & 0x7c00) == 0x7c00 ? ushort(0x7e00) : scale;
}

inline schar byte_of_scale(float x, ushort scale) {
    float step = from_half(scale);
    if (step == 0.0f || step != step) {
        return 0;
    }
    float byte = nearest(x / step);
    return schar(byte > BYTE_LARGEST ? BYTE_LARGEST : byte < -BYTE_LARGEST ? -BYTE_LARGEST : byte);
}

KERNEL(write_heads_q8_0)
(INPUT(0, float, rows), INPUT(1, float, angles), INPUT(2, uint, slots), INPUT(3, float, query_norm),
 INPUT(4, float, key_norm), OUTPUT(5, float, queries), OUTPUT(6, schar, keys), OUTPUT(7, schar, values),
 OUTPUT(8, ushort, key_scales), OUTPUT(9, ushort, value_scales), SIZES(10, HeadSizes)) {
    THREADGROUP(float, head, HEAD_MAX);
    Place place = PLACE;
    IN(float) row = rows + size_t(place.group_y) * row_width(sizes);
    prepare_head(row, angles + size_t(place.group_y) * 2 * sizes.pairs, query_norm, key_norm, head, sizes, place);
    if (place.group_x < sizes.heads) {
        write_query(head, queries, sizes, place);
        return;
    }
    uint block = slots[place.group_y] / BLOCK_TOKENS;
    uint token = slots[place.group_y] % BLOCK_TOKENS;
    bool is_key = place.group_x < sizes.heads + sizes.kv_heads;
    uint at = place.group_x - sizes.heads - (is_key ? 0 : sizes.kv_heads);
    uint width = is_key ? sizes.key : sizes.value;
    for (uint first = 0; first < width; first += SCALED) {
        uint dimension = first + place.lane;
        ushort scale = byte_scale(head[dimension]);
        schar byte = byte_of_scale(head[dimension], scale);
        size_t scale_place = key_place(block, at, first / SCALED, token, sizes.kv_heads, width / SCALED);
        if (is_key) {
            keys[key_place(block, at, dimension, token, sizes.kv_heads, width)] = byte;
            if (place.lane == 0) {
                key_scales[scale_place] = scale;
            }
        } else {
            values[value_place(block, at, dimension, token, sizes.kv_heads, width)] = byte;
            if (place.lane == 0) {
                value_scales[scale_place] = scale;
            }
        }
    }
}
