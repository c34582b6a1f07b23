//! The public mark of the cluster key: the first process with a key writes it, and the others compare it with theirs. A
//! cluster has one key or none.

use schema::record::KeyMark;
use schema::{Key, Keyspace};

use super::proof::mark_of;
use super::writes::write_key_mark;
use crate::link::ClusterKey;
use crate::store::Txn;
use crate::view::ClusterView;

/// The reason for which a process is no member of the cluster that it was started for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyMismatch {
    /// The two keys differ.
    #[error(
        "the cluster has another key: its mark is {expected}, that of this process's key is {found}; give every \
         process the same key, in BATON_CLUSTER_KEY or with --cluster-key-file"
    )]
    Other {
        /// The mark in the store.
        expected: KeyMark,
        /// The mark of this process's key.
        found: KeyMark,
    },
    /// The cluster has a key and this process has none.
    #[error(
        "the cluster has a key, whose mark is {expected}, and this process has none: give it the cluster's key, in \
         BATON_CLUSTER_KEY or with --cluster-key-file"
    )]
    Missing {
        /// The mark in the store.
        expected: KeyMark,
    },
    /// This process has a key and the other members have none.
    #[error(
        "this process has a cluster key, and {members} of the same cluster have none: stop them and start them with \
         the key, or start this one without"
    )]
    Alone {
        /// Some of the members without a key.
        members: String,
    },
}

/// The transaction that writes the mark of `secret` into the store, if it is missing there. `view` was read with
/// `secret`.
///
/// # Errors
/// [`KeyMismatch`] if the cluster has another key, or if only one of the two has a key.
pub(crate) fn mark_to_write(
    keyspace: &Keyspace,
    view: &ClusterView,
    secret: Option<&ClusterKey>,
) -> Result<Option<Txn>, KeyMismatch> {
    let found = secret.map(mark_of);
    let expected = view.key_mark.as_ref().map(|mark| mark.value.clone());
    match (found, expected) {
        (None, None) => Ok(None),
        (Some(found), Some(expected)) if found == expected => Ok(None),
        (Some(found), Some(expected)) => Err(KeyMismatch::Other { expected, found }),
        (None, Some(expected)) => Err(KeyMismatch::Missing { expected }),
        (Some(mark), None) => {
            // Members that proved the key show that their mark was deleted.
            let has_members = !view.stages.is_empty() || !view.gateways.is_empty();
            if let Some((stage, _)) = view.unproven_stages.first_key_value().filter(|_| !has_members) {
                return Err(KeyMismatch::Alone { members: format!("stage {stage} and perhaps others") });
            }
            let unusable = view.unusable_revision(&Key::KeyMark);
            Ok(Some(write_key_mark(keyspace, &mark, unusable)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{name, stage};
    use crate::view::Versioned;

    fn keyspace() -> Keyspace {
        Keyspace::new(&"home".parse().unwrap())
    }

    fn marked(mark: KeyMark) -> ClusterView {
        ClusterView { key_mark: Some(Versioned { value: mark, mod_revision: 3 }), ..ClusterView::default() }
    }

    #[test]
    fn the_first_key_sets_the_mark_and_another_or_none_is_refused() {
        let (secret, other) = (ClusterKey::generate().unwrap(), ClusterKey::generate().unwrap());
        let empty = ClusterView::default();
        assert!(matches!(mark_to_write(&keyspace(), &empty, Some(&secret)), Ok(Some(_))));
        assert_eq!(mark_to_write(&keyspace(), &empty, None), Ok(None));
        let view = marked(mark_of(&secret));
        assert_eq!(mark_to_write(&keyspace(), &view, Some(&secret)), Ok(None));
        assert!(matches!(mark_to_write(&keyspace(), &view, Some(&other)), Err(KeyMismatch::Other { .. })));
        assert!(matches!(mark_to_write(&keyspace(), &view, None), Err(KeyMismatch::Missing { .. })));
    }

    #[test]
    fn a_cluster_without_a_key_accepts_none_and_a_lost_mark_is_written_again() {
        let secret = ClusterKey::generate().unwrap();
        let unproven = Versioned { value: "no proof".to_owned(), mod_revision: 1 };
        let keyless = ClusterView { unproven_stages: [(name("a"), unproven.clone())].into(), ..ClusterView::default() };
        let error = mark_to_write(&keyspace(), &keyless, Some(&secret)).unwrap_err().to_string();
        assert!(error.contains("stage a and perhaps others"), "{error}");
        let member = Versioned { value: stage(1), mod_revision: 1 };
        let lost = ClusterView { stages: [(name("b"), member)].into(), ..keyless };
        assert!(matches!(mark_to_write(&keyspace(), &lost, Some(&secret)), Ok(Some(_))));
    }
}
