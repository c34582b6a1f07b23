//! The report on a cluster for operators, derived once from a view: if it serves, the reason if not, and the state of
//! each stage. The command line and the HTTP pages only draw it. Pure.
//!
//! One more state of a stage is a variant of [`StageState`] with its word, and an arm that recognizes it.

use std::borrow::Cow;
use std::collections::BTreeSet;

use schema::record::{
    ClaimRecord, ClaimState, EvictionRecord, GatewayRecord, ModelRecord, Pin, Placement, StageRecord,
};
use schema::{ClaimId, LayerRange, StageName};

use crate::planner::NoPlan;
use crate::view::{ClusterView, NotServing, PinReport, Served};

/// The report on a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterReport<'a> {
    /// The claims that serve, or the reason for which none do.
    pub serving: Result<Served<'a>, NotServing>,
    /// The stages: those with layers first, in layer order, then the others by name.
    pub stages: Vec<StageReport<'a>>,
    /// Operators' pins and their statuses.
    pub pins: Vec<PinReport>,
    /// The live gateways, by slot.
    pub gateways: Vec<(u32, &'a GatewayRecord)>,
}

/// The report on one stage.
#[derive(Debug, Clone, PartialEq)]
pub struct StageReport<'a> {
    /// Its name.
    pub name: &'a StageName,
    /// Its state.
    pub state: StageState,
    /// The reason, if the state alone does not show it.
    pub reason: Option<Cow<'a, str>>,
    /// The slot that the newest placement gives it.
    pub slot: Option<u32>,
    /// The layers of that slot.
    pub layers: Option<LayerRange>,
    /// The operator's pin for it.
    pub pin: Option<Pin>,
    /// Its claim on that slot.
    pub claim: Option<&'a ClaimRecord>,
    /// Its record, if it is live.
    pub record: Option<&'a StageRecord>,
}

/// The state of a stage, as shown to operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageState {
    /// It takes frames for its layers.
    Serving,
    /// It maps the weights of its layers.
    Loading,
    /// It has read the weights of its layers and still serves those of the generation before.
    Ready,
    /// It could not load its layers.
    Failed,
    /// It is given layers and has not claimed them.
    Unclaimed,
    /// It is given layers and is not live.
    Gone,
    /// It has no layers and is about to stop.
    Leaving,
    /// It has no layers.
    Standby,
    /// Peers could not bring frames to it, or take frames from it, and evicted it.
    Evicted,
    /// Its record does not prove that it has the cluster key: it is no member.
    Refused,
}

/// The stages that serve in `view`.
///
/// # Errors
/// [`NotServing`] names the layers that no stage serves and the reason. If no placement can be made, it also names
/// remedies.
pub fn serving(view: &ClusterView) -> Result<Served<'_>, NotServing> {
    view.serving().map_err(|NotServing { missing, reason }| {
        let model = view.model.as_ref().map(|model| &model.value);
        let reason = model.map_or(reason.clone(), |model| match &view.placement {
            None => unplaced(view, model),
            Some(placement) => beyond_placement(view, model, &placement.value, reason),
        });
        NotServing { missing, reason }
    })
}

/// In words, the records that the store has lost or else the first value in it that cannot be used.
pub(crate) fn store_problem(view: &ClusterView) -> Option<String> {
    if !view.recalled.is_empty() {
        let lost: Vec<_> = view.recalled.keys().map(ToString::to_string).collect();
        return Some(format!("the store has lost {}, which members write again", lost.join(", ")));
    }
    view.complaints.first().map(|complaint| format!("in the store, {complaint}"))
}

/// The reason for which nothing is placed yet.
fn unplaced(view: &ClusterView, model: &ModelRecord) -> String {
    let held = format!("layers 0..{} are held by nobody", model.layers);
    match NoPlan::find(view, model) {
        Some(no_plan) => format!("{held}: {no_plan}"),
        None => format!("{held}: the first placement is about to be made"),
    }
}

/// `reason`, which is about layers of `placement`. If other stages cannot take them over, the reason for that is added.
fn beyond_placement(view: &ClusterView, model: &ModelRecord, placement: &Placement, reason: String) -> String {
    let mut states = stages(view, Some(placement)).into_iter().filter(|stage| stage.slot.is_some());
    if states.all(|stage| stage.state.will_serve()) {
        return reason;
    }
    match NoPlan::find(view, model) {
        Some(no_plan) => format!("{reason}; no other placement can be made: {no_plan}"),
        None => reason,
    }
}

