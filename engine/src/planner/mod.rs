//! The plan: a division of the layers among the stages. Pure and deterministic: every stage computes the same plan from
//! the same view.
//!
//! Each stage gets a contiguous range or none, in a given order. Stages that hold layers now keep their places, and new
//! ones follow by name, since a new order for every plan would move all layers for a small gain. Of all divisions in
//! this order that respect the memory budgets, the plan is the one whose slowest stage takes the least time for a
//! micro-batch, and of those the most even one. Times are by each stage's measured speed. For a single sequence the
//! places of the cuts do not matter, since its tokens pass through all layers one after the other. So the micro-batch
//! has a few rows, and takes as long as reading the weights or multiplying them. A stage whose link to the others is so
//! slow that they are faster without it is left out (`link_cost`).

mod costs;
mod divide;
mod error;
mod link_cost;
mod machines;
mod no_plan;
mod pins;
mod proposal;
mod proposals;
mod rates;
mod remedies;
mod room;
mod standby;
mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schema::record::{ModelRecord, Shard, Speeds, StageRecord};
use schema::{LayerRange, StageName};

use costs::{Costs, Times};
use divide::{FreeLayers, FreeStage};
pub use error::{Budget, MemoryShortage, PinnedRange, PlanError};
pub use link_cost::{interval_ps, plan_with_links};
pub use no_plan::{NoPlan, UnusableStage};
pub use pins::PinStatusWrite;
pub use proposal::Proposal;
pub(crate) use proposals::Proposals;
pub use rates::ROWS;
use rates::Rates;
pub use remedies::Remedies;

/// Gain in time, in hundredths, that is needed to move running layers while no stage has come or gone. If one of two
/// equal machines was busy while it measured, one may seem half as fast again as the other, which promises a fifth. And
/// a move costs every sequence its prefill.
const MOVE_GAIN_PERCENT: u64 = 25;
/// The same if more stages would hold layers: an operator who adds a machine wants it to work.
const JOIN_GAIN_PERCENT: u64 = 5;

/// A stage that may be given layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: StageName,
    /// The most it may use for weights, keys and values, and scratch, in bytes.
    pub budget_bytes: u64,
    /// Its measured speeds. Empty until it has measured them.
    pub speed: Speeds,
    /// The latency of the link from it to the next stage, in microseconds.
    pub link_us: u32,
    /// Its throughput in Mbit/s, if it was measured.
    pub link_megabits_per_second: Option<u32>,
    /// The layers that it holds, whatever the others hold.
    pub fixed: Option<LayerRange>,
}

/// Divides the model's layers among `candidates`, in their order. Those with fixed layers may stand anywhere in it.
///
/// # Errors
/// [`PlanError`] if no division fits, with the missing amount or the obstacle.
pub fn plan(model: &ModelRecord, candidates: &[Candidate]) -> Result<Vec<Shard>, PlanError> {
    let costs = checked_costs(model)?;
    let taken = taken(&costs, candidates)?;
    let free_layers = FreeLayers::new(&costs, &ranges_of(&taken));
    let (free, free_stages) = free_stages(model, candidates);
    let missing = |left: usize| shortage(model, &costs, candidates, &free_layers, left);
    let most_ps = free_layers.slowest(&free_stages).map_err(missing)?;
    let divided = free_layers.most_even(&free_stages, most_ps).ok_or_else(|| missing(0))?;
    let mut shards: Vec<_> =
        free.into_iter().zip(divided).filter_map(|(stage, range)| Some(shard(stage, range?))).collect();
    shards.extend(taken.into_iter().map(|(range, stage)| shard(stage, range)));
    shards.sort_by_key(|shard| shard.layers.start());
    Ok(shards)
}

/// Checks that there is a plan.
///
/// # Errors
/// Those of [`plan`].
pub fn fits(model: &ModelRecord, candidates: &[Candidate]) -> Result<(), PlanError> {
    let costs = checked_costs(model)?;
    let taken = taken(&costs, candidates)?;
    let free_layers = FreeLayers::new(&costs, &ranges_of(&taken));
    match free_layers.first_left(budgets(candidates)) {
        None => Ok(()),
        Some(left) => Err(shortage(model, &costs, candidates, &free_layers, left)),
    }
}

