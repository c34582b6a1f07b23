//! What a stage computes: mapped weights, model families, kernels, keys and values, sampling.
//!
//! This crate knows neither sockets nor the store.

pub mod gguf;
pub mod kernels;
pub mod memory;
pub mod weights;