/// Every stage of `view`. Some of them have layers in `placement`.
fn stages<'a>(view: &'a ClusterView, placement: Option<&'a Placement>) -> Vec<StageReport<'a>> {
    let placed = placement.into_iter().flat_map(|placement| {
        (0..).zip(placement.shards()).map(move |(slot, shard)| {
            let claim = view.claims.get(&ClaimId::new(placement.generation(), slot)).map(|claim| &claim.value);
            let claim = claim.filter(|claim| claim.stage == shard.stage && claim.layers == shard.layers);
            StageReport::new(view, &shard.stage, Some((slot, shard.layers)), claim)
        })
    });
    let is_placed = |stage: &StageName| placement.is_some_and(|placement| placement.slot_of(stage).is_some());
    let others = view.stages.keys().chain(view.evictions.keys()).chain(view.unproven_stages.keys());
    let others: BTreeSet<_> = others.filter(|stage| !is_placed(stage)).collect();
    placed.chain(others.into_iter().map(|stage| StageReport::new(view, stage, None, None))).collect()
}

// === impl ClusterReport ===

impl<'a> ClusterReport<'a> {
    /// The report of `view`.
    pub fn new(view: &'a ClusterView) -> Self {
        let gateways = view.gateways.iter().map(|(slot, gateway)| (*slot, &gateway.value));
        Self {
            serving: serving(view),
            stages: stages(view, view.placement.as_ref().map(|placement| &placement.value)),
            pins: view.pin_reports(),
            gateways: gateways.collect(),
        }
    }
}

// === impl StageReport ===

impl<'a> StageReport<'a> {
    fn new(
        view: &'a ClusterView,
        name: &'a StageName,
        placed: Option<(u32, LayerRange)>,
        claim: Option<&'a ClaimRecord>,
    ) -> Self {
        let record = view.stages.get(name).map(|record| &record.value);
        let (unproven, eviction) = (view.unproven_stages.get(name), view.evictions.get(name));
        let (state, reason) = match (record, placed, claim.map(|claim| &claim.state)) {
            // A claim is under its stage's lease. Without the stage it is about to be deleted, too.
            (None, _, _) => match (unproven, eviction) {
                (Some(why), _) => (StageState::Refused, Some(Cow::Borrowed(why.value.as_str()))),
                (None, Some(why)) => {
                    let EvictionRecord { by, cause, .. } = &why.value;
                    (StageState::Evicted, Some(Cow::Owned(format!("by {by}: {cause}"))))
                }
                (None, None) => (StageState::Gone, None),
            },
            (Some(record), None, _) if record.leaving => (StageState::Leaving, None),
            (Some(_), None, _) => (StageState::Standby, None),
            (Some(_), Some(_), None) => (StageState::Unclaimed, None),
            (Some(record), Some(_), Some(ClaimState::Loading)) => (StageState::Loading, fetching(record)),
            (Some(_), Some(_), Some(ClaimState::Ready)) => (StageState::Ready, None),
            (Some(record), Some(_), Some(ClaimState::Serving)) => {
                (StageState::Serving, record.trouble.as_deref().map(Cow::Borrowed))
            }
            (Some(_), Some(_), Some(ClaimState::Failed { reason })) => {
                (StageState::Failed, Some(Cow::Borrowed(reason.as_str())))
            }
        };
        let (slot, layers) = placed.unzip();
        let pin = view.pins.get(name).map(|pin| pin.value);
        Self { name, state, reason, slot, layers, pin, claim, record }
    }
}

/// The progress of a stage that fetches the weights of its layers.
fn fetching(record: &StageRecord) -> Option<Cow<'static, str>> {
    let percent = record.load.memory.fetched_percent?;
    Some(Cow::Owned(format!("fetching its layers, {percent} % are here")))
}

// === impl StageState ===

impl StageState {
    /// The one word that every page and table has for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Failed => "failed",
            Self::Unclaimed => "unclaimed",
            Self::Gone => "gone",
            Self::Leaving => "leaving",
            Self::Standby => "standby",
            Self::Evicted => "evicted",
            Self::Refused => "refused",
        }
    }

    /// True if a stage with layers in the placement serves them, or will serve them without another placement.
    fn will_serve(self) -> bool {
        matches!(self, Self::Serving | Self::Loading | Self::Ready)
    }
}

