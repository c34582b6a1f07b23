//! The formats in which model families write calls of tools, and how the format of a model is found.

use super::gemma_calls::{GemmaCalls, GemmaMarks};
use super::json_calls::JsonCalls;
use super::mistral_calls::MistralCalls;
use super::named_calls::{NameForm, NamedCalls, NamedMarks};
use super::pythonic_calls::PythonicCalls;
use super::syntax::{Bare, CallSyntax};
use super::tagged_calls::{TaggedCalls, TaggedMarks};

/// The format of a family's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolFormat {
    /// gpt-oss: a message in the channel `commentary`, to `functions.name`.
    Harmony,
    /// DeepSeek from 3.2 on: tags that begin with `｜DSML｜`.
    DeepSeekTags,
    /// MiniMax from M2 on: `<minimax:tool_call><invoke name="…">`.
    MiniMax,
    /// Seed-OSS: `<seed:tool_call><function=…>`.
    SeedOss,
    /// Qwen3-Coder, Qwen from 3.5 on: `<tool_call><function=…><parameter=…>`.
    QwenTags,
    /// GLM from 4.5 on: `<tool_call>name<arg_key>…</arg_key><arg_value>…</arg_value></tool_call>`.
    Glm,
    /// Kimi K2: `<|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{…}<|tool_call_end|>`.
    Kimi,
    /// DeepSeek 3 and R1: `function`, the name, and the arguments in a fenced block.
    DeepSeekFenced,
    /// DeepSeek 3.1: the name and the arguments.
    DeepSeek,
    /// Gemma 4: `<|tool_call>call:name{key:<|"|>text<|"|>}<tool_call|>`.
    Gemma,
    /// FunctionGemma: the same with other marks.
    FunctionGemma,
    /// Mistral since 2025: `[TOOL_CALLS]name[ARGS]{…}`.
    Mistral,
    /// Mistral before: `[TOOL_CALLS][{"name": …, "arguments": {…}}]`.
    MistralArray,
    /// LFM2: `<|tool_call_start|>[f(a="x")]<|tool_call_end|>`.
    Lfm,
    /// Llama 4 and others, if their template asks for it: `[f(a="x")]`.
    Pythonic,
    /// Phi-4-mini and Granite 3: `<|tool_call|>[{"name": …, "arguments": {…}}]`.
    Phi,
    /// Nemotron: `<TOOLCALL>[{…}]</TOOLCALL>`.
    Nemotron,
    /// Jamba and Apriel: `<tool_calls>[{…}]</tool_calls>`.
    Jamba,
    /// Command R7B and A: `<|START_ACTION|>[{"tool_name": …, "parameters": {…}}]<|END_ACTION|>`.
    Cohere,
    /// Hermes, Qwen 2.5 and 3, Granite 4, SmolLM3: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.
    Hermes,
    /// Llama 3: `{"name": …, "parameters": {…}}`, at the start of an answer or after `<|python_tag|>`.
    Llama,
    /// Models of no known family: `{"name": …, "arguments": {…}}` at the start of a line, or between usual marks.
    Json,
}

/// A format, and the text in a model's chat template that shows it.
struct Family {
    format: ToolFormat,
    /// Texts that are all in the template.
    signs: &'static [&'static str],
}

/// The families. The first one whose signs are in the template counts.
const FAMILIES: &[Family] = &[
    Family { format: ToolFormat::Harmony, signs: &["<|channel|>", "<|message|>"] },
    Family { format: ToolFormat::DeepSeekTags, signs: &["｜DSML｜"] },
    Family { format: ToolFormat::MiniMax, signs: &["<minimax:tool_call>"] },
    Family { format: ToolFormat::SeedOss, signs: &["<seed:tool_call>"] },
    Family { format: ToolFormat::QwenTags, signs: &["<function=", "<parameter="] },
    Family { format: ToolFormat::Glm, signs: &["<arg_key>"] },
    Family { format: ToolFormat::Kimi, signs: &["<|tool_call_begin|>"] },
    Family { format: ToolFormat::DeepSeekFenced, signs: &["<｜tool▁call▁begin｜>", "```json"] },
    Family { format: ToolFormat::DeepSeek, signs: &["<｜tool▁call▁begin｜>"] },
    Family { format: ToolFormat::Gemma, signs: &["<|tool_call>"] },
    Family { format: ToolFormat::FunctionGemma, signs: &["<start_function_call>"] },
    Family { format: ToolFormat::Mistral, signs: &["[TOOL_CALLS]", "[ARGS]"] },
    Family { format: ToolFormat::MistralArray, signs: &["[TOOL_CALLS]"] },
    Family { format: ToolFormat::Lfm, signs: &["<|tool_call_start|>"] },
    Family { format: ToolFormat::Lfm, signs: &["<|tool_list_start|>"] },
    Family { format: ToolFormat::Pythonic, signs: &["[func_name1("] },
    Family { format: ToolFormat::Phi, signs: &["<|tool_call|>"] },
    Family { format: ToolFormat::Nemotron, signs: &["<TOOLCALL>"] },
    Family { format: ToolFormat::Jamba, signs: &["<tool_calls>"] },
    Family { format: ToolFormat::Cohere, signs: &["<|START_ACTION|>"] },
    Family { format: ToolFormat::Hermes, signs: &["<tool_call>"] },
    Family { format: ToolFormat::Llama, signs: &["ipython", "\"parameters\""] },
    Family { format: ToolFormat::Llama, signs: &["<|python_tag|>"] },
];

