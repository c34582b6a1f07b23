//! The keys of a cluster at one revision, sorted by what becomes of them in another store.

use engine::store::{Entry, EtcdStore, Snapshot};
use schema::{Keyspace, Lifetime};
use serde_json::Value;

use super::document::{ClusterDocument, KeptKey, LeftOut, MemberKey, cut};
use super::error::TransferError;
use super::record::check;

/// Reads the cluster of `keyspace`, all of it at one revision. The cluster may go on serving.
///
/// # Errors
/// [`TransferError`] if the store fails or has no such cluster.
pub async fn export(store: &EtcdStore, keyspace: &Keyspace) -> Result<ClusterDocument, TransferError> {
    let snapshot = store.read_together(&[keyspace.prefix(), keyspace.load_prefix()]).await?;
    document(keyspace, &snapshot)
}

fn document(keyspace: &Keyspace, snapshot: &Snapshot) -> Result<ClusterDocument, TransferError> {
    if snapshot.entries.is_empty() {
        let (cluster, prefix) = (keyspace.cluster().to_string(), keyspace.prefix().to_owned());
        return Err(TransferError::NoCluster { cluster, prefix });
    }
    let (mut permanent, mut members, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    for entry in &snapshot.entries {
        match sort(keyspace, entry) {
            Ok(Sorted::Permanent(key)) => permanent.push(key),
            Ok(Sorted::OfMembers(key)) => members.push(key),
            Err(reason) => left_out.push(LeftOut { key: entry.key.clone(), reason: cut(&reason) }),
        }
    }
    Ok(ClusterDocument::new(keyspace, snapshot.revision.0, permanent, members, left_out))
}

/// A key in the list that it belongs to.
enum Sorted {
    Permanent(KeptKey),
    OfMembers(MemberKey),
}

/// Sorts one key. The error says why baton cannot use it.
fn sort(keyspace: &Keyspace, entry: &Entry) -> Result<Sorted, String> {
    let value: Value = serde_json::from_slice(&entry.value).map_err(|error| format!("unreadable value: {error}"))?;
    let (key, lease) = (entry.key.clone(), entry.lease.map(|lease| lease.to_string()));
    let keyspace = &keyspace.owner(&key);
    if keyspace.parse_load(&key).is_some() || keyspace.parse_gateway_load(&key).is_some() {
        return Ok(Sorted::OfMembers(MemberKey { key, lease, value }));
    }
    let parsed = keyspace.parse(&key).map_err(|error| error.to_string())?;
    // A key that should be leased and is not was written by somebody else, and stands for no living member. One that
    // should stay and hangs on a lease would outlive it in the other store.
    if parsed.lifetime() != Lifetime::Permanent || lease.is_some() {
        return Ok(Sorted::OfMembers(MemberKey { key, lease, value }));
    }
    check(&parsed, &value)?;
    Ok(Sorted::Permanent(KeptKey { key, value }))
}

#[cfg(test)]
mod tests {
    use engine::store::{LeaseId, Revision};

    use super::*;

    #[test]
    fn keys_are_sorted_by_lease_and_kind_and_unusable_ones_are_named() {
        let keyspace = Keyspace::new(&"home".parse().unwrap());
        let entry = |key: &str, value: &str, lease| Entry {
            key: key.to_owned(),
            value: value.as_bytes().to_vec(),
            mod_revision: Revision(3),
            lease: Option::map(lease, LeaseId),
        };
        let entries = vec![
            entry("/baton/v1-load/home/a", r#"{"busy":0.5}"#, Some(31)),
            entry("/baton/v1/home/claims/1/0", "{}", None),
            entry("/baton/v1/home/foo", "{}", None),
            entry("/baton/v1/home/key-mark", r#"{"mark":"00"}"#, None),
            entry("/baton/v1/home/pins-status/a", r#"{"honoured":true,"pin_revision":3}"#, None),
            entry("/baton/v1/home/pins/a", r#"{"cordon": true}"#, None),
            entry("/baton/v1/home/pins/b", "not JSON", None),
            entry("/baton/v1/home/pins/c", r#"{"layers":[9]}"#, None),
            entry("/baton/v1/home/pins/d", r#"{"cordon":true}"#, Some(31)),
        ];
        let made = document(&keyspace, &Snapshot { revision: Revision(9), entries }).unwrap();
        let names = |keys: &[String]| keys.iter().map(|key| key.rsplit_once("home/").unwrap().1.to_owned()).collect();
        let permanent: Vec<String> = names(&made.permanent.iter().map(|kept| kept.key.clone()).collect::<Vec<_>>());
        assert_eq!(permanent, ["key-mark", "pins/a"]);
        let members: Vec<String> = names(&made.members.iter().map(|kept| kept.key.clone()).collect::<Vec<_>>());
        assert_eq!(members, ["a", "claims/1/0", "pins-status/a", "pins/d"]);
        assert_eq!(made.members[0].lease.as_deref(), Some("1f"));
        let left_out: Vec<String> = names(&made.left_out.iter().map(|left| left.key.clone()).collect::<Vec<_>>());
        assert_eq!(left_out, ["foo", "pins/b", "pins/c"]);
        assert_eq!((made.revision, made.permanent[1].bytes().as_slice()), (9, &br#"{"cordon":true}"#[..]));
        let none = document(&keyspace, &Snapshot::default()).unwrap_err().to_string();
        assert!(none.contains("no cluster home: expected keys under /baton/v1/home/"), "{none}");
    }
}
