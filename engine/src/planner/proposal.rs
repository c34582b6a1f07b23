//! The placement that a cluster should have next: the plan by the pins, if it is worth moving layers for.

use std::collections::{BTreeMap, BTreeSet};

use schema::StageName;
use schema::record::{ModelRecord, PinStatus, Placement, Shard};

use super::no_plan::refine;
use super::pins::{self, PinStatusWrite};
use super::stored::prefer_stored;
use super::{Candidate, PlanError, improves, in_order, plan_with_links, room};
use crate::view::ClusterView;

/// The placement that a cluster should have.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// The status of each pin.
    pub pins: BTreeMap<StageName, PinStatus>,
    /// The statuses to be written for pins.
    pub status_writes: Vec<PinStatusWrite>,
    /// The layers of each stage. The current ones if nothing is to be moved.
    pub shards: Result<Vec<Shard>, PlanError>,
    /// The room for keys and values that goes with these layers, in tokens. `None` if it is that of the model's record,
    /// or if there is no plan.
    pub kv_tokens: Option<u32>,
}

// === impl Proposal ===

impl Proposal {
    /// The proposal for the cluster of `view`, which serves `model`. `speed_moves` is true if a move for speed alone is
    /// due.
    ///
    /// Layers are placed by the least room for keys and values, or by the room that accepted sequences need to end if
    /// that is more and there is a plan with it. The room then fills the memory that is left.
    pub fn new(view: &ClusterView, model: &ModelRecord, speed_moves: bool) -> Self {
        let needed = view.kv_tokens_needed(model);
        let roomy = (needed > model.kv_tokens).then(|| Self::placed_by(view, model, needed, speed_moves));
        let roomy = roomy.filter(|proposal| proposal.shards.is_ok());
        roomy.unwrap_or_else(|| Self::placed_by(view, model, model.kv_tokens, speed_moves))
    }

    /// The proposal whose stages have room for `kv_tokens` tokens at least.
    fn placed_by(view: &ClusterView, model: &ModelRecord, kv_tokens: u32, speed_moves: bool) -> Self {
        let (record, model) = (model, &model.with_room(kv_tokens));
        let current = view.placement.as_ref().map(|placement| placement.value.shards()).unwrap_or_default();
        let stages = in_order(view.staying(), current);
        let (candidates, pins) = pins::apply(view, model, stages, current);
        let stands = obeys(model, &candidates, current) && !pins::frees_layers(view, &pins);
        let shards = plan_with_links(model, &candidates).map(|wanted| {
            let wanted = prefer_stored(view, model, &candidates, current, wanted);
            let moves = !stands || improves(model, &candidates, &wanted, current, speed_moves);
            if moves { wanted } else { current.to_vec() }
        });
        let shards = shards.map_err(|error| refine(error, view));
        let kv_tokens = shards.as_ref().ok().filter(|_| record.kv_growth.is_some()).map(|shards| {
            let placed = view.placement.as_ref().map(|placement| &placement.value);
            let placed = placed.filter(|placed| placed.shards() == &shards[..]);
            let in_use = placed.map(|placed| placed.kv_tokens().unwrap_or(record.kv_tokens));
            let records = view.staying().collect();
            room::room(model, shards, &room::budgets(&candidates, &records, shards), in_use)
        });
        let kv_tokens = kv_tokens.filter(|tokens| *tokens > record.kv_tokens);
        Self { status_writes: pins::status_writes(view, &pins), pins, shards, kv_tokens }
    }

    /// True if `placement` is what it proposes.
    pub(crate) fn is(&self, placement: &Placement) -> bool {
        self.shards.as_ref().is_ok_and(|shards| placement.shards() == &shards[..])
            && placement.kv_tokens() == self.kv_tokens
    }
}

/// True if `shards` hold every layer, on stages that may have them.
fn obeys(model: &ModelRecord, candidates: &[Candidate], shards: &[Shard]) -> bool {
    let by_name: BTreeMap<_, _> = candidates.iter().map(|stage| (&stage.name, stage)).collect();
    let holders: BTreeSet<_> = shards.iter().map(|shard| &shard.stage).collect();
    let may_hold = |stage: &Candidate, shard: &Shard| {
        stage.fixed.is_none_or(|fixed| fixed == shard.layers)
            && model.shard_bytes(shard.layers).memory_bound() <= stage.budget_bytes
    };
    let allowed = |shard: &Shard| by_name.get(&shard.stage).is_some_and(|stage| may_hold(stage, shard));
    let has_layers = |stage: &Candidate| holders.contains(&stage.name);
    shards.last().is_some_and(|last| last.layers.end() == model.layers)
        && shards.iter().all(allowed)
        && candidates.iter().filter(|stage| stage.fixed.is_some()).all(has_layers)
}
