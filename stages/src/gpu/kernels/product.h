// Products of up to three matrices of one format with rows of activations. A simdgroup computes `OUTPUTS` outputs for
// up to `ROWS` rows. Lane `l` adds the parts `l`, `l + 32`, …; a butterfly adds the lanes. So an output is the same sum
// in the same order for every number of rows.

#define PRODUCT_SIMDGROUPS 4
#define OUTPUTS 2
// Flags of `ProductSizes`.
#define WITH_BIAS 1
#define ADD_TO_OUT 2

struct ProductSizes {
    // Values in a row of weights and of activations, and bytes in a row of weights.
    uint cols;
    uint row_bytes;
    uint rows;
    // Rows of each matrix. The outputs of a row are those of the first, then those of the others.
    uint outputs[3];
    // Values from one row of outputs to the next, and the place of the first output in it.
    uint out_stride;
    uint out_first;
    uint flags;
};

// The row of weights of one of the outputs.
inline IN(uchar) weights_of(IN(uchar) first, IN(uchar) second, IN(uchar) third, SIZES_OF(ProductSizes) sizes, uint at) {
    if (at < sizes.outputs[0]) {
        return first + size_t(at) * sizes.row_bytes;
    }
    at -= sizes.outputs[0];
    if (at < sizes.outputs[1]) {
        return second + size_t(at) * sizes.row_bytes;
    }
    return third + size_t(at - sizes.outputs[1]) * sizes.row_bytes;
}

// Adds the products of one part of weights with each row to `sums`.
template <uint ROWS>
inline void add_products(Part part, IN(float) x, uint index, uint cols, uint row_first, uint row_last,
                         OWN(float) sums) {
    for (uint row = 0; row < ROWS; row++) {
        // Rows past the last repeat it. Nobody reads their sums.
        uint from = row_first + row < row_last ? row_first + row : row_last;
        IN(float) values = x + size_t(from) * cols + PART * index;
        float products = 0.0f;
        float sum = 0.0f;
        for (uint at = 0; at < PART; at++) {
            products = fused(part.values[at], values[at], products);
            sum = sum + values[at];
        }
        sums[row] = fused(part.scale, products, fused(part.minimum, sum, sums[row]));
    }
}

template <typename Format, uint ROWS>
inline void multiply(IN(float) x, IN(uchar) first, IN(uchar) second, IN(uchar) third, IN(float) bias, OUT(float) out,
                     SIZES_OF(ProductSizes) sizes, Place place) {
    uint outputs = sizes.outputs[0] + sizes.outputs[1] + sizes.outputs[2];
    uint row_first = place.group_y * ROWS;
    uint out_first = (place.group_x * PRODUCT_SIMDGROUPS + place.simdgroup) * OUTPUTS;
    for (uint output = out_first; output < out_first + OUTPUTS && output < outputs; output++) {
        IN(uchar) weights = weights_of(first, second, third, sizes, output);
        float sums[ROWS];
        for (uint row = 0; row < ROWS; row++) {
            sums[row] = 0.0f;
        }
        for (uint index = place.lane; index < sizes.cols / PART; index += LANES) {
            add_products<ROWS>(Format::part(weights, index), x, index, sizes.cols, row_first, sizes.rows - 1, sums);
        }
        for (uint row = 0; row < ROWS && row_first + row < sizes.rows; row++) {
            float sum = sum_of_lanes(sums[row]);
            if (place.lane == 0) {
                OUT(float) to = out + size_t(row_first + row) * sizes.out_stride + sizes.out_first + output;
                if ((sizes.flags & WITH_BIAS) != 0) {
                    sum = sum + bias[output];
                }
                if ((sizes.flags & ADD_TO_OUT) != 0) {
                    sum = sum + to[0];
                }
                to[0] = sum;
            }
        }
    }
}

#define PRODUCT(Format, name, rows)                                                                                    \
    KERNEL(product_##name##_##rows)                                                                                    \
    (INPUT(0, float, x), INPUT(1, uchar, first), INPUT(2, uchar, second), INPUT(3, uchar, third),                      \
     INPUT(4, float, bias), OUTPUT(5, float, out), SIZES(6, ProductSizes)) {                                           \
        multiply<Format, rows>(x, first, second, third, bias, out, sizes, PLACE);                                      \
    }
#define PRODUCTS(Format, name)                                                                                         \
    PRODUCT(Format, name, 1) PRODUCT(Format, name, 2) PRODUCT(Format, name, 4) PRODUCT(Format, name, 8)

FOR_EACH_FORMAT(PRODUCTS)
