//! A model's chat template: turns a conversation into a prompt of the form that the model was trained on.
//!
//! The template is Jinja source from a downloaded file, so it is untrusted. It reaches no file and no network, and its
//! work, its output and its recursion are bounded. A template is never guessed: a model without one serves no chats.

use std::collections::HashSet;
use std::time::SystemTime;

use minijinja::{Environment, UndefinedBehavior};

use super::TextError;
use super::conversation::{Conversation, Message};
use super::filters;
use super::json;
use super::rendered::Rendered;
use super::tools::ToolFormat;
use super::vocabulary::Vocabulary;

mod adaptation;
mod kwargs;
mod marking;
mod rendering;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tool_tests;
mod traits;
mod values;
mod variables;

use rendering::{Rendering, fuel};
use traits::Traits;

/// Longest template, in bytes. The longest known ones have about 20 kB.
const SOURCE_BYTES_MAX: usize = 256 << 10;
/// Stack for each unit of fuel, in bytes. A unit of work can nest a list one level deeper, and dropping or printing
/// that list takes up to 640 bytes a level (measured, unoptimised builds take more). Only the used part of the stack
/// takes memory.
const STACK_PER_FUEL: usize = if cfg!(debug_assertions) { 4096 } else { 1024 };
/// Stack for each byte of a template's source, in bytes: the parser recurses at each sign of `- - - 1`, and the
/// compiler at each operator of `1 + 1 + 1`. Those take up to 500 bytes a level (unoptimised builds take more).
const STACK_PER_SOURCE_BYTE: usize = if cfg!(debug_assertions) { 4096 } else { 1024 };
/// Stack for everything but the work that fuel pays for, in bytes.
const STACK_BASE: usize = 2 << 20;
/// Deepest nesting of blocks, macros and calls.
const RECURSION_MAX: usize = 100;
/// Longest role, in bytes.
const ROLE_BYTES_MAX: usize = 64;
const NAME: &str = "chat_template";

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    tokens: TemplateTokens,
    /// The variables that it reads.
    variables: HashSet<String>,
    traits: Traits,
}

/// The spellings of a model's special tokens, as far as its chat templates need them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TemplateTokens {
    bos: String,
    eos: String,
    /// The control tokens. Empty if they are not known.
    control: Vec<String>,
}

// === impl ChatTemplate ===

impl ChatTemplate {
    /// Compiles the chat template in a model's vocabulary.
    ///
    /// # Errors
    /// [`TextError::NoChatTemplate`] when the model has none, [`TextError::Template`] when it is not valid.
    pub fn from_vocabulary(vocabulary: &Vocabulary) -> Result<Self, TextError> {
        let source = vocabulary.chat_template().ok_or(TextError::NoChatTemplate)?;
        Self::compile(source, &TemplateTokens::of(vocabulary))
    }

