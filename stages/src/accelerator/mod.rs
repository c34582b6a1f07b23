//! The runner for graphics processors: one shard's forward pass through candle, on Metal or CUDA.
//!
//! It runs on candle's processor device too, and that is how it is tested: the code is the same, only the kernels under
//! candle's operations differ. Weights are copied to the device once, one layer at a time, in the format of the file
//! where candle's kernels for it are right (`support`); keys and values are allocated when the shard is loaded, in blocks,
//! in half precision. A step hands its inputs over once and fetches its output once for each tile of rows.
//!
//! Unlike the processor's own runner (`cpu`), this one does not promise equal bits: candle's products add in an order
//! that depends on how many rows they have, so a token's logits differ in the last digits with what shares its
//! micro-batch and with how a prompt was cut. Greedy tokens differ only where two tokens are about equally likely.

mod attention;
mod bounds;
mod hardware;
mod inputs;
mod kv;
mod layer;
mod loader;
mod matrix;
mod plan;
mod runner;
mod support;
mod weights;

pub use hardware::{Hardware, HardwareError};
pub use kv::KvNumbers;
pub use loader::CandleLoader;
pub use runner::CandleRunner;

/// Whether this program was built to compute on such a device.
pub(crate) const BUILT_IN: bool = cfg!(any(feature = "cuda", all(feature = "metal", target_os = "macos")));

pub(crate) use bounds::scratch_bytes;
