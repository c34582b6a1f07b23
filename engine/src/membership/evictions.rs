//! Eviction of stages that frames cannot reach: a peer deletes the stage's record and claim from the store. If
//! nothing listens at a stage's endpoint, its process has ended, but its records would stay until its lease expires. If
//! nothing is received from a stage, its process has stopped or the network to it is cut. A stage that can still reach
//! the store renews its lease all the same. A stage that does not claim the slot that it was given is evicted, too: it
//! cannot write to the store, though its lease, which may be long, has not expired.

use std::collections::BTreeMap;
use std::time::Instant;

use schema::record::EvictionRecord;
use schema::{ClaimId, Keyspace, StageName};

use super::writes::{delete_evictions, evict, evict_unclaimed};
use crate::limits::{CLAIM_WAIT_MAX, EVICT_AGAIN, QUARANTINE_FORGOTTEN};
use crate::link::{Unreachable, UnreachableKind};
use crate::store::{LeaseId, Txn};
use crate::view::ClusterView;

/// The evictions by this process. A stage that turns out to be alive is not evicted again for [`EVICT_AGAIN`].
#[derive(Debug, Default)]
pub(crate) struct Evictions {
    /// The time of the last eviction of each process, for those less than [`EVICT_AGAIN`] ago.
    evicted_at: BTreeMap<Process, Instant>,
    /// The time at which this process wrote each stage's eviction record.
    recorded_at: BTreeMap<StageName, Instant>,
    /// The time of the last eviction of a silent peer. `None` once another peer was reached.
    last_silent: Option<Instant>,
    /// The first slot that its stage has not claimed, and the time since which this process has seen it so.
    unclaimed: Option<(Slot, Instant)>,
}

/// A slot of the placement and the stage that it is given to.
type Slot = (ClaimId, StageName);

/// One run of a stage, as far as others can tell: the stage, its endpoint, and its process id on its host.
type Process = (StageName, String, u32);

// === impl Evictions ===

impl Evictions {
    /// The transaction that evicts the stage whose claim has the endpoint of `found`. It also writes an eviction record
    /// with the cause and with `by`, the name of this process, under this process's `lease`.
    ///
    /// `None` in three cases. No claim has the endpoint. Or this process evicted the stage less than [`EVICT_AGAIN`]
    /// ago: then the stage goes only if its lease expires. Or the peer is silent, this process evicted another silent
    /// one less than [`EVICT_AGAIN`] ago, and it has reached none since: then this process itself may be cut off. The
    /// last does not hold for a refused connection, because there the peer's own system has answered.
    pub(crate) fn evict(
        &mut self,
        keyspace: &Keyspace,
        view: &ClusterView,
        found: &Unreachable,
        by: String,
        lease: LeaseId,
        now: Instant,
    ) -> Option<Txn> {
        let Unreachable { endpoint, kind, cause } = found;
        let lately = |last: Instant| now.saturating_duration_since(last) < EVICT_AGAIN;
        self.evicted_at.retain(|_, last| lately(*last));
        // Newest generation first: a stage that was placed again has a newer claim with the same endpoint.
        let (id, claim) = view.claims.iter().rev().find(|(_, claim)| claim.value.endpoint == *endpoint)?;
        let is_silent = *kind != UnreachableKind::Refused;
        let stage = &claim.value.stage;
        let process = (stage.clone(), endpoint.clone(), view.stages.get(stage).map_or(0, |stage| stage.value.pid));
        if self.evicted_at.contains_key(&process) || (is_silent && self.last_silent.is_some_and(lately)) {
            return None;
        }
        self.last_silent = is_silent.then_some(now).or(self.last_silent);
        self.evicted_at.insert(process, now);
        self.recorded_at.insert(stage.clone(), now);
        let why = EvictionRecord { by, endpoint: endpoint.clone(), cause: cause.clone() };
        Some(evict(keyspace, stage, *id, claim.mod_revision, &why, lease))
    }

