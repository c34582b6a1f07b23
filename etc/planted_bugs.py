"""Bugs to plant in the GPU's kernels, each with what must find it. `etc/check-msl` plants them one at a time."""

import dataclasses


@dataclasses.dataclass
class Bug:
    name: str
    # A file of `stages/src/gpu/kernels`, a text in it, and what takes its place.
    file: str
    before: str
    after: str
    # The test to run, and what it must print.
    test: str
    found_by: str
    # True if the compiler must find it, by address spaces.
    in_spaces: bool = False


PRODUCTS = "products_agree"
HEADS = "heads_are_normed"
ATTENTION = "attention_agrees"
NORMS = "norms_agree"

BUGS = [
    Bug(
        "a missing barrier",
        "threads.h",
        "    group_barrier();\n    float sum = parts[0];",
        "    float sum = parts[0];",
        NORMS,
        r"array \d+ of the group\S* is read (before it is written|by a thread after another wrote it)",
    ),
    Bug(
        "a barrier that some threads do not come to",
        "attention.h",
        "        query[at] = from[at];\n    }\n    group_barrier();",
        "        query[at] = from[at];\n        group_barrier();\n    }",
        ATTENTION,
        r"a barrier that some threads of the group do not come to",
    ),
    Bug(
        "a tile that is one output too long",
        "product.h",
        "output < out_first + OUTPUTS && output < outputs; output++",
        "output < out_first + OUTPUTS && output <= outputs; output++",
        PRODUCTS,
        r"AddressSanitizer: heap-buffer-overflow",
    ),
    Bug(
        "a wrong stride",
        "product.h",
        "IN(float) values = x + size_t(from) * cols + PART * index;",
        "IN(float) values = x + size_t(from) * (cols - PART) + PART * index;",
        PRODUCTS,
        r"the first output of \d+ rows that differs from the row alone",
    ),
    Bug(
        "a read past a buffer",
        "norm.h",
        "for (uint at = place.thread; at < sizes.width; at += NORM_SIMDGROUPS * LANES) {\n        squares",
        "for (uint at = place.thread; at <= sizes.width; at += NORM_SIMDGROUPS * LANES) {\n        squares",
        NORMS,
        r"AddressSanitizer: heap-buffer-overflow",
    ),
    Bug(
        "a race of lanes for a group's memory",
        "heads.h",
        "pair < sizes.pairs; pair += LANES)",
        "pair < sizes.pairs; pair += LANES / 2)",
        HEADS,
        r"is (written|read) by (two threads|a thread after another)",
    ),
    Bug(
        "two groups that write the same row",
        "norm.h",
        "out + size_t(place.group_x) * sizes.width",
        "out + size_t(place.group_x / 2) * sizes.width",
        NORMS,
        r"buffer 3 is written by two threads",
    ),
    Bug(
        "a wrong mask of lanes",
        "threads.h",
        "for (uint mask = LANES / 2; mask > 0; mask /= 2) {\n        x = x + exchange_lanes(x, mask);",
        "for (uint mask = LANES / 4; mask > 0; mask /= 2) {\n        x = x + exchange_lanes(x, mask);",
        PRODUCTS,
        r"output \d+ is \S+: expected",
    ),
    Bug(
        "an exchange that half of the lanes do not come to",
        "product.h",
        "            float sum = sum_of_lanes(sums[row]);\n",
        "            float sum = place.lane < 16 ? sum_of_lanes(sums[row]) : 0.0f;\n",
        PRODUCTS,
        r"an exchange of lanes that some lanes of the simdgroup do not come to",
    ),
    Bug(
        "a pointer to another address space",
        "heads.h",
        "inline void norm_head(SHARED(float) head,",
        "inline void norm_head(OUT(float) head,",
        HEADS,
        r"no matching function for call to 'norm_head'",
        in_spaces=True,
    ),
    Bug(
        "a group's array that is too short",
        "attention.h",
        "weights, SPLIT_TOKENS);\n    THREADGROUP(float, largests, ATTENTION_SIMDGROUPS);\n"
        "    THREADGROUP(float, sums, ATTENTION_SIMDGROUPS);\n    ByteStore",
        "weights, SPLIT_TOKENS - 1);\n    THREADGROUP(float, largests, ATTENTION_SIMDGROUPS);\n"
        "    THREADGROUP(float, sums, ATTENTION_SIMDGROUPS);\n    ByteStore",
        ATTENTION,
        r"array \d+ of the group\[255\] is past the end of 255",
    ),
    Bug(
        "a read of two bytes at an odd address",
        "formats.h",
        "Bytes bytes = bytes_at_odd(nibbles_of(block + 1, index % 4));",
        "Bytes bytes = bytes_at(nibbles_of(block + 1, index % 4));",
        PRODUCTS,
        r"load of misaligned address",
    ),
    Bug(
        "sums in another order for more rows",
        "product.h",
        "sums[row] = fused(part.scale, products, fused(part.minimum, sum, sums[row]));",
        "sums[row] = ROWS < 4 ? fused(part.scale, products, fused(part.minimum, sum, sums[row]))\n"
        "                             : fused(part.minimum, sum, fused(part.scale, products, sums[row]));",
        PRODUCTS,
        r"the first output of \d+ rows that differs from the row alone",
    ),
    Bug(
        "a window that is one token too long",
        "attention.h",
        "position + 1 > window ? position + 1 - window : 0;",
        "position + 1 > window ? position - window : 0;",
        ATTENTION,
        r"position \d+: \S+, expected",
    ),
]
