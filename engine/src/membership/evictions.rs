//! Eviction of stages that are gone. If nothing listens at a stage's endpoint, its process has ended, and its lease
//! would only show that later. If nothing is received from it, the process has stopped or the way to it is cut, which
//! its lease might never show.

use std::collections::BTreeMap;
use std::time::Instant;

use schema::record::EvictionRecord;
use schema::{Keyspace, StageName};

use super::writes::{delete_evictions, evict};
use crate::limits::{EVICT_AGAIN, QUARANTINE_FORGOTTEN};
use crate::link::{Unreachable, UnreachableKind};
use crate::store::{LeaseId, Txn};
use crate::view::ClusterView;

/// The evictions by this process. A process that turns out to be alive is left alone for a while.
#[derive(Debug, Default)]
pub(crate) struct Evictions {
    last: BTreeMap<Process, Instant>,
    /// The time at which this process wrote each stage's eviction record.
    recorded_at: BTreeMap<StageName, Instant>,
    /// The time of the last eviction of a silent peer. `None` once another peer was reached.
    last_silent: Option<Instant>,
}

/// One run of a stage, as far as others can tell: the stage, its endpoint, and its process id on its host.
type Process = (StageName, String, u32);

// === impl Evictions ===

impl Evictions {
    /// Evicts the stage whose claim has the endpoint of `found`, where frames cannot reach it. Records the reason, as
    /// `by` under `lease`. `None` if there is no such claim, or if the stage was evicted less than [`EVICT_AGAIN`] ago:
    /// then only its lease decides. `None` also if another peer could not be reached in that time and none was reached
    /// since, because this process itself may be cut off. A refused connection needs no such caution: there the peer's
    /// own system has answered.
    pub(crate) fn evict(
        &mut self,
        keyspace: &Keyspace,
        view: &ClusterView,
        found: &Unreachable,
        (by, lease): (String, LeaseId),
        now: Instant,
    ) -> Option<Txn> {
        let Unreachable { endpoint, kind, cause } = found;
        let lately = |last: Instant| now.saturating_duration_since(last) < EVICT_AGAIN;
        self.last.retain(|_, last| lately(*last));
        let (id, claim) = view.claims.iter().rev().find(|(_, claim)| claim.value.endpoint == *endpoint)?;
        let is_silent = *kind != UnreachableKind::Refused;
        let stage = &claim.value.stage;
        let process = (stage.clone(), endpoint.clone(), view.stages.get(stage).map_or(0, |stage| stage.value.pid));
        if self.last.contains_key(&process) || (is_silent && self.last_silent.is_some_and(lately)) {
            return None;
        }
        self.last_silent = is_silent.then_some(now).or(self.last_silent);
        self.last.insert(process, now);
        self.recorded_at.insert(stage.clone(), now);
        let why = EvictionRecord { by, endpoint: endpoint.clone(), cause: cause.clone() };
        Some(evict(keyspace, stage, (*id, claim.mod_revision), &why, lease))
    }

    /// Deletes this process's eviction records from the store once they are [`QUARANTINE_FORGOTTEN`] old.
    pub(crate) fn forget(&mut self, keyspace: &Keyspace, view: &ClusterView, now: Instant) -> Option<Txn> {
        let is_old = |recorded: &Instant| now.saturating_duration_since(*recorded) >= QUARANTINE_FORGOTTEN;
        let old: Vec<_> =
            self.recorded_at.iter().filter(|(_, recorded)| is_old(recorded)).map(|(stage, _)| stage.clone()).collect();
        self.recorded_at.retain(|_, recorded| !is_old(recorded));
        let old: Vec<_> = old.into_iter().filter(|stage| view.evictions.contains_key(stage)).collect();
        (!old.is_empty()).then(|| delete_evictions(keyspace, &old))
    }

    /// Notes that a peer was reached: this process is not the one that is cut off.
    pub(crate) fn reached(&mut self) {
        self.last_silent = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use schema::record::{ClaimState, Shard};
    use schema::{Generation, LayerRange};

    use super::*;
    use crate::testing::{claim_of, name};
    use crate::view::Versioned;

    fn view() -> ClusterView {
        let claim = |at: u32| {
            let shard = Shard { stage: name(["a", "b"][at as usize]), layers: LayerRange::new(at, at + 1).unwrap() };
            claim_of(&shard, &format!("ipc:///{at}"), ClaimState::Serving)
        };
        let versioned = |at| ((Generation(1), at), Versioned { value: claim(at), mod_revision: 7 });
        ClusterView { claims: [versioned(0), versioned(1)].into(), ..ClusterView::default() }
    }

    fn found(endpoint: &str, kind: UnreachableKind) -> Unreachable {
        Unreachable { endpoint: endpoint.to_owned(), kind, cause: String::new() }
    }

    #[test]
    fn of_two_silent_stages_one_is_evicted_and_no_stage_twice_in_a_row() {
        let (mut evictions, keyspace, now) =
            (Evictions::default(), Keyspace::new(&"home".parse().expect("a legal name")), Instant::now());
        let mut evict = |endpoint, kind, seconds| {
            let at = now + Duration::from_secs(seconds);
            evictions.evict(&keyspace, &view(), &found(endpoint, kind), ("a".to_owned(), LeaseId(7)), at).is_some()
        };
        assert!(!evict("ipc:///9", UnreachableKind::Refused, 0), "no such claim");
        assert!(evict("ipc:///0", UnreachableKind::Silence, 0));
        assert!(!evict("ipc:///0", UnreachableKind::Silence, 3) && !evict("ipc:///0", UnreachableKind::Refused, 3));
        assert!(!evict("ipc:///1", UnreachableKind::Silence, 3), "this process may be the one that is cut off");
        assert!(evict("ipc:///1", UnreachableKind::Refused, 3), "its system refuses the connection");
        assert!(evict("ipc:///0", UnreachableKind::Silence, EVICT_AGAIN.as_secs()));
        evictions.reached();
        let at = now + EVICT_AGAIN + Duration::from_secs(4);
        let silent = found("ipc:///1", UnreachableKind::Silence);
        assert!(evictions.evict(&keyspace, &view(), &silent, ("a".to_owned(), LeaseId(7)), at).is_some());
    }
}