    /// The transaction that evicts the stage of the first slot of the placement that has been without a claim for
    /// [`CLAIM_WAIT_MAX`]. `None` if that is the slot of this stage, `me`, or if it was evicted less than
    /// [`EVICT_AGAIN`] ago.
    pub(crate) fn evict_unclaimed(
        &mut self,
        keyspace: &Keyspace,
        view: &ClusterView,
        me: &StageName,
        lease: LeaseId,
        now: Instant,
    ) -> Option<Txn> {
        let slot = unclaimed(view).filter(|(_, stage)| stage != me);
        let seen = self.unclaimed.take().filter(|(seen, _)| Some(seen) == slot.as_ref());
        let ((id, stage), since) = self.unclaimed.insert(seen.or_else(|| Some((slot?, now)))?);
        let record = view.stages.get(stage)?;
        let process = (stage.clone(), record.value.endpoint.clone(), record.value.pid);
        let lately = |last: &Instant| now.saturating_duration_since(*last) < EVICT_AGAIN;
        let is_late = now.saturating_duration_since(*since) >= CLAIM_WAIT_MAX;
        if !is_late || self.evicted_at.get(&process).is_some_and(lately) {
            return None;
        }
        let why = EvictionRecord {
            by: format!("stage {me}"),
            endpoint: record.value.endpoint.clone(),
            cause: format!("it has not claimed slot {} of placement {} for {CLAIM_WAIT_MAX:?}", id.slot, id.generation),
        };
        self.evicted_at.insert(process, now);
        self.recorded_at.insert(stage.clone(), now);
        Some(evict_unclaimed(keyspace, stage, record.mod_revision, *id, &why, lease))
    }

    /// The transaction that deletes the eviction records that this process, `by`, wrote [`QUARANTINE_FORGOTTEN`] ago or
    /// earlier, unless another process has evicted the stage since. `None` if there is nothing to delete.
    pub(crate) fn forget(&mut self, keyspace: &Keyspace, view: &ClusterView, by: &str, now: Instant) -> Option<Txn> {
        let is_old = |recorded: &Instant| now.saturating_duration_since(*recorded) >= QUARANTINE_FORGOTTEN;
        let old: Vec<_> =
            self.recorded_at.iter().filter(|(_, recorded)| is_old(recorded)).map(|(stage, _)| stage.clone()).collect();
        self.recorded_at.retain(|_, recorded| !is_old(recorded));
        let own = |stage: StageName| {
            let record = view.evictions.get(&stage).filter(|record| record.value.by == by)?;
            Some((stage, record.mod_revision))
        };
        let old: Vec<_> = old.into_iter().filter_map(own).collect();
        (!old.is_empty()).then(|| delete_evictions(keyspace, &old))
    }

    /// Notes that a peer was reached: this process is not the one that is cut off.
    pub(crate) fn reached(&mut self) {
        self.last_silent = None;
    }
}

