//! Decides the next action of a stage from the cluster it sees. Pure: the same view gives the same action on every
//! stage. So the first stage commits it and the others find it done.

use std::sync::Arc;

use schema::record::{ModelRecord, Placement, Shard, StageRecord};
use schema::{ClaimId, Key, StageName};

use crate::planner::{NoPlan, PinStatusWrite, PlanError, Proposal};
use crate::view::ClusterView;

/// The next action of a stage.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Nothing: the placement stands, and this stage has claimed its part or has none.
    Nothing,
    /// Nothing yet.
    Wait(Waiting),
    /// Commit this placement, provided the placement that was seen still stands.
    Propose {
        /// The placement.
        placement: Placement,
        /// The seen placement's revision, or that of an unusable value in its place. `None` if there was none.
        replacing: Option<u64>,
        /// The statuses of pins to be written with it.
        status_writes: Vec<PinStatusWrite>,
    },
    /// Write the statuses of pins.
    WritePinStatuses(Vec<PinStatusWrite>),
    /// Claim the slot of this stage.
    Claim {
        /// The claim to write.
        id: ClaimId,
        /// The shard that it is about.
        shard: Shard,
    },
}

/// The condition that a stage waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// A process that names a model.
    Model,
    /// The stage's own record in the store.
    Registration,
    /// More stages, before the first placement.
    Stages {
        /// The number of live stages.
        found: usize,
        /// The number of stages wanted.
        expected: u32,
    },
    /// A moment without joins and leaves.
    Settling,
    /// A plan, which mostly needs more memory.
    Memory(PlanError),
}

/// The time for which nothing has changed, by the caller's clock. Each value is more stable than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stability {
    /// Stages have just joined or left.
    Changing,
    /// The set of live stages has been the same for the settling time.
    Settled,
    /// In addition, the placement is old enough for layers to be moved for speed alone.
    Standing,
}

/// The next action of stage `me`, given how long the view has been stable.
pub fn decide(view: &ClusterView, me: &StageName, stability: Stability) -> Action {
    decide_by(view, me, stability, |model, speed_moves| Arc::new(Proposal::new(view, model, speed_moves)))
}

/// The same, with the proposal that `propose` makes of the view and its model if it is needed. It is told if a move for
/// speed alone is due.
pub(crate) fn decide_by(
    view: &ClusterView,
    me: &StageName,
    stability: Stability,
    propose: impl FnOnce(&ModelRecord, bool) -> Arc<Proposal>,
) -> Action {
    let Some(model) = view.model.as_ref().map(|model| &model.value) else { return Action::Wait(Waiting::Model) };
    if !view.stages.contains_key(me) {
        return Action::Wait(Waiting::Registration);
    }
    let current = view.placement.as_ref();
    if current.is_none() && view.stages.len() < model.stages_min as usize {
        return Action::Wait(Waiting::Stages { found: view.stages.len(), expected: model.stages_min });
    }
    let proposal = propose(model, stability >= Stability::Standing);
    let Proposal { shards, status_writes, kv_tokens, .. } = &*proposal;
    // The status of a pin is written once the placement shows it. Until then the old status tells which layers are to
    // be given back.
    let settled_action = |status_writes: Vec<PinStatusWrite>| match follow(view, me) {
        Action::Nothing if !status_writes.is_empty() => Action::WritePinStatuses(status_writes),
        action => action,
    };
    let shards = match shards {
        Ok(shards) => shards,
        // Claims of the old placement stay: the stages go on serving by them. So do the statuses of pins that this
        // placement obeys and that are gone: the next plan gives their layers back.
        Err(error) => {
            let writes = status_writes.iter().filter(|write| !write.erases_obeyed(view)).cloned().collect();
            return nothing_or(settled_action(writes), Waiting::Memory(error.clone()));
        }
    };
    if current.is_some_and(|current| proposal.is(&current.value)) {
        return settled_action(status_writes.clone());
    }
    // If the operator asked for a number of stages and all of them are live, there is no need to wait for more.
    let complete = current.is_none() && model.stages_min > 1;
    if stability < Stability::Settled && !complete {
        return nothing_or(follow(view, me), Waiting::Settling);
    }
    // Claims count too: if the placement was deleted, the generations in frames must not begin again.
    let placed = current.map(|current| current.value.generation());
    let claimed = view.claims.keys().map(|id| id.generation);
    let generation = placed.into_iter().chain(claimed).max().unwrap_or_default().next();
    match Placement::new(generation, shards.clone()) {
        Ok(placement) => {
            let placement = placement.with_kv_tokens(*kv_tokens);
            let replacing =
                current.map(|current| current.mod_revision).or_else(|| view.unusable_revision(&Key::Placement));
            Action::Propose { placement, replacing, status_writes: status_writes.clone() }
        }
        Err(_) => Action::Nothing, // The planner's ranges are contiguous, as its proptest checks.
    }
}

