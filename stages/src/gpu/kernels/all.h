// The kernels in the order in which they are compiled, after a dialect. Metal and CUDA compile them as one text, in
// which `stages/src/gpu/source.rs` puts the files in this order.
#include "threads.h"
#include "norm.h"
#include "formats.h"
#include "product.h"
#include "gated.h"
#include "heads.h"
#include "attention.h"
#include "finite.h"
#include "choose.h"
