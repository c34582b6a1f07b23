//! One rendering of a chat template: the work it may do, and whose text is whose in its outcome.

use std::time::SystemTime;

use minijinja::context;
use minijinja::value::Value;

use super::{ChatTemplate, Message, NAME, failed};
use crate::text::rendered::{Marks, Rendered};
use crate::text::{TextError, filters};

/// Work one rendering may do however short its messages: the engine charges about one unit an instruction and one for
/// every 64 bytes it handles. Of 65 templates in use, none took more than 540 for one message.
const FUEL_MIN: u64 = 50_000;
/// Work it may do besides, for each message. Those 65 take 50 in the median, 860 at most in a conversation of 200
/// messages; the costliest one looks through all messages at each, so it takes more in longer ones.
const FUEL_PER_MESSAGE: u64 = 4_000;
/// And besides, for each 64 bytes of messages: as many times may it go through all of their text.
const FUEL_PER_BLOCK: u64 = 16;
/// Most work of one rendering, whatever its messages: a bound on its memory (64 bytes a unit) and its stack.
const FUEL_MAX: u64 = 1_000_000;

/// One request's rendering: the same settings each time it is run.
pub(super) struct Rendering<'a> {
    pub(super) template: &'a ChatTemplate,
    pub(super) add_generation_prompt: bool,
    pub(super) now: SystemTime,
    pub(super) fuel: u64,
}

// === impl Rendering ===

impl Rendering<'_> {
    /// Renders the prompt and finds what of it came from messages, as [`crate::text::rendered`] describes.
    pub(super) fn run(&self, messages: &[Message]) -> Result<Rendered, TextError> {
        let ChatTemplate { source, bos, eos, control, .. } = self.template;
        let contents = messages.iter().map(|message| message.content.as_str());
        let inputs = contents.chain([source.as_str(), bos, eos]);
        let marks = Marks::absent_from(inputs).ok_or(TextError::Provenance)?;
        let prompt = self.prompt(messages)?;
        let whole = self.marked(messages, marks, &prompt, |content| marks.around(content));
        if let Some(rendered) = whole {
            return Ok(rendered);
        }
        if control.is_empty() {
            return Err(TextError::Provenance);
        }
        let risks = self.marked(messages, marks, &prompt, |content| marks.around_control(content, control));
        risks.ok_or(TextError::Provenance)
    }

    /// The prompt from marked messages, if the marks change nothing else in it.
    fn marked(
        &self,
        messages: &[Message],
        marks: Marks,
        prompt: &str,
        mark: impl Fn(&str) -> String,
    ) -> Option<Rendered> {
        let mark = |message: &Message| Message { role: message.role.clone(), content: mark(&message.content) };
        let messages: Vec<Message> = messages.iter().map(mark).collect();
        // A template that fails on marked messages is one that looks at them closely.
        let marked = self.prompt(&messages).ok()?;
        Rendered::unmark(&marked, marks).filter(|rendered| rendered.text() == prompt)
    }

    fn prompt(&self, messages: &[Message]) -> Result<String, TextError> {
        let mut environment = self.template.environment.clone();
        environment.set_fuel(Some(self.fuel));
        let seconds = self.now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let message = |message: &Message| {
            Value::from_pairs([("role", message.role.as_str()), ("content", message.content.as_str())])
        };
        let values = context! {
            messages => messages.iter().map(message).collect::<Vec<_>>(),
            add_generation_prompt => self.add_generation_prompt,
            bos_token => self.template.bos.as_str(),
            eos_token => self.template.eos.as_str(),
            tools => Value::from(()),
            documents => Value::from(()),
            ..Value::from_pairs([(filters::NOW, seconds)])
        };
        environment.get_template(NAME).and_then(|template| template.render(values)).map_err(failed)
    }
}

/// How much work a rendering of `messages` may do.
pub(super) fn fuel(messages: &[Message]) -> u64 {
    let blocks: u64 = messages.iter().map(|message| message.content.len() as u64 / 64).sum();
    (FUEL_MIN + FUEL_PER_MESSAGE * messages.len() as u64 + FUEL_PER_BLOCK * blocks).min(FUEL_MAX)
}