/// True if two views lead to the same decisions. They may differ in the load that stages report every few seconds.
pub fn same_decision(one: &ClusterView, other: &ClusterView) -> bool {
    let counts = |stage: &StageRecord| (stage.memory_budget_bytes, stage.leaving);
    let is_same_stage =
        |one: &StageRecord, other: &StageRecord| counts(one) == counts(other) && one.speed == other.speed;
    let same_stages = |one: &ClusterView, other: &ClusterView| {
        let mut pairs = one.stages.iter().zip(&other.stages);
        one.stages.len() == other.stages.len()
            && pairs
                .all(|((name, one), (other_name, other))| name == other_name && is_same_stage(&one.value, &other.value))
    };
    let needed = |view: &ClusterView| view.gateways.values().map(|gateway| gateway.value.kv_tokens_needed).max();
    let same = |one: &ClusterView, other: &ClusterView| {
        needed(one).unwrap_or(0) == needed(other).unwrap_or(0)
            && (&one.model, &one.placement, &one.claims) == (&other.model, &other.placement, &other.claims)
            && (&one.recalled, &one.key_mark) == (&other.recalled, &other.key_mark)
            && (&one.pins, &one.unreadable_pins, &one.pin_statuses)
                == (&other.pins, &other.unreadable_pins, &other.pin_statuses)
    };
    same(one, other) && same_stages(one, other)
}

// === impl Waiting ===

impl Waiting {
    /// A sentence for operators. `None` for a wait that passes within a second. If there is no plan, this looks for
    /// remedies, which takes a few milliseconds in large clusters.
    pub fn reason(&self, view: &ClusterView) -> Option<String> {
        match self {
            Self::Registration | Self::Settling => None,
            Self::Model => Some("nobody has named a model".to_owned()),
            Self::Stages { .. } | Self::Memory(_) => Some(NoPlan::find(view, &view.model.as_ref()?.value)?.to_string()),
        }
    }
}

/// Claims the slot that the placement gives to `me`, unless that is done.
fn follow(view: &ClusterView, me: &StageName) -> Action {
    let Some(placement) = view.placement.as_ref().map(|placement| &placement.value) else { return Action::Nothing };
    let Some(slot) = placement.slot_of(me) else { return Action::Nothing };
    let id = ClaimId::new(placement.generation(), slot);
    match (view.claims.get(&id), placement.shard(slot)) {
        (None, Some(shard)) => Action::Claim { id, shard: shard.clone() },
        _ => Action::Nothing,
    }
}

fn nothing_or(action: Action, waiting: Waiting) -> Action {
    if action == Action::Nothing { Action::Wait(waiting) } else { action }
}

#[cfg(test)]
mod tests {
    use schema::record::{ClaimState, Pin};
    use schema::{Generation, LayerRange};

