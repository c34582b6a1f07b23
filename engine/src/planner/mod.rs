//! Who should hold which layers. Pure and deterministic: every stage computes the same plan from the same view.
//!
//! Each stage gets a contiguous range or none, in an order that is given: who holds layers now stays in its place, and
//! newcomers follow by name, since an order of one's own for every plan would move all layers for a small gain. Of all
//! divisions in this order that respect the memory budgets the one is taken whose slowest stage takes the least time for a
//! micro-batch; among those, the most even one. Times are by each stage's measured speed. For a single sequence it does not
//! matter where the layers are cut, since its tokens pass through all of them one after the other; so the micro-batch has a
//! few rows, and takes as long as reading the weights or multiplying them. A stage whose way to the others is so slow that
//! they are faster without it is left out (`ways`).

mod costs;
mod divide;
mod machines;
mod outlook;
mod pins;
mod rates;
mod standby;
mod ways;

use std::collections::BTreeMap;

use schema::record::{ModelRecord, Shard, Speeds, StageRecord};
use schema::{LayerRange, StageName};

use costs::{Costs, Times};
use divide::{Ground, Worker};
pub use outlook::Outlook;
pub use pins::Note;
pub use rates::ROWS;
use rates::Rates;
pub use standby::standby_ranges;
pub use ways::{interval_ps, plan_by_ways};

/// How much less time the slowest stage must take, in hundredths, for running layers to be moved when nobody has come or
/// gone: two equal machines of which one was busy while it measured may seem half as fast again as each other, which
/// promises a fifth, and a move costs every sequence its prefill.
const MOVE_GAIN_PERCENT: u64 = 25;
/// The same when more stages would hold layers: whoever adds a machine wants it to work.
const JOIN_GAIN_PERCENT: u64 = 5;

/// A stage that may be given layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: StageName,
    /// The most it may use for weights, keys and values, and scratch, in bytes.
    pub budget_bytes: u64,
    /// How fast it multiplies; empty when it has not measured that yet.
    pub speed: Speeds,
    /// How long the way from it to the next stage takes, in microseconds.
    pub link_us: u32,
    /// The layers it is to hold whatever the others do.
    pub fixed: Option<LayerRange>,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nobody to give layers to.
    #[error("no stage has joined")]
    NoStage,
    /// Together the stages are too small.
    #[error(
        "the model needs {needed_bytes} bytes (weights, keys and values, scratch): the stages offer {offered_bytes} bytes, \
         {missing_bytes} bytes are missing"
    )]
    TooSmall {
        /// What the whole model takes on one stage.
        needed_bytes: u64,
        /// The sum of the budgets.
        offered_bytes: u64,
        /// The difference.
        missing_bytes: u64,
    },
    /// Together they are large enough, but no division into whole layers fits.
    #[error(
        "no division into contiguous layers fits the stages' budgets: they offer {offered_bytes} bytes together, \
         the largest layer with its keys, values and scratch takes {layer_bytes} bytes"
    )]
    NoFit {
        /// The sum of the budgets.
        offered_bytes: u64,
        /// What the largest single layer takes (the last brings the head).
        layer_bytes: u64,
    },
    /// Beside the fixed ranges nobody has room for these.
    #[error("layers {layers} would be held by nobody: the stages that are free to take them have no room")]
    Gap {
        /// The layers.
        layers: LayerRange,
    },
    /// Two stages are to hold the same layers.
    #[error("layers {layers} of stage {stage} overlap layers {others} of stage {other}")]
    Overlap {
        /// The later range.
        layers: LayerRange,
        /// Whose it is.
        stage: StageName,
        /// The earlier range.
        others: LayerRange,
        /// Whose that is.
        other: StageName,
    },
    /// A stage is to hold more than it may.
    #[error("layers {layers} need {needed_bytes} bytes: stage {stage} may use {budget_bytes} bytes")]
    OverBudget {
        /// The layers.
        layers: LayerRange,
        /// The stage.
        stage: StageName,
        /// What they take.
        needed_bytes: u64,
        /// What the stage may use.
        budget_bytes: u64,
    },
    /// A stage is to hold layers that the model does not have.
    #[error("stage {stage} is to hold layers {layers}: the model has layers 0..{found}")]
    NoSuchLayers {
        /// The layers.
        layers: LayerRange,
        /// The stage.
        stage: StageName,
        /// How many there are.
        found: u32,
    },
}

/// Divides the model's layers among `candidates`, in their order; those with fixed layers may stand anywhere in it.
///
/// # Errors
/// [`PlanError`] when no division fits, with how much is missing or what is in the way.
pub fn plan(model: &ModelRecord, candidates: &[Candidate]) -> Result<Vec<Shard>, PlanError> {
    let costs = Costs::new(model);
    let taken = taken(&costs, candidates)?;
    let ground = Ground::new(&costs, &ranges_of(&taken));
    let (free, workers) = workers(model, candidates);
    let missing = |left: usize| shortage(&costs, candidates, &ground, left);
    let most_ps = ground.slowest(&workers).map_err(missing)?;
    let divided = ground.most_even(&workers, most_ps).ok_or_else(|| missing(0))?;
    let mut shards: Vec<_> =
        free.into_iter().zip(divided).filter_map(|(stage, range)| Some(shard(stage, range?))).collect();
    shards.extend(taken.into_iter().map(|(range, stage)| shard(stage, range)));
    shards.sort_by_key(|shard| shard.layers.start());
    Ok(shards)
}

