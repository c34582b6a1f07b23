//! The GPU runner: one shard's forward pass through candle, on Metal or CUDA.
//!
//! It also runs on candle's CPU device. The tests use this: the code is the same, and only the kernels under candle's
//! operations differ. Weights are copied to the device once, one layer at a time. They keep the format of the file if
//! candle's kernels for it are right (`support`). Keys and values are allocated when the shard is loaded, in blocks, in
//! half precision. For each tile of rows, a step sends its inputs to the device once and fetches its output once.
//!
//! Unlike the CPU runner (`cpu`), this one does not promise equal bits. Candle's products add in an order that depends
//! on the number of rows. So a token's logits differ in the last digits with the other rows of its micro-batch and with
//! how a prompt was cut. Greedy tokens differ only if two tokens are about equally likely.

mod attention;
mod bounds;
mod dense_model;
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
pub use kv::KvDtype;
pub use loader::CandleLoader;
pub use runner::CandleRunner;

/// True if this program was built to compute on such a device.
pub(crate) const BUILT_IN: bool = cfg!(any(feature = "cuda", all(feature = "metal", target_os = "macos")));

pub(crate) use bounds::scratch_bytes;
pub(crate) use dense_model::DenseModel;
