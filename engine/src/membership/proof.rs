//! Proofs of membership, made with the cluster key. An etcd client without the key cannot write a record that members
//! take for one of theirs. Pure.
//!
//! A proof is a keyed BLAKE3 hash over the record's full key (cluster, kind and name), endpoint, host, process and
//! lease. So a copy of it under another name or lease proves nothing. The mark is a hash of the key alone, for all to
//! see.

use schema::record::{GatewayRecord, KeyMark, Proof, StageRecord};

use crate::link::ClusterKey;
use crate::store::LeaseId;

/// Contexts of key derivation. They separate the values derived here from everything else derived from the same key.
const MARK_CONTEXT: &str = "baton 1 cluster key mark";
const PROOF_CONTEXT: &str = "baton 1 membership proof";
/// Bytes of the mark: enough that two keys never share one.
const MARK_BYTES: usize = 16;

/// A process's identity as its record names it, and the proof that the record carries.
pub(crate) struct Identity<'a> {
    endpoint: &'a str,
    host: &'a str,
    pid: u32,
    lease: &'a str,
    proof: Option<&'a Proof>,
}

/// The reason for which a record proves no membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProofError {
    /// The record of a process without a key, or of an older version.
    #[error("it carries no proof of the cluster key: expected one, as processes with the cluster's key write it")]
    Missing,
    /// The proof was made with another key, or copied.
    #[error("its proof was made with another cluster key, or for another name, endpoint, process or lease")]
    Wrong,
    /// The record was copied under another lease.
    #[error("it does not lie under the lease that its proof is about")]
    Lease,
}

// === impl Identity ===

impl<'a> Identity<'a> {
    pub(crate) fn of_stage(record: &'a StageRecord) -> Self {
        let proof = record.proof.as_ref();
        Self { endpoint: &record.endpoint, host: &record.host, pid: record.pid, lease: &record.lease, proof }
    }

    pub(crate) fn of_gateway(record: &'a GatewayRecord) -> Self {
        let proof = record.proof.as_ref();
        Self { endpoint: &record.endpoint, host: &record.host, pid: record.pid, lease: &record.lease, proof }
    }

    /// The proof for the record whose full key is `key`.
    pub(crate) fn prove(&self, secret: &ClusterKey, key: &str) -> Proof {
        let derived = blake3::derive_key(PROOF_CONTEXT, secret.bytes());
        let mut hasher = blake3::Hasher::new_keyed(&derived);
        let pid = self.pid.to_string();
        // Each field follows its length, so that no two lists of fields are the same bytes.
        for field in [key, self.endpoint, self.host, &pid, self.lease] {
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field.as_bytes());
        }
        Proof(hasher.finalize().to_hex().to_string())
    }

    /// Checks the proof of a record found at the full key `key` under the lease `lies_under`.
    pub(crate) fn check(&self, secret: &ClusterKey, key: &str, lies_under: Option<LeaseId>) -> Result<(), ProofError> {
        let proof = self.proof.ok_or(ProofError::Missing)?;
        if *proof != self.prove(secret, key) {
            return Err(ProofError::Wrong);
        }
        let is_own_lease = lies_under.is_some_and(|lease| lease.to_string() == self.lease);
        if is_own_lease { Ok(()) } else { Err(ProofError::Lease) }
    }
}

/// Writes `lease` into `record`, which belongs at the full key `key`, and its proof if there is a cluster key.
pub(crate) fn sign_stage(record: &mut StageRecord, secret: Option<&ClusterKey>, key: &str, lease: LeaseId) {
    record.lease = lease.to_string();
    record.proof = secret.map(|secret| Identity::of_stage(record).prove(secret, key));
}

/// The same for a gateway.
pub(crate) fn sign_gateway(record: &mut GatewayRecord, secret: Option<&ClusterKey>, key: &str, lease: LeaseId) {
    record.lease = lease.to_string();
    record.proof = secret.map(|secret| Identity::of_gateway(record).prove(secret, key));
}

/// The public mark of `secret`.
pub fn mark_of(secret: &ClusterKey) -> KeyMark {
    let digest = blake3::derive_key(MARK_CONTEXT, secret.bytes());
    KeyMark { mark: digest[..MARK_BYTES].iter().map(|byte| format!("{byte:02x}")).collect() }
}

#[cfg(test)]
mod tests {
    use schema::{Key, Keyspace};

    use super::*;
    use crate::testing::{name, stage};

    #[test]
    fn a_proof_holds_for_one_name_process_and_lease_and_for_one_key() {
        let (secret, other) = (ClusterKey::generate().unwrap(), ClusterKey::generate().unwrap());
        let key_of = |cluster: &str, stage| Keyspace::new(&cluster.parse().unwrap()).name(&Key::Stage(name(stage)));
        let key = key_of("home", "a");
        let lease = LeaseId(0x77);
        let record = StageRecord { lease: lease.to_string(), ..stage(1) };
        let proof = Some(Identity::of_stage(&record).prove(&secret, &key));
        let record = StageRecord { proof, ..record };
        let identity = Identity::of_stage(&record);
        let check =
            |identity: &Identity<'_>, secret, key: &str, lease| identity.check(secret, key, Some(LeaseId(lease))).err();
        assert_eq!(check(&identity, &secret, &key, 0x77), None);
        assert_eq!(check(&identity, &other, &key, 0x77), Some(ProofError::Wrong));
        assert_eq!(check(&identity, &secret, &key_of("home", "b"), 0x77), Some(ProofError::Wrong));
        assert_eq!(check(&identity, &secret, &key_of("other", "a"), 0x77), Some(ProofError::Wrong));
        assert_eq!(check(&identity, &secret, &key, 0x78), Some(ProofError::Lease), "a copy");
        for changed in [
            StageRecord { endpoint: "ipc:///else".to_owned(), ..record.clone() },
            StageRecord { host: "else".to_owned(), ..record.clone() },
            StageRecord { pid: 2, ..record.clone() },
            StageRecord { lease: "78".to_owned(), ..record.clone() },
        ] {
            let identity = Identity::of_stage(&changed);
            assert_eq!(check(&identity, &secret, &key, 0x77), Some(ProofError::Wrong), "{changed:?}");
        }
        let without = StageRecord { proof: None, ..record.clone() };
        assert_eq!(check(&Identity::of_stage(&without), &secret, &key, 0x77), Some(ProofError::Missing));
    }

    #[test]
    fn a_mark_differs_by_key_and_does_not_show_it() {
        let (one, other) = (ClusterKey::generate().unwrap(), ClusterKey::generate().unwrap());
        assert_eq!(mark_of(&one), mark_of(&one.clone()));
        assert_ne!(mark_of(&one), mark_of(&other));
        assert_eq!(mark_of(&one).mark.len(), 32);
        assert!(!one.to_hex().contains(&mark_of(&one).mark));
    }
}
