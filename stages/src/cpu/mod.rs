//! The CPU runner: one shard's forward pass over mapped weights, with baton's own kernels.
//!
//! Invariant: a row's bits depend only on its token, its position and its sequence. They do not depend on the other
//! rows of its micro-batch, on how a prompt was cut, on the number of threads, on how the layers were cut into shards,
//! or on the instruction set. Products keep this invariant by themselves (see `kernels`). Everything else here works on
//! one row at a time or has an order of operations fixed by position. Memory is allocated when the shard is loaded. A
//! step allocates only its output.
//!
//! Unsafe code is in `lanes` (instructions), in `kv` (a mapping read as numbers), and in `layer`, `attend`,
//! `grouped_attention`, `latent_attention`, `experts`, `output_head` and `runner`, which hand out parts of a buffer.

mod arena;
mod assignments;
mod attend;
mod attention;
mod experts;
mod exponentials;
mod grouped_attention;
mod kv;
mod lanes;
mod latent_attention;
mod latent_kv;
mod layer;
mod math;
mod norm;
mod output_head;
mod parallel;
mod quantised;
mod rope;
mod routing;
mod runner;
mod short_conv;
mod texts;
mod touched;
mod weights;

pub(crate) use exponentials::Exponentials;
pub use runner::CpuRunner;
pub use touched::TouchedExperts;
