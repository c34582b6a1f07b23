//! The transaction that brings a document's permanent keys into a store: all of them, or none.

use std::collections::BTreeSet;

use engine::store::{Committed, Compare, EtcdStore, Revision, Snapshot, Store, Txn, Write};
use schema::{Key, Keyspace, Lifetime};

use super::document::ClusterDocument;
use super::error::TransferError;
use super::limits::SHOWN_NAMES_MAX;

/// An import that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imported {
    /// The number of keys that were written.
    pub written: usize,
    /// The number of keys that were deleted, because the document does not have them.
    pub deleted: usize,
    /// The store's revision after it.
    pub revision: u64,
}

/// Writes the permanent keys of `document` in one transaction, which is refused if the store has the cluster already.
/// With `replaces`, it takes the place of one that no member uses.
///
/// # Errors
/// [`TransferError`]. Unless the store stopped answering, nothing was written.
pub async fn import(
    store: &EtcdStore,
    keyspace: &Keyspace,
    document: &ClusterDocument,
    replaces: bool,
) -> Result<Imported, TransferError> {
    let found = store.read(keyspace.prefix()).await?;
    let txn = transaction(keyspace, document, &found, replaces)?;
    let written = document.permanent.len();
    let deleted = txn.writes.len() - written;
    match store.commit(txn).await? {
        Committed::Applied { revision } => Ok(Imported { written, deleted, revision: revision.0 }),
        Committed::Refused => Err(TransferError::Changed),
    }
}

/// The transaction for a store in which `found` is what lies under the cluster's prefix.
fn transaction(
    keyspace: &Keyspace,
    document: &ClusterDocument,
    found: &Snapshot,
    replaces: bool,
) -> Result<Txn, TransferError> {
    if document.permanent.is_empty() {
        return Err(TransferError::Nothing);
    }
    let put = |kept: &super::KeptKey| Write::Put { key: kept.key.clone(), value: kept.bytes(), lease: None };
    let mut writes: Vec<_> = document.permanent.iter().map(put).collect();
    if found.entries.is_empty() {
        let compares = vec![Compare::NothingUnder { prefix: keyspace.prefix().to_owned() }];
        return Ok(Txn { compares, writes });
    }
    let cluster = keyspace.cluster().to_string();
    let keys = || found.entries.iter().map(|entry| entry.key.as_str());
    if !replaces {
        return Err(TransferError::Taken { cluster, found: found.entries.len(), names: names(keys()) });
    }
    let deployments: BTreeSet<_> = keys().map(|key| keyspace.owner(key).prefix().to_owned()).collect();
    let of_members = |prefix: &String| ["stages/", "gateways/"].map(|folder| format!("{prefix}{folder}"));
    let members: Vec<_> = deployments.iter().flat_map(of_members).collect();
    let living: Vec<_> = keys().filter(|key| members.iter().any(|folder| key.starts_with(folder))).collect();
    if !living.is_empty() {
        return Err(TransferError::Alive { cluster, names: names(living.into_iter()) });
    }
    let kept: BTreeSet<_> = document.permanent.iter().map(|kept| kept.key.as_str()).collect();
    // What is leased goes by itself, and what baton does not know is not its to delete.
    let stays = |key: &str| keyspace.owner(key).parse(key).is_ok_and(|parsed| parsed.lifetime() != Lifetime::Leased);
    let old = keys().filter(|key| !kept.contains(key) && stays(key));
    writes.extend(old.map(|key| Write::Delete { key: key.to_owned() }));
    let seen = [Key::KeyMark, Key::Model, Key::Placement, Key::Rollout];
    let seen = seen.map(|key| as_found(keyspace.name(&key), found));
    let without_members = members.into_iter().map(|prefix| Compare::NothingUnder { prefix });
    Ok(Txn { compares: seen.into_iter().chain(without_members).collect(), writes })
}

/// The condition that `key` is as it was found.
fn as_found(key: String, found: &Snapshot) -> Compare {
    let revision: Option<Revision> = found.get(&key).map(|entry| entry.mod_revision);
    match revision {
        Some(mod_revision) => Compare::Unchanged { key, mod_revision },
        None => Compare::Absent { key },
    }
}

/// The first of these keys, for people.
fn names<'a>(keys: impl Iterator<Item = &'a str>) -> String {
    let mut named: Vec<_> = keys.take(SHOWN_NAMES_MAX + 1).map(super::document::cut).collect();
    if named.len() > SHOWN_NAMES_MAX {
        named.truncate(SHOWN_NAMES_MAX);
        named.push("…".to_owned());
    }
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use engine::store::Entry;
    use serde_json::json;

    use super::super::KeptKey;
    use super::*;

    fn keyspace() -> Keyspace {
        Keyspace::new(&"home".parse().unwrap())
    }

    fn document() -> ClusterDocument {
        let key = "/baton/v1/home/pins/a".to_owned();
        let permanent = vec![KeptKey { key, value: json!({"cordon": true}) }];
        ClusterDocument::new(&keyspace(), 17, permanent, Vec::new(), Vec::new())
    }

    fn found(keys: &[&str]) -> Snapshot {
        let entry = |key: &&str| Entry {
            key: format!("/baton/v1/home/{key}"),
            value: b"{}".to_vec(),
            mod_revision: Revision(7),
            lease: None,
        };
        Snapshot { revision: Revision(9), entries: keys.iter().map(entry).collect() }
    }

    #[test]
    fn an_empty_store_takes_the_keys_if_it_is_still_empty_and_another_is_refused() {
        let txn = transaction(&keyspace(), &document(), &found(&[]), false).unwrap();
        assert_eq!(txn.compares, [Compare::NothingUnder { prefix: "/baton/v1/home/".to_owned() }]);
        let value = br#"{"cordon":true}"#.to_vec();
        assert_eq!(txn.writes, [Write::Put { key: "/baton/v1/home/pins/a".to_owned(), value, lease: None }]);
        let refused = transaction(&keyspace(), &document(), &found(&["model"]), false).unwrap_err().to_string();
        assert!(refused.contains("already has 1 keys of cluster home (/baton/v1/home/model)"), "{refused}");
        let nothing = ClusterDocument::new(&keyspace(), 1, Vec::new(), Vec::new(), Vec::new());
        assert!(matches!(transaction(&keyspace(), &nothing, &found(&[]), false), Err(TransferError::Nothing)));
    }

    #[test]
    fn a_replaced_cluster_keeps_nothing_but_what_is_leased_or_unknown() {
        let keys = found(&["foo", "model", "pins-status/b", "pins/a", "pins/b", "starts/a"]);
        let txn = transaction(&keyspace(), &document(), &keys, true).unwrap();
        let deleted = txn.writes.iter().filter_map(|write| match write {
            Write::Delete { key } => key.strip_prefix("/baton/v1/home/"),
            Write::Put { .. } => None,
        });
        let deleted: Vec<_> = deleted.collect();
        assert_eq!((deleted.as_slice(), txn.writes.len()), (&["model", "pins-status/b", "pins/b"][..], 4));
        let model = Compare::Unchanged { key: "/baton/v1/home/model".to_owned(), mod_revision: Revision(7) };
        assert!(txn.compares.contains(&model) && txn.compares.len() == 6, "{:?}", txn.compares);
        let refused = transaction(&keyspace(), &document(), &found(&["model", "stages/a"]), true).unwrap_err();
        assert!(refused.to_string().contains("members of cluster home live in the store"), "{refused}");
    }
}
