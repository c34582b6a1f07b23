//! Small models as GGUF files, and pipelines of runners over them.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod fixture;
pub mod pipeline;
pub mod reference;
