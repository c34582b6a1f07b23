//! Reads the beginning of a call that is written as a JSON object, such as `{"name": "f", "arguments": {…}}`.

use super::json_scan::whole_value;
use super::known_tools::KnownTools;
use super::limits::HEADER_BYTES_MAX;

/// Keys of a call's object. An object with another key is a call only between marks.
const KEYS: &[&str] =
    &["type", "id", "call_id", "tool_call_id", "index", "function", "name", "tool_name", "arguments", "parameters"];

/// The result of [`read_head`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// The text may become a call.
    More,
    /// The text is no call of a known tool.
    NotACall,
    /// A call whose arguments begin after `used` bytes, inside of `levels` open objects.
    Open { used: usize, name: String, levels: usize },
    /// A whole call of `used` bytes.
    Whole { used: usize, name: String, arguments: String },
}

/// Reads `text`, which begins with `{`, up to the arguments. If they come before the name, it reads the whole object.
/// With `known_keys` an object with a key that calls do not have is none.
pub(super) fn read_head(text: &str, known_keys: bool, tools: &KnownTools) -> Head {
    let mut reader = Reader { text, at: 1, levels: 1, known_keys, name: None, arguments: None };
    match reader.run(tools) {
        Ok(head) => head,
        Err(Stop::More) => Head::More,
        Err(Stop::NotACall) => Head::NotACall,
    }
}

/// The arguments' text: `written` itself, or its content if it is a JSON string. Nothing and `null` are no arguments.
pub(super) fn arguments_text(written: &str) -> String {
    match written.trim() {
        "" | "null" => "{}".to_owned(),
        text if text.starts_with('"') => serde_json::from_str(text).unwrap_or_else(|_| text.to_owned()),
        text => text.to_owned(),
    }
}

/// The reason why reading stops early.
enum Stop {
    More,
    NotACall,
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    /// Objects that are open.
    levels: usize,
    known_keys: bool,
    name: Option<String>,
    arguments: Option<String>,
}

// === impl Reader ===

impl<'t> Reader<'t> {
    fn run(&mut self, tools: &KnownTools) -> Result<Head, Stop> {
        loop {
            match self.next()? {
                '}' => {
                    self.at += 1;
                    self.levels -= 1;
                    if self.levels == 0 {
                        return self.whole();
                    }
                }
                ',' => self.at += 1,
                '"' => {
                    let key = self.string()?;
                    if self.next()? != ':' {
                        return Err(Stop::NotACall);
                    }
                    self.at += 1;
                    if self.known_keys && !KEYS.contains(&key.as_str()) {
                        return Err(Stop::NotACall);
                    }
                    self.next()?;
                    if let Some(head) = self.field(&key, tools)? {
                        return Ok(head);
                    }
                }
                _ => return Err(Stop::NotACall),
            }
        }
    }

    /// Reads the value of `key`. Returns the call if its arguments follow.
    fn field(&mut self, key: &str, tools: &KnownTools) -> Result<Option<Head>, Stop> {
        match key {
            "function" if self.next()? == '{' => {
                self.at += 1;
                self.levels += 1;
            }
            "name" | "tool_name" | "function" => {
                let name = self.string()?;
                if tools.get(&name).is_none() {
                    return Err(Stop::NotACall);
                }
                self.name = Some(name);
            }
            "arguments" | "parameters" => match self.name.take() {
                Some(name) => return Ok(Some(Head::Open { used: self.at, name, levels: self.levels })),
                None => self.arguments = Some(arguments_text(self.value()?)),
            },
            _ => {
                self.value()?;
            }
        }
        Ok(None)
    }

    fn whole(&mut self) -> Result<Head, Stop> {
        let name = self.name.take().ok_or(Stop::NotACall)?;
        let arguments = self.arguments.take().unwrap_or_else(|| "{}".to_owned());
        Ok(Head::Whole { used: self.at, name, arguments })
    }

    /// The next character that is no white space, which is not consumed.
    fn next(&mut self) -> Result<char, Stop> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.text[self.at..].chars().next().ok_or(Stop::More)
    }

    /// A whole key or name.
    fn string(&mut self) -> Result<String, Stop> {
        if self.next()? != '"' {
            return Err(Stop::NotACall);
        }
        let from = self.at;
        match self.value() {
            Ok(value) => serde_json::from_str(value).map_err(|_| Stop::NotACall),
            Err(_) if self.text.len() - from > HEADER_BYTES_MAX => Err(Stop::NotACall),
            Err(stop) => Err(stop),
        }
    }

    /// Any whole value.
    fn value(&mut self) -> Result<&'t str, Stop> {
        let value = whole_value(&self.text[self.at..]).ok_or(Stop::More)?;
        self.at += value.len();
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::conversation::{Tool, ToolChoice};

    fn head(text: &str) -> Head {
        let tool = Tool { name: "f".to_owned(), ..Tool::default() };
        read_head(text, true, &KnownTools::new(&[tool], &ToolChoice::Auto))
    }

    fn open(used: usize, levels: usize) -> Head {
        Head::Open { used, name: "f".to_owned(), levels }
    }

    fn whole(text: &str, arguments: &str) -> Head {
        Head::Whole { used: text.len(), name: "f".to_owned(), arguments: arguments.to_owned() }
    }

    #[test]
    fn the_arguments_begin_after_the_name() {
        assert_eq!(head(r#"{"name": "f", "arguments": {"a"#), open(27, 1));
        assert_eq!(head(r#"{"type":"function","function":{"name":"f","parameters":"#), Head::More);
        assert_eq!(head(r#"{"type":"function","function":{"name":"f","parameters":{"#), open(55, 2));
    }

    #[test]
    fn arguments_before_the_name_are_read_as_a_whole() {
        let text = r#"{"arguments": {"a": [1]}, "name": "f"}"#;
        assert_eq!(head(text), whole(text, r#"{"a": [1]}"#));
        assert_eq!(head(&text[..text.len() - 1]), Head::More);
        assert_eq!(head(r#"{"name": "f"}"#), whole(r#"{"name": "f"}"#, "{}"));
    }

    #[test]
    fn an_object_that_is_no_call_of_a_known_tool_is_noticed_early() {
        for text in [r#"{"name": "g", "#, r#"{"city": "#, "{1", "{}", r#"{"name": 5"#, r#"{"type": "function"}"#] {
            assert_eq!(head(text), Head::NotACall, "{text}");
        }
    }

    #[test]
    fn arguments_in_a_string_are_unpacked() {
        assert_eq!(arguments_text(r#""{\"a\": 1}""#), r#"{"a": 1}"#);
        assert_eq!(arguments_text("null"), "{}");
        assert_eq!(arguments_text(r#"{"a":1}"#), r#"{"a":1}"#);
    }
}
