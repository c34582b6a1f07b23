//! Bounds of the GPU runner.

/// Rows computed together. Longer micro-batches take several passes. More rows would need more room for attention's
/// splits: rows times heads times splits times a head's values.
pub const ROWS_MAX: usize = 32;
/// Buffers that a kernel takes.
pub const KERNEL_BUFFERS_MAX: usize = 10;
/// Bytes of the simulator's message about a fault.
pub const MESSAGE_BYTES_MAX: usize = 512;
/// Tokens in a split of attention. The kernels' `SPLIT_TOKENS`.
pub const SPLIT_TOKENS: usize = 256;
/// Values in the longest head that fits the kernels' memory of a group. The kernels' `HEAD_MAX`.
pub const HEAD_VALUES_MAX: usize = 512;
