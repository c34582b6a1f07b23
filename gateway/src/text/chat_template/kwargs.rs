//! The variables that a request may give to a chat template: their names and their bounds.

use serde_json::Value;

use crate::text::TextError;
use crate::text::conversation::Conversation;

/// Variables and functions of the template that a request may not replace.
const RESERVED: &[&str] = &[
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "continue_final_message",
    "bos_token",
    "eos_token",
    "raise_exception",
    "strftime_now",
    "namespace",
    "range",
    "dict",
    "lipsum",
    "cycler",
    "joiner",
    "loop",
    "self",
];
/// Variables of one request. Templates have about ten.
const VARIABLES_MAX: usize = 64;
/// Values in all variables together, and bytes of their text.
const VALUES_MAX: usize = 1 << 10;
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Deepest nesting of a variable, and of a tool's schema. It bounds recursion.
const DEPTH_MAX: usize = 32;

// === impl Conversation ===

impl Conversation {
    /// Checks the names and sizes of the template's variables, and the depth of the tools' schemas.
    ///
    /// # Errors
    /// [`TextError::Variable`] that names the first one that cannot be taken.
    pub fn check_variables(&self) -> Result<(), TextError> {
        check(self)
    }
}

fn check(conversation: &Conversation) -> Result<(), TextError> {
    let refuse =
        |found: &str, expected: String| Err(TextError::Variable { found: found.chars().take(64).collect(), expected });
    let (mut values, mut bytes) = (0, 0);
    for (name, value) in &conversation.template_kwargs {
        if RESERVED.contains(&name.as_str()) || name.starts_with('_') {
            return refuse(name, format!("another name than {} or one that begins with '_'", RESERVED.join(", ")));
        }
        if measure(value, 0, &mut values, &mut bytes).is_none() {
            return refuse(name, format!("at most {DEPTH_MAX} levels"));
        }
        if values > VALUES_MAX || bytes > TEXT_BYTES_MAX {
            return refuse(name, format!("at most {VALUES_MAX} values with {TEXT_BYTES_MAX} bytes in all variables"));
        }
    }
    if let Some((name, _)) = conversation.template_kwargs.iter().nth(VARIABLES_MAX) {
        return refuse(name, format!("at most {VARIABLES_MAX} variables"));
    }
    let deep = |schema: &Value| measure(schema, 0, &mut 0, &mut 0).is_none();
    match conversation.tools.iter().find(|tool| tool.parameters.as_ref().is_some_and(deep)) {
        Some(tool) => refuse(&tool.name, format!("a schema of at most {DEPTH_MAX} levels")),
        None => Ok(()),
    }
}

/// Adds the number of values in `value`, and the bytes of their text. `None` if it is nested too deep.
fn measure(value: &Value, depth: usize, values: &mut usize, bytes: &mut usize) -> Option<()> {
    if depth > DEPTH_MAX {
        return None;
    }
    *values += 1;
    match value {
        Value::String(text) => *bytes += text.len(),
        Value::Array(items) => {
            for item in items {
                measure(item, depth + 1, values, bytes)?;
            }
        }
        Value::Object(map) => {
            for (key, value) in map {
                *bytes += key.len();
                measure(value, depth + 1, values, bytes)?;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    Some(())
}
