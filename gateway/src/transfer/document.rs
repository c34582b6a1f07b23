//! The document that holds a cluster outside a store: a JSON object with a line for each key.

use std::fmt::Write as _;

use engine::store::limits::TXN_WRITES_MAX;
use schema::Keyspace;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::error::TransferError;
use super::limits::{DOCUMENT_BYTES_MAX, JSON_MAX, SHOWN_BYTES_MAX};
use super::record::{check, is_brought_over};
use crate::json_size::JsonSize;
use crate::models::hex;

/// The document's name for its kind.
pub(super) const FORMAT: &str = "baton-cluster";
/// The version of the form. Documents of another one are refused.
pub(super) const VERSION: u64 = 1;

/// A cluster's keys as they were at one revision of a store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterDocument {
    format: String,
    version: u64,
    /// The cluster's name.
    pub cluster: String,
    /// The revision of the store that it comes from.
    pub revision: u64,
    /// SHA-256 over the permanent keys and their values.
    sha256: String,
    /// The keys that an import writes.
    pub permanent: Vec<KeptKey>,
    /// The keys of members, for people to read. No import writes them.
    pub members: Vec<MemberKey>,
    /// The keys that are neither.
    pub left_out: Vec<LeftOut>,
}

/// A key without a lease, and its value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptKey {
    /// The full key.
    pub key: String,
    /// The value.
    pub value: Value,
}

/// A key that members write themselves, and its value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberKey {
    /// The full key.
    pub key: String,
    /// The lease that it hangs on, in hex. `None` if it is derived from others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    /// The value.
    pub value: Value,
}

/// A key that baton cannot use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// The full key.
    pub key: String,
    /// The fault in it.
    pub reason: String,
}

/// The fields that every version has.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u64,
}

// === impl ClusterDocument ===

impl ClusterDocument {
    /// A document of these keys.
    pub(super) fn new(
        keyspace: &Keyspace,
        revision: u64,
        permanent: Vec<KeptKey>,
        members: Vec<MemberKey>,
        left_out: Vec<LeftOut>,
    ) -> Self {
        let (format, cluster, sha256) = (FORMAT.to_owned(), keyspace.cluster().to_string(), digest(&permanent));
        Self { format, version: VERSION, cluster, revision, sha256, permanent, members, left_out }
    }

    /// Reads the document of the cluster of `keyspace`. Every permanent key in it is one of the cluster's, once, with a
    /// value that members can read.
    ///
    /// # Errors
    /// [`TransferError`] says what was expected.
    pub fn read(bytes: &[u8], keyspace: &Keyspace) -> Result<Self, TransferError> {
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            return Err(TransferError::Large);
        }
        JsonSize::of(bytes)
            .within(JSON_MAX)
            .map_err(|error| TransferError::NotADocument { reason: error.to_string() })?;
        let no_document = |error: serde_json::Error| TransferError::NotADocument { reason: error.to_string() };
        let Head { format, version } = serde_json::from_slice(bytes).map_err(no_document)?;
        if format != FORMAT {
            return Err(TransferError::Format { found: cut(&format) });
        }
        if version != VERSION {
            return Err(TransferError::Version { found: version });
        }
        let document: Self = serde_json::from_slice(bytes).map_err(no_document)?;
        if document.cluster != keyspace.cluster().as_str() {
            let (found, expected) = (cut(&document.cluster), keyspace.cluster().to_string());
            return Err(TransferError::OtherCluster { found, expected });
        }
        let found = digest(&document.permanent);
        if found != document.sha256 {
            return Err(TransferError::Digest { found, expected: cut(&document.sha256) });
        }
        if document.permanent.len() > TXN_WRITES_MAX {
            return Err(TransferError::Many { found: document.permanent.len() });
        }
        document.check_keys(keyspace)?;
        Ok(document)
    }

    fn check_keys(&self, keyspace: &Keyspace) -> Result<(), TransferError> {
        let mut last = None;
        for KeptKey { key, value } in &self.permanent {
            let refused = |reason| TransferError::Key { key: cut(key), reason };
            let parsed = keyspace.owner(key).parse(key).map_err(|error| refused(error.to_string()))?;
            if !is_brought_over(&parsed) {
                return Err(refused("it belongs to members: expected it in the list `members`".to_owned()));
            }
            if last.is_some_and(|last| last >= key) {
                return Err(refused("expected each key once, in the order of their bytes".to_owned()));
            }
            check(&parsed, value).map_err(|reason| refused(format!("its value is unusable: {}", cut(&reason))))?;
            last = Some(key);
        }
        Ok(())
    }

    /// The document as text, with a line for each key.
    ///
    /// # Errors
    /// [`TransferError::Large`] if no import would read it.
    pub fn text(&self) -> Result<String, TransferError> {
        let mut text = String::from("{\n");
        for (name, value) in [
            ("format", json(&self.format)),
            ("version", json(&self.version)),
            ("cluster", json(&self.cluster)),
            ("revision", json(&self.revision)),
            ("sha256", json(&self.sha256)),
            ("permanent", lines(&self.permanent)),
            ("members", lines(&self.members)),
        ] {
            let _ = writeln!(text, "  \"{name}\": {value},");
        }
        let _ = write!(text, "  \"left_out\": {}\n}}\n", lines(&self.left_out));
        if text.len() as u64 > DOCUMENT_BYTES_MAX { Err(TransferError::Large) } else { Ok(text) }
    }
}

