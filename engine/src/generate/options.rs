//! The options by which the tokens of a sequence are chosen and scored. The gateway turns them, with the sequence's
//! history, into the token rule of each position (`core::token_rule`). Stages keep nothing of them.

use std::sync::Arc;

use schema::frame::Sampling;

use super::constraint::SharedGrammar;

/// The method of choosing a sequence's tokens, and the scores to report beside them.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenOptions {
    /// Temperature, filters, seed and choice.
    pub sampling: Sampling,
    /// Added to the logits of these tokens, ascending by token. -100 or less forbids a token.
    pub bias: Vec<(u32, f32)>,
    /// Penalties for tokens that were used already.
    pub penalties: Penalties,
    /// Least number of generated tokens before a stop token may be chosen.
    pub tokens_min: u32,
    /// Token sequences that must not be generated: their last tokens are forbidden after the tokens before. None is
    /// empty.
    pub forbidden: Vec<Vec<u32>>,
    /// Number of the likeliest tokens to report for each position. `None` if neither they nor the exact
    /// log-probabilities of tokens that a grammar forces are asked for.
    pub alternatives: Option<u32>,
    /// True if the tokens of the prompt are scored, too.
    pub scores_prompt: bool,
    /// The grammar of the generated text.
    pub grammar: Option<SharedGrammar>,
}

/// Penalties for tokens that were used already. The default changes nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Penalties {
    /// Positive logits of used tokens are divided by it, others multiplied. Above 0. 1 changes nothing.
    pub repetition: f32,
    /// Number of tokens at the end of prompt and answer that `repetition` counts. `None` counts all.
    pub last_tokens: Option<u32>,
    /// Subtracted from the logits of generated tokens.
    pub presence: f32,
    /// Subtracted from the logits of generated tokens for each time that they were generated.
    pub frequency: f32,
    /// The penalty for repeating a passage.
    pub dry: Option<Dry>,
}

/// The penalty "don't repeat yourself" for tokens that would make a repeated passage longer, as llama.cpp has it:
/// `multiplier * base^(length - allowed)` for a passage of `length` tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Dry {
    /// Above 0.
    pub multiplier: f32,
    /// At least 1.
    pub base: f32,
    /// Longest passage that may be repeated without a penalty.
    pub allowed: u32,
    /// Number of tokens at the end of prompt and answer in which repetitions are searched.
    pub last_tokens: u32,
    /// Tokens that end a passage: matches do not reach across them. Ascending.
    pub breakers: Arc<[u32]>,
}

// === impl TokenOptions ===

impl TokenOptions {
    /// The likeliest token at each position.
    pub const GREEDY: Self = Self::new(Sampling::GREEDY);
    /// The model's own probabilities, with the seed 0.
    pub const PLAIN: Self = Self::new(Sampling::PLAIN);

    /// No options besides `sampling`.
    pub const fn new(sampling: Sampling) -> Self {
        Self {
            sampling,
            bias: Vec::new(),
            penalties: Penalties::NONE,
            tokens_min: 0,
            forbidden: Vec::new(),
            alternatives: None,
            scores_prompt: false,
            grammar: None,
        }
    }
}

impl From<Sampling> for TokenOptions {
    fn from(sampling: Sampling) -> Self {
        Self::new(sampling)
    }
}

// === impl Penalties ===

impl Penalties {
    /// No penalties.
    pub const NONE: Self = Self { repetition: 1.0, last_tokens: None, presence: 0.0, frequency: 0.0, dry: None };
}

impl Default for Penalties {
    fn default() -> Self {
        Self::NONE
    }
}