#[cfg(test)]
mod tests {
    use schema::Generation;
    use schema::record::{Shard, Share, StartsRecord};

    use super::*;
    use crate::testing::{claim_of, gateway, model, name, stage};
    use crate::view::Versioned;

    fn versioned<T>(value: T) -> Versioned<T> {
        Versioned { value, mod_revision: 7 }
    }

    /// A model of four layers of 10 bytes, and stages with these budgets in bytes.
    fn unplaced_view(stages: &[(&str, u64)]) -> ClusterView {
        ClusterView {
            reachable: true,
            model: Some(versioned(model(&[10; 4], 0))),
            stages: stages.iter().map(|(stage_name, budget)| (name(stage_name), versioned(stage(*budget)))).collect(),
            ..ClusterView::default()
        }
    }

    fn layers(start: u32, end: u32) -> LayerRange {
        LayerRange::new(start, end).unwrap()
    }

    /// The same, with half of the layers given to `b`, which comes first in the order, and half to `a`, which is in
    /// `state`.
    fn placed_view(stages: &[(&str, u64)], state: Option<ClaimState>) -> ClusterView {
        let shards = [("b", layers(0, 2)), ("a", layers(2, 4))];
        let shards = shards.map(|(stage, layers)| Shard { layers, stage: name(stage) });
        let claim = |shard, state| claim_of(shard, "ipc:///x", state);
        let mut view = unplaced_view(stages);
        view.claims.insert(ClaimId::new(Generation(3), 0), versioned(claim(&shards[0], ClaimState::Serving)));
        view.claims.extend(state.map(|state| (ClaimId::new(Generation(3), 1), versioned(claim(&shards[1], state)))));
        view.placement = Some(versioned(Placement::new(Generation(3), shards.into()).unwrap()));
        view
    }

    fn reason(view: &ClusterView) -> String {
        serving(view).unwrap_err().reason
    }

