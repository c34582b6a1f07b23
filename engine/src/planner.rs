//! Who should hold which layers. Pure and deterministic: every stage computes the same plan from the same view.
//!
//! Stages are taken in the order of their names, each gets a contiguous range or none. Of all divisions that respect
//! the memory budgets the one is taken whose slowest stage takes the least time for a micro-batch; among those, the most
//! even one. For a single sequence it does not matter where the layers are cut, since its tokens pass through all of them
//! one after the other; so the micro-batch has a few rows, and takes as long as reading the weights or multiplying them.

use schema::record::{ModelRecord, Shard};
use schema::{LayerRange, StageName};

/// A stage that may be given layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: StageName,
    /// The most it may use for weights, keys and values, and scratch, in bytes.
    pub budget_bytes: u64,
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
}

/// Divides the model's layers among `candidates` (sorted by name here, whatever their order).
///
/// # Errors
/// [`PlanError`] when no division fits, with how much is missing.
pub fn plan(model: &ModelRecord, candidates: &[Candidate]) -> Result<Vec<Shard>, PlanError> {
    let mut candidates = candidates.to_vec();
    candidates.sort_by(|a, b| a.name.cmp(&b.name));
    candidates.dedup_by(|a, b| a.name == b.name);
    if candidates.is_empty() {
        return Err(PlanError::NoStage);
    }
    let costs = Costs::new(model);
    let fits = |stage: usize, range: LayerRange| costs.memory_bound(range) <= candidates[stage].budget_bytes;
    let slowest = divide(&costs, candidates.len(), fits, u64::MAX, |cost, rest| rest.max(cost))
        .ok_or_else(|| shortage(model, &costs, &candidates))?;
    let cap = slowest.iter().flatten().map(|range| costs.time(*range)).max().unwrap_or(0);
    let even = divide(&costs, candidates.len(), fits, cap, |cost, rest| rest.saturating_add(cost.saturating_mul(cost)));
    let ranges = even.unwrap_or(slowest);
    let shards = candidates.iter().zip(ranges);
    Ok(shards.filter_map(|(stage, range)| Some(Shard { layers: range?, stage: stage.name.clone() })).collect())
}

/// Whether `wanted` is worth moving layers for, when `current` could go on: more stages work, or the slowest is faster.
pub fn improves(model: &ModelRecord, wanted: &[Shard], current: &[Shard]) -> bool {
    let costs = Costs::new(model);
    let slowest = |shards: &[Shard]| shards.iter().map(|shard| costs.time(shard.layers)).max();
    wanted.len() > current.len() || slowest(wanted) < slowest(current)
}

/// Rows of the micro-batch that a division is made for: a few sequences side by side.
const ROWS: u64 = 8;
/// Picoseconds to read a byte of weights, and to multiply one weight with one value: a processor of 10 GB/s and 60 billion
/// multiplications a second. Only their ratio matters, and that is alike on the machines this is made for.
const BYTE_PS: u64 = 100;
const MULTIPLICATION_PS: u64 = 17;

/// What ranges cost, by prefix sums.
struct Costs<'a> {
    model: &'a ModelRecord,
    bytes_before: Vec<u64>,
    time_before: Vec<u64>,
}

impl<'a> Costs<'a> {
    fn new(model: &'a ModelRecord) -> Self {
        let (mut bytes_before, mut time_before) = (vec![0_u64], vec![0_u64]);
        for layer in 0..model.layers {
            let (bytes, time) = LayerRange::new(layer, layer + 1).map_or((0, 0), |range| {
                let shard = model.shard_bytes(range);
                let multiplying = shard.multiplications_per_token.saturating_mul(ROWS * MULTIPLICATION_PS);
                (shard.weights, shard.read_per_token.saturating_mul(BYTE_PS).max(multiplying))
            });
            bytes_before.push(bytes_before[layer as usize].saturating_add(bytes));
            time_before.push(time_before[layer as usize].saturating_add(time));
        }
        Self { model, bytes_before, time_before }
    }