/// A JSON array with a line for each item.
fn lines(items: &[impl Serialize]) -> String {
    let items: Vec<_> = items.iter().map(|item| format!("\n    {}", json(item))).collect();
    if items.is_empty() { "[]".to_owned() } else { format!("[{}\n  ]", items.join(",")) }
}

fn json(value: &impl Serialize) -> String {
    // Cannot fail: plain structs with text keys, and values that were JSON before.
    serde_json::to_string(value).unwrap_or_default()
}

/// SHA-256 over keys and values, in hex.
fn digest(kept: &[KeptKey]) -> String {
    let mut digest = Sha256::new();
    for KeptKey { key, value } in kept {
        digest.update(format!("{key}\n{}\n", json(value)));
    }
    hex(&digest.finalize())
}

/// The beginning of a text from outside.
pub(super) fn cut(text: &str) -> String {
    let end = (0..=text.len().min(SHOWN_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    if end == text.len() { text.to_owned() } else { format!("{}…", &text[..end]) }
}

impl KeptKey {
    /// The value as members write it.
    pub(super) fn bytes(&self) -> Vec<u8> {
        json(&self.value).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keyspace() -> Keyspace {
        Keyspace::new(&"home".parse().unwrap())
    }

    fn document() -> ClusterDocument {
        let kept = |key: &str, value| KeptKey { key: format!("/baton/v1/home/{key}"), value };
        let permanent = vec![
            kept("key-mark", json!({"mark": "8f14e45fceea167a5a36dedd4bea2543"})),
            kept("pins/mini-1", json!({"cordon": true})),
            kept("pins/mini-2", json!({"layers": [22, 30]})),
        ];
        let key = "/baton/v1/home/stages/mini-1".to_owned();
        let members = vec![MemberKey { key, lease: Some("1f".to_owned()), value: json!({"pid": 1}) }];
        let left_out = vec![LeftOut { key: "/baton/v1/home/foo".to_owned(), reason: "unknown".to_owned() }];
        ClusterDocument::new(&keyspace(), 17, permanent, members, left_out)
    }

    fn refused(text: &str) -> String {
        ClusterDocument::read(text.as_bytes(), &keyspace()).unwrap_err().to_string()
    }

    #[test]
    fn a_document_reads_back_as_it_was_written_with_a_line_for_each_key() {
        let text = document().text().unwrap();
        assert_eq!(ClusterDocument::read(text.as_bytes(), &keyspace()).unwrap(), document());
        let line = r#"    {"key":"/baton/v1/home/pins/mini-2","value":{"layers":[22,30]}}"#;
        assert!(text.lines().any(|found| found == line), "{text}");
        let empty = ClusterDocument::new(&keyspace(), 1, Vec::new(), Vec::new(), Vec::new());
        assert_eq!(ClusterDocument::read(empty.text().unwrap().as_bytes(), &keyspace()).unwrap(), empty);
    }

    #[test]
    fn another_format_version_or_cluster_is_refused_with_what_was_expected() {
        let text = document().text().unwrap();
        let found = refused(&text.replace("baton-cluster", "docker-compose"));
        assert!(found.contains(r#"format is "docker-compose": expected "baton-cluster""#), "{found}");
        // A later version may have other fields.
        let later = text.replace("\"version\": 1,", "\"version\": 2, \"zone\": 3,");
        assert!(refused(&later).contains("has version 2: expected 1"), "{}", refused(&later));
        let other = Keyspace::new(&"office".parse().unwrap());
        let found = ClusterDocument::read(text.as_bytes(), &other).unwrap_err().to_string();
        assert!(found.contains(r#"holds cluster "home": expected "office""#), "{found}");
    }

    #[test]
    fn a_document_that_is_cut_off_or_changed_is_refused() {
        let text = document().text().unwrap();
        for end in (0..text.len() - 2).filter(|end| text.is_char_boundary(*end)) {
            assert!(refused(&text[..end]).contains("no whole export"), "{end}");
        }
        let found = refused(&text.replace("[22,30]", "[22,29]"));
        assert!(found.contains("damaged or edited"), "{found}");
    }

    #[test]
    fn keys_that_are_foreign_of_members_doubled_or_unusable_are_refused_by_name() {
        let refused_with = |key: &str, value| {
            let mut permanent = document().permanent;
            permanent.push(KeptKey { key: key.to_owned(), value });
            let made = ClusterDocument::new(&keyspace(), 17, permanent, Vec::new(), Vec::new());
            refused(&made.text().unwrap())
        };
        let pin = || json!({"layers": []});
        for (key, value, expected) in [
            ("/baton/v1/office/pins/x", pin(), "unknown key"),
            ("/registry/pods/x", pin(), "expected key-mark, model"),
            ("/baton/v1/home/nonsense", pin(), "unknown key"),
            ("/baton/v1/home/stages/x", json!({}), "it belongs to members"),
            ("/baton/v1/home/pins-status/x", json!({}), "it belongs to members"),
            ("/baton/v1/home/pins/mini-2", pin(), "each key once"),
            ("/baton/v1/home/pins/mini-3", json!({"layers": [3]}), "its value is unusable"),
            ("/baton/v1/home/placement", json!(7), "its value is unusable"),
        ] {
            let found = refused_with(key, value);
            assert!(found.contains(expected) && found.contains(key), "{key}: {found}");
        }
    }
}
