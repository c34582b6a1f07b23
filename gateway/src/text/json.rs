//! JSON as Python's `json.dumps(…, ensure_ascii=False)` writes it, for templates: not HTML-safe, with spaces after
//! commas. The arguments of a call are written as the model wrote them.

use std::io;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, Value};

use super::arguments::Arguments;
use super::filters::invalid;

/// Deepest nesting that is written. It bounds the recursion here. Tool schemas stay under twenty levels.
const JSON_DEPTH_MAX: usize = 64;

/// `value | tojson(indent=…, separators=…, sort_keys=…, ensure_ascii=…)`.
#[expect(clippy::needless_pass_by_value, reason = "the engine hands arguments over by value")]
pub(super) fn tojson(value: &Value, kwargs: Kwargs) -> Result<String, Error> {
    let indent = kwargs.get::<Option<usize>>("indent")?;
    let separators = kwargs.get::<Option<Vec<String>>>("separators")?;
    let style = Style {
        indent,
        item: separators.as_ref().and_then(|both| both.first().cloned()),
        key: separators.as_ref().and_then(|both| both.get(1).cloned()),
        sort: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        ascii: kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
    };
    kwargs.assert_all_used()?;
    let mut json = String::new();
    style.write(value, 0, &mut json)?;
    Ok(json)
}

/// `value` as Python writes it, with spaces after commas and colons: as most models write the arguments of calls. For
/// clients that send these as an object, so that the spacing of the model's own text is lost.
#[must_use]
pub fn spaced_json(value: &serde_json::Value) -> String {
    let mut json = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut json, Spaced);
    match serde::Serialize::serialize(value, &mut serializer) {
        Ok(()) => String::from_utf8_lossy(&json).into_owned(),
        Err(_) => value.to_string(),
    }
}

/// Puts spaces after commas and colons.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// The arguments of `json.dumps`.
struct Style {
    indent: Option<usize>,
    item: Option<String>,
    key: Option<String>,
    sort: bool,
    ascii: bool,
}

// === impl Style ===

impl Style {
    /// True if all is as Python writes it without arguments.
    fn is_plain(&self) -> bool {
        self.indent.is_none() && self.item.is_none() && self.key.is_none() && !self.sort && !self.ascii
    }

    fn write(&self, value: &Value, depth: usize, json: &mut String) -> Result<(), Error> {
        if depth > JSON_DEPTH_MAX {
            return Err(invalid(format!("tojson: expected at most {JSON_DEPTH_MAX} levels")));
        }
        if let Some(arguments) = value.downcast_object_ref::<Arguments>()
            && self.is_plain()
        {
            json.push_str(&arguments.text);
            return Ok(());
        }
        match value.kind() {
            ValueKind::None => json.push_str("null"),
            ValueKind::Bool => json.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => json.push_str(&value.to_string()),
            ValueKind::String => self.write_text(value.as_str().unwrap_or_default(), json),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.map(|item| (None, item)).collect();
                self.write_all('[', items, ']', depth, json)?;
            }
            ValueKind::Map => {
                let entry = |key: Value| Ok((Some(key.to_string()), value.get_item(&key)?));
                let mut items = value.try_iter()?.map(entry).collect::<Result<Vec<_>, Error>>()?;
                if self.sort {
                    items.sort_by(|(one, _), (other, _)| one.cmp(other));
                }
                self.write_all('{', items, '}', depth, json)?;
            }
            other => return Err(invalid(format!("tojson: expected a JSON value, found {other}"))),
        }
        Ok(())
    }

    /// Writes an array's items, or an object's with their keys.
    fn write_all(
        &self,
        open: char,
        items: Vec<(Option<String>, Value)>,
        close: char,
        depth: usize,
        json: &mut String,
    ) -> Result<(), Error> {
        // Python writes no space after a comma that ends a line.
        let comma = self.item.as_deref().unwrap_or(if self.indent.is_some() { "," } else { ", " });
        let empty = items.is_empty();
        json.push(open);
        for (place, (key, item)) in items.into_iter().enumerate() {
            if place > 0 {
                json.push_str(comma);
            }
            self.new_line(depth + 1, json);
            if let Some(key) = key {
                self.write_text(&key, json);
                json.push_str(self.key.as_deref().unwrap_or(": "));
            }
            self.write(&item, depth + 1, json)?;
        }
        if !empty {
            self.new_line(depth, json);
        }
        json.push(close);
        Ok(())
    }

    fn new_line(&self, depth: usize, json: &mut String) {
        if let Some(indent) = self.indent {
            json.push('\n');
            json.extend(std::iter::repeat_n(' ', indent.min(16) * depth));
        }
    }

    fn write_text(&self, text: &str, json: &mut String) {
        // Python escapes the same characters in strings as serde_json, and in the same way.
        for character in serde_json::Value::from(text).to_string().chars() {
            if self.ascii && !matches!(character, ' '..='~') {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    json.push_str(&format!("\\u{unit:04x}"));
                }
            } else {
                json.push(character);
            }
        }
    }
}
