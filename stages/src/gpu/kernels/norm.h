// Root-mean-square norm of rows: a group of threads each. `rows_at` chooses the rows, so that the output head norms
// those alone whose logits are wanted.

#define NORM_SIMDGROUPS 4

struct NormSizes {
    uint width;
    float epsilon;
};

KERNEL(rms_norm)
(INPUT(0, float, x), INPUT(1, uint, rows_at), INPUT(2, float, weights), OUTPUT(3, float, out), SIZES(4, NormSizes)) {
    THREADGROUP(float, parts, NORM_SIMDGROUPS);
    Place place = PLACE;
    IN(float) row = x + size_t(rows_at[place.group_x]) * sizes.width;
    OUT(float) result = out + size_t(place.group_x) * sizes.width;
    float squares = 0.0f;
    for (uint at = place.thread; at < sizes.width; at += NORM_SIMDGROUPS * LANES) {
        squares = fused(row[at], row[at], squares);
    }
    squares = sum_of_simdgroups(sum_of_lanes(squares), parts, place, NORM_SIMDGROUPS);
    float scale = 1.0f / square_root(squares / float(sizes.width) + sizes.epsilon);
    for (uint at = place.thread; at < sizes.width; at += NORM_SIMDGROUPS * LANES) {
        result[at] = row[at] * scale * weights[at];
    }
}
