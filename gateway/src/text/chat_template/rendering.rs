//! One rendering of a chat template: bounds its work and finds the parts of the prompt that clients wrote.

use std::time::SystemTime;

use minijinja::context;
use minijinja::value::Value;
use serde_json::Value as Json;

use super::marking::{Level, Marking};
use super::traits::Traits;
use super::values::Values;
use super::{ChatTemplate, NAME, TemplateTokens, failed};
use crate::text::conversation::{Conversation, PromptEnding};
use crate::text::rendered::{Marks, Rendered};
use crate::text::{TextError, filters};

/// Fuel of a rendering with the shortest messages. The engine charges about one unit for each instruction and one for
/// every 64 bytes it handles. Of 65 templates in use, none took more than 540 units for one message.
const FUEL_MIN: u64 = 50_000;
/// Fuel added for each message. Those 65 templates take 50 units for a message in the median, and 860 at most in a
/// conversation of 200 messages. The costliest one goes through all messages at each message, so it takes more in
/// longer conversations.
const FUEL_PER_MESSAGE: u64 = 4_000;
/// Fuel added for each value in tools, calls and the template's variables. Templates that write schemas in a syntax of
/// their own take about 100 units for a value.
const FUEL_PER_VALUE: u64 = 400;
/// Fuel added for each 64 bytes of a client's text: the template may go through all of it this many times.
const FUEL_PER_BLOCK: u64 = 16;
/// Most fuel of one rendering, for any conversation. It bounds the rendering's memory (64 bytes a unit) and its stack.
const FUEL_MAX: u64 = 1_000_000;

/// The rendering of one request. It runs up to four times, each time with the same settings.
pub(super) struct Rendering<'a> {
    template: &'a ChatTemplate,
    traits: Traits,
    conversation: &'a Conversation,
    now: SystemTime,
    fuel: u64,
}

// === impl Rendering ===

impl<'a> Rendering<'a> {
    /// A rendering of `conversation`, which is adapted to the template.
    pub(super) fn new(template: &'a ChatTemplate, conversation: &'a Conversation, now: SystemTime) -> Self {
        Self { template, traits: template.traits, conversation, now, fuel: fuel(conversation) }
    }

    /// The prompt for `conversation` by a template whose traits would be `traits`. `None` if the template fails.
    pub(super) fn probe(template: &ChatTemplate, traits: Traits, conversation: &Conversation) -> Option<String> {
        let (now, fuel) = (SystemTime::UNIX_EPOCH, fuel(conversation));
        let rendering = Rendering { template, traits, conversation, now, fuel };
        super::on_stack(super::stack_for(fuel), || rendering.prompt(rendering.unmarked())).ok()
    }

    /// Renders the prompt and finds the parts of it that clients wrote, as [`crate::text::rendered`] describes.
    pub(super) fn run(&self) -> Result<Rendered, TextError> {
        let ChatTemplate { source, tokens: TemplateTokens { bos, eos, control }, .. } = self.template;
        let inputs = self.conversation.texts().into_iter().chain([source.as_str(), bos, eos]);
        let marks = Marks::absent_from(inputs).ok_or(TextError::Provenance)?;
        let prompt = self.prompt(self.unmarked())?;
        let levels = [Level::All, Level::NoWords, Level::Control];
        // Without the list of control tokens, only marks around all text are safe.
        let levels = if control.is_empty() { &levels[..1] } else { &levels[..] };
        let marked = |&level: &Level| self.marked(Marking { marks: Some(marks), level, control }, marks, &prompt);
        let rendered = levels.iter().find_map(marked).ok_or(TextError::Provenance)?;
        match self.conversation.ending {
            PromptEnding::Continued => self.continued(rendered),
            PromptEnding::Generation | PromptEnding::Complete => Ok(rendered),
        }
    }

    /// The prompt from marked text, if the marks change nothing else in it.
    fn marked(&self, marking: Marking<'_>, marks: Marks, prompt: &str) -> Option<Rendered> {
        // A template that fails on marked text inspects it.
        let marked = self.prompt(marking).ok()?;
        Rendered::unmark(&marked, marks).filter(|rendered| rendered.text() == prompt)
    }

    /// The prompt up to the end of the last message's text. As `transformers` does, this is the last place at which the
    /// text occurs, and white space at its end counts only if the template keeps it.
    fn continued(&self, mut rendered: Rendered) -> Result<Rendered, TextError> {
        let content = self.conversation.messages.last().map_or("", |last| last.content.trim_start());
        let trimmed = content.trim_end();
        let place = rendered.text().rfind(trimmed).filter(|_| !trimmed.is_empty());
        let start = place.ok_or(TextError::Continuation)?;
        let kept = rendered.text()[start..].starts_with(content);
        rendered.truncate(start + if kept { content.len() } else { trimmed.len() });
        Ok(rendered)
    }

    fn unmarked(&self) -> Marking<'_> {
        Marking { marks: None, level: Level::All, control: &self.template.tokens.control }
    }

    fn prompt(&self, marking: Marking<'_>) -> Result<String, TextError> {
        let mut environment = self.template.environment.clone();
        environment.set_fuel(Some(self.fuel));
        let seconds = self.now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let values = Values { marking, traits: self.traits };
        let mut variables = values.variables(self.conversation);
        variables.push((filters::NOW.to_owned(), Value::from(seconds)));
        let values = context! {
            messages => values.messages(self.conversation),
            add_generation_prompt => self.conversation.ending == PromptEnding::Generation,
            bos_token => self.template.tokens.bos.as_str(),
            eos_token => self.template.tokens.eos.as_str(),
            tools => values.tools(self.conversation),
            documents => Value::from(()),
            ..Value::from_pairs(variables)
        };
        environment.get_template(NAME).and_then(|template| template.render(values)).map_err(failed)
    }
}

/// Fuel for a rendering of `conversation`.
pub(super) fn fuel(conversation: &Conversation) -> u64 {
    let texts = conversation.texts();
    let blocks: u64 = texts.iter().map(|text| text.len() as u64 / 64).sum();
    let calls: usize = conversation.messages.iter().map(|message| message.tool_calls.len()).sum();
    let schemas = conversation.tools.iter().filter_map(|tool| tool.parameters.as_ref());
    let nested: usize = schemas.chain(conversation.template_kwargs.values()).map(values).sum();
    let values = (nested + conversation.tools.len() + calls) as u64;
    let messages = conversation.messages.len() as u64;
    (FUEL_MIN + FUEL_PER_MESSAGE * messages + FUEL_PER_VALUE * values + FUEL_PER_BLOCK * blocks).min(FUEL_MAX)
}

/// The number of values in `json`, itself included.
fn values(json: &Json) -> usize {
    match json {
        Json::Array(items) => 1 + items.iter().map(values).sum::<usize>(),
        Json::Object(map) => 1 + map.values().map(values).sum::<usize>(),
        _ => 1,
    }
}