    /// How long `range` takes for a micro-batch, in picoseconds.
    fn time(&self, range: LayerRange) -> u64 {
        self.time_before[range.end() as usize] - self.time_before[range.start() as usize]
    }

    fn memory_bound(&self, range: LayerRange) -> u64 {
        let weights = self.bytes_before[range.end() as usize] - self.bytes_before[range.start() as usize];
        let rows = u64::from(range.count()) * u64::from(self.model.kv_tokens);
        let kv = self.model.kv_bytes_per_token_layer.saturating_mul(rows);
        weights.saturating_add(kv).saturating_add(self.model.scratch_bytes)
    }
}

/// The division of all layers among `stages` stages, none with a cost over `cap`, whose costs combine to the least.
///
/// Dynamic programming from the last stage: `best[l]` is the least combined cost of giving layers `l..` to the stages
/// after the one at hand. O(stages × layers²).
fn divide(
    costs: &Costs<'_>,
    stages: usize,
    fits: impl Fn(usize, LayerRange) -> bool,
    cap: u64,
    combine: impl Fn(u128, u128) -> u128,
) -> Option<Vec<Option<LayerRange>>> {
    let layers = costs.model.layers;
    let mut best: Vec<Option<u128>> = vec![None; layers as usize + 1];
    best[layers as usize] = Some(0);
    let mut ends = vec![vec![0; layers as usize + 1]; stages];
    for stage in (0..stages).rev() {
        let after = best.clone();
        for start in 0..=layers {
            ends[stage][start as usize] = start; // No layer for this stage, unless a range does better.
            for end in start + 1..=layers {
                let Some(range) = LayerRange::new(start, end) else { continue };
                let cost = costs.time(range);
                if cost > cap || !fits(stage, range) {
                    break; // Longer ranges only cost more.
                }
                let Some(rest) = after[end as usize] else { continue };
                let combined = combine(u128::from(cost), rest);
                let idle = ends[stage][start as usize] == start;
                // On a tie the earlier stage works, so that a surplus stage is the last one.
                if best[start as usize].is_none_or(|so_far| combined < so_far || (combined == so_far && idle)) {
                    best[start as usize] = Some(combined);
                    ends[stage][start as usize] = end;
                }
            }
        }
    }
    best[0]?;
    let mut start = 0;
    let ranges = ends.iter().map(|ends| {
        let end = ends[start as usize];
        let range = LayerRange::new(start, end);
        start = end;
        range
    });
    Some(ranges.collect())
}

