// Attention of rows to the blocks of their sequences. A sequence is cut into splits of `SPLIT_TOKENS` tokens by
// position, never by the batch. A group of threads computes a head of a row over one split; `merge_attention` adds the
// splits in order. In a group, a simdgroup computes the scores of a block, one token a lane; then a thread adds the
// values of a dimension, token after token.

#define SPLIT_TOKENS 256
#define SPLIT_BLOCKS 8
#define ATTENTION_SIMDGROUPS 4
// The score of a token that is not attended to: its weight is zero.
#define HIDDEN_SCORE (-3.0e38f)

struct AttentionSizes {
    uint heads;
    uint kv_heads;
    // Dimensions of a key and of a value.
    uint key;
    uint value;
    // Tokens that a row attends to at most, its own included.
    uint window;
    // Splits that `parts` has room for.
    uint splits;
};

// What a row attends to. `RowOf` is read from three numbers.
struct RowOf {
    uint position;
    // The first block of the sequence that the table has, and its place there.
    uint first_block;
    uint table_start;
};

inline RowOf row_of(IN(uint) rows, uint row) {
    RowOf found;
    found.position = rows[3 * row];
    found.first_block = rows[3 * row + 1];
    found.table_start = rows[3 * row + 2];
    return found;
}

inline uint first_token(uint position, uint window) { return position + 1 > window ? position + 1 - window : 0; }

// Keys and values in half precision.
struct HalfStore {
    IN(ushort) keys;
    IN(ushort) values;

    float key(uint block, uint head, uint dimension, uint token, SIZES_OF(AttentionSizes) sizes) const {
        return from_half(keys[key_place(block, head, dimension, token, sizes.kv_heads, sizes.key)]);
    }
    float value(uint block, uint head, uint dimension, uint token, SIZES_OF(AttentionSizes) sizes) const {
        return from_half(values[value_place(block, head, dimension, token, sizes.kv_heads, sizes.value)]);
    }
};

// The same in 8 bits.
struct ByteStore {
    IN(schar) keys;
    IN(schar) values;
    IN(ushort) key_scales;
    IN(ushort) value_scales;

    float key(uint block, uint head, uint dimension, uint token, SIZES_OF(AttentionSizes) sizes) const {
        size_t scale = key_place(block, head, dimension / SCALED, token, sizes.kv_heads, sizes.key / SCALED);
        size_t at = key_place(block, head, dimension, token, sizes.kv_heads, sizes.key);
        return from_half(key_scales[scale]) * float(keys[at]);
    }
    float value(uint block, uint head, uint dimension, uint token, SIZES_OF(AttentionSizes) sizes) const {
        size_t scale = key_place(block, head, dimension / SCALED, token, sizes.kv_heads, sizes.value / SCALED);
        size_t at = value_place(block, head, dimension, token, sizes.kv_heads, sizes.value);
        return from_half(value_scales[scale]) * float(values[at]);
    }
};

template <typename Store>
inline void attend(Store store, IN(float) queries, IN(uint) rows, IN(uint) table, OUT(float) parts,
                   SHARED(float) query, SHARED(float) weights, SHARED(float) largests, SHARED(float) sums,
                   SIZES_OF(AttentionSizes) sizes, Place place) {
    RowOf row = row_of(rows, place.group_y);
    uint split_start = place.group_z * SPLIT_TOKENS;
    uint first = first_token(row.position, sizes.window);
    uint start = first > split_start ? first : split_start;
    uint end = row.position + 1 < split_start + SPLIT_TOKENS ? row.position + 1 : split_start + SPLIT_TOKENS;
    // The whole group leaves.
    if (start >= end) {
        return;
    }
    uint head = place.group_x;
    uint kv_head = head / (sizes.heads / sizes.kv_heads);
    IN(float) from = queries + (size_t(place.group_y) * sizes.heads + head) * sizes.key;
    for (uint at = place.thread; at < sizes.key; at += ATTENTION_SIMDGROUPS * LANES) {
        query[at] = from[at];
    }
    group_barrier();

    float largest = HIDDEN_SCORE;
    for (uint at = place.simdgroup; at < SPLIT_BLOCKS; at += ATTENTION_SIMDGROUPS) {
        uint block_start = split_start + at * BLOCK_TOKENS;
        float score = HIDDEN_SCORE;
        if (block_start < end && block_start + BLOCK_TOKENS > start) {
            uint block = table[row.table_start + block_start / BLOCK_TOKENS - row.first_block];
            float products = 0.0f;
            for (uint dimension = 0; dimension < sizes.key; dimension++) {
                products = fused(query[dimension], store.key(block, kv_head, dimension, place.lane, sizes), products);
            }
            uint token = block_start + place.lane;
            score = token >= start && token < end ? products : HIDDEN_SCORE;
        }
        weights[at * BLOCK_TOKENS + place.lane] = score;
        largest = score > largest || score != score ? score : largest;
    }
    largest = largest_of_simdgroups(largest_of_lanes(largest), largests, place, ATTENTION_SIMDGROUPS);

    float sum = 0.0f;
    for (uint at = place.simdgroup; at < SPLIT_BLOCKS; at += ATTENTION_SIMDGROUPS) {
        uint token = split_start + at * BLOCK_TOKENS + place.lane;
        bool visible = token >= start && token < end;
        float weight = visible ? exponential(weights[at * BLOCK_TOKENS + place.lane] - largest) : 0.0f;
        weights[at * BLOCK_TOKENS + place.lane] = weight;
        sum = sum + weight;
    }
    sum = sum_of_simdgroups(sum_of_lanes(sum), sums, place, ATTENTION_SIMDGROUPS);

    OUT(float) part = parts + ((size_t(place.group_y) * sizes.heads + head) * sizes.splits + place.group_z) *
                                  (sizes.value + 2);
    for (uint dimension = place.thread; dimension < sizes.value; dimension += ATTENTION_SIMDGROUPS * LANES) {
        float value = 0.0f;
        for (uint token = start; token < end; token++) {
            uint block = table[row.table_start + token / BLOCK_TOKENS - row.first_block];
            float stored = store.value(block, kv_head, dimension, token % BLOCK_TOKENS, sizes);
            value = fused(weights[token - split_start], stored, value);
        }
        part[dimension] = value;
    }
    if (place.thread == 0) {
        part[sizes.value] = largest;
        part[sizes.value + 1] = sum;
    }
}

