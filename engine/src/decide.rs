//! What a stage should do about the cluster it sees. Pure: the same view gives the same action on every stage, so
//! whoever is first commits it and the others find it done.

use schema::record::{ClaimState, Placement, Shard};
use schema::{Generation, StageName};

use crate::planner::{PlanError, improves, in_order, plan};
use crate::view::ClusterView;

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Nothing: the placement stands and my part of it is claimed, or it is for others.
    Rest,
    /// Nothing yet.
    Wait(Waiting),
    /// Commit this placement, provided the one that was seen still stands.
    Propose {
        /// The placement.
        placement: Placement,
        /// The seen placement's revision; `None` when there was none.
        replacing: Option<u64>,
    },
    /// Claim my slot.
    Claim {
        /// The placement's generation.
        generation: Generation,
        /// The slot.
        slot: u32,
        /// What it holds.
        shard: Shard,
    },
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// Somebody who names a model.
    Model,
    /// My own record in the store.
    Registration,
    /// More stages, before the first placement.
    Stages {
        /// Live now.
        found: usize,
        /// Wanted.
        expected: u32,
    },
    /// A moment without joins and leaves.
    Quiet,
    /// More memory.
    Memory(PlanError),
}

/// For how long nothing has changed, by the clock of whoever asks; each is calmer than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Calm {
    /// Stages have just come or gone.
    Restless,
    /// The set of live stages is the same for the settling time.
    Settled,
    /// And the placement for so long that layers may be moved for speed alone.
    Standing,
}

/// What stage `me` should do after things have been as they are for so long.
pub fn decide(view: &ClusterView, me: &StageName, calm: Calm) -> Action {
    let Some(model) = view.model.as_ref().map(|model| &model.value) else { return Action::Wait(Waiting::Model) };
    if !view.stages.contains_key(me) {
        return Action::Wait(Waiting::Registration);
    }
    let current = view.placement.as_ref();
    if current.is_none() && view.stages.len() < model.stages_min as usize {
        return Action::Wait(Waiting::Stages { found: view.stages.len(), expected: model.stages_min });
    }
    let placed = current.map(|current| current.value.shards()).unwrap_or_default();
    let candidates = in_order(view.stages.iter().map(|(name, stage)| (name, &stage.value)), placed);
    let shards = match plan(model, &candidates) {
        Ok(shards) => shards,
        // Claims of the old placement stay: what is served by them goes on being served.
        Err(error) if current.is_none() => return Action::Wait(Waiting::Memory(error)),
        Err(error) => return rest_or(follow(view, me), Waiting::Memory(error)),
    };
    let good_enough = |current: &Placement| {
        whole(current, view, model.layers)
            && !improves(model, &candidates, &shards, current.shards(), calm >= Calm::Standing)
    };
    if current.is_some_and(|current| good_enough(&current.value)) {
        return follow(view, me);
    }
    // Who asked for a number of stages and has it need not wait for more.
    let complete = current.is_none() && model.stages_min > 1;
    if calm < Calm::Settled && !complete {
        return rest_or(follow(view, me), Waiting::Quiet);
    }
    // Claims count too: should somebody delete the placement, the generations in frames must not begin again.
    let placed = current.map(|current| current.value.generation());
    let claimed = view.claims.keys().map(|(generation, _)| *generation);
    let generation = placed.into_iter().chain(claimed).max().unwrap_or_default().next();
    match Placement::new(generation, shards) {
        Ok(placement) => Action::Propose { placement, replacing: current.map(|current| current.mod_revision) },
        Err(_) => Action::Rest, // The planner's ranges are contiguous; its proptest says so.
    }
}

/// Whether two views lead to the same decisions: all that differs is what stages report of their load, every few seconds.
pub fn alike(one: &ClusterView, other: &ClusterView) -> bool {
    let what_counts = |view: &ClusterView| -> Vec<_> {
        let stages = view.stages.iter();
        stages.map(|(name, stage)| (name.clone(), stage.value.memory_budget_bytes, stage.value.speed.clone())).collect()
    };
    let same = |one: &ClusterView, other: &ClusterView| {
        one.model == other.model && one.placement == other.placement && one.claims == other.claims
    };
    same(one, other) && what_counts(one) == what_counts(other)
}

/// Whether every layer is placed on a live stage.
fn whole(placement: &Placement, view: &ClusterView, layers: u32) -> bool {
    placement.layers() == layers && placement.shards().iter().all(|shard| view.stages.contains_key(&shard.stage))
}

/// Claims what the placement gives to `me`, unless that is done.
fn follow(view: &ClusterView, me: &StageName) -> Action {
    let Some(placement) = view.placement.as_ref().map(|placement| &placement.value) else { return Action::Rest };
    let Some(slot) = placement.slot_of(me) else { return Action::Rest };
    let generation = placement.generation();
    match (view.claims.get(&(generation, slot)), placement.shard(slot)) {
        (None, Some(shard)) => Action::Claim { generation, slot, shard: shard.clone() },
        _ => Action::Rest,
    }
}

fn rest_or(action: Action, waiting: Waiting) -> Action {
    if action == Action::Rest { Action::Wait(waiting) } else { action }
}

/// Whether `me` holds `slot` of `generation` in the view, in any state but failed.
pub fn holds(view: &ClusterView, me: &StageName, generation: Generation, slot: u32) -> bool {
    let placed = view.placement.as_ref().is_some_and(|placement| placement.value.generation() == generation);
    let claim = view.claims.get(&(generation, slot)).map(|claim| &claim.value);
    placed && claim.is_some_and(|claim| claim.stage == *me && !matches!(claim.state, ClaimState::Failed { .. }))
}

