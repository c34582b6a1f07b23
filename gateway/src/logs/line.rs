//! One line of a log file, and its text for people.

use serde::Deserialize;
use serde_json::{Map, Value};

/// One event.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct LogLine {
    /// RFC 3339, so that the order of texts is the order of times.
    pub timestamp: String,
    /// `ERROR` to `TRACE`.
    pub level: String,
    /// The module that logged it.
    #[serde(default)]
    pub target: String,
    /// The message and its values.
    #[serde(default)]
    pub fields: Map<String, Value>,
}

// === impl LogLine ===

impl LogLine {
    /// The event in `text`. `None` for a text that is none, such as a line of which the file has a part only.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The event as text, with the `member` that logged it.
    pub fn render(&self, member: &str) -> String {
        let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let message = self.fields.get("message").map(plain).unwrap_or_default();
        let values = self.fields.iter().filter(|(name, _)| *name != "message");
        let values: String = values.map(|(name, value)| format!(" {name}={}", plain(value))).collect();
        format!("{} {:5} {member}: {message}{values}", self.timestamp, self.level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_of_text_with_its_member() {
        let line = r#"{"timestamp":"2026-12-01T10:00:00.5Z","level":"INFO","target":"engine::stage",
            "fields":{"message":"placement adopted","generation":3,"cause":"a stage left"}}"#;
        let expected = "2026-12-01T10:00:00.5Z INFO  mini-1: placement adopted generation=3 cause=a stage left";
        assert_eq!(LogLine::parse(line).unwrap().render("mini-1"), expected);
        assert_eq!(LogLine::parse(&line[..line.len() - 3]), None);
    }
}
