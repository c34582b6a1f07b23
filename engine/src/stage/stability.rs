//! Tracks how long the set of live stages and the placement have been unchanged: a new placement is proposed once they
//! are stable. Pure.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use schema::StageName;

use crate::decide::Stability;
use crate::limits::{JOIN_MOVE_EVERY, SETTLE, SETTLE_LEFT, SPEED_MOVE_EVERY};
use crate::view::ClusterView;

/// The set of live stages and the placement, with the times of their last changes.
pub(super) struct StabilityTracker {
    names: BTreeSet<StageName>,
    since: Instant,
    /// Time without change before a new placement is proposed.
    settle: Duration,
    placed: Option<u64>,
    placed_since: Instant,
    /// True if a stage of the placement is not live, so that there is no service that a new placement could interrupt.
    is_broken: bool,
}

// === impl StabilityTracker ===

impl StabilityTracker {
    /// No stages, since `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self { names: BTreeSet::new(), since: now, settle: SETTLE, placed: None, placed_since: now, is_broken: false }
    }

    /// Follows a new view.
    pub(super) fn follow(&mut self, view: &ClusterView, now: Instant) {
        if !view.staying().map(|(name, _)| name).eq(&self.names) {
            let names: BTreeSet<_> = view.staying().map(|(name, _)| name.clone()).collect();
            self.settle = if names.is_subset(&self.names) { SETTLE_LEFT } else { SETTLE };
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
        let settled = rested && age(self.since) >= self.settle;
        match (settled, age(self.placed_since) >= SPEED_MOVE_EVERY) {
            (false, _) => Stability::Changing,
            (true, false) => Stability::Settled,
            (true, true) => Stability::Standing,
        }
    }
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
    fn joins_settle_later_than_leaves_unless_nothing_is_served() {
        let start = Instant::now();
        let mut live = StabilityTracker::new(start);
        live.follow(&view(&["a", "b"]), start);
        let later = start + SPEED_MOVE_EVERY;
        assert_eq!((live.stability(start + SETTLE), live.stability(later)), (Stability::Changing, Stability::Standing));
        live.follow(&view(&["a", "b", "c"]), later);
        assert_eq!((live.stability(later), live.stability(later + SETTLE)), (Stability::Changing, Stability::Standing));
        live.follow(&view(&["a", "c"]), later);
        assert_eq!(live.stability(later + SETTLE_LEFT), Stability::Standing, "a stage has left");
        // A stage that joins waits if the placement is new, but not if another stage is missing.
        let mut live = StabilityTracker::new(start);
        live.follow(&view(&["a"]), start);
        assert_eq!(live.stability(start + SETTLE), Stability::Settled, "nothing is served that could be interrupted");
    }
}