const DEEPSEEK_TAGS: TaggedMarks = TaggedMarks {
    opens: &["<｜DSML｜function_calls>"],
    section: ("<｜DSML｜function_calls>", "</｜DSML｜function_calls>"),
    open: "<｜DSML｜invoke name=\"",
    name_ends: &["\">"],
    close: "</｜DSML｜invoke>",
    key_open: "<｜DSML｜parameter name=\"",
    key_close: "\"",
    value_open: ">",
    value_close: "</｜DSML｜parameter>",
    lines: false,
};
const MINIMAX: TaggedMarks = TaggedMarks {
    opens: &["<minimax:tool_call>"],
    section: ("<minimax:tool_call>", "</minimax:tool_call>"),
    open: "<invoke name=\"",
    name_ends: &["\">"],
    close: "</invoke>",
    key_open: "<parameter name=\"",
    key_close: "\">",
    value_open: "",
    value_close: "</parameter>",
    lines: false,
};
const SEED_OSS: TaggedMarks = TaggedMarks {
    opens: &["<seed:tool_call>"],
    section: ("<seed:tool_call>", "</seed:tool_call>"),
    lines: false,
    ..QWEN_TAGS
};
const QWEN_TAGS: TaggedMarks = TaggedMarks {
    // Models sometimes leave the first mark out.
    opens: &["<tool_call>", "<function="],
    section: ("<tool_call>", "</tool_call>"),
    open: "<function=",
    name_ends: &[">"],
    close: "</function>",
    key_open: "<parameter=",
    key_close: ">",
    value_open: "",
    value_close: "</parameter>",
    lines: true,
};
const GLM: TaggedMarks = TaggedMarks {
    opens: &["<tool_call>"],
    section: ("<tool_call>", "</tool_call>"),
    open: "",
    name_ends: &["\n", "<arg_key>", "</tool_call>"],
    close: "</tool_call>",
    key_open: "<arg_key>",
    key_close: "</arg_key>",
    value_open: "<arg_value>",
    value_close: "</arg_value>",
    lines: false,
};
const KIMI: NamedMarks = NamedMarks {
    opens: &["<|tool_calls_section_begin|>", "<|tool_call_begin|>"],
    open: "<|tool_call_begin|>",
    separator: "<|tool_call_argument_begin|>",
    close: "<|tool_call_end|>",
    section_close: "<|tool_calls_section_end|>",
    name: NameForm::Numbered,
};
const DEEPSEEK: NamedMarks = NamedMarks {
    opens: &["<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"],
    open: "<｜tool▁call▁begin｜>",
    separator: "<｜tool▁sep｜>",
    close: "<｜tool▁call▁end｜>",
    section_close: "<｜tool▁calls▁end｜>",
    name: NameForm::Fenced,
};
const GEMMA: GemmaMarks = GemmaMarks { opens: &["<|tool_call>"], close: "<tool_call|>", quote: "<|\"|>" };
const FUNCTION_GEMMA: GemmaMarks =
    GemmaMarks { opens: &["<start_function_call>"], close: "<end_function_call>", quote: "<escape>" };
const LFM: (&str, &str) = ("<|tool_call_start|>", "<|tool_call_end|>");
const PYTHONIC: (&str, &str) = ("<|python_start|>", "<|python_end|>");
const PHI: &[(&str, &str)] = &[("<|tool_call|>", "<|/tool_call|>"), ("<tool_call>", "</tool_call>")];
const NEMOTRON: &[(&str, &str)] = &[("<TOOLCALL>", "</TOOLCALL>")];
const JAMBA: &[(&str, &str)] = &[("<tool_calls>", "</tool_calls>")];
const COHERE: &[(&str, &str)] = &[("<|START_ACTION|>", "<|END_ACTION|>")];
const HERMES: &[(&str, &str)] = &[("<tool_call>", "</tool_call>")];
const LLAMA: &[(&str, &str)] = &[("<|python_tag|>", "")];
const JSON: &[(&str, &str)] = &[("<tool_call>", "</tool_call>"), ("```json\n", "```"), ("```\n", "```")];

// === impl ToolFormat ===

