// The place of a thread, and sums over threads. 32 threads are a simdgroup on every device that these kernels run on.
// Sums are butterflies: every lane gets the same bits, in one order on all devices.

#define LANES 32

struct Place {
    uint group_x;
    uint group_y;
    uint group_z;
    uint thread;
    uint lane;
    uint simdgroup;
};

inline float sum_of_lanes(float x) {
    for (uint mask = LANES / 2; mask > 0; mask /= 2) {
        x = x + exchange_lanes(x, mask);
    }
    return x;
}

inline float largest_of_lanes(float x) {
    for (uint mask = LANES / 2; mask > 0; mask /= 2) {
        float other = exchange_lanes(x, mask);
        x = other > x ? other : x;
    }
    return x;
}

// The sum over the simdgroups of a group, of a value that each lane of a simdgroup has. `parts` has room for one value
// of each simdgroup, and can be used again after another barrier.
inline float sum_of_simdgroups(float x, SHARED(float) parts, Place place, uint simdgroups) {
    if (place.lane == 0) {
        parts[place.simdgroup] = x;
    }
    group_barrier();
    float sum = parts[0];
    for (uint at = 1; at < simdgroups; at++) {
        sum = sum + parts[at];
    }
    return sum;
}

// The largest, likewise.
inline float largest_of_simdgroups(float x, SHARED(float) parts, Place place, uint simdgroups) {
    if (place.lane == 0) {
        parts[place.simdgroup] = x;
    }
    group_barrier();
    float largest = parts[0];
    for (uint at = 1; at < simdgroups; at++) {
        float other = parts[at];
        largest = other > largest ? other : largest;
    }
    return largest;
}
