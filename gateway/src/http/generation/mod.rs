//! Generation: starts the sequences of a request's prompts, decodes their tokens to deltas, and writes these with the
//! [`dialect::Dialect`] of the client's API. This module knows no dialect itself.

pub(super) mod chat;
pub(super) mod choice_decoder;
pub(super) mod choice_stream;
pub(super) mod dialect;
pub(super) mod embedding;
mod event_stream;
pub(super) mod generation_config;
pub(super) mod inference_span;
pub(super) mod infill;
pub(super) mod model_description;
pub(super) mod options;
pub(super) mod prompt_progress;
pub(super) mod reply;
pub(super) mod start;
pub(super) mod text_model;
pub(super) mod timings;
pub(super) mod token_logprob;
pub(super) mod totals;
pub(super) mod usage;