KERNEL(attend_f16)
(INPUT(0, float, queries), INPUT(1, uint, rows), INPUT(2, uint, table), INPUT(3, ushort, keys),
 INPUT(4, ushort, values), OUTPUT(5, float, parts), SIZES(6, AttentionSizes)) {
    THREADGROUP(float, query, HEAD_MAX);
    THREADGROUP(float, weights, SPLIT_TOKENS);
    THREADGROUP(float, largests, ATTENTION_SIMDGROUPS);
    THREADGROUP(float, sums, ATTENTION_SIMDGROUPS);
    HalfStore store = {keys, values};
    attend(store, queries, rows, table, parts, query, weights, largests, sums, sizes, PLACE);
}

KERNEL(attend_q8_0)
(INPUT(0, float, queries), INPUT(1, uint, rows), INPUT(2, uint, table), INPUT(3, schar, keys), INPUT(4, schar, values),
 INPUT(5, ushort, key_scales), INPUT(6, ushort, value_scales), OUTPUT(7, float, parts), SIZES(8, AttentionSizes)) {
    THREADGROUP(float, query, HEAD_MAX);
    THREADGROUP(float, weights, SPLIT_TOKENS);
    THREADGROUP(float, largests, ATTENTION_SIMDGROUPS);
    THREADGROUP(float, sums, ATTENTION_SIMDGROUPS);
    ByteStore store = {keys, values, key_scales, value_scales};
    attend(store, queries, rows, table, parts, query, weights, largests, sums, sizes, PLACE);
}

// Adds the splits of a head of a row. A thread computes some of its dimensions.
KERNEL(merge_attention)
(INPUT(0, float, parts), INPUT(1, uint, rows), OUTPUT(2, float, out), SIZES(3, AttentionSizes)) {
    Place place = PLACE;
    RowOf row = row_of(rows, place.group_y);
    uint first = first_token(row.position, sizes.window) / SPLIT_TOKENS;
    uint last = row.position / SPLIT_TOKENS;
    uint width = sizes.value + 2;
    IN(float) of_head = parts + (size_t(place.group_y) * sizes.heads + place.group_x) * sizes.splits * width;
    float largest = of_head[first * width + sizes.value];
    for (uint split = first + 1; split <= last; split++) {
        float other = of_head[split * width + sizes.value];
        largest = other > largest || other != other ? other : largest;
    }
    OUT(float) to = out + (size_t(place.group_y) * sizes.heads + place.group_x) * sizes.value;
    for (uint dimension = place.lane; dimension < sizes.value; dimension += LANES) {
        float value = 0.0f;
        float sum = 0.0f;
        for (uint split = first; split <= last; split++) {
            IN(float) part = of_head + split * width;
            float factor = exponential(part[sizes.value] - largest);
            value = fused(part[dimension], factor, value);
            sum = fused(part[sizes.value + 1], factor, sum);
        }
        to[dimension] = value / sum;
    }
}
