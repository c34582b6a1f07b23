//! Striking off who is gone: where nobody listens any more, the process has ended, and its lease would only say so later.
//! Where nothing is heard it has stopped, or the way to it is cut, which its lease might never say.

use std::collections::BTreeMap;
use std::time::Instant;

use schema::record::EvictionRecord;
use schema::{Keyspace, StageName};

use super::writes::{evict, forget_evictions};
use crate::limits::{EVICT_AGAIN, QUARANTINE_FORGOTTEN};
use crate::link::{Absence, Unreachable};
use crate::store::{LeaseId, Txn};
use crate::view::ClusterView;

/// Who was struck off when: a process that turns out to be alive is left alone for a while.
#[derive(Debug, Default)]
pub(crate) struct Evictions {
    last: BTreeMap<Process, Instant>,
    /// Why that was said in the store, and when.
    told: BTreeMap<StageName, Instant>,
    /// When one was struck off last because nothing was heard of it, if nobody else was heard since.
    silent: Option<Instant>,
}

/// One run of a stage, as far as others can tell: the stage, where it takes frames, and its number in its system.
type Process = (StageName, String, u32);

// === impl Evictions ===

impl Evictions {
    /// Evictions off the stage whose claim says that it takes frames where `found` shows that they cannot be brought, and says
    /// why, as `by` under its lease. `None` when there is no such claim, or the stage was struck off a moment ago: then its lease
    /// has to tell. So it has when another one could not be reached either, unless its own system said that it is gone: perhaps
    /// it is us whom nobody hears.
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

    /// Takes what was said of evictions out of the store when it has stood there for long.
    pub(crate) fn forget(&mut self, keyspace: &Keyspace, view: &ClusterView, now: Instant) -> Option<Txn> {
        let is_old = |told: &Instant| now.saturating_duration_since(*told) >= QUARANTINE_FORGOTTEN;
        let old: Vec<_> = self.told.iter().filter(|(_, told)| is_old(told)).map(|(stage, _)| stage.clone()).collect();
        self.told.retain(|_, told| !is_old(told));
        let old: Vec<_> = old.into_iter().filter(|stage| view.evictions.contains_key(stage)).collect();
        (!old.is_empty()).then(|| forget_evictions(keyspace, &old))
    }

    /// Somebody was reached: it is not us whom nobody hears.
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
