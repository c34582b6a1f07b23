//! The placement that the stages would choose for a cluster, beside the one it has: for `baton plan`, `baton pin` and
//! the pages about pins. Pure.

use std::collections::BTreeSet;

use engine::planner::{NoPlan, Proposal, ROWS, has_measured, in_order, interval_ps, times_ps};
use engine::view::{ClusterView, Versioned};
use schema::record::{ModelRecord, Pin, PinStatus, Placement, Shard, StageRecord};
use schema::{LayerRange, StageName};
use serde::Serialize;

/// The plan of the stages, for text and for `--json`.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct PlanDocument {
    /// The number of the newest placement.
    pub(crate) generation: Option<u64>,
    /// True if the stages would write another placement.
    pub(crate) moves: bool,
    /// The reason that there is no plan.
    pub(crate) reason: Option<String>,
    /// The stages in the plan's order, then the stages without layers in the plan.
    pub(crate) stages: Vec<Change>,
    /// Expected speed of the current placement.
    pub(crate) before: Option<ExpectedSpeed>,
    /// Expected speed of the plan.
    pub(crate) after: Option<ExpectedSpeed>,
    /// Pins that would have no effect, with the reason of each.
    pub(crate) refused_pins: Vec<RefusedPin>,
}

/// The layers that a stage holds now and in the plan.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Change {
    pub(crate) stage: StageName,
    pub(crate) before: Option<LayerRange>,
    pub(crate) after: Option<LayerRange>,
    /// Weights that the stage would have to load, in bytes.
    pub(crate) load_bytes: u64,
}

/// Expected tokens per second, from the times that the stages measured for their weights and links. Attention and
/// sampling are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct ExpectedSpeed {
    /// Tokens per second of a single stream, which passes through all stages in turn.
    pub(crate) one_stream: f64,
    /// Tokens per second of many streams, with a micro-batch of 8 rows on each stage.
    pub(crate) many_streams: f64,
}

/// A pin that would have no effect.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct RefusedPin {
    pub(crate) stage: StageName,
    pub(crate) reason: String,
}

/// Replaces a stage's pin in the view with `pin`, as the newest pin, or removes it (`None`).
pub(crate) fn assume_pin(view: &mut ClusterView, stage: &StageName, pin: Option<Pin>) {
    view.pins.remove(stage);
    view.unreadable_pins.remove(stage);
    let newest = view.revision + 1;
    view.pins.extend(pin.map(|value| (stage.clone(), Versioned { value, mod_revision: newest })));
}

// === impl PlanDocument ===

impl PlanDocument {
    /// The plan of the stages for `view`.
    pub(crate) fn new(view: &ClusterView) -> Self {
        let placement = view.placement.as_ref().map(|placement| &placement.value);
        let current = placement.map(Placement::shards).unwrap_or_default();
        let mut document = Self {
            generation: placement.map(|placement| placement.generation().0),
            moves: false,
            reason: None,
            stages: Vec::new(),
            before: None,
            after: None,
            refused_pins: Vec::new(),
        };
        let Some(model) = view.model.as_ref().map(|model| &model.value) else {
            return Self { reason: Some("the cluster has no model yet".to_owned()), ..document };
        };
        let proposal = Proposal::new(view, model, true);
        let refused =
            |(stage, status): (StageName, PinStatus)| status.reason.map(|reason| RefusedPin { stage, reason });
        document.refused_pins = proposal.pins.into_iter().filter_map(refused).collect();
        document.before = expected_speed(view, model, current);
        let wanted = match proposal.shards {
            Ok(wanted) => wanted,
            Err(error) => {
                let no_plan = NoPlan::find(view, model);
                document.reason = Some(no_plan.map_or_else(|| error.to_string(), |no_plan| no_plan.to_string()));
                current.to_vec()
            }
        };
        document.moves = wanted != current;
        document.after = expected_speed(view, model, &wanted);
        document.stages = changes(view, model, current, &wanted);
        document
    }
}

/// The layers that each stage holds now and in the plan.
fn changes(view: &ClusterView, model: &ModelRecord, current: &[Shard], wanted: &[Shard]) -> Vec<Change> {
    let held = |shards: &[Shard], stage: &StageName| {
        shards.iter().find(|shard| shard.stage == *stage).map(|shard| shard.layers)
    };
    let placed = wanted.iter().chain(current).map(|shard| &shard.stage);
    let mut seen = BTreeSet::new();
    let names = placed.chain(view.stages.keys()).filter(|stage| seen.insert(*stage));
    let change = |stage: &StageName| {
        let (before, after) = (held(current, stage), held(wanted, stage));
        let load_bytes = after.map_or(0, |after| new_bytes(model, before, after));
        Change { stage: stage.clone(), before, after, load_bytes }
    };
    names.map(change).collect()
}

/// Bytes of the weights in `after` that are not in `before`.
fn new_bytes(model: &ModelRecord, before: Option<LayerRange>, after: LayerRange) -> u64 {
    let layers = (after.start()..after.end()).filter(|layer| before.is_none_or(|before| !before.contains(*layer)));
    let one = |layer: u32| LayerRange::new(layer, layer + 1).map_or(0, |layer| model.shard_bytes(layer).weights);
    layers.map(one).fold(0, u64::saturating_add)
}

/// Expected speed of a placement. `None` if it is empty or one of its stages has not measured itself.
pub(crate) fn expected_speed(view: &ClusterView, model: &ModelRecord, shards: &[Shard]) -> Option<ExpectedSpeed> {
    let measured =
        |shard: &Shard| view.stages.get(&shard.stage).is_some_and(|stage| has_measured(model, &stage.value.speed));
    if shards.is_empty() || !shards.iter().all(measured) {
        return None;
    }
    let stages = in_order(view.stages.iter().map(|(name, stage)| (name, &stage.value)), shards);
    let seconds = |rows| times_ps(model, &stages, shards, rows).into_iter().map(|time_ps| time_ps as f64 / 1e12);
    let links: f64 = shards.iter().filter_map(|shard| view.stages.get(&shard.stage)).map(link_seconds).sum();
    let one_stream = 1.0 / (seconds(1).sum::<f64>() + links);
    let many_streams = ROWS as f64 * 1e12 / interval_ps(model, &stages, shards) as f64;
    // A model record without weights gives infinite speeds, which are not shown.
    (one_stream.is_finite() && many_streams.is_finite()).then_some(ExpectedSpeed { one_stream, many_streams })
}

fn link_seconds(stage: &Versioned<StageRecord>) -> f64 {
    f64::from(stage.value.link_us) / 1e6
}
