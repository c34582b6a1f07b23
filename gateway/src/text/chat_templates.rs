//! The chat templates of one model: the usual one, that for tools, and others by name. They are chosen as
//! `transformers` does.

use super::TextError;
use super::chat_template::{ChatTemplate, TemplateTokens};
use super::conversation::Conversation;
use super::rendered::Rendered;
use super::tools::ToolFormat;
use super::vocabulary::Vocabulary;

/// The name of the template that is used if a conversation has tools.
const TOOL_USE: &str = "tool_use";
/// The name that a file may give to the usual template.
const DEFAULT: &str = "default";

/// A model's chat templates.
#[derive(Debug)]
pub struct ChatTemplates {
    /// The template of conversations without tools, or the reason why it cannot be used.
    usual: Result<ChatTemplate, String>,
    /// The template of conversations with tools, if it is another one.
    with_tools: Option<Result<ChatTemplate, String>>,
    /// The sources by name, for requests that choose one.
    named: Vec<(String, String)>,
    /// The special tokens, for templates that requests bring.
    tokens: TemplateTokens,
}

// === impl ChatTemplates ===

impl ChatTemplates {
    /// Compiles the templates in a model's vocabulary. Those that cannot be used refuse their conversations later.
    #[must_use]
    pub fn of(vocabulary: &Vocabulary) -> Self {
        let tokens = TemplateTokens::of(vocabulary);
        let named = vocabulary.named_templates().map(|(name, source)| (name.to_owned(), source.to_owned())).collect();
        let source = |name: &str| vocabulary.named_templates().find(|(known, _)| *known == name);
        let compile = |source: &str| ChatTemplate::compile(source, &tokens).map_err(|error| error.to_string());
        let usual = vocabulary.chat_template().or_else(|| source(DEFAULT).map(|(_, source)| source));
        Self {
            usual: usual.ok_or_else(|| TextError::NoChatTemplate.to_string()).and_then(compile),
            with_tools: source(TOOL_USE).map(|(_, source)| compile(source)),
            named,
            tokens,
        }
    }

    /// The usual template, if it can be used.
    #[must_use]
    pub fn usual(&self) -> Option<&ChatTemplate> {
        self.usual.as_ref().ok()
    }

    /// The template of conversations with tools, if it can be used.
    #[must_use]
    pub fn with_tools(&self) -> Option<&ChatTemplate> {
        self.with_tools.as_ref().unwrap_or(&self.usual).as_ref().ok()
    }

    /// The source of the template for tools, if it is one of its own.
    #[must_use]
    pub fn tool_use_source(&self) -> Option<&str> {
        self.with_tools.as_ref().and_then(|template| template.as_ref().ok()).map(ChatTemplate::source)
    }

    /// The reason why chats cannot be served, if they cannot.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.usual.as_ref().err().map(String::as_str)
    }

    /// The format of calls that the model is asked to write.
    #[must_use]
    pub fn tool_format(&self) -> ToolFormat {
        self.with_tools().map_or(ToolFormat::Json, ChatTemplate::tool_format)
    }

    /// The prompt for `conversation`, by the template that it brings or names, by that for tools if it has tools, or by
    /// the usual one.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::render`], [`TextError::Unusable`] when the template cannot be used,
    /// [`TextError::CallFormat`] when a template that the conversation brings asks for calls that are not understood.
    pub fn render(&self, conversation: &Conversation) -> Result<Rendered, TextError> {
        let Some(own) = &conversation.template else {
            let tools = self.with_tools.as_ref().filter(|_| !conversation.tools.is_empty());
            let template = tools.unwrap_or(&self.usual).as_ref();
            return template.map_err(|reason| TextError::Unusable(reason.clone()))?.render(conversation);
        };
        let named = self.named.iter().find(|(name, _)| name == own).map(|(_, source)| source);
        let template = ChatTemplate::compile(named.unwrap_or(own), &self.tokens)?;
        if !conversation.tools.is_empty() && template.tool_format() != self.tool_format() {
            return Err(TextError::CallFormat);
        }
        template.render(conversation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Message, Tool, VocabularyFields};

    fn templates(usual: Option<&str>, named: &[(&str, &str)]) -> ChatTemplates {
        let mut fields = VocabularyFields::bytes_and(&["<|im_end|>"]);
        fields.chat_template = usual.map(str::to_owned);
        fields.named_templates = named.iter().map(|(name, source)| ((*name).into(), (*source).into())).collect();
        ChatTemplates::of(&Vocabulary::new(fields).unwrap())
    }

    fn conversation(tools: bool, template: Option<&str>) -> Conversation {
        let mut conversation = Conversation::from(vec![Message::text("user", "hi")]);
        if tools {
            conversation.tools = vec![Tool { name: "f".to_owned(), ..Tool::default() }];
        }
        conversation.template = template.map(str::to_owned);
        conversation
    }

    fn text(templates: &ChatTemplates, tools: bool, template: Option<&str>) -> Result<String, String> {
        let rendered = templates.render(&conversation(tools, template));
        rendered.map(|rendered| rendered.text().to_owned()).map_err(|error| error.to_string())
    }

    const USUAL: &str = "usual {{ messages[0].content }}";
    const TOOLS: &str = "{% for tool in tools %}{{ tool | tojson }}{% endfor %} tools {{ messages[0].content }}";

    #[test]
    fn tools_choose_their_template_and_other_conversations_the_usual_one() {
        let templates = templates(Some(USUAL), &[("rag", "rag"), ("tool_use", TOOLS)]);
        assert_eq!(text(&templates, false, None).unwrap(), "usual hi");
        assert!(text(&templates, true, None).unwrap().ends_with(" tools hi"));
        assert_eq!(templates.tool_use_source(), Some(TOOLS));
        assert_eq!(templates.with_tools().map(ChatTemplate::source), Some(TOOLS));
    }

    #[test]
    fn without_one_for_tools_the_usual_one_takes_them() {
        let templates = templates(Some(USUAL), &[("rag", "rag")]);
        assert!(text(&templates, true, None).unwrap().starts_with("usual "));
        assert_eq!(templates.tool_use_source(), None);
    }

    #[test]
    fn a_request_chooses_a_template_by_its_name_or_brings_its_own() {
        let templates = templates(Some(USUAL), &[("rag", "rag {{ messages[0].content }}")]);
        assert_eq!(text(&templates, false, Some("rag")).unwrap(), "rag hi");
        assert_eq!(text(&templates, false, Some("own {{ messages[0].content }}")).unwrap(), "own hi");
    }

    #[test]
    fn a_file_may_have_only_a_template_for_tools() {
        let templates = templates(None, &[("tool_use", TOOLS)]);
        assert!(text(&templates, false, None).unwrap_err().contains("the model has no chat template"));
        assert!(text(&templates, true, None).is_ok());
        assert!(templates.problem().is_some());
        let named = self::templates(None, &[("default", USUAL)]);
        assert_eq!(text(&named, false, None).unwrap(), "usual hi");
    }

    #[test]
    fn a_template_that_is_not_valid_refuses_its_own_conversations_only() {
        let templates = templates(Some(USUAL), &[("tool_use", "{% if %}")]);
        assert_eq!(text(&templates, false, None).unwrap(), "usual hi");
        assert!(text(&templates, true, None).unwrap_err().starts_with("the chat template failed"));
    }
}