#[cfg(test)]
mod tests {
    use schema::LayerRange;
    use schema::record::ClaimRecord;

    use super::*;
    use crate::testing::{model, name, stage};
    use crate::view::Versioned;

    fn versioned<T>(value: T) -> Versioned<T> {
        Versioned { value, mod_revision: 7 }
    }

    fn view(stages: &[&str], stages_min: u32) -> ClusterView {
        let mut model = model(&[10; 4], 0);
        model.stages_min = stages_min;
        ClusterView {
            model: Some(versioned(model)),
            stages: stages.iter().map(|stage_name| (name(stage_name), versioned(stage(1000)))).collect(),
            ..ClusterView::default()
        }
    }

    fn place(view: &mut ClusterView) -> Placement {
        let first = view.stages.keys().next().unwrap().clone();
        let Action::Propose { placement, .. } = decide(view, &first, Calm::Settled) else { panic!("no proposal") };
        view.placement = Some(versioned(placement.clone()));
        placement
    }

    fn claim(view: &mut ClusterView, slot: u32) {
        let placement = view.placement.clone().unwrap().value;
        let shard = placement.shard(slot).unwrap().clone();
        let record = ClaimRecord {
            stage: shard.stage,
            layers: shard.layers,
            endpoint: "ipc:///x".to_owned(),
            state: ClaimState::Serving,
            memory_bound_bytes: 0,
            weights_bytes: 0,
            kv_blocks: 1,
            kv_block_tokens: 32,
        };
        view.claims.insert((placement.generation(), slot), versioned(record));
    }

    #[test]
    fn the_first_placement_waits_for_the_stages_asked_for() {
        let expected = Action::Wait(Waiting::Stages { found: 1, expected: 2 });
        assert_eq!(decide(&view(&["a"], 2), &name("a"), Calm::Settled), expected);
        assert!(matches!(
            decide(&view(&["a", "b"], 2), &name("b"), Calm::Restless),
            Action::Propose { replacing: None, .. }
        ));
    }

    #[test]
    fn without_a_number_asked_for_the_first_placement_waits_for_quiet() {
        assert_eq!(decide(&view(&["a", "b"], 1), &name("a"), Calm::Restless), Action::Wait(Waiting::Quiet));
        assert!(matches!(
            decide(&view(&["a", "b"], 1), &name("b"), Calm::Settled),
            Action::Propose { replacing: None, .. }
        ));
    }

    #[test]
    fn every_stage_proposes_the_same() {
        let view = view(&["a", "b", "c"], 1);
        let proposals: Vec<_> = ["a", "b", "c"].map(|me| decide(&view, &name(me), Calm::Settled)).into();
        assert!(proposals.windows(2).all(|pair| pair[0] == pair[1]), "{proposals:?}");
    }

    #[test]
    fn a_stage_claims_its_slot_once() {
        let mut view = view(&["a", "b"], 1);
        place(&mut view);
        let Action::Claim { slot, shard, .. } = decide(&view, &name("b"), Calm::Settled) else { panic!("no claim") };
        assert_eq!((slot, shard.layers), (1, LayerRange::new(2, 4).unwrap()));
        claim(&mut view, 1);
        assert_eq!(decide(&view, &name("b"), Calm::Settled), Action::Rest);
        assert!(holds(&view, &name("b"), Generation(1), 1) && !holds(&view, &name("a"), Generation(1), 1));
    }

    #[test]
    fn a_join_and_a_leave_make_the_next_generation_when_it_is_quiet() {
        let mut view = view(&["a"], 1);
        assert_eq!(place(&mut view).generation(), Generation(1));
        claim(&mut view, 0);
        view.stages.insert(name("b"), versioned(stage(1000)));
        assert_eq!(decide(&view, &name("b"), Calm::Restless), Action::Wait(Waiting::Quiet));
        let joined = decide(&view, &name("b"), Calm::Settled);
        assert!(matches!(&joined, Action::Propose { placement, replacing: Some(7) } if placement.shards().len() == 2));
        place(&mut view);
        view.stages.remove(&name("a"));
        let left = decide(&view, &name("b"), Calm::Settled);
        assert!(matches!(&left, Action::Propose { placement, .. } if placement.generation() == Generation(3)));
    }

    #[test]
    fn a_loss_that_nobody_can_make_good_keeps_the_placement() {
        let mut view = view(&["a", "b"], 1);
        view.stages.insert(name("a"), versioned(stage(20)));
        view.stages.insert(name("b"), versioned(stage(20)));
        place(&mut view);
        claim(&mut view, 1);
        view.stages.remove(&name("a"));
        assert!(matches!(decide(&view, &name("b"), Calm::Settled), Action::Wait(Waiting::Memory(_))));
    }

    #[test]
    fn generations_go_on_after_the_placement_was_deleted() {
        let mut view = view(&["a", "b"], 1);
        place(&mut view);
        view.stages.remove(&name("b"));
        let second = place(&mut view);
        claim(&mut view, 0);
        view.placement = None;
        assert_eq!(place(&mut view).generation(), second.generation().next());
    }

    #[test]
    fn a_surplus_stage_changes_nothing() {
        let mut view = view(&["a", "b", "c", "d"], 1);
        let placement = place(&mut view);
        view.stages.insert(name("e"), versioned(stage(1000)));
        assert_eq!(decide(&view, &name("e"), Calm::Settled), Action::Rest);
        assert_eq!(view.placement.unwrap().value, placement);
    }
}
