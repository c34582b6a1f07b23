//! Admission of a process to its cluster: it speaks the protocol of those who are alive there, and has their key.

use schema::{Keyspace, Protocol};

use super::key_mark::{KeyMismatch, mark_to_write};
use super::publisher::read_view;
use crate::link::ClusterKey;
use crate::store::{SharedStore, StoreError};
use crate::view::ClusterView;

/// Attempts to write a mark. An attempt fails if another process was faster and has written one.
const TRIES: usize = 8;

/// The reason for which a process cannot be a member of the cluster that it was started for.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// The members speak another protocol.
    #[error(transparent)]
    Protocol(#[from] OtherProtocol),
    /// The keys do not match.
    #[error(transparent)]
    Key(#[from] KeyMismatch),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A member that is alive speaks another protocol than this process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{member} is of baton {version} and speaks protocol {found}: this is baton {own}, which speaks protocol {}; start \
     the same version on every machine (a process that was killed counts as alive for its lease time), or serve beside \
     it with --cluster NAME",
    Protocol::CURRENT,
    own = env!("CARGO_PKG_VERSION")
)]
pub struct OtherProtocol {
    /// The member, as people know it.
    pub member: String,
    /// Its version of baton.
    pub version: String,
    /// Its protocol.
    pub found: Protocol,
}

/// Checks that every member in `view` speaks this process's protocol.
///
/// # Errors
/// [`OtherProtocol`] with the first one that speaks another.
fn check_protocol(view: &ClusterView) -> Result<(), OtherProtocol> {
    let stages = view.stages.iter().map(|(name, stage)| {
        let record = &stage.value;
        (format!("stage {name} on {}", record.host), &record.version, record.protocol)
    });
    let gateways = view.gateways.values().map(|gateway| {
        let record = &gateway.value;
        (format!("the gateway at {}", record.url), &record.version, record.protocol)
    });
    let other = stages.chain(gateways).find(|(.., protocol)| *protocol != Protocol::CURRENT);
    other.map_or(Ok(()), |(member, version, found)| {
        Err(OtherProtocol { member, version: version.chars().take(VERSION_CHARS_MAX).collect(), found })
    })
}

/// Most characters of a version that a message shows.
const VERSION_CHARS_MAX: usize = 32;

/// Admits this process to the cluster of `keyspace`: compares protocols and marks of keys, and writes the mark of
/// `secret` if there is none.
///
/// # Errors
/// [`AdmissionError`] if a member speaks another protocol, if the cluster has another key, or if the store is away.
pub async fn admit(
    store: &SharedStore,
    keyspace: &Keyspace,
    secret: Option<&ClusterKey>,
) -> Result<(), AdmissionError> {
    for _ in 0..TRIES {
        let view = read_view(store, keyspace, secret).await?;
        check_protocol(&view)?;
        let Some(txn) = mark_to_write(keyspace, &view, secret)? else { return Ok(()) };
        store.commit(txn).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use schema::record::{GatewayRecord, StageRecord};

    use super::*;
    use crate::testing::{name, stage};
    use crate::view::Versioned;

    #[test]
    fn a_member_of_another_protocol_is_named_with_both_versions_and_another_version_of_the_same_protocol_is_welcome() {
        let mut view = ClusterView::default();
        assert_eq!(check_protocol(&view), Ok(()));
        let older = StageRecord { version: "0.0.9".to_owned(), host: "mini-1".to_owned(), ..stage(1) };
        let value = StageRecord { protocol: Protocol::CURRENT, ..older.clone() };
        view.stages.insert(name("a"), Versioned { value, mod_revision: 1 });
        assert_eq!(check_protocol(&view), Ok(()));
        let value = StageRecord { protocol: Protocol(3), ..older };
        view.stages.insert(name("b"), Versioned { value, mod_revision: 2 });
        let text = check_protocol(&view).unwrap_err().to_string();
        let expected = format!(
            "stage b on mini-1 is of baton 0.0.9 and speaks protocol 3: this is baton {}, which speaks protocol 4; ",
            env!("CARGO_PKG_VERSION")
        );
        assert!(text.starts_with(&expected), "{text}");
    }

    #[test]
    fn a_gateway_of_a_later_protocol_is_found_and_its_version_cut() {
        let record = GatewayRecord::new("mini-2", "http://mini-2:8100".to_owned());
        let value = GatewayRecord { protocol: Protocol(5), version: "9".repeat(5000), ..record };
        let gateways = [(0, Versioned { value, mod_revision: 1 })].into();
        let error = check_protocol(&ClusterView { gateways, ..ClusterView::default() }).unwrap_err();
        assert_eq!((error.member.as_str(), error.found), ("the gateway at http://mini-2:8100", Protocol(5)));
        assert_eq!(error.version.len(), VERSION_CHARS_MAX);
    }
}
