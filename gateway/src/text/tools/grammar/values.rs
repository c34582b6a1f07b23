//! The rules of values in notations other than JSON.

use serde_json::{Value, json};

use super::call_rules::WriteJson;
use super::lark::Lark;

/// A way of writing values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notation {
    /// Text as it is, and all else as JSON.
    Bare,
    /// Gemma's: text between quotes of its own.
    Gemma(&'static str),
    /// Python's literals.
    Python,
}

/// The expression of a value that fits `schema`. In Gemma's and Python's notation, the schema of what is inside of a
/// list or an object is not enforced.
pub(super) fn value<E>(
    notation: Notation,
    schema: &Value,
    strict: bool,
    lark: &mut Lark<'_>,
    json: &mut WriteJson<'_, E>,
) -> Result<String, E> {
    if let Some(choices) = schema["enum"].as_array().filter(|choices| !choices.is_empty()) {
        let choices: Vec<_> = choices.iter().map(|choice| lark.literal(&written(notation, choice))).collect();
        return Ok(format!("({})", choices.join(" | ")));
    }
    let body = match (notation, schema["type"].as_str()) {
        (Notation::Bare, _) | (_, Some("integer" | "number")) => json(schema, strict)?,
        (Notation::Gemma(quote), Some("string")) => return Ok(quoted(quote, lark)),
        (Notation::Python, Some("string")) => json(&json!({"type": "string"}), strict)?,
        (Notation::Gemma(_), Some("boolean")) => return Ok("(\"true\" | \"false\")".to_owned()),
        (Notation::Python, Some("boolean")) => return Ok("(\"True\" | \"False\")".to_owned()),
        (Notation::Gemma(quote), _) => return gemma_value(quote, lark, json),
        (Notation::Python, _) => return python_value(lark, json),
    };
    Ok(lark.add(&body))
}

/// `value` as a constant.
fn written(notation: Notation, value: &Value) -> String {
    match (notation, value) {
        (Notation::Bare, Value::String(text)) => text.clone(),
        (Notation::Gemma(quote), Value::String(text)) => [quote, text, quote].concat(),
        (Notation::Python, Value::Bool(true)) => "True".to_owned(),
        (Notation::Python, Value::Bool(false)) => "False".to_owned(),
        (Notation::Python, Value::Null) => "None".to_owned(),
        (_, value) => value.to_string(),
    }
}

fn quoted(quote: &str, lark: &mut Lark<'_>) -> String {
    let text = lark.text_until(quote);
    format!("{} {text}", lark.literal(quote))
}

fn gemma_value<E>(quote: &str, lark: &mut Lark<'_>, json: &mut WriteJson<'_, E>) -> Result<String, E> {
    let name = lark.name();
    let number = json(&json!({"type": "number"}), false)?;
    let (number, text) = (lark.add(&number), quoted(quote, lark));
    let items = format!("\"[\" ({name} (\",\" {name})*)? \"]\"");
    let field = format!("/[A-Za-z_][A-Za-z0-9_.-]*/ \":\" {name}");
    let fields = format!("\"{{\" ({field} (\",\" {field})*)? \"}}\"");
    lark.rule(&name, &format!("{text} | {number} | \"true\" | \"false\" | \"null\" | {items} | {fields}"));
    Ok(name)
}

fn python_value<E>(lark: &mut Lark<'_>, json: &mut WriteJson<'_, E>) -> Result<String, E> {
    let name = lark.name();
    let number = json(&json!({"type": "number"}), false)?;
    let text = json(&json!({"type": "string"}), false)?;
    let (number, text) = (lark.add(&number), lark.add(&text));
    let items = format!("\"[\" ({name} (\", \" {name})*)? \"]\"");
    let field = format!("{text} \": \" {name}");
    let fields = format!("\"{{\" ({field} (\", \" {field})*)? \"}}\"");
    lark.rule(&name, &format!("{text} | {number} | \"True\" | \"False\" | \"None\" | {items} | {fields}"));
    Ok(name)
}
