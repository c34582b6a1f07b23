//! The marks around a model's reasoning, and how those of a model are found.

/// The marks around reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReasoningFormat {
    /// The mark before it.
    pub open: &'static str,
    /// The mark behind it.
    pub close: &'static str,
}

/// The known marks. The first ones that are in a model's template, or else among its tokens, count.
const FORMATS: &[ReasoningFormat] = &[
    // gpt-oss: a message in a channel of its own.
    ReasoningFormat { open: "<|channel|>analysis<|message|>", close: "<|end|>" },
    // Gemma 4.
    ReasoningFormat { open: "<|channel>thought\n", close: "<channel|>" },
    // Seed-OSS.
    ReasoningFormat { open: "<seed:think>", close: "</seed:think>" },
    // MiniMax M3.
    ReasoningFormat { open: "<mm:think>", close: "</mm:think>" },
    // Magistral, and Ministral of 2025.
    ReasoningFormat { open: "[THINK]", close: "[/THINK]" },
    // Command A.
    ReasoningFormat { open: "<|START_THINKING|>", close: "<|END_THINKING|>" },
    // Apriel and others.
    ReasoningFormat { open: "<thinking>", close: "</thinking>" },
    // DeepSeek, Qwen, GLM, Kimi K2, MiniMax M2, Nemotron, SmolLM3 and most others.
    ReasoningFormat { open: "<think>", close: "</think>" },
];

// === impl ReasoningFormat ===

impl ReasoningFormat {
    /// The marks that a chat template shows, or that are tokens of the vocabulary. `None` if the model has none.
    #[must_use]
    pub fn of_model(template: &str, is_token: impl Fn(&str) -> bool) -> Option<Self> {
        let shown =
            FORMATS.iter().find(|format| template.contains(first_tag(format.open)) || template.contains(format.close));
        let token = || FORMATS.iter().find(|format| is_token(format.open) && is_token(format.close));
        shown.or_else(token).copied()
    }

    /// The marks. Those that are control tokens of the vocabulary have to reach the splitter.
    #[must_use]
    pub fn marks(self) -> [&'static str; 2] {
        [first_tag(self.open), self.close]
    }
}

/// The first mark in an opening of several.
fn first_tag(open: &str) -> &str {
    open.find('>').map_or(open, |end| &open[..=end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marks_are_those_of_the_template_or_else_those_among_the_tokens() {
        let open = |template: &str, tokens: &[&str]| {
            ReasoningFormat::of_model(template, |token| tokens.contains(&token)).map(|format| format.open)
        };
        assert_eq!(open("{{ '<think>\n' }}", &[]), Some("<think>"));
        assert_eq!(open("{{ content.split('</think>')[-1] }}", &[]), Some("<think>"));
        assert_eq!(open("[THINK]", &["<think>", "</think>"]), Some("[THINK]"));
        assert_eq!(open("<|channel>thought", &[]), Some("<|channel>thought\n"));
        assert_eq!(open("<|channel|>final", &[]), Some("<|channel|>analysis<|message|>"));
        assert_eq!(open("{{ messages }}", &["<think>", "</think>"]), Some("<think>"));
        assert_eq!(open("{{ messages }}", &["<think>"]), None);
    }
}
