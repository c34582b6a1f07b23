// The check that all values of a row are finite numbers: 0 for a row of such, 1 for another.

#define FINITE_SIMDGROUPS 4

struct FiniteSizes {
    uint width;
};

KERNEL(find_unusable)(INPUT(0, float, rows), OUTPUT(1, uint, found), SIZES(2, FiniteSizes)) {
    THREADGROUP(float, parts, FINITE_SIMDGROUPS);
    Place place = PLACE;
    IN(float) row = rows + size_t(place.group_x) * sizes.width;
    float unusable = 0.0f;
    for (uint at = place.thread; at < sizes.width; at += FINITE_SIMDGROUPS * LANES) {
        unusable = (to_bits(row[at]) & 0x7f800000u) == 0x7f800000u ? 1.0f : unusable;
    }
    unusable = largest_of_simdgroups(largest_of_lanes(unusable), parts, place, FINITE_SIMDGROUPS);
    if (place.thread == 0) {
        found[place.group_x] = unusable > 0.0f ? 1 : 0;
    }
}
