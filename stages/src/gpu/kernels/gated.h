// The inner values of a gated network: `activation(gate · x) * (up · x)`, with gate and up of one format. Sums are
// those of `product.h`.

// Values of `GatedSizes::activation`.
#define SILU 0
#define GELU 1

struct GatedSizes {
    // Values in a row of weights and of activations, and bytes in a row of weights.
    uint cols;
    uint row_bytes;
    uint rows;
    uint width;
    uint activation;
};

inline float activate(float x, uint activation) {
    if (activation == SILU) {
        return x / (1.0f + exponential(-x));
    }
    float u = 0.7978845608f * (x + 0.044715f * x * x * x);
    return x / (1.0f + exponential(-2.0f * u));
}

template <typename Format, uint ROWS>
inline void gate(IN(float) x, IN(uchar) gates, IN(uchar) ups, OUT(float) out, SIZES_OF(GatedSizes) sizes, Place place) {
    uint row_first = place.group_y * ROWS;
    uint out_first = (place.group_x * PRODUCT_SIMDGROUPS + place.simdgroup) * OUTPUTS;
    for (uint output = out_first; output < out_first + OUTPUTS && output < sizes.width; output++) {
        size_t start = size_t(output) * sizes.row_bytes;
        float gate_sums[ROWS];
        float up_sums[ROWS];
        for (uint row = 0; row < ROWS; row++) {
            gate_sums[row] = 0.0f;
            up_sums[row] = 0.0f;
        }
        for (uint index = place.lane; index < sizes.cols / PART; index += LANES) {
            Part gate_part = Format::part(gates + start, index);
            Part up_part = Format::part(ups + start, index);
            add_products<ROWS>(gate_part, x, index, sizes.cols, row_first, sizes.rows - 1, gate_sums);
            add_products<ROWS>(up_part, x, index, sizes.cols, row_first, sizes.rows - 1, up_sums);
        }
        for (uint row = 0; row < ROWS && row_first + row < sizes.rows; row++) {
            float gate_sum = sum_of_lanes(gate_sums[row]);
            float up_sum = sum_of_lanes(up_sums[row]);
            if (place.lane == 0) {
                out[size_t(row_first + row) * sizes.width + output] = activate(gate_sum, sizes.activation) * up_sum;
            }
        }
    }
}

#define GATED(Format, name, rows)                                                                                      \
    KERNEL(gated_##name##_##rows)                                                                                      \
    (INPUT(0, float, x), INPUT(1, uchar, gates), INPUT(2, uchar, ups), OUTPUT(3, float, out), SIZES(4, GatedSizes)) {  \
        gate<Format, rows>(x, gates, ups, out, sizes, PLACE);                                                          \
    }
#define GATED_OF(Format, name)                                                                                         \
    GATED(Format, name, 1) GATED(Format, name, 2) GATED(Format, name, 4) GATED(Format, name, 8)

FOR_EACH_FORMAT(GATED_OF)