impl ToolFormat {
    /// The format that a chat template shows. [`Self::Json`] if it shows none.
    #[must_use]
    pub fn of_template(source: &str) -> Self {
        let shows = |family: &&Family| family.signs.iter().all(|sign| source.contains(sign));
        FAMILIES.iter().find(shows).map_or(Self::Json, |family| family.format)
    }

    /// The mark that begins calls. `None` if calls begin without one.
    pub(super) fn mark(self) -> Option<&'static str> {
        match self {
            Self::Llama | Self::Json | Self::Pythonic => None,
            _ => self.marks().first().copied(),
        }
    }

    /// The marks of the format. Those that are control tokens of the vocabulary have to reach the parser.
    #[must_use]
    pub fn marks(self) -> Vec<&'static str> {
        let tagged = |marks: &TaggedMarks| {
            [marks.opens, &[marks.section.1, marks.open, marks.close, marks.key_open, marks.key_close][..]]
                .concat()
                .into_iter()
                .chain([marks.value_open, marks.value_close])
                .collect()
        };
        let named = |marks: &NamedMarks| [marks.opens, &[marks.separator, marks.close, marks.section_close]].concat();
        let gemma = |marks: &GemmaMarks| [marks.opens, &[marks.close, marks.quote]].concat();
        let pairs = |pairs: &[(&'static str, &'static str)]| pairs.iter().flat_map(|(a, b)| [*a, *b]).collect();
        match self {
            Self::Harmony => crate::text::harmony::MARKS.to_vec(),
            Self::DeepSeekTags => [tagged(&DEEPSEEK_TAGS), vec!["｜DSML｜"]].concat(),
            Self::MiniMax => tagged(&MINIMAX),
            Self::SeedOss => tagged(&SEED_OSS),
            Self::QwenTags => tagged(&QWEN_TAGS),
            Self::Glm => tagged(&GLM),
            Self::Kimi => named(&KIMI),
            Self::DeepSeekFenced | Self::DeepSeek => named(&DEEPSEEK),
            Self::Gemma => gemma(&GEMMA),
            Self::FunctionGemma => gemma(&FUNCTION_GEMMA),
            Self::Mistral | Self::MistralArray => vec!["[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"],
            Self::Lfm => pairs(&[LFM]),
            Self::Pythonic => pairs(&[PYTHONIC]),
            Self::Phi => pairs(PHI),
            Self::Nemotron => pairs(NEMOTRON),
            Self::Jamba => pairs(JAMBA),
            Self::Cohere => pairs(COHERE),
            Self::Hermes => pairs(HERMES),
            Self::Llama => pairs(LLAMA),
            Self::Json => pairs(JSON),
        }
    }

    /// The syntax of the format's calls. Harmony's calls are messages, which [`crate::text::harmony`] reads, so that
    /// nothing within a message is one.
    pub(super) fn syntax(self) -> Box<dyn CallSyntax> {
        match self {
            Self::Harmony => Box::new(JsonCalls::new(&[], Bare::Nowhere)),
            Self::DeepSeekTags => Box::new(TaggedCalls::new(&DEEPSEEK_TAGS)),
            Self::MiniMax => Box::new(TaggedCalls::new(&MINIMAX)),
            Self::SeedOss => Box::new(TaggedCalls::new(&SEED_OSS)),
            Self::QwenTags => Box::new(TaggedCalls::new(&QWEN_TAGS)),
            Self::Glm => Box::new(TaggedCalls::new(&GLM)),
            Self::Kimi => Box::new(NamedCalls::new(&KIMI)),
            Self::DeepSeekFenced | Self::DeepSeek => Box::new(NamedCalls::new(&DEEPSEEK)),
            Self::Gemma => Box::new(GemmaCalls::new(&GEMMA)),
            Self::FunctionGemma => Box::new(GemmaCalls::new(&FUNCTION_GEMMA)),
            Self::Mistral | Self::MistralArray => Box::new(MistralCalls::new()),
            Self::Lfm => Box::new(PythonicCalls::new(LFM, Bare::Nowhere)),
            Self::Pythonic => Box::new(PythonicCalls::new(PYTHONIC, Bare::Start)),
            Self::Phi => Box::new(JsonCalls::new(PHI, Bare::Nowhere)),
            Self::Nemotron => Box::new(JsonCalls::new(NEMOTRON, Bare::Nowhere)),
            Self::Jamba => Box::new(JsonCalls::new(JAMBA, Bare::Nowhere)),
            Self::Cohere => Box::new(JsonCalls::new(COHERE, Bare::Nowhere)),
            Self::Hermes => Box::new(JsonCalls::new(HERMES, Bare::Nowhere)),
            Self::Llama => Box::new(JsonCalls::new(LLAMA, Bare::Start)),
            Self::Json => Box::new(JsonCalls::new(JSON, Bare::Line)),
        }
    }
}
