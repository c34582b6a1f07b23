//! A model's chat template: turns a conversation into a prompt of the form that the model was trained on.
//!
//! The template is Jinja source from a downloaded file, so it is untrusted. It reaches no file and no network, and its
//! work, its output and its recursion are bounded. A template is never guessed: a model without one serves no chats.

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
    bos: String,
    eos: String,
    /// The control tokens' spellings. Empty if they are not known.
    control: Vec<String>,
    traits: Traits,
}

// === impl ChatTemplate ===

impl ChatTemplate {
    /// Compiles the chat template in a model's vocabulary.
    ///
    /// # Errors
    /// [`TextError::NoChatTemplate`] when the model has none, [`TextError::Template`] when it is not valid.
    pub fn from_vocabulary(vocabulary: &Vocabulary) -> Result<Self, TextError> {
        let source = vocabulary.chat_template().ok_or(TextError::NoChatTemplate)?;
        let bos = vocabulary.spelling(vocabulary.bos());
        let eos = vocabulary.spelling(vocabulary.eos());
        let template = Self::new(source, bos, eos)?;
        Ok(Self { control: vocabulary.control().map(str::to_owned).collect(), ..template })
    }

    /// Compiles a template. `bos` and `eos` are the spellings it may use. The list of control tokens is not known here,
    /// unlike in [`Self::from_vocabulary`], so rendering fails if the template cuts messages up.
    ///
    /// # Errors
    /// [`TextError::Template`] when the source is not valid.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, TextError> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(TextError::TooLong { expected: SOURCE_BYTES_MAX, found: source.len() });
        }
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
        let (bos, eos) = (bos.to_owned(), eos.to_owned());
        let (source, control, traits) = (source.to_owned(), Vec::new(), Traits::default());
        let template = Self { environment, source, bos, eos, control, traits };
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
        on_stack(fuel(&adapted), || Rendering::new(self, &adapted, now).run())
    }
}

/// Runs `render` with a stack for `fuel`, because the engine recurses into values as deep as a template nests them.
fn on_stack<T: Send>(fuel: u64, render: impl FnOnce() -> Result<T, TextError> + Send) -> Result<T, TextError> {
    let stack = fuel as usize * STACK_PER_FUEL + STACK_BASE;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(NAME.to_owned()).stack_size(stack);
        let thread = thread.spawn_scoped(scope, render).map_err(TextError::Thread)?;
        thread.join().unwrap_or_else(|_| Err(TextError::template("the template engine panicked")))
    })
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
        let Some(length) = tag.find("%}").map(|close| close + 2) else {
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