/// The first slot of the placement that has no claim, though its stage is live.
fn unclaimed(view: &ClusterView) -> Option<Slot> {
    let placement = &view.placement.as_ref()?.value;
    let slots = (0..).zip(placement.shards());
    let mut slots = slots.map(|(slot, shard)| (ClaimId::new(placement.generation(), slot), shard.stage.clone()));
    slots.find(|(id, stage)| !view.claims.contains_key(id) && view.stages.contains_key(stage))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use schema::record::{ClaimState, Placement, Shard};
    use schema::{Generation, LayerRange};

    use super::*;
    use crate::testing::{claim_of, name, stage};
    use crate::view::Versioned;

    fn view() -> ClusterView {
        let claim = |at: u32| {
            let shard = Shard { stage: name(["a", "b"][at as usize]), layers: LayerRange::new(at, at + 1).unwrap() };
            claim_of(&shard, &format!("ipc:///{at}"), ClaimState::Serving)
        };
        let versioned = |at| (ClaimId::new(Generation(1), at), Versioned { value: claim(at), mod_revision: 7 });
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
            evictions.evict(&keyspace, &view(), &found(endpoint, kind), "a".to_owned(), LeaseId(7), at).is_some()
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
        assert!(evictions.evict(&keyspace, &view(), &silent, "a".to_owned(), LeaseId(7), at).is_some());
    }

    #[test]
    fn a_stage_that_leaves_its_slot_unclaimed_is_evicted_by_the_others() {
        let (keyspace, now) = (Keyspace::new(&"home".parse().unwrap()), Instant::now());
        let shard =
            |at: u32| Shard { stage: name(["a", "b"][at as usize]), layers: LayerRange::new(at, at + 1).unwrap() };
        let placement = Placement::new(Generation(1), vec![shard(0), shard(1)]).unwrap();
        let versioned = |stage_name| (name(stage_name), Versioned { value: stage(1), mod_revision: 9 });
        let claimed = ClusterView {
            placement: Some(Versioned { value: placement, mod_revision: 3 }),
            stages: ["a", "b"].map(versioned).into(),
            ..view()
        };
        let unclaimed = |slot| {
            let mut view = claimed.clone();
            view.claims.remove(&ClaimId::new(Generation(1), slot));
            view
        };
        let mut evictions = Evictions::default();
        let mut evict = |view: &ClusterView, me, after| {
            evictions.evict_unclaimed(&keyspace, view, &name(me), LeaseId(7), now + after)
        };
        let second = Duration::from_secs(1);
        assert!(evict(&unclaimed(1), "a", Duration::ZERO).is_none() && evict(&unclaimed(1), "a", second).is_none());
        assert!(evict(&claimed, "a", 2 * second).is_none(), "it has claimed");
        assert!(evict(&unclaimed(1), "a", CLAIM_WAIT_MAX).is_none(), "the claim was deleted just now");
        assert!(evict(&unclaimed(1), "b", 9 * second).is_none(), "no stage evicts itself for it");
        assert!(evict(&unclaimed(1), "a", 9 * second).is_none(), "seen anew");
        let txn = evict(&unclaimed(1), "a", 9 * second + CLAIM_WAIT_MAX).expect("an eviction");
        assert_eq!((txn.compares.len(), txn.writes.len()), (2, 2));
        assert!(evict(&unclaimed(1), "a", 10 * second + CLAIM_WAIT_MAX).is_none(), "not twice in a row");
    }

    #[test]
    fn an_own_eviction_record_is_deleted_when_it_is_old_and_that_of_another_process_stays() {
        let (keyspace, now) = (Keyspace::new(&"test".parse().unwrap()), Instant::now());
        let record = |by: &str| EvictionRecord { by: by.to_owned(), endpoint: String::new(), cause: String::new() };
        let shown = |by| ClusterView {
            evictions: [(name("a"), Versioned { value: record(by), mod_revision: 5 })].into(),
            ..view()
        };
        let evicted = || {
            let mut evictions = Evictions::default();
            let gone = found("ipc:///0", UnreachableKind::Refused);
            assert!(evictions.evict(&keyspace, &view(), &gone, "x".to_owned(), LeaseId(7), now).is_some());
            evictions
        };
        let old = now + QUARANTINE_FORGOTTEN;
        assert!(evicted().forget(&keyspace, &shown("x"), "x", old - Duration::from_secs(1)).is_none());
        let mut evictions = evicted();
        let txn = evictions.forget(&keyspace, &shown("x"), "x", old).expect("a deletion");
        assert_eq!((txn.compares.len(), txn.writes.len()), (1, 1));
        assert!(evictions.forget(&keyspace, &shown("x"), "x", old).is_none(), "each is deleted once");
        assert!(evicted().forget(&keyspace, &shown("y"), "x", old).is_none(), "another process has evicted it since");
    }
}
