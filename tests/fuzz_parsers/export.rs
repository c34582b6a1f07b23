//! The document of an exported cluster, which an operator may have edited and whose disk may have damaged it.

use gateway::transfer::ClusterDocument;
use schema::Keyspace;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::damage::Piece;
use crate::records::examples;
use crate::targets::{Target, chain};

/// The digest that the document has of its permanent keys.
fn digest(document: &Value) -> String {
    let mut digest = Sha256::new();
    for kept in document["permanent"].as_array().into_iter().flatten() {
        digest.update(format!("{}\n{}\n", kept["key"].as_str().unwrap_or_default(), kept["value"]));
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A cluster's keys as `baton store export` writes them.
fn document() -> Value {
    let is_kept = |key: &str| {
        let key = key.trim_start_matches("/baton/v1/home/");
        ["key-mark", "model", "placement"].contains(&key) || key.starts_with("pins/") || key.starts_with("tokens/")
    };
    let mut pairs: Vec<(String, Value)> =
        examples().into_iter().map(|pair| serde_json::from_value(pair).unwrap()).collect();
    pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
    pairs.dedup_by(|(one, _), (other, _)| one == other);
    let (kept, members): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|(key, _)| is_kept(key));
    assert!(kept.len() >= 4 && members.len() >= 4, "the examples have every kind of key: {kept:?}");
    let kept: Vec<_> = kept.into_iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
    let members = members.into_iter().map(|(key, value)| json!({"key": key, "lease": "1f", "value": value}));
    let mut document = json!({
        "format": "baton-cluster",
        "version": 1,
        "cluster": "home",
        "revision": 17,
        "sha256": "",
        "permanent": kept,
        "members": members.collect::<Vec<_>>(),
        "left_out": [{"key": "/baton/v1/home/foo", "reason": "unknown"}],
    });
    document["sha256"] = digest(&document).into();
    document
}

/// An export of the cluster `home`.
pub(crate) fn export() -> Target {
    let keyspace = Keyspace::new(&"home".parse().unwrap());
    let run = move |input: &[Piece]| {
        let mut bytes = input[0].bytes.clone();
        // Few damaged documents have the right digest: three of four are given it, as whoever edits one can.
        if !bytes.len().is_multiple_of(4)
            && let Ok(mut document) = serde_json::from_slice::<Value>(&bytes)
            && document["sha256"].is_string()
        {
            document["sha256"] = digest(&document).into();
            bytes = document.to_string().into_bytes();
        }
        let read = ClusterDocument::read(&bytes, &keyspace).map_err(|error| chain(&error))?;
        let text = read.text().expect("what is taken is not too long");
        let again = ClusterDocument::read(text.as_bytes(), &keyspace).expect("what is taken is written and read again");
        assert_eq!(again, read);
        Ok("key ".repeat(read.permanent.len().min(9)))
    };
    Target { name: "export", seeds: vec![vec![Piece::json(&document())]], run: Box::new(run), memory: (8 << 20, 2048) }
}