    use super::*;
    use crate::testing::{claim_of, model, name, stage};
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
        let Action::Propose { placement, .. } = decide(view, &first, Stability::Settled) else { panic!("no proposal") };
        view.placement = Some(versioned(placement.clone()));
        placement
    }

    fn claim(view: &mut ClusterView, slot: u32) {
        let placement = view.placement.clone().unwrap().value;
        let shard = placement.shard(slot).unwrap().clone();
        let record = claim_of(&shard, "ipc:///x", ClaimState::Serving);
        view.claims.insert(ClaimId::new(placement.generation(), slot), versioned(record));
    }

    #[test]
    fn the_first_placement_waits_for_stages_min() {
        let expected = Action::Wait(Waiting::Stages { found: 1, expected: 2 });
        assert_eq!(decide(&view(&["a"], 2), &name("a"), Stability::Settled), expected);
        assert!(matches!(
            decide(&view(&["a", "b"], 2), &name("b"), Stability::Changing),
            Action::Propose { replacing: None, .. }
        ));
    }

    #[test]
    fn a_waiting_stage_gives_the_reason_and_the_remedies() {
        let reason = |view: &ClusterView| match decide(view, &name("a"), Stability::Settled) {
            Action::Wait(waiting) => waiting.reason(view).unwrap(),
            action => panic!("expected to wait, found {action:?}"),
        };
        insta::assert_snapshot!(reason(&view(&["a"], 2)),
            @"1 of at least 2 stages has joined: the first placement waits for 1 more"
        );
        let mut small = view(&["a", "b"], 1);
        small.stages.insert(name("a"), versioned(stage(5)));
        small.stages.insert(name("b"), versioned(stage(20)));
        insta::assert_snapshot!(reason(&small),
            @"the model needs 40 B (weights 40 B, keys and values of 1024 tokens as f16 0 B, scratch 0 B on each of 2 \
            stages), the stages offer 25 B (a 5 B, b 20 B): 15 B are missing; what would help: one more stage that \
            may use 20 B"
        );
        insta::assert_snapshot!(reason(&ClusterView::default()), @"nobody has named a model");
        assert_eq!(Waiting::Settling.reason(&small), None);
    }

    #[test]
    fn stages_that_are_all_leaving_differ_from_no_stages() {
        let mut view = view(&["a", "b"], 1);
        view.stages.values_mut().for_each(|stage| stage.value.leaving = true);
        let stages = vec![name("a"), name("b")];
        let expected = Action::Wait(Waiting::Memory(PlanError::Leaving { stages }));
        assert_eq!(decide(&view, &name("a"), Stability::Settled), expected);
    }

    #[test]
    fn without_a_stages_min_the_first_placement_waits_until_stages_settle() {
        assert_eq!(decide(&view(&["a", "b"], 1), &name("a"), Stability::Changing), Action::Wait(Waiting::Settling));
        assert!(matches!(
            decide(&view(&["a", "b"], 1), &name("b"), Stability::Settled),
            Action::Propose { replacing: None, .. }
        ));
    }

    #[test]
    fn every_stage_proposes_the_same() {
        let view = view(&["a", "b", "c"], 1);
        let proposals: Vec<_> = ["a", "b", "c"].map(|me| decide(&view, &name(me), Stability::Settled)).into();
        assert!(proposals.windows(2).all(|pair| pair[0] == pair[1]), "{proposals:?}");
    }

    #[test]
    fn a_stage_claims_its_slot_once() {
        let mut view = view(&["a", "b"], 1);
        place(&mut view);
        let Action::Claim { id, shard } = decide(&view, &name("b"), Stability::Settled) else { panic!("no claim") };
        assert_eq!((id.slot, shard.layers), (1, LayerRange::new(2, 4).unwrap()));
        claim(&mut view, 1);
        assert_eq!(decide(&view, &name("b"), Stability::Settled), Action::Nothing);
    }

    #[test]
    fn a_join_and_a_leave_make_the_next_generation_once_settled() {
        let mut view = view(&["a"], 1);
        assert_eq!(place(&mut view).generation(), Generation(1));
        claim(&mut view, 0);
        view.stages.insert(name("b"), versioned(stage(1000)));
        assert_eq!(decide(&view, &name("b"), Stability::Changing), Action::Wait(Waiting::Settling));
        let joined = decide(&view, &name("b"), Stability::Settled);
        assert!(
            matches!(&joined, Action::Propose { placement, replacing: Some(7), .. } if placement.shards().len() == 2)
        );
        place(&mut view);
        view.stages.remove(&name("a"));
        let left = decide(&view, &name("b"), Stability::Settled);
        assert!(matches!(&left, Action::Propose { placement, .. } if placement.generation() == Generation(3)));
    }

    #[test]
    fn a_loss_that_no_stage_can_make_good_keeps_the_placement() {
        let mut view = view(&["a", "b"], 1);
        view.stages.insert(name("a"), versioned(stage(20)));
        view.stages.insert(name("b"), versioned(stage(20)));
        place(&mut view);
        claim(&mut view, 1);
        view.stages.remove(&name("a"));
        assert!(matches!(decide(&view, &name("b"), Stability::Settled), Action::Wait(Waiting::Memory(_))));
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
        assert_eq!(decide(&view, &name("e"), Stability::Settled), Action::Nothing);
        assert_eq!(view.placement.unwrap().value, placement);
    }

    fn layers(start: u32, end: u32) -> LayerRange {
        LayerRange::new(start, end).unwrap()
    }

    /// Puts a pin with revision `revision`, or deletes it.
    fn pin(view: &mut ClusterView, stage: &str, value: Option<Pin>, revision: u64) {
        view.pins.remove(&name(stage));
        let pin = value.map(|value| Versioned { value, mod_revision: revision });
        view.pins.extend(pin.map(|pin| (name(stage), pin)));
    }

    /// Carries out the decisions of the stages until they rest. Returns the number of placements that took.
    fn settle(view: &mut ClusterView) -> u32 {
        let mut proposals = 0;
        let me = view.stages.keys().next().unwrap().clone();
        for _ in 0..10 {
            let status_writes = match decide(view, &me, Stability::Settled) {
                Action::Propose { placement, status_writes, .. } => {
                    proposals += 1;
                    view.placement = Some(versioned(placement.clone()));
                    view.claims.clear();
                    (0..placement.shards().len() as u32).for_each(|slot| claim(view, slot));
                    status_writes
                }
                Action::WritePinStatuses(status_writes) => status_writes,
                Action::Nothing | Action::Wait(_) => return proposals,
                Action::Claim { .. } => panic!("everything is claimed"),
            };
            for write in status_writes {
                view.pin_statuses.remove(&write.stage);
                view.pin_statuses.extend(write.status.map(|status| (write.stage, versioned(status))));
            }
        }
        panic!("the stages do not come to rest: {view:?}");
    }

    fn held(view: &ClusterView, stage: &str) -> Option<LayerRange> {
        let placement = &view.placement.as_ref()?.value;
        Some(placement.shard(placement.slot_of(&name(stage))?)?.layers)
    }

    fn reason(view: &ClusterView, stage: &str) -> Option<String> {
        view.pin_statuses[&name(stage)].value.reason.clone()
    }

    #[test]
    fn a_pin_moves_layers_once_and_its_end_gives_them_back() {
        let mut view = view(&["a", "b"], 1);
        assert_eq!(settle(&mut view), 1);
        pin(&mut view, "a", Some(Pin::Layers(layers(0, 1))), 20);
        assert_eq!(settle(&mut view), 1);
        assert_eq!((held(&view, "a"), held(&view, "b")), (Some(layers(0, 1)), Some(layers(1, 4))));
        assert_eq!(view.pin_statuses[&name("a")].value.pin_revision, 20);
        assert!(view.pin_statuses[&name("a")].value.honoured);
        pin(&mut view, "a", None, 0);
        assert_eq!(settle(&mut view), 1);
        assert_eq!((held(&view, "a"), held(&view, "b")), (Some(layers(0, 2)), Some(layers(2, 4))));
        assert!(view.pin_statuses.is_empty());
    }

    #[test]
    fn a_pin_that_leaves_no_plan_changes_nothing_and_gives_the_reason() {
        let mut view = view(&["a", "b"], 1);
        view.stages.insert(name("b"), versioned(stage(25)));
        settle(&mut view);
        let before = view.placement.clone();
        pin(&mut view, "b", Some(Pin::Layers(layers(2, 4))), 10);
        assert_eq!(settle(&mut view), 0);
        let bad = [
            ("a", Pin::Layers(layers(0, 3)), "overlap layers"),
            ("a", Pin::Layers(layers(0, 1)), "layers 1..2 would be held by nobody"),
            ("a", Pin::Layers(layers(0, 9)), "the model has layers 0..4"),
            ("b", Pin::Layers(layers(0, 3)), "layers 0..3 need 30 B: stage b may use 25 B"),
            ("b", Pin::Memory("1GiB".parse().unwrap()), "1GiB is more than stage b may use: 25 B"),
            ("a", Pin::Excluded, "15 B are missing"),
            ("x", Pin::Excluded, "stage x is not live"),
        ];
        for (revision, (stage, value, why)) in (20..).zip(bad) {
            pin(&mut view, stage, Some(value), revision);
            assert_eq!(settle(&mut view), 0, "{value}");
            assert!(
                reason(&view, stage).is_some_and(|reason| reason.contains(why)),
                "{value}: {:?}",
                view.pin_statuses
            );
            pin(&mut view, stage, (stage == "b").then_some(Pin::Layers(layers(2, 4))), 10);
            assert_eq!(settle(&mut view), 0);
            assert_eq!(view.placement, before);
        }
        pin(&mut view, "a", None, 0);
        view.unreadable_pins.insert(name("a"), Versioned { value: "unreadable value".to_owned(), mod_revision: 90 });
        assert_eq!(settle(&mut view), 0);
        assert_eq!(reason(&view, "a").as_deref(), Some("unreadable value"));
    }

    #[test]
    fn exclusion_budget_and_cordon_are_obeyed() {
        let mut view = view(&["a", "b", "c"], 1);
        settle(&mut view);
        pin(&mut view, "b", Some(Pin::Excluded), 20);
        assert_eq!((settle(&mut view), held(&view, "b")), (1, None));
        pin(&mut view, "b", None, 0);
        assert_eq!((settle(&mut view), held(&view, "b").is_some()), (1, true));
        pin(&mut view, "a", Some(Pin::Memory("15B".parse().unwrap())), 30);
        settle(&mut view);
        assert_eq!(held(&view, "a").unwrap().count(), 1);
        pin(&mut view, "a", None, 0);
        settle(&mut view);
        // The order is a, c, b by now: a stage that came back comes last.
        let before = held(&view, "b");
        pin(&mut view, "b", Some(Pin::Cordoned), 40);
        assert_eq!((settle(&mut view), held(&view, "b")), (0, before));
        view.stages.remove(&name("c"));
        assert_eq!((settle(&mut view), held(&view, "b")), (1, before));
        // It gets more layers in the end, because otherwise no stage would serve, and keeps them.
        view.stages.insert(name("a"), versioned(stage(5)));
        settle(&mut view);
        assert_eq!(held(&view, "b"), Some(layers(0, 4)));
    }

    #[test]
    fn a_cordoned_new_stage_gets_nothing() {
        let mut view = view(&["a", "b"], 1);
        settle(&mut view);
        pin(&mut view, "c", Some(Pin::Cordoned), 20);
        settle(&mut view);
        view.stages.insert(name("c"), versioned(stage(1000)));
        assert_eq!((settle(&mut view), held(&view, "c")), (0, None));
        assert!(view.pin_statuses[&name("c")].value.honoured);
    }

    #[test]
    fn the_reported_load_changes_no_decision() {
        let one = view(&["a", "b"], 1);
        let mut other = one.clone();
        let record = other.stages.get_mut(&name("a")).unwrap();
        record.value.load.tokens_total = 5;
        record.mod_revision += 1;
        other.revision += 1;
        assert!(same_decision(&one, &other));
        pin(&mut other, "a", Some(Pin::Cordoned), 5);
        assert!(!same_decision(&one, &other));
    }
}
