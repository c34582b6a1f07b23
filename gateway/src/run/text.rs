//! A model's text for the HTTP API: its tokenizer and chat template behind the API's [`http::TextModel`].

use std::sync::Arc;

use engine::generate::SharedGrammar;
use stages::model::ModelSpec;
use stages::weights::ModelFile;

use super::RunError;
use super::answer_grammar::AnswerGrammars;
use super::grammars::Grammars;
use super::model_description;
use crate::grammar::{GrammarError, GrammarSource};
use crate::http;
use crate::text::{
    AnswerFormat, AnswerPlan, AnswerRequest, ChatTemplate, ChatTemplates, ControlMarks, Detokenizer, FolderFiles,
    MarkedDetokenizer, ReasoningFormat, Rendered, Special, TextError, Tokenizer, Vocabulary,
};

/// Tokens at the end of a prompt that show if it ends within the reasoning. The marks have up to five.
const PROMPT_END_TOKENS: usize = 16;

/// The tokenizer and the chat templates of one model file.
pub(super) struct ModelText {
    tokenizer: Arc<Tokenizer>,
    templates: ChatTemplates,
    description: http::ModelDescription,
    /// The way in which the model writes answers.
    format: AnswerFormat,
    /// The marks of reasoning that are control tokens.
    reasoning_marks: ControlMarks,
    /// Those of reasoning and of calls.
    marks: ControlMarks,
    compiler: Arc<Grammars>,
    grammars: AnswerGrammars,
}

/// The model's detokenizer as the API's [`http::Decoder`].
struct ModelDecoder(Detokenizer);

/// The same for an answer to a chat.
struct AnswerDecoder(MarkedDetokenizer);

// === impl ModelText ===

impl ModelText {
    /// Reads vocabulary and templates from `file`. If no template can be used, raw completions remain possible.
    pub(super) fn new(file: &ModelFile) -> Result<Self, RunError> {
        let path = file.path().display().to_string();
        let spec = ModelSpec::read(file.header())
            .map_err(|cause| RunError::File { path: path.clone(), cause: Box::new(cause) })?;
        let metadata = match file.folder() {
            Some(folder) => FolderFiles::read(folder)?.metadata(spec.vocabulary)?,
            None => file.vocabulary_metadata().map_err(|cause| RunError::File { path, cause: Box::new(cause) })?,
        };
        let vocabulary = Vocabulary::from_metadata(&metadata)?;
        let tokenizer = Arc::new(Tokenizer::new(&vocabulary)?);
        let templates = ChatTemplates::of(&vocabulary);
        let description = model_description::describe(file, &spec, &vocabulary, &templates);
        // A model reasons in one way, whichever template asks for it.
        let source = templates.usual().or(templates.with_tools()).map_or("", ChatTemplate::source);
        let is_token = |spelling: &str| vocabulary.tokens().any(|(token, _)| token == spelling);
        let format =
            AnswerFormat { tools: templates.tool_format(), reasoning: ReasoningFormat::of_model(source, is_token) };
        let marks = |calls| ControlMarks::of(&vocabulary, &format.marks(calls));
        let (reasoning_marks, marks) = (marks(false), marks(true));
        let compiler = Arc::new(Grammars::new(&tokenizer));
        let reasoning_end = templates.usual().and_then(ChatTemplate::reasoning_end);
        let grammars = AnswerGrammars::new(&tokenizer, Arc::clone(&compiler), format, &marks, reasoning_end.as_deref());
        Ok(Self { tokenizer, templates, description, format, reasoning_marks, marks, compiler, grammars })
    }

    /// The reason why chats cannot be served, if they cannot.
    pub(super) fn template_problem(&self) -> Option<&str> {
        self.templates.problem()
    }

    /// The prompt for `conversation`.
    fn render(&self, conversation: &http::Conversation) -> Result<Rendered, http::TextError> {
        self.templates.render(conversation).map_err(|error| refuse(&error))
    }