/// The time of each shard for a micro-batch of `rows`, in picoseconds, by the measured speed of its stage. A stage that
/// is not among the candidates counts as an average one.
pub fn times_ps(model: &ModelRecord, candidates: &[Candidate], shards: &[Shard], rows: u64) -> Vec<u64> {
    // The last is for stages that are not candidates.
    let unknown = Speeds::new();
    let rates = rates::rates(model, candidates.iter().map(|stage| &stage.speed).chain([&unknown]));
    let places: BTreeMap<_, _> = candidates.iter().zip(0..).map(|(stage, at)| (&stage.name, at)).collect();
    let times = Times::of_each(model, &rates, rows);
    let time = |shard: &Shard| {
        let at = places.get(&shard.stage).copied().unwrap_or(candidates.len());
        let end = shard.layers.end().min(model.layers);
        times[at].of(shard.layers.start().min(end) as usize, end as usize)
    };
    shards.iter().map(time).collect()
}

/// True if `wanted` is worth moving layers for, while `current` could go on: micro-batches must follow each other
/// faster by more than the error of measured speeds. Speeds move nothing while a stage that holds layers has not
/// measured itself, or while a move for speed alone is not due (`speed_moves`).
pub fn improves(
    model: &ModelRecord,
    candidates: &[Candidate],
    wanted: &[Shard],
    current: &[Shard],
    speed_moves: bool,
) -> bool {
    let holders: BTreeSet<_> = current.iter().map(|shard| &shard.stage).collect();
    let holds = |stage: &Candidate| holders.contains(&stage.name);
    let measured = |stage: &Candidate| has_measured(model, &stage.speed);
    let known = speed_moves && candidates.iter().filter(|stage| holds(stage)).all(measured);
    let gain_percent = match (wanted.len() > current.len(), known) {
        (true, _) => JOIN_GAIN_PERCENT,
        (false, true) => MOVE_GAIN_PERCENT,
        (false, false) => return false,
    };
    let interval = |shards| interval_ps(model, candidates, shards);
    interval(wanted) * 100 <= interval(current) * u128::from(100 - gain_percent)
}

/// True if a stage with these speeds has measured itself with the format that most of the model's layers are in.
pub fn has_measured(model: &ModelRecord, speed: &Speeds) -> bool {
    Rates::measured(model, speed).is_some()
}

/// The stages in the order of a plan: those that hold layers now in their order, then the others in theirs. If a stage
/// that held layers is gone, one of the others takes its place, so that every other stage may keep its layers.
pub fn in_order<'a>(
    stages: impl Iterator<Item = (&'a StageName, &'a StageRecord)>,
    current: &[Shard],
) -> Vec<Candidate> {
    let stages: Vec<_> = stages.collect();
    let records = stages.iter().map(|(_, record)| *record);
    let (speeds, share_one_machine) = (machines::speeds(records.clone()), machines::share_one_machine(records));
    let live: BTreeSet<_> = stages.iter().map(|(name, _)| *name).collect();
    let mut vacant = (0..current.len()).filter(|place| !live.contains(&current[*place].stage));
    // From the last, because the first place of a stage counts.
    let places: BTreeMap<_, _> = (0..current.len()).rev().map(|place| (&current[place].stage, place)).collect();
    let mut placed: Vec<_> = stages
        .iter()
        .zip(speeds)
        .map(|((name, record), speed)| {
            let own = places.get(name).copied();
            let place = own.or_else(|| vacant.next()).unwrap_or(current.len());
            let candidate = Candidate {
                name: (*name).clone(),
                budget_bytes: record.memory_budget_bytes,
                speed,
                link_us: if share_one_machine { 0 } else { record.link_us },
                link_megabits_per_second: record.link_megabits_per_second.filter(|_| !share_one_machine),
                fixed: None,
            };
            (place, candidate)
        })
        .collect();
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, candidate)| candidate).collect()
}

/// The costs of `model`'s layers. A record may name any number of layers, so it is refused unless it has as many sizes.
fn checked_costs(model: &ModelRecord) -> Result<Costs, PlanError> {
    let (layers, found) = (model.layers, model.layer_bytes.len());
    if layers as usize == found { Ok(Costs::new(model)) } else { Err(PlanError::BrokenModel { layers, found }) }
}

