//! One rendering of a chat template: bounds its work and finds the parts of the prompt that came from messages.

use std::time::SystemTime;

use minijinja::context;
use minijinja::value::Value;

use super::{ChatTemplate, Message, NAME, failed};
use crate::text::rendered::{Marks, Rendered};
use crate::text::{TextError, filters};

/// Fuel of a rendering with the shortest messages. The engine charges about one unit for each instruction and one for
/// every 64 bytes it handles. Of 65 templates in use, none took more than 540 units for one message.
const FUEL_MIN: u64 = 50_000;
/// Fuel added for each message. Those 65 templates take 50 units for a message in the median, and 860 at most in a
/// conversation of 200 messages. The costliest one goes through all messages at each message, so it takes more in
/// longer conversations.
const FUEL_PER_MESSAGE: u64 = 4_000;
/// Fuel added for each 64 bytes of messages: the template may go through all of their text this many times.
const FUEL_PER_BLOCK: u64 = 16;
/// Most fuel of one rendering, for any messages. It bounds the rendering's memory (64 bytes a unit) and its stack.
const FUEL_MAX: u64 = 1_000_000;

/// The rendering of one request. It runs up to three times, each time with the same settings.
pub(super) struct Rendering<'a> {
    pub(super) template: &'a ChatTemplate,
    pub(super) add_generation_prompt: bool,
    pub(super) now: SystemTime,
    pub(super) fuel: u64,
}

// === impl Rendering ===

impl Rendering<'_> {
    /// Renders the prompt and finds the parts of it that came from messages, as [`crate::text::rendered`] describes.
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
        // A template that fails on marked messages inspects their text.
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

/// Fuel for a rendering of `messages`.
pub(super) fn fuel(messages: &[Message]) -> u64 {
    let blocks: u64 = messages.iter().map(|message| message.content.len() as u64 / 64).sum();
    (FUEL_MIN + FUEL_PER_MESSAGE * messages.len() as u64 + FUEL_PER_BLOCK * blocks).min(FUEL_MAX)
}
