//! The computation of a stage: mapped weights, model families, kernels, keys and values, sampling.
//!
//! This crate uses neither sockets nor the cluster's store (etcd).

#[cfg(feature = "accelerator")]
pub mod accelerator;
pub mod checkpoint;
pub mod cpu;
pub mod device;
pub mod format;
pub mod gguf;
pub mod gpu;
pub mod kernels;
mod layer_figures;
pub mod loader;
pub mod memory;
pub mod model;
mod model_record;
mod not_built;
pub mod probe;
mod reasoned;
mod repack;
pub mod safetensors;
pub mod sampling;
pub mod selftest;
pub mod shard;
pub mod weights;

pub use model_record::{RecordError, growing_record, model_record};
pub use not_built::NotBuilt;
