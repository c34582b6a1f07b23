//! Eviction of stages that are gone. If nothing listens at a stage's endpoint, its process has ended, and its lease
//! would only show that later. If nothing is received from it, the process has stopped or the way to it is cut, which
//! its lease might never show.

use std::collections::BTreeMap;
use std::time::Instant;

use schema::record::EvictionRecord;
use schema::{Keyspace, StageName};

use super::writes::{evict, forget_evictions};
use crate::limits::{EVICT_AGAIN, QUARANTINE_FORGOTTEN};
use crate::link::{Absence, Unreachable};
use crate::store::{LeaseId, Txn};
use crate::view::ClusterView;

/// The evictions by this process. A process that turns out to be alive is left alone for a while.
#[derive(Debug, Default)]
pub(crate) struct Evictions {
    last: BTreeMap<Process, Instant>,
    /// The time at which this process wrote each stage's eviction record.
    told: BTreeMap<StageName, Instant>,
    /// The time of the last eviction of a silent peer. `None` once another peer was reached.
    silent: Option<Instant>,
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
        let Unreachable { endpoint, absence, cause } = found;
        let lately = |last: Instant| now.saturating_duration_since(last) < EVICT_AGAIN;
        self.last.retain(|_, last| lately(*last));
        let (id, claim) = view.claims.iter().rev().find(|(_, claim)| claim.value.endpoint == *endpoint)?;
        let is_silent = *absence != Absence::Refused;
        let stage = &claim.value.stage;
        let process = (stage.clone(), endpoint.clone(), view.stages.get(stage).map_or(0, |stage| stage.value.pid));
        if self.last.contains_key(&process) || (is_silent && self.silent.is_some_and(lately)) {
            return None;
        }
        self.silent = is_silent.then_some(now).or(self.silent);
        self.last.insert(process, now);
        self.told.insert(stage.clone(), now);
        let why = EvictionRecord { by, endpoint: endpoint.clone(), cause: cause.clone() };
        Some(evict(keyspace, stage, (*id, claim.mod_revision), &why, lease))
    }

    /// Deletes this process's eviction records from the store once they are [`QUARANTINE_FORGOTTEN`] old.
    pub(crate) fn forget(&mut self, keyspace: &Keyspace, view: &ClusterView, now: Instant) -> Option<Txn> {
        let is_old = |told: &Instant| now.saturating_duration_since(*told) >= QUARANTINE_FORGOTTEN;
        let old: Vec<_> = self.told.iter().filter(|(_, told)| is_old(told)).map(|(stage, _)| stage.clone()).collect();
        self.told.retain(|_, told| !is_old(told));
        let old: Vec<_> = old.into_iter().filter(|stage| view.evictions.contains_key(stage)).collect();
        (!old.is_empty()).then(|| forget_evictions(keyspace, &old))
    }

    /// Notes that a peer was reached: this process is not the one that is cut off.
    pub(crate) fn reached(&mut self) {
        self.silent = None;
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

    fn found(endpoint: &str, absence: Absence) -> Unreachable {
        Unreachable { endpoint: endpoint.to_owned(), absence, cause: String::new() }
    }

    #[test]
    fn who_hears_nothing_of_two_strikes_off_one_and_who_was_struck_off_is_left_alone_for_a_while() {
        let (mut evictions, keyspace, now) =
            (Evictions::default(), Keyspace::new(&"home".parse().expect("a legal name")), Instant::now());
        let mut evict = |endpoint, absence, seconds| {
            let at = now + Duration::from_secs(seconds);
            evictions.evict(&keyspace, &view(), &found(endpoint, absence), ("a".to_owned(), LeaseId(7)), at).is_some()
        };
        assert!(!evict("ipc:///9", Absence::Refused, 0), "no such claim");
        assert!(evict("ipc:///0", Absence::Silence, 0));
        assert!(!evict("ipc:///0", Absence::Silence, 3) && !evict("ipc:///0", Absence::Refused, 3));
        assert!(!evict("ipc:///1", Absence::Silence, 3), "it is we whom nobody hears");
        assert!(evict("ipc:///1", Absence::Refused, 3), "its system says so");
        assert!(evict("ipc:///0", Absence::Silence, EVICT_AGAIN.as_secs()));
        evictions.reached();
        let at = now + EVICT_AGAIN + Duration::from_secs(4);
        let silent = found("ipc:///1", Absence::Silence);
        assert!(evictions.evict(&keyspace, &view(), &silent, ("a".to_owned(), LeaseId(7)), at).is_some());
    }
}