/// The fixed ranges in layer order, with their stages.
fn taken<'a>(costs: &Costs, candidates: &'a [Candidate]) -> Result<Vec<(LayerRange, &'a Candidate)>, PlanError> {
    if candidates.is_empty() {
        return Err(PlanError::NoStage);
    }
    let mut taken: Vec<_> = candidates.iter().filter_map(|stage| Some((stage.fixed?, stage))).collect();
    taken.sort_by_key(|(range, _)| range.start());
    for (layers, Candidate { name, budget_bytes, .. }) in &taken {
        let (layers, stage) = (*layers, name.clone());
        if layers.end() as usize > costs.layers() {
            return Err(PlanError::NoSuchLayers { layers, stage, found: costs.layers() as u32 });
        }
        let needed_bytes = costs.memory_bound(layers.start() as usize, layers.end() as usize);
        if needed_bytes > *budget_bytes {
            return Err(PlanError::OverBudget { layers, stage, needed_bytes, budget_bytes: *budget_bytes });
        }
    }
    match taken.windows(2).find(|pair| pair[0].0.end() > pair[1].0.start()) {
        None => Ok(taken),
        Some(pair) => {
            let ((others, other), (layers, stage)) = (pair[0], pair[1]);
            Err(PlanError::Overlap { layers, stage: stage.name.clone(), others, other: other.name.clone() })
        }
    }
}

fn ranges_of(taken: &[(LayerRange, &Candidate)]) -> Vec<LayerRange> {
    taken.iter().map(|(range, _)| *range).collect()
}

/// The budgets of the candidates without fixed layers, in their order.
fn budgets(candidates: &[Candidate]) -> impl Iterator<Item = u64> {
    candidates.iter().filter(|stage| stage.fixed.is_none()).map(|stage| stage.budget_bytes)
}

/// The candidates without fixed layers, with their times and budgets.
fn free_stages<'a>(model: &ModelRecord, candidates: &'a [Candidate]) -> (Vec<&'a Candidate>, Vec<FreeStage>) {
    let rates = rates::rates(model, candidates.iter().map(|stage| &stage.speed));
    let times = Times::of_each(model, &rates, ROWS);
    let free = candidates.iter().zip(times).filter(|(stage, _)| stage.fixed.is_none());
    let free_stage =
        |(stage, times): (&'a Candidate, Arc<Times>)| (stage, FreeStage { times, budget_bytes: stage.budget_bytes });
    free.map(free_stage).unzip()
}

fn shard(stage: &Candidate, layers: LayerRange) -> Shard {
    Shard { layers, stage: stage.name.clone() }
}

/// The reason for which no stage has room for the layers from `left` on.
fn shortage(
    model: &ModelRecord,
    costs: &Costs,
    candidates: &[Candidate],
    free_layers: &FreeLayers<'_>,
    left: usize,
) -> PlanError {
    let left_until = |end: usize| LayerRange::new(left as u32, end as u32);
    let all = LayerRange::new(0, costs.layers() as u32).map(|all| model.shard_bytes(all));
    let (Some(all), Some(left_layers)) = (all, left_until(costs.layers())) else { return PlanError::NoStage };
    let holders: Vec<_> = candidates.iter().filter(|stage| stage.budget_bytes > all.scratch).collect();
    // If not even scratch fits, the largest stage counts: the memory that it lacks is missing.
    let largest = candidates.iter().max_by_key(|stage| stage.budget_bytes);
    let holders = if holders.is_empty() { largest.into_iter().collect() } else { holders };
    let budget = |stage: &Candidate| Budget { stage: stage.name.clone(), bytes: stage.budget_bytes };
    let offered_bytes = holders.iter().fold(0_u64, |sum, stage| sum.saturating_add(stage.budget_bytes));
    let shortage = MemoryShortage {
        weights_bytes: all.weights,
        kv_bytes: all.kv,
        kv_room: model.kv_room(),
        scratch_bytes: all.scratch,
        holders: holders.len(),
        budgets: candidates.iter().take(MemoryShortage::BUDGETS_MAX).map(budget).collect(),
        stages: candidates.len(),
        offered_bytes,
        missing_bytes: 0,
        left: left_layers,
        left_bytes: costs.memory_bound(left, costs.layers()),
    };
    let missing_bytes = shortage.needed_bytes().saturating_sub(offered_bytes);
    let pinned = |stage: &Candidate| Some(PinnedRange { stage: stage.name.clone(), layers: stage.fixed? });
    let pinned: Vec<_> = candidates.iter().filter_map(pinned).collect();
    let gap = free_layers.next_free(left).and_then(|(_, end)| left_until(end));
    match gap.filter(|_| missing_bytes == 0 && !pinned.is_empty()) {
        Some(layers) => PlanError::Gap { layers, pinned },
        None => PlanError::Memory(Box::new(MemoryShortage { missing_bytes, ..shortage })),
    }
}

#[cfg(test)]
mod tests;
