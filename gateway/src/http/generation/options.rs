//! The options of a generation, checked; each dialect reads them from its own body.

use schema::frame::Sampling;

/// Options that apply to every choice of a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GenerationOptions {
    /// How tokens are chosen; `choice` is set for each sequence.
    pub(crate) sampling: Sampling,
    /// Most tokens of one choice, if the client says.
    pub(crate) tokens_max: Option<u32>,
    /// Texts that end a choice, none of them empty.
    pub(crate) stop: Vec<String>,
    /// Tokens that end a choice beside the model's own.
    pub(crate) stop_tokens: Vec<u32>,
    /// True if the model's own stop tokens do not end a choice.
    pub(crate) ignore_eos: bool,
    /// Choices for each prompt; at least one.
    pub(crate) choices: u32,
    /// Among requests that wait, smaller goes first.
    pub(crate) priority: i32,
    /// True if each token's log-probability is part of the answer.
    pub(crate) logprobs: bool,
}
