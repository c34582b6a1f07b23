//! Takes secrets out of texts and JSON: those that are known, and what looks like one.

use serde_json::Value;

use super::limits::{KEY_DIGITS, SECRET_CHARS_MIN};

/// The text in the place of a secret.
const REDACTED: &str = "[redacted]";
/// Fields whose values are secret, or prove that somebody has one.
const SECRET_FIELDS: [&str; 8] =
    ["proof", "secret", "password", "authorization", "api_key", "cluster_key", "hf_token", "token"];
/// Fields whose values are hashes that everybody may know.
const HASH_FIELDS: [&str; 3] = ["fingerprint", "sha256", "hash"];

/// Knows the secrets of this process.
#[derive(Default)]
pub struct Redactor {
    secrets: Vec<String>,
}

// === impl Redactor ===

impl Redactor {
    /// Knows these `secrets`, longest first, since one may contain another.
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let mut secrets: Vec<_> = secrets.into_iter().filter(|secret| secret.len() >= SECRET_CHARS_MIN).collect();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self { secrets }
    }

    /// The text without secrets: the known ones, what follows `Bearer`, passwords in addresses, and runs of hex digits
    /// as long as a key.
    pub fn text(&self, text: &str) -> String {
        let known = self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, REDACTED));
        without_keys(&without_passwords(&without_bearers(&known)))
    }

    /// The value without secrets: as text, and without the values of fields with a secret's name.
    pub fn json(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(values) => values.iter().map(|value| self.json(value)).collect(),
            Value::Object(fields) => {
                let field = |(name, value): (&String, &Value)| {
                    let lower = name.to_ascii_lowercase();
                    let value = match value {
                        Value::Null => Value::Null,
                        _ if SECRET_FIELDS.contains(&lower.as_str()) => REDACTED.into(),
                        Value::String(_) if HASH_FIELDS.contains(&lower.as_str()) => value.clone(),
                        _ => self.json(value),
                    };
                    (self.text(name), value)
                };
                Value::Object(fields.iter().map(field).collect())
            }
            _ => value.clone(),
        }
    }
}

/// Replaces the word after each `Bearer`.
fn without_bearers(text: &str) -> String {
    let mut parts = text.split("Bearer ");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|letter: char| letter.is_whitespace() || "\"',".contains(letter)).unwrap_or(part.len());
        clean = clean + "Bearer " + REDACTED + &part[end..];
    }
    clean
}

/// Replaces what stands before the `@` of an address.
fn without_passwords(text: &str) -> String {
    let mut parts = text.split("://");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|letter: char| letter.is_whitespace() || "/\"'<>,".contains(letter)).unwrap_or(part.len());
        let host = part[..end].rfind('@').map_or(0, |at| at + 1);
        clean = clean + "://" + if host > 0 { "[redacted]@" } else { "" } + &part[host..];
    }
    clean
}

/// Replaces runs of hex digits that may be keys.
fn without_keys(text: &str) -> String {
    let (mut clean, mut run) = (String::with_capacity(text.len()), String::new());
    let flush = |clean: &mut String, run: &mut String| {
        clean.push_str(if run.len() >= KEY_DIGITS { REDACTED } else { run });
        run.clear();
    };
    for letter in text.chars() {
        if letter.is_ascii_hexdigit() {
            run.push(letter);
        } else {
            flush(&mut clean, &mut run);
            clean.push(letter);
        }
    }
    flush(&mut clean, &mut run);
    clean
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn known_secrets_and_what_looks_like_one_leave_a_text() {
        let redactor = Redactor::new(["s3cr3t-of-alice".to_owned(), "ab".to_owned()]);
        let key = "0f".repeat(32);
        let text = format!("ab s3cr3t-of-alice, Bearer xyz, http://me:pw@etcd:2379/a@b {key}! short 0f0f");
        let expected = "ab [redacted], Bearer [redacted], http://[redacted]@etcd:2379/a@b [redacted]! short 0f0f";
        assert_eq!(redactor.text(&text), expected);
    }

    #[test]
    fn fields_with_a_secret_s_name_lose_their_values_and_hashes_keep_them() {
        let hash = "ab".repeat(32);
        let value = json!({"proof": "1234", "API_KEY": ["a"], "fingerprint": hash, "note": hash, "n": 3, "proof_of": 1,
            "inner": [{"token": 5, "tokens": 6, "secret": null}]});
        let inner = json!([{"token": "[redacted]", "tokens": 6, "secret": null}]);
        let expected = json!({"proof": "[redacted]", "API_KEY": "[redacted]", "fingerprint": hash,
            "note": "[redacted]", "n": 3, "proof_of": 1, "inner": inner});
        assert_eq!(Redactor::default().json(&value), expected);
    }
}
