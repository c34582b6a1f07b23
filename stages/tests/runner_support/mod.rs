//! Small models as GGUF files, and pipelines of runners over them.

#![allow(dead_code, reason = "each test file uses its part")]

mod conversion;
pub mod golden;
pub mod mixtures;
pub mod pipeline;
pub mod reference;
