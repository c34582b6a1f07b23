//! The processor's runner: one shard's forward pass over mapped weights, with baton's own kernels.
//!
//! Its law is that a row's bits depend on its token, its position and its sequence alone: not on what shares its
//! micro-batch, on how a prompt was cut, on the number of threads, on where the layers were cut, or on the instruction
//! set. Products keep that law by themselves (see `kernels`); everything else here either works on one row at a time or
//! has its order of operations fixed by position. Memory is allocated when the shard is loaded; a step allocates its
//! output and nothing else.
//!
//! Unsafe code is in `lanes` (instructions), `kv` (a mapping as numbers), and where `step` and `mix` hand out parts of a
//! buffer.

mod arena;
mod attention;
mod exponentials;
mod head;
mod kv;
mod lanes;
mod layer;
mod math;
mod mix;
mod norm;
mod quantised;
mod rope;
mod runner;
mod share;
mod weights;

pub(crate) use exponentials::Exponentials;
pub use runner::CpuRunner;
