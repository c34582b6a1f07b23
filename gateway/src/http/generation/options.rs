//! The checked options of a generation. Each dialect reads them from its own request body.

use engine::generate::TokenOptions;

use super::text_model::AnswerPlan;
use crate::http::answer_form::AnswerForm;

/// Options that apply to every choice of a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GenerationOptions {
    /// The method of choosing tokens, and the scores to report. `choice` is set for each sequence.
    pub(crate) tokens: TokenOptions,
    /// The way to read the answer to a chat. `None` for raw text.
    pub(crate) answer: Option<AnswerPlan>,
    /// The form of the answer, until `start::compile_form` makes the grammar in `tokens` of it.
    pub(crate) form: Option<AnswerForm>,
    /// Most tokens of one choice, if the client sets a limit.
    pub(crate) tokens_max: Option<u32>,
    /// Stop strings: texts that end a choice. None of them is empty.
    pub(crate) stop: Vec<String>,
    /// True if a stop string is part of the text that it ends.
    pub(crate) includes_stop: bool,
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
    /// Number of the likeliest tokens that the answer names beside each of its tokens.
    pub(crate) top_logprobs: usize,
    /// Number of the likeliest tokens that the answer names beside each token of the prompt, if it has the prompt's
    /// log-probabilities.
    pub(crate) prompt_logprobs: Option<usize>,
    /// True if the ids of a choice's tokens are part of the answer.
    pub(crate) token_ids: bool,
    /// True if the text of a choice begins with its prompt.
    pub(crate) echo: bool,
    /// Choices of each prompt that are in the answer: those with the best log-probability a token. 0 if all are.
    pub(crate) kept: u32,
}

// === impl GenerationOptions ===

impl GenerationOptions {
    /// One choice by the model's own probabilities, with the random `seed` and no limit but the context.
    pub(crate) fn new(seed: u64) -> Self {
        let mut tokens = TokenOptions::PLAIN;
        tokens.sampling.seed = seed;
        Self {
            tokens,
            answer: None,
            form: None,
            tokens_max: None,
            stop: Vec::new(),
            includes_stop: false,
            stop_tokens: Vec::new(),
            ignore_eos: false,
            choices: 1,
            priority: 0,
            logprobs: false,
            top_logprobs: 0,
            prompt_logprobs: None,
            token_ids: false,
            echo: false,
            kept: 0,
        }
    }
}