/// Whether there is a plan.
///
/// # Errors
/// Those of [`plan`].
pub fn fits(model: &ModelRecord, candidates: &[Candidate]) -> Result<(), PlanError> {
    let costs = Costs::new(model);
    let taken = taken(&costs, candidates)?;
    let ground = Ground::new(&costs, &ranges_of(&taken));
    let (_, workers) = workers(model, candidates);
    match ground.first_left(&workers) {
        None => Ok(()),
        Some(left) => Err(shortage(&costs, candidates, &ground, left)),
    }
}

/// How long each shard takes for a micro-batch of `rows`, in picoseconds, by what its stage measured. A stage that is not
/// among the candidates is taken for an average one.
pub fn times_ps(model: &ModelRecord, candidates: &[Candidate], shards: &[Shard], rows: u64) -> Vec<u64> {
    // The last is for stages that are not among them.
    let unknown = Speeds::new();
    let rates = rates::rates(model, candidates.iter().map(|stage| &stage.speed).chain([&unknown]));
    let places: BTreeMap<_, _> = candidates.iter().zip(0..).map(|(stage, at)| (&stage.name, at)).collect();
    let time = |shard: &Shard| {
        let at = places.get(&shard.stage).copied().unwrap_or(candidates.len());
        let end = shard.layers.end().min(model.layers);
        Times::new(model, rates[at], rows).of(shard.layers.start().min(end) as usize, end as usize)
    };
    shards.iter().map(time).collect()
}

/// Whether `wanted` is worth moving layers for, when `current` could go on: micro-batches must follow each other faster by more
/// than what speeds may be wrong by. While a stage that holds layers has not measured itself, or a move for speed alone is not
/// due (`speed_moves`), speeds move nothing.
pub fn improves(
    model: &ModelRecord,
    candidates: &[Candidate],
    wanted: &[Shard],
    current: &[Shard],
    speed_moves: bool,
) -> bool {
    let holds = |stage: &Candidate| current.iter().any(|shard| shard.stage == stage.name);
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

/// Whether a stage with these speeds has measured itself with the format that most of the model's layers are in.
pub fn has_measured(model: &ModelRecord, speed: &Speeds) -> bool {
    Rates::measured(model, speed).is_some()
}

/// The stages in the order of a plan: who holds layers now in their order, then the others in theirs. Where somebody who held
/// layers is gone, one of the others takes the place, so that everybody else may keep their own.
pub fn in_order<'a>(
    stages: impl Iterator<Item = (&'a StageName, &'a StageRecord)>,
    current: &[Shard],
) -> Vec<Candidate> {
    let stages: Vec<_> = stages.collect();
    let records = stages.iter().map(|(_, record)| *record);
    let (speeds, are_together) = (machines::speeds(records.clone()), machines::are_together(records));
    let is_vacant = |place: &usize| stages.iter().all(|(name, _)| **name != current[*place].stage);
    let mut vacant = (0..current.len()).filter(is_vacant);
    let mut placed: Vec<_> = stages
        .iter()
        .zip(speeds)
        .map(|((name, record), speed)| {
            let own = current.iter().position(|shard| shard.stage == **name);
            let place = own.or_else(|| vacant.next()).unwrap_or(current.len());
            let candidate = Candidate {
                name: (*name).clone(),
                budget_bytes: record.memory_budget_bytes,
                speed,
                link_us: if are_together { 0 } else { record.link_us },
                fixed: None,
            };
            (place, candidate)
        })
        .collect();
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, candidate)| candidate).collect()
}

/// The fixed ranges in layer order, and whose they are.
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

/// Those without fixed layers, and what they can do.
fn workers<'a>(model: &ModelRecord, candidates: &'a [Candidate]) -> (Vec<&'a Candidate>, Vec<Worker>) {
    let rates = rates::rates(model, candidates.iter().map(|stage| &stage.speed));
    let free = candidates.iter().zip(rates).filter(|(stage, _)| stage.fixed.is_none());
    let worker = |(stage, rates): (&'a Candidate, Rates)| {
        (stage, Worker { times: Times::new(model, rates, ROWS), budget_bytes: stage.budget_bytes })
    };
    free.map(worker).unzip()
}

fn shard(stage: &Candidate, layers: LayerRange) -> Shard {
    Shard { layers, stage: stage.name.clone() }
}

fn shortage(costs: &Costs, candidates: &[Candidate], ground: &Ground<'_>, left: usize) -> PlanError {
    let offered_bytes = candidates.iter().fold(0_u64, |sum, stage| sum.saturating_add(stage.budget_bytes));
    let needed_bytes = costs.memory_bound(0, costs.layers());
    if needed_bytes > offered_bytes {
        return PlanError::TooSmall { needed_bytes, offered_bytes, missing_bytes: needed_bytes - offered_bytes };
    }
    let gap = ground.next_free(left).and_then(|(start, end)| LayerRange::new(start as u32, end as u32));
    if let Some(layers) = gap.filter(|_| candidates.iter().any(|stage| stage.fixed.is_some())) {
        return PlanError::Gap { layers };
    }
    let layer_bytes = (0..costs.layers()).map(|layer| costs.memory_bound(layer, layer + 1)).max().unwrap_or(0);
    PlanError::NoFit { offered_bytes, layer_bytes }
}

#[cfg(test)]
mod tests;