    /// The text of the last tokens of a prompt, in which marks are spelled.
    fn prompt_end(&self, prompt: &[u32]) -> String {
        let mut detokenizer = MarkedDetokenizer::new(&self.tokenizer, self.marks.clone());
        let end = &prompt[prompt.len().saturating_sub(PROMPT_END_TOKENS)..];
        end.iter().map(|token| detokenizer.push(*token)).collect()
    }
}

/// The API's error for a text that cannot be encoded.
fn refuse(error: &TextError) -> http::TextError {
    http::TextError(error.to_string())
}

impl http::TextModel for ModelText {
    fn encode_chat(&self, conversation: &http::Conversation) -> Result<Vec<u32>, http::TextError> {
        self.tokenizer.encode_rendered(&self.render(conversation)?).map_err(|error| refuse(&error))
    }

    fn plan_answer(&self, request: &AnswerRequest, prompt: &[u32]) -> AnswerPlan {
        AnswerPlan::new(self.format, request, &self.prompt_end(prompt))
    }

    fn answer_grammar(
        &self,
        plan: &AnswerPlan,
        text: Option<http::TextForm>,
    ) -> Result<Option<SharedGrammar>, http::TextError> {
        self.grammars.of(plan, text)
    }

    fn compile_grammar(&self, source: &GrammarSource) -> Result<SharedGrammar, GrammarError> {
        self.compiler.compile(source)
    }

    fn answer_decoder(&self, plan: &AnswerPlan) -> Box<dyn http::Decoder> {
        let marks = if plan.tools.is_empty() { &self.reasoning_marks } else { &self.marks };
        Box::new(AnswerDecoder(MarkedDetokenizer::new(&self.tokenizer, marks.clone())))
    }

    fn encode_prompt(&self, prompt: &str) -> Result<Vec<u32>, http::TextError> {
        self.encode_text(prompt, http::SpecialTokens { added: true, parsed: true })
    }

    fn encode_embedded(&self, text: &str, tokens_max: usize) -> Result<Vec<u32>, http::TextError> {
        let mut ids = self.encode_prompt(text)?;
        let eos = self.tokenizer.appended_eos().filter(|eos| ids.last() != Some(eos));
        ids.truncate(tokens_max.saturating_sub(eos.into_iter().len()));
        ids.extend(eos);
        Ok(ids)
    }

    fn encode_text(&self, text: &str, special: http::SpecialTokens) -> Result<Vec<u32>, http::TextError> {
        let spelled = if special.parsed { Special::Parse } else { Special::Plain };
        let ids = self.tokenizer.encode(text, spelled).map_err(|error| refuse(&error))?;
        // The token that begins a text, if the model wants one and the text does not spell it already.
        let wanted = special.added && self.tokenizer.add_bos();
        let bos = self.tokenizer.bos().filter(|bos| wanted && ids.first() != Some(bos));
        Ok(bos.into_iter().chain(ids).collect())
    }

    fn render_chat(&self, conversation: &http::Conversation) -> Result<String, http::TextError> {
        Ok(self.render(conversation)?.text().to_owned())
    }

    fn decoder(&self) -> Box<dyn http::Decoder> {
        Box::new(ModelDecoder(Detokenizer::new(&self.tokenizer)))
    }

    fn token_bytes(&self, token: u32) -> Vec<u8> {
        self.tokenizer.token_bytes(token).to_vec()
    }

    fn token_piece(&self, token: u32) -> Vec<u8> {
        self.tokenizer.token_piece(token)
    }

    fn token_spelling(&self, token: u32) -> String {
        self.tokenizer.token_spelling(token)
    }

    fn stop_tokens(&self) -> &[u32] {
        self.tokenizer.stop_tokens()
    }

    fn vocab_size(&self) -> u32 {
        u32::try_from(self.tokenizer.vocab_size()).unwrap_or(u32::MAX)
    }

    fn description(&self) -> &http::ModelDescription {
        &self.description
    }
}

impl http::Decoder for ModelDecoder {
    fn push(&mut self, token: u32) -> String {
        self.0.push(token)
    }
}

impl http::Decoder for AnswerDecoder {
    fn push(&mut self, token: u32) -> String {
        self.0.push(token)
    }
}
