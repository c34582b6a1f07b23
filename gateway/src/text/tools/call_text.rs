//! Calls as a model writes them: for instructions in plain text, for templates without calls, and for grammars.

use super::format::ToolFormat;
use crate::text::conversation::Tool;

/// The text around the parts of calls whose arguments are one JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallText {
    /// Before the first call.
    pub(super) open: &'static str,
    /// Before a call's name.
    pub(super) before: &'static str,
    /// Between name and arguments.
    pub(super) between: &'static str,
    /// Behind the arguments.
    pub(super) after: &'static str,
    /// Between two calls. `None` if the format has but one call.
    pub(super) separator: Option<&'static str>,
    /// Behind the last call.
    pub(super) close: &'static str,
}

const OBJECTS: CallText = CallText {
    open: "",
    before: "{\"name\": \"",
    between: "\", \"arguments\": ",
    after: "}",
    separator: Some("\n"),
    close: "",
};

// === impl ToolFormat ===

impl ToolFormat {
    /// The text of calls. `None` if the arguments are not one JSON object.
    pub(super) fn call_text(self) -> Option<CallText> {
        let list = |open, close| CallText { open, separator: Some(", "), close, ..OBJECTS };
        Some(match self {
            Self::Json => OBJECTS,
            Self::Hermes => CallText { before: "<tool_call>\n{\"name\": \"", after: "}\n</tool_call>", ..OBJECTS },
            Self::Llama => CallText { between: "\", \"parameters\": ", separator: None, ..OBJECTS },
            Self::MistralArray => list("[TOOL_CALLS][", "]"),
            Self::Phi => list("<|tool_call|>[", "]"),
            Self::Nemotron => list("<TOOLCALL>[", "]</TOOLCALL>"),
            Self::Jamba => list("<tool_calls>[", "]</tool_calls>"),
            Self::Cohere => CallText {
                before: "{\"tool_name\": \"",
                between: "\", \"parameters\": ",
                ..list("<|START_ACTION|>[", "]<|END_ACTION|>")
            },
            Self::Mistral => {
                CallText { before: "[TOOL_CALLS]", between: "[ARGS]", after: "", separator: Some(""), ..OBJECTS }
            }
            Self::DeepSeek => CallText {
                open: "<｜tool▁calls▁begin｜>",
                before: "<｜tool▁call▁begin｜>",
                between: "<｜tool▁sep｜>",
                after: "<｜tool▁call▁end｜>",
                separator: Some(""),
                close: "<｜tool▁calls▁end｜>",
            },
            Self::DeepSeekFenced => CallText {
                open: "<｜tool▁calls▁begin｜>",
                before: "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
                between: "\n```json\n",
                after: "\n```<｜tool▁call▁end｜>",
                separator: Some("\n"),
                close: "<｜tool▁calls▁end｜>",
            },
            Self::Kimi => CallText {
                open: "<|tool_calls_section_begin|>",
                before: "<|tool_call_begin|>functions.",
                between: ":0<|tool_call_argument_begin|>",
                after: "<|tool_call_end|>",
                // A second call has another number.
                separator: None,
                close: "<|tool_calls_section_end|>",
            },
            Self::Harmony => CallText {
                open: "<|channel|>commentary to=functions.",
                before: "",
                between: " <|constrain|>json<|message|>",
                after: "",
                separator: None,
                // A stop token follows.
                close: "",
            },
            Self::DeepSeekTags
            | Self::MiniMax
            | Self::SeedOss
            | Self::QwenTags
            | Self::Glm
            | Self::Gemma
            | Self::FunctionGemma
            | Self::Lfm
            | Self::Pythonic => return None,
        })
    }

    /// A call with `arguments`, which are JSON text. Formats without JSON arguments write it as [`Self::Json`] does.
    pub(in crate::text) fn written(self, name: &str, arguments: &str) -> String {
        let CallText { open, before, between, after, close, .. } = self.call_text().unwrap_or(OBJECTS);
        [open, before, name, between, arguments, after, close].concat()
    }
}

/// Instructions in plain text for a model whose template does not know tools.
pub(in crate::text) fn instructions(format: ToolFormat, tools: &[Tool]) -> String {
    let mut text = "You can call these tools, each described by its name, its purpose and the JSON schema of its \
                    arguments:\n\n"
        .to_owned();
    for tool in tools {
        let parameters = tool.parameters.clone().unwrap_or_else(|| serde_json::json!({"type": "object"}));
        let described = serde_json::json!({
            "name": tool.name,
            "description": tool.description.as_deref().unwrap_or_default(),
            "parameters": parameters,
        });
        text.push_str(&format!("{described}\n"));
    }
    let example = format.written("TOOL", "{\"ARGUMENT\": VALUE}");
    text.push_str(&format!(
        "\nTo call a tool, write nothing but the call, with its name and its arguments in the place of the words in \
         capitals:\n\n{example}\n\nYou then get the result, and can go on. If you need no tool, answer as usual."
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::answer_part::AnswerPart;
    use crate::text::conversation::ToolChoice;
    use crate::text::tools::{CallParser, KnownTools};

    #[test]
    fn a_call_as_it_is_written_is_read_as_this_call() {
        use ToolFormat::{
            Cohere, DeepSeek, DeepSeekFenced, Hermes, Jamba, Json, Kimi, Llama, Mistral, MistralArray, Nemotron, Phi,
        };
        let tool = Tool { name: "f".to_owned(), ..Tool::default() };
        for format in
            [Cohere, DeepSeek, DeepSeekFenced, Hermes, Jamba, Json, Kimi, Llama, Mistral, MistralArray, Nemotron, Phi]
        {
            let tools = KnownTools::new(std::slice::from_ref(&tool), &ToolChoice::Auto);
            let (mut parser, mut parts) = (CallParser::new(format, tools), Vec::new());
            parser.push(&format.written("f", "{\"a\": 1}"), &mut parts);
            parser.finish(&mut parts);
            let call = AnswerPart::Call { name: "f".to_owned() };
            assert_eq!(
                parts,
                [call, AnswerPart::Arguments("{\"a\": 1}".to_owned()), AnswerPart::CallEnd],
                "{format:?}"
            );
        }
    }

    #[test]
    fn instructions_name_every_tool_and_show_a_call() {
        let tool = Tool { name: "f".to_owned(), description: Some("Adds.".to_owned()), ..Tool::default() };
        let text = instructions(ToolFormat::Json, &[tool]);
        assert!(text.contains(r#"{"name":"f","description":"Adds.","parameters":{"type":"object"}}"#), "{text}");
        assert!(text.contains(r#"{"name": "TOOL", "arguments": {"ARGUMENT": VALUE}}"#), "{text}");
    }
}
