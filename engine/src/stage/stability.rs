//! Tracks how long the set of live stages and the placement have been unchanged: a new placement is proposed once they
//! are stable. Pure.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use schema::StageName;

use crate::decide::Stability;
use crate::limits::{
    JOIN_MOVE_EVERY, PROPOSAL_TURN, PROPOSAL_WAIT_MAX, PROPOSERS_AT_ONCE, SETTLE, SETTLE_LEFT, SPEED_MOVE_EVERY,
};
use crate::view::ClusterView;

/// The set of live stages and the placement, with the times of their last changes.
pub(super) struct StabilityTracker {
    names: BTreeSet<StageName>,
    since: Instant,
    /// Time without change before a new placement is proposed, without the wait for this stage's turn.
    settle: Duration,
    /// The wait for this stage's turn to propose.
    turn: Duration,
    placed: Option<u64>,
    placed_since: Instant,
    /// True if a stage of the placement is not live, so that there is no service that a new placement could interrupt.
    is_broken: bool,
}

// === impl StabilityTracker ===

impl StabilityTracker {
    /// No stages, since `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            names: BTreeSet::new(),
            since: now,
            settle: SETTLE,
            turn: Duration::ZERO,
            placed: None,
            placed_since: now,
            is_broken: false,
        }
    }

    /// Follows a new view, as the stage `own` sees it.
    pub(super) fn follow(&mut self, view: &ClusterView, own: &StageName, now: Instant) {
        let names: BTreeSet<_> = view.staying().map(|(name, _)| name.clone()).collect();
        if names != self.names {
            self.settle = if names.is_subset(&self.names) { SETTLE_LEFT } else { SETTLE };
            self.turn = turn(names.range(..own).count());
            (self.names, self.since) = (names, now);
        }
        let shards = view.placement.as_ref().map_or(&[][..], |placement| placement.value.shards());
        self.is_broken = shards.iter().any(|shard| !view.stages.contains_key(&shard.stage));
        let placed = view.placement.as_ref().map(|placement| placement.mod_revision);
        if placed != self.placed {
            (self.placed, self.placed_since) = (placed, now);
        }
    }

    /// The times of the last changes of the stages and of the placement.
    pub(super) fn since(&self) -> (Instant, Instant) {
        (self.since, self.placed_since)
    }

    /// The stability of the cluster at `now`.
    pub(super) fn stability(&self, now: Instant) -> Stability {
        let age = |since: Instant| now.saturating_duration_since(since);
        let joined = self.settle == SETTLE && self.placed.is_some() && !self.is_broken;
        let rested = !joined || age(self.placed_since) >= JOIN_MOVE_EVERY;
        let settled = rested && age(self.since) >= self.settle + self.turn;
        match (settled, age(self.placed_since) >= SPEED_MOVE_EVERY) {
            (false, _) => Stability::Changing,
            (true, false) => Stability::Settled,
            (true, true) => Stability::Standing,
        }
    }
}

/// The wait of the stage before which there are `rank` others by name. All would compute the same placement, and one
/// write of it is enough: the first few propose at once, and the others only if those do not.
fn turn(rank: usize) -> Duration {
    let turns = u32::try_from(rank / PROPOSERS_AT_ONCE).unwrap_or(u32::MAX);
    PROPOSAL_TURN.saturating_mul(turns).min(PROPOSAL_WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use schema::record::{Placement, Shard};
    use schema::{Generation, LayerRange};

    use super::*;
    use crate::testing::{name, stage};
    use crate::view::Versioned;

    /// A view with these stages. Its placement gives layers to "a" and "b".
    fn view(stages: &[&str]) -> ClusterView {
        let versioned = |name: &&str| (name.parse().unwrap(), Versioned { value: stage(1), mod_revision: 1 });
        let shard =
            |at: u32| Shard { layers: LayerRange::new(at, at + 1).unwrap(), stage: name(["a", "b"][at as usize]) };
        let placement = Placement::new(Generation(1), vec![shard(0), shard(1)]).unwrap();
        ClusterView {
            stages: stages.iter().map(versioned).collect(),
            placement: Some(Versioned { value: placement, mod_revision: 2 }),
            ..ClusterView::default()
        }
    }

    #[test]
    fn the_first_few_stages_propose_at_once_and_the_others_take_turns() {
        let ms = |rank| turn(rank).as_millis();
        assert_eq!([0, 3, 4, 7, 8, 1000, usize::MAX].map(ms), [0, 0, 50, 50, 100, 1000, 1000]);
        let names: Vec<_> = (0..9).map(|n| format!("s{n}")).collect();
        let all = view(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let start = Instant::now();
        let mut last = StabilityTracker::new(start);
        last.follow(&all, &name("s8"), start);
        let later = start + SPEED_MOVE_EVERY;
        last.follow(
            &ClusterView { stages: all.stages.clone().into_iter().skip(1).collect(), ..all },
            &name("s8"),
            later,
        );
        assert_eq!(last.stability(later + SETTLE_LEFT), Stability::Changing);
        assert_eq!(last.stability(later + SETTLE_LEFT + PROPOSAL_TURN), Stability::Standing);
    }

    #[test]
    fn joins_settle_later_than_leaves_unless_nothing_is_served() {
        let start = Instant::now();
        let mut live = StabilityTracker::new(start);
        live.follow(&view(&["a", "b"]), &name("a"), start);
        let later = start + SPEED_MOVE_EVERY;
        assert_eq!((live.stability(start + SETTLE), live.stability(later)), (Stability::Changing, Stability::Standing));
        live.follow(&view(&["a", "b", "c"]), &name("a"), later);
        assert_eq!((live.stability(later), live.stability(later + SETTLE)), (Stability::Changing, Stability::Standing));
        live.follow(&view(&["a", "c"]), &name("a"), later);
        assert_eq!(live.stability(later + SETTLE_LEFT), Stability::Standing, "a stage has left");
        // A stage that joins waits if the placement is new, but not if another stage is missing.
        let mut live = StabilityTracker::new(start);
        live.follow(&view(&["a"]), &name("a"), start);
        assert_eq!(live.stability(start + SETTLE), Stability::Settled, "nothing is served that could be interrupted");
    }
}
