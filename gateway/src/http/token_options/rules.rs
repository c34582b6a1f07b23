//! The ranges and the defaults in which the APIs differ.

/// Tokens that llama.cpp's server penalises by default: the last ones of prompt and answer.
pub(super) const REPEAT_LAST_TOKENS: u32 = 64;

/// The ranges and the defaults of one API.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SamplingRules {
    /// Highest temperature.
    pub(crate) temperature_max: f64,
    /// Largest amount of the penalties that are subtracted from logits.
    pub(crate) penalty_max: f64,
    /// True if two values mean what they mean to llama.cpp: a seed of -1 is none, and a `repeat_last_n` of 0 switches off
    /// the penalties of presence and frequency, too.
    pub(crate) is_llama_cpp: bool,
    pub(crate) defaults: SamplingDefaults,
}

/// The values of parameters that a request leaves out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SamplingDefaults {
    pub(crate) temperature: f64,
    pub(crate) top_k: u32,
    pub(crate) top_p: f64,
    pub(crate) min_p: f64,
    /// Tokens at the end that the penalty for repetition counts. `None` counts all.
    pub(crate) repeat_last_tokens: Option<u32>,
}

// === impl SamplingRules ===

impl SamplingRules {
    /// OpenAI's API, with vLLM's extensions.
    pub(crate) const OPENAI: Self = Self {
        temperature_max: 2.0,
        penalty_max: 2.0,
        is_llama_cpp: false,
        defaults: SamplingDefaults { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repeat_last_tokens: None },
    };
    /// Anthropic's API.
    pub(crate) const ANTHROPIC: Self = Self { temperature_max: 1.0, ..Self::OPENAI };
    /// llama-server's own pages. llama.cpp has no limit; above these ones all tokens are about equally likely.
    pub(crate) const LLAMA_SERVER: Self = Self {
        temperature_max: 100.0,
        penalty_max: 100.0,
        is_llama_cpp: true,
        defaults: SamplingDefaults {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_last_tokens: Some(REPEAT_LAST_TOKENS),
        },
    };
    /// Ollama's API.
    pub(crate) const OLLAMA: Self = Self {
        defaults: SamplingDefaults { top_p: 0.9, min_p: 0.0, ..Self::LLAMA_SERVER.defaults },
        ..Self::LLAMA_SERVER
    };
}