    fn states(view: &ClusterView) -> String {
        let report = ClusterReport::new(view);
        let stages = report.stages.iter().map(|stage| format!("{} {}", stage.name, stage.state.word()));
        stages.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_cluster_without_a_placement_gives_the_reason() {
        insta::assert_snapshot!(reason(&ClusterView::default()), @"the cluster has no model yet");
        insta::assert_snapshot!(reason(&unplaced_view(&[])),
            @"layers 0..4 are held by nobody: no stage has joined"
        );
        insta::assert_snapshot!(reason(&unplaced_view(&[("a", 15), ("b", 10)])),
            @"layers 0..4 are held by nobody: the model needs 40 B (weights 40 B, keys and values of 1024 tokens as \
            f16 0 B, scratch 0 B on each of 2 stages), the stages offer 25 B (a 15 B, b 10 B): 15 B are missing; what \
            would help: one more stage that may use 20 B"
        );
        insta::assert_snapshot!(reason(&unplaced_view(&[("a", 20), ("b", 20)])),
            @"layers 0..4 are held by nobody: the first placement is about to be made"
        );
        let mut view = unplaced_view(&[("a", 20)]);
        view.model.as_mut().unwrap().value.stages_min = 2;
        view.starts.insert(name("b"), versioned(StartsRecord { starts: 4, wait_s: 1 }));
        insta::assert_snapshot!(reason(&view),
            @"layers 0..4 are held by nobody: 1 of at least 2 stages has joined: the first placement waits for 1 \
            more; stage b was started 4 times lately and waits 1 s before it joins"
        );
        assert_eq!(serving(&view).unwrap_err().missing, [layers(0, 4)]);
    }

    #[test]
    fn a_loss_that_no_stage_can_make_good_gives_the_reason() {
        insta::assert_snapshot!(reason(&placed_view(&[("b", 20)], None)),
            @"layers 2..4 are held by nobody: stage a is gone; no other placement can be made: the model needs 40 B \
            (weights 40 B, keys and values of 1024 tokens as f16 0 B, scratch 0 B), the stage offers 20 B (b 20 B): \
            20 B are missing; what would help: one more stage that may use 20 B"
        );
        // A free stage takes over, so nothing more is reported.
        insta::assert_snapshot!(reason(&placed_view(&[("b", 20), ("c", 20)], None)),
            @"layers 2..4 are held by nobody: stage a is gone"
        );
        let failed = ClaimState::Failed { reason: "the file is cut".to_owned() };
        insta::assert_snapshot!(reason(&placed_view(&[("a", 10), ("b", 20)], Some(failed))),
            @"layers 2..4 are held by nobody: stage a could not load them: the file is cut; no other placement can be \
            made: the model needs 40 B (weights 40 B, keys and values of 1024 tokens as f16 0 B, scratch 0 B on each \
            of 2 stages), the stages offer 30 B (b 20 B, a 10 B): 10 B are missing; what would help: one more stage \
            that may use 10 B"
        );
        // Layers that are being loaded will be served, whatever a new plan would need.
        let loading = placed_view(&[("a", 10), ("b", 20)], Some(ClaimState::Loading));
        insta::assert_snapshot!(reason(&loading), @"layers 2..4 are being loaded by stage a");
        assert_eq!(serving(&loading).unwrap_err().missing, [layers(2, 4)]);
    }

    #[test]
    fn every_state_has_one_word_and_those_with_layers_come_first() {
        let stages = [("a", 20), ("b", 20), ("c", 20)];
        let failed = ClaimState::Failed { reason: "the file is cut".to_owned() };
        for (state, expected) in [
            (Some(ClaimState::Serving), "b serving, a serving, c standby"),
            (Some(ClaimState::Loading), "b serving, a loading, c standby"),
            (Some(ClaimState::Ready), "b serving, a ready, c standby"),
            (Some(failed.clone()), "b serving, a failed, c standby"),
            (None, "b serving, a unclaimed, c standby"),
        ] {
            assert_eq!(states(&placed_view(&stages, state)), expected);
        }
        assert_eq!(states(&placed_view(&stages[1..], Some(ClaimState::Serving))), "b serving, a gone, c standby");
        let mut view = placed_view(&stages, Some(failed));
        view.stages.get_mut(&name("c")).unwrap().value.leaving = true;
        assert_eq!(states(&view), "b serving, a failed, c leaving");
        let report = ClusterReport::new(&view);
        assert_eq!((report.stages[1].reason.as_deref(), report.stages[1].slot), (Some("the file is cut"), Some(1)));
    }

    #[test]
    fn a_claim_on_other_layers_is_none() {
        let mut view = placed_view(&[("a", 20), ("b", 20)], Some(ClaimState::Serving));
        view.claims.get_mut(&ClaimId::new(Generation(3), 1)).unwrap().value.layers = layers(1, 4);
        assert_eq!(states(&view), "b serving, a unclaimed");
        assert!(ClusterReport::new(&view).stages[1].claim.is_none());
    }

    #[test]
    fn a_serving_cluster_is_reported_with_its_pins_and_gateways() {
        let mut view = placed_view(&[("a", 20), ("b", 20)], Some(ClaimState::Serving));
        view.pins.insert(name("a"), versioned(Pin::Cordoned));
        view.gateways.insert(2, versioned(gateway("1", Share::EMPTY)));
        let report = ClusterReport::new(&view);
        assert_eq!(report.serving.as_ref().map(|served| served.claims.len()), Ok(2));
        assert_eq!((report.stages[1].pin, report.pins.len()), (Some(Pin::Cordoned), 1));
        assert_eq!(report.gateways.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn an_unproven_or_evicted_stage_is_shown_with_the_reason() {
        let mut view = placed_view(&[("b", 1000)], None);
        let why = "it carries no proof".to_owned();
        view.unproven_stages.insert(name("forged"), versioned(why));
        let eviction =
            EvictionRecord { by: "stage b".to_owned(), endpoint: "tcp://a:1".to_owned(), cause: "silence".to_owned() };
        view.evictions.insert(name("a"), versioned(eviction));
        let report = ClusterReport::new(&view);
        let found: Vec<_> = report
            .stages
            .iter()
            .map(|stage| (stage.name.as_str(), stage.state.word(), stage.reason.as_deref()))
            .collect();
        let expected = [
            ("b", "serving", None),
            ("a", "evicted", Some("by stage b: silence")),
            ("forged", "refused", Some("it carries no proof")),
        ];
        assert_eq!(found, expected);
    }
}
