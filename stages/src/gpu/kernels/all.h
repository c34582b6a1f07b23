// The kernels in the order in which they are compiled, after a dialect. Metal and CUDA get them as one text, in this
// order.
#include "threads.h"
#include "norm.h"
#include "formats.h"
#include "product.h"
#include "gated.h"
#include "heads.h"
#include "attention.h"
#include "finite.h"
#include "choose.h"