    /// Compiles a template. `bos` and `eos` are the spellings it may use. The list of control tokens is not known here,
    /// unlike in [`Self::from_vocabulary`], so rendering fails if the template cuts messages up.
    ///
    /// # Errors
    /// [`TextError::Template`] when the source is not valid.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, TextError> {
        Self::compile(source, &TemplateTokens { bos: bos.to_owned(), eos: eos.to_owned(), control: Vec::new() })
    }

    /// Compiles a template that is not the model's own, for a model with these tokens.
    ///
    /// # Errors
    /// [`TextError::Template`] when the source is not valid, [`TextError::TooLong`] when it is too long.
    pub fn compile(source: &str, tokens: &TemplateTokens) -> Result<Self, TextError> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(TextError::TooLong { expected: SOURCE_BYTES_MAX, found: source.len() });
        }
        on_stack(source.len() * STACK_PER_SOURCE_BYTE, || Self::compile_here(source, tokens))
    }

    fn compile_here(source: &str, tokens: &TemplateTokens) -> Result<Self, TextError> {
        let mut environment = Environment::new();
        let syntax = minijinja::syntax::SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(failed)?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_recursion_limit(RECURSION_MAX);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        // The output of these grows with the square of the nesting, and the engine takes no fuel for it.
        environment.remove_filter("pprint");
        environment.remove_global("debug");
        environment.add_test("iterable", filters::is_iterable);
        environment.add_filter("tojson", json::tojson);
        environment.add_function("raise_exception", filters::raise_exception);
        environment.add_function("strftime_now", filters::strftime_now);
        environment.add_template_owned(NAME, without_generation_tags(source)).map_err(failed)?;
        let variables = variables::of(&environment);
        let (source, tokens, traits) = (source.to_owned(), tokens.clone(), Traits::default());
        let template = Self { environment, source, tokens, variables, traits };
        Ok(Self { traits: Traits::find(&template), ..template })
    }

    /// The format of calls that the model is asked to write: the template's own, or the general one if it knows neither
    /// tools nor calls.
    #[must_use]
    pub fn tool_format(&self) -> ToolFormat {
        if self.traits.tools || self.traits.calls { self.traits.format } else { ToolFormat::Json }
    }

    /// The text that the template writes between the reasoning and the text of an answer. `None` if it does not write
    /// the reasoning.
    #[must_use]
    pub fn reasoning_end(&self) -> Option<String> {
        traits::reasoning_end(self)
    }

    /// The prompt for `conversation`.
    ///
    /// # Errors
    /// [`TextError::Role`] for a malformed role, [`TextError::Variable`] for a variable that a conversation may not
    /// have, [`TextError::Template`] when the template fails or refuses the conversation, [`TextError::Provenance`]
    /// when control tokens spelled in it cannot be told apart from the template's own, [`TextError::Continuation`] when
    /// the last message cannot be continued.
    pub fn render(&self, conversation: &Conversation) -> Result<Rendered, TextError> {
        self.render_at(conversation, SystemTime::now())
    }

    /// As [`Self::render`], with the time for a template that writes the date into the prompt.
    ///
    /// # Errors
    /// As for [`Self::render`].
    pub fn render_at(&self, conversation: &Conversation, now: SystemTime) -> Result<Rendered, TextError> {
        check_roles(&conversation.messages)?;
        conversation.check_variables()?;
        let adapted = self.traits.adapt(conversation);
        on_stack(stack_for(fuel(&adapted)), || Rendering::new(self, &adapted, now).run())
    }
}

/// Bytes of stack for a rendering with `fuel`, because the engine recurses into values as deep as a template nests
/// them.
fn stack_for(fuel: u64) -> usize {
    fuel as usize * STACK_PER_FUEL
}

/// Runs `work` with `stack` bytes of stack more than usual. Only the used part of it takes memory.
fn on_stack<T: Send>(stack: usize, work: impl FnOnce() -> Result<T, TextError> + Send) -> Result<T, TextError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(NAME.to_owned()).stack_size(stack + STACK_BASE);
        let thread = thread.spawn_scoped(scope, work).map_err(TextError::Thread)?;
        thread.join().unwrap_or_else(|_| Err(TextError::template("the template engine panicked")))
    })
}

// === impl TemplateTokens ===

impl TemplateTokens {
    /// Those of `vocabulary`.
    #[must_use]
    pub fn of(vocabulary: &Vocabulary) -> Self {
        Self {
            bos: vocabulary.spelling(vocabulary.bos()).to_owned(),
            eos: vocabulary.spelling(vocabulary.eos()).to_owned(),
            control: vocabulary.control().map(str::to_owned).collect(),
        }
    }
}

fn check_roles(messages: &[Message]) -> Result<(), TextError> {
    // Templates build control tokens out of roles, so a role must be a single word.
    let word = |role: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        !role.is_empty() && role.len() <= ROLE_BYTES_MAX && role.bytes().all(known)
    };
    match messages.iter().find(|message| !word(&message.role)) {
        Some(message) => {
            let found = message.role.chars().take(ROLE_BYTES_MAX).collect();
            Err(TextError::Role { found, max: ROLE_BYTES_MAX })
        }
        None => Ok(()),
    }
}

/// `source` with the tags `{% generation %}` and `{% endgeneration %}`, which only training uses, replaced by
/// `{% if true %}` and `{% endif %}`. The replacements trim the white space around them in the same way.
fn without_generation_tags(source: &str) -> String {
    let mut clean = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(open) = rest.find("{%") {
        let (before, tag) = rest.split_at(open);
        clean.push_str(before);
        // Behind the opening, with which a closing may not share its sign: `{%}`.
        let Some(length) = tag[2..].find("%}").map(|close| close + 4) else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(length);
        let trimming = ['-', '+'];
        match tag[2..length - 2].trim_matches(trimming).trim() {
            "generation" => clean.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => clean.push_str(&tag.replace("endgeneration", "endif")),
            _ => clean.push_str(tag),
        }
        rest = after;
    }
    clean.push_str(rest);
    clean
}

fn failed(cause: minijinja::Error) -> TextError {
    let message = cause.detail().map_or_else(|| cause.kind().to_string(), str::to_owned);
    TextError::Template { message, cause: Some(Box::new(cause)) }
}
