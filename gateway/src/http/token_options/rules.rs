//! The ranges and the defaults in which the APIs differ.

use crate::http::generation::generation_config::GenerationConfig;

/// Tokens that llama.cpp's server penalises by default: the last ones of prompt and answer.
const REPEAT_LAST_TOKENS: u32 = 64;
/// llama.cpp's threshold of `xtc`.
const XTC_THRESHOLD: f64 = 0.1;

/// The ranges and the defaults of one API.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SamplingRules {
    /// Highest temperature.
    pub(crate) temperature_max: f64,
    /// Largest amount of the penalties that are subtracted from logits.
    pub(crate) penalty_max: f64,
    /// True if two values mean what they mean to llama.cpp: a seed of -1 is none, and a `repeat_last_n` of 0 switches
    /// off the penalties of presence and frequency, too.
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
    pub(crate) xtc_probability: f64,
    pub(crate) xtc_threshold: f64,
    /// The penalty for tokens that were used.
    pub(crate) repetition: f64,
    /// Tokens at the end that this penalty counts. `None` counts all.
    pub(crate) last_tokens: Option<u32>,
    /// The same for a request that gives the penalty by llama.cpp's name, `repeat_penalty`.
    pub(crate) repeat_last_tokens: Option<u32>,
}

// === impl SamplingRules ===

impl SamplingRules {
    /// OpenAI's API, with vLLM's extensions.
    pub(crate) const OPENAI: Self = Self {
        temperature_max: 2.0,
        penalty_max: 2.0,
        is_llama_cpp: false,
        defaults: SamplingDefaults {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            xtc_probability: 0.0,
            xtc_threshold: XTC_THRESHOLD,
            repetition: 1.0,
            last_tokens: None,
            repeat_last_tokens: Some(REPEAT_LAST_TOKENS),
        },
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
            last_tokens: Some(REPEAT_LAST_TOKENS),
            ..Self::OPENAI.defaults
        },
    };
    /// Ollama's API.
    pub(crate) const OLLAMA: Self = Self {
        defaults: SamplingDefaults { top_p: 0.9, min_p: 0.0, ..Self::LLAMA_SERVER.defaults },
        ..Self::LLAMA_SERVER
    };

    /// These rules for a model whose file recommends `config`: its values come before the API's own defaults.
    pub(crate) fn with(self, config: &GenerationConfig) -> Self {
        let own = self.defaults;
        // -1 counts all tokens.
        let last = config.repeat_last_n.map(|last| u32::try_from(last).ok());
        let defaults = SamplingDefaults {
            temperature: config.temperature.unwrap_or(own.temperature),
            top_k: config.top_k.unwrap_or(own.top_k),
            top_p: config.top_p.unwrap_or(own.top_p),
            min_p: config.min_p.unwrap_or(own.min_p),
            xtc_probability: config.xtc_probability.unwrap_or(own.xtc_probability),
            xtc_threshold: config.xtc_threshold.unwrap_or(own.xtc_threshold),
            repetition: config.repetition_penalty.unwrap_or(own.repetition),
            last_tokens: last.unwrap_or(own.last_tokens),
            repeat_last_tokens: last.unwrap_or(own.repeat_last_tokens),
        };
        Self { defaults, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_file_recommends_comes_before_the_apis_own_defaults() {
        let config = GenerationConfig { temperature: Some(0.6), top_k: Some(20), ..GenerationConfig::default() };
        for rules in
            [SamplingRules::OPENAI, SamplingRules::ANTHROPIC, SamplingRules::LLAMA_SERVER, SamplingRules::OLLAMA]
        {
            let defaults = rules.with(&config).defaults;
            assert_eq!(defaults, SamplingDefaults { temperature: 0.6, top_k: 20, ..rules.defaults });
            assert_eq!(rules.with(&GenerationConfig::default()), rules);
        }
    }

    #[test]
    fn a_recommended_window_counts_for_both_names_of_the_penalty() {
        let windows = |last| {
            let config = GenerationConfig { repeat_last_n: Some(last), ..GenerationConfig::default() };
            let defaults = SamplingRules::OPENAI.with(&config).defaults;
            [defaults.last_tokens, defaults.repeat_last_tokens]
        };
        assert_eq!([windows(32), windows(-1)], [[Some(32); 2], [None; 2]]);
    }
}