fn shortage(model: &ModelRecord, costs: &Costs<'_>, candidates: &[Candidate]) -> PlanError {
    let offered_bytes = candidates.iter().fold(0_u64, |sum, stage| sum.saturating_add(stage.budget_bytes));
    let bound = |start, end| LayerRange::new(start, end).map_or(0, |range| costs.memory_bound(range));
    let needed_bytes = bound(0, model.layers);
    if needed_bytes > offered_bytes {
        return PlanError::TooSmall { needed_bytes, offered_bytes, missing_bytes: needed_bytes - offered_bytes };
    }
    let layer_bytes = (0..model.layers).map(|layer| bound(layer, layer + 1)).max().unwrap_or(0);
    PlanError::NoFit { offered_bytes, layer_bytes }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::model;

    fn candidates(budgets: &[u64]) -> Vec<Candidate> {
        let name = |index: usize| format!("s{index:02}").parse().unwrap();
        budgets.iter().enumerate().map(|(i, budget)| Candidate { name: name(i), budget_bytes: *budget }).collect()
    }

    fn ranges(shards: &[Shard]) -> Vec<[u32; 2]> {
        shards.iter().map(|shard| shard.layers.into()).collect()
    }

    #[test]
    fn the_head_counts_as_much_as_the_layers_it_outweighs() {
        // Ten layers of 10 bytes and a head of 40: 140 bytes in all, 70 each.
        let model = model(&[10; 10], 40);
        let shards = plan(&model, &candidates(&[u64::MAX; 2])).unwrap();
        assert_eq!(ranges(&shards), [[0, 7], [7, 10]]);
    }

    #[test]
    fn a_head_of_many_bytes_and_few_multiplications_counts_for_less() {
        // Ten layers and a head like four of them in bytes, like two in multiplications, which take longer here.
        let model =
            ModelRecord { layer_multiplications: vec![10; 10], head_multiplications: 20, ..model(&[10; 10], 40) };
        let shards = plan(&model, &candidates(&[u64::MAX; 2])).unwrap();
        assert_eq!(ranges(&shards), [[0, 6], [6, 10]]);
    }

    #[test]
    fn as_many_stages_as_layers_get_one_each_and_more_get_none() {
        let model = model(&[10; 5], 40);
        let five = plan(&model, &candidates(&[u64::MAX; 5])).unwrap();
        assert_eq!(ranges(&five), [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5]]);
        let seven = plan(&model, &candidates(&[u64::MAX; 7])).unwrap();
        assert_eq!(seven.len(), 5);
    }

    #[test]
    fn a_small_stage_gets_what_fits_it() {
        let model = model(&[10; 10], 0);
        let shards = plan(&model, &candidates(&[25, 1000])).unwrap();
        assert_eq!(ranges(&shards), [[0, 2], [2, 10]]);
    }

    #[test]
    fn a_stage_too_small_for_any_layer_is_left_out() {
        let model = model(&[10; 4], 0);
        let shards = plan(&model, &candidates(&[1000, 5, 1000])).unwrap();
        assert_eq!(ranges(&shards), [[0, 2], [2, 4]]);
        assert_eq!(shards[1].stage.as_str(), "s02");
    }

    #[test]
    fn too_little_memory_is_refused_with_the_missing_amount() {
        let model = model(&[10; 4], 20);
        let error = plan(&model, &candidates(&[20, 15])).unwrap_err();
        assert_eq!(error, PlanError::TooSmall { needed_bytes: 60, offered_bytes: 35, missing_bytes: 25 });
        assert_eq!(plan(&model, &[]).unwrap_err(), PlanError::NoStage);
    }

    #[test]
    fn enough_memory_in_pieces_too_small_for_the_last_layer_is_refused() {
        let model = model(&[10; 4], 20);
        let error = plan(&model, &candidates(&[20, 20, 25])).unwrap_err();
        assert_eq!(error, PlanError::NoFit { offered_bytes: 65, layer_bytes: 30 });
    }

    /// The least possible cost of the slowest stage, by trying every division.
    fn brute_force(model: &ModelRecord, candidates: &[Candidate], start: u32) -> Option<u64> {
        let Some((stage, rest)) = candidates.split_first() else { return (start == model.layers).then_some(0) };
        let mut best = brute_force(model, rest, start);
        for end in start + 1..=model.layers {
            let bytes = model.shard_bytes(LayerRange::new(start, end).unwrap());
            if bytes.memory_bound() > stage.budget_bytes {
                break;
            }
            if let Some(rest) = brute_force(model, rest, end) {
                let slowest = rest.max(bytes.read_per_token);
                best = Some(best.map_or(slowest, |best| best.min(slowest)));
            }
        }
        best
    }

    proptest! {
        #[test]
        fn no_division_has_a_faster_slowest_stage(
            layers in prop::collection::vec(1_u64..50, 1..8),
            head in 0_u64..100,
            budgets in prop::collection::vec(0_u64..300, 1..5),
        ) {
            let model = model(&layers, head);
            let candidates = candidates(&budgets);
            let expected = brute_force(&model, &candidates, 0);
            let found = plan(&model, &candidates).ok();
            let slowest = found.as_ref().map(|shards| {
                shards.iter().map(|shard| model.shard_bytes(shard.layers).read_per_token).max().unwrap()
            });
            prop_assert_eq!(slowest, expected);
            if let Some(shards) = found {
                let placement = schema::record::Placement::new(schema::Generation(1), shards).unwrap();
                prop_assert_eq!(placement.layers(), model.layers);
            }
        }
    }
}
