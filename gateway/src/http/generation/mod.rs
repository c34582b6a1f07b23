//! Generation: starts the sequences of a request's prompts, decodes their tokens to deltas, and writes these with the
//! [`dialect::Dialect`] of the client's API. This module knows no dialect itself.

pub(super) mod choice_decoder;
pub(super) mod choice_stream;
pub(super) mod dialect;
pub(super) mod options;
pub(super) mod reply;
mod sse;
pub(super) mod start;
pub(super) mod text_model;
pub(super) mod timings;
pub(super) mod token_logprob;
pub(super) mod totals;
pub(super) mod usage;
