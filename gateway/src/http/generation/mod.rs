//! From a request's prompts to its text: starts the sequences, decodes their tokens to deltas, and streams those in
//! whichever [`dialect::Dialect`] the client speaks. Knows no dialect itself.

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
