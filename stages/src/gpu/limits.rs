//! Bounds of the GPU runner.

use std::time::Duration;

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
/// Longest time that a device may take for a step. A tile of 32 rows takes a slow one a second; a device that hangs
/// ends the stage after this time.
pub const FINISH_TIMEOUT: Duration = Duration::from_secs(60);
/// Time after which a device that is waited for is asked whether it failed.
pub const STATUS_PERIOD: Duration = Duration::from_millis(100);
/// Bytes of each of two parts of pinned memory, through which weights are copied: some milliseconds of a copy.
pub const STAGING_BYTES: usize = 64 << 20;
/// Time between two log lines about a copy.
pub const PROGRESS_PERIOD: Duration = Duration::from_secs(2);
/// Times that CUDA is asked at once whether it has finished, some milliseconds together. Then it is asked each
/// [`CUDA_POLL_PERIOD`].
pub const CUDA_SPINS_MAX: u64 = 20_000;
/// Time between two such questions. A step that takes longer than the spins loses less than a hundredth by it.
pub const CUDA_POLL_PERIOD: Duration = Duration::from_micros(50);
/// Bytes of weights that a measurement of speeds launches at once: a slow device takes some milliseconds for them.
pub const PROBED_PRODUCT_BYTES_MAX: usize = 32 << 20;
/// Tokens of keys and values for a comparison before a stage has layers: two splits of attention.
pub const COMPARED_TOKENS: u32 = 2 * SPLIT_TOKENS as u32;
