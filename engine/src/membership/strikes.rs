//! Striking off who is gone: where nobody listens any more, the process has ended, and its lease would only say so later.
//! Where nothing is heard it has stopped, or the way to it is cut, which its lease might never say.

use std::collections::BTreeMap;
use std::time::Instant;

use schema::{Keyspace, StageName};

use super::writes::strike;
use crate::limits::STRIKE_AGAIN;
use crate::link::Absence;
use crate::store::Txn;
use crate::view::ClusterView;

/// Who was struck off when: a process that turns out to be alive is left alone for a while.
#[derive(Debug, Default)]
pub(crate) struct Strikes {
    last: BTreeMap<Process, Instant>,
    /// When one was struck off last because nothing was heard of it, if nobody else was heard since.
    silent: Option<Instant>,
}

/// One run of a stage, as far as others can tell: the stage, where it takes frames, and its number in its system.
type Process = (StageName, String, u32);

// === impl Strikes ===

impl Strikes {
    /// Strikes off the stage whose claim says that it takes frames at `endpoint`, where nobody is. `None` when there is no
    /// such claim, or the stage was struck off a moment ago: then its lease has to tell. So it has when another one was not
    /// heard either: perhaps it is us whom nobody hears.
    pub(crate) fn strike(
        &mut self,
        keyspace: &Keyspace,
        view: &ClusterView,
        (endpoint, absence): (&str, Absence),
        now: Instant,
    ) -> Option<Txn> {
        let lately = |last: Instant| now.saturating_duration_since(last) < STRIKE_AGAIN;
        self.last.retain(|_, last| lately(*last));
        let (id, claim) = view.claims.iter().rev().find(|(_, claim)| claim.value.endpoint == endpoint)?;
        let is_silent = absence == Absence::Silence;
        let stage = &claim.value.stage;
        let process = (stage.clone(), endpoint.to_owned(), view.stages.get(stage).map_or(0, |stage| stage.value.pid));
        if self.last.contains_key(&process) || (is_silent && self.silent.is_some_and(lately)) {
            return None;
        }
        self.silent = is_silent.then_some(now).or(self.silent);
        self.last.insert(process, now);
        Some(strike(keyspace, stage, *id, claim.mod_revision))
    }

    /// Somebody was reached: it is not us whom nobody hears.
    pub(crate) fn reached(&mut self) {
        self.silent = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use schema::record::{ClaimRecord, ClaimState};
    use schema::{Generation, LayerRange};

    use super::*;
    use crate::testing::name;
    use crate::view::Versioned;

    fn view() -> ClusterView {
        let claim = |at: u32| ClaimRecord {
            stage: name(["a", "b"][at as usize]),
            layers: LayerRange::new(at, at + 1).unwrap(),
            endpoint: format!("ipc:///{at}"),
            state: ClaimState::Serving,
            memory_bound_bytes: 0,
            weights_bytes: 0,
            kv_blocks: 1,
            kv_block_tokens: 32,
        };
        let versioned = |at| ((Generation(1), at), Versioned { value: claim(at), mod_revision: 7 });
        ClusterView { claims: [versioned(0), versioned(1)].into(), ..ClusterView::default() }
    }

    #[test]
    fn who_hears_nothing_of_two_strikes_off_one_and_who_was_struck_off_is_left_alone_for_a_while() {
        let (mut strikes, keyspace, now) =
            (Strikes::default(), Keyspace::new(&"home".parse().expect("a legal name")), Instant::now());
        let mut strike = |endpoint, absence, seconds| {
            let at = now + Duration::from_secs(seconds);
            strikes.strike(&keyspace, &view(), (endpoint, absence), at).is_some()
        };
        assert!(!strike("ipc:///9", Absence::Refused, 0), "no such claim");
        assert!(strike("ipc:///0", Absence::Silence, 0));
        assert!(!strike("ipc:///0", Absence::Silence, 3) && !strike("ipc:///0", Absence::Refused, 3));
        assert!(!strike("ipc:///1", Absence::Silence, 3), "it is we whom nobody hears");
        assert!(strike("ipc:///1", Absence::Refused, 3), "its system says so");
        assert!(strike("ipc:///0", Absence::Silence, STRIKE_AGAIN.as_secs()));
        strikes.reached();
        let at = now + STRIKE_AGAIN + Duration::from_secs(4);
        assert!(strikes.strike(&keyspace, &view(), ("ipc:///1", Absence::Silence), at).is_some());
    }
}
