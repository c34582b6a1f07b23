//! The checked options of a generation. Each dialect reads them from its own request body.

use schema::frame::Sampling;

/// Options that apply to every choice of a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GenerationOptions {
    /// Sampling parameters. `choice` is set for each sequence.
    pub(crate) sampling: Sampling,
    /// Most tokens of one choice, if the client sets a limit.
    pub(crate) tokens_max: Option<u32>,
    /// Stop strings: texts that end a choice. None of them is empty.
    pub(crate) stop: Vec<String>,
    /// Tokens that end a choice, in addition to the model's own.
    pub(crate) stop_tokens: Vec<u32>,
    /// True if the model's own stop tokens do not end a choice.
    pub(crate) ignore_eos: bool,
    /// Choices for each prompt, at least one.
    pub(crate) choices: u32,
    /// Priority in the queue: among waiting requests, the one with the smaller number goes first.
    pub(crate) priority: i32,
    /// True if each token's log-probability is part of the answer.
    pub(crate) logprobs: bool,
}
