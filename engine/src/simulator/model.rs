//! The simulated model: it does real arithmetic on real keys and values.
//!
//! A layer folds the inputs of all earlier positions, read back from the blocks that a slice names. So a skipped,
//! doubled or swapped layer, a lost row, and a block that is stale, foreign or wrongly shared change every value after
//! it. The token is a part of the last value. The whole value is returned as the token's log-probability, so that no
//! wrong value hides behind a right token.

use std::sync::Arc;

use schema::frame::{Chosen, Slice};
use schema::record::{FormatSpeed, KvRoom, KvType, MemoryUse, ModelRecord, Speeds, StageRecord};
use schema::{Fingerprint, LayerRange};

use crate::generate::Request;
use crate::runner::{KV_BLOCK_TOKENS, LoadError, LoadedShard, Loader, Output, Runner, RunnerError, Work};
use crate::testing;

/// Values are below this: an f32 carries them exactly.
const MODULUS: u64 = 65_521;
const HIDDEN: u32 = 2;
/// Bytes of a layer's weights, in addition to one byte of keys and values for each token.
const LAYER_BYTES: u64 = 10;
/// Tokens repeat with a short period, so that draft tokens are accepted, except for one value in this number.
const SURPRISES: u64 = 6;
const ROUND: u64 = 5;

/// The record of a model with `layers` layers and room for `kv_blocks` blocks of keys and values.
pub(super) fn record(layers: u32, kv_blocks: u32, stages_min: u32) -> ModelRecord {
    ModelRecord {
        hidden: HIDDEN,
        fingerprint: Fingerprint("00".to_owned()),
        kv_bytes_per_token_layer: 1,
        kv_tokens: kv_blocks * KV_BLOCK_TOKENS,
        kv_type: KvType::F16,
        stages_min,
        ..testing::model(&vec![LAYER_BYTES; layers as usize], 0)
    }
}

/// The most memory that `layers` layers take.
pub(super) fn bytes(layers: u32, kv_tokens: u32) -> u64 {
    u64::from(layers) * (LAYER_BYTES + u64::from(kv_tokens))
}

/// The measured speeds of a stage that takes `pace` times as long as the fastest.
pub(super) fn speed(pace: u64) -> Speeds {
    let speed = FormatSpeed { bytes_per_second: 1_000_000 / pace, multiplications_per_second: 1_000_000 / pace };
    testing::model(&[], 0).layer_format.into_iter().map(|format| (format, speed)).collect()
}

fn layer(kept: impl Iterator<Item = u64>, row: u64, layer: u64) -> u64 {
    kept.chain([row]).fold(layer + 1, |sum, row| (sum * 31 + row + layer) % MODULUS)
}

/// The token at `position` and its log-probability.
fn choose(row: u64, seed: u64, position: u64) -> (u32, f32) {
    let value = (row * 31 + seed + position) % MODULUS;
    let token = if value.is_multiple_of(SURPRISES) { value % 97 } else { position % ROUND };
    (token as u32, -(value as f32))
}

/// The expected answer of a model of `layers` layers: tokens and log-probabilities, up to a stop token.
pub(super) fn reference(layers: u32, request: &Request) -> Vec<(u32, f32)> {
    let mut kept: Vec<Vec<u64>> = vec![Vec::new(); layers as usize];
    let mut answer = Vec::new();
    let mut pending = request.prompt.clone();
    while answer.len() < request.tokens_max as usize {
        let mut row = 0;
        for token in pending.drain(..) {
            row = u64::from(token);
            for (index, kept) in (0..).zip(&mut kept) {
                let next = layer(kept.iter().copied(), row, index);
                kept.push(std::mem::replace(&mut row, next));
            }
        }
        let position = kept.first().map_or(0, Vec::len) as u64;
        let (token, logprob) = choose(row, request.sampling.seed, position);
        answer.push((token, logprob));
        if request.stop_tokens.contains(&token) {
            break;
        }
        pending.push(token);
    }
    answer
}

/// Makes runners for one simulated machine.
pub(super) struct SimulatedLoader {
    pub(super) layers: u32,
    pub(super) budget_bytes: u64,
}

struct Shard {
    layers: LayerRange,
    is_last: bool,
    /// For each of its layers, each block and each offset, that position's input row of the layer.
    kept: Vec<Vec<[u64; KV_BLOCK_TOKENS as usize]>>,
}

// === impl SimulatedLoader ===

impl SimulatedLoader {
    pub(super) fn shared(self) -> Arc<dyn Loader> {
        Arc::new(self)
    }
}

impl Loader for SimulatedLoader {
    fn memory_bound(&self, layers: LayerRange, room: KvRoom) -> u64 {
        bytes(layers.count(), room.tokens)
    }

    fn load(&self, layers: LayerRange, room: KvRoom, budget_bytes: u64) -> Result<LoadedShard, LoadError> {
        let needed_bytes = self.memory_bound(layers, room);
        if needed_bytes > budget_bytes {
            return Err(LoadError::OverBudget { layers, needed_bytes, budget_bytes });
        }
        let kv_blocks = room.tokens.div_ceil(KV_BLOCK_TOKENS);
        let block = [u64::MAX; KV_BLOCK_TOKENS as usize];
        let kept = vec![vec![block; kv_blocks as usize]; layers.count() as usize];
        let runner = Box::new(Shard { layers, is_last: layers.end() == self.layers, kept });
        Ok(LoadedShard { runner, weights_bytes: u64::from(layers.count()) * LAYER_BYTES, kv_blocks })
    }

    fn read_ahead(&self, _layers: LayerRange, bytes_max: u64, _wanted: &dyn Fn() -> bool) -> u64 {
        bytes_max.min(10)
    }

    fn describe(&self) -> StageRecord {
        testing::stage(self.budget_bytes)
    }

    fn memory(&self) -> MemoryUse {
        MemoryUse::default()
    }
}

// === impl Shard ===

impl Runner for Shard {
    fn step(&mut self, work: Work<'_>) -> Result<Output, RunnerError> {
        let mut rows: Vec<u64> = if self.layers.start() == 0 {
            work.slices.iter().flat_map(|slice| &slice.tokens).map(|token| u64::from(*token)).collect()
        } else {
            work.activations.chunks_exact(HIDDEN as usize).map(|row| row[0] as u64).collect()
        };
        let mut chosen = Vec::new();
        let mut rest = rows.as_mut_slice();
        for slice in work.slices {
            let (own, after) = rest.split_at_mut_checked(slice.count as usize).ok_or_else(|| misfit(slice))?;
            self.compute(slice, own)?;
            for offset in &slice.logits {
                let position = slice.position + offset + 1;
                let (token, logprob) = choose(own[*offset as usize], slice.sampling.seed, position.into());
                chosen.push(Chosen { sequence: slice.sequence, attempt: slice.attempt, position, token, logprob });
            }
            rest = after;
        }
        if self.is_last {
            return Ok(Output::Tokens(chosen));
        }
        Ok(Output::Activations(rows.into_iter().flat_map(|row| [row as f32, 0.0]).collect()))
    }
}

impl Shard {
    fn compute(&mut self, slice: &Slice, rows: &mut [u64]) -> Result<(), RunnerError> {
        let places: Vec<(usize, usize)> = (0..slice.position + slice.count)
            .map(|position| {
                let block = slice.blocks.get((position / KV_BLOCK_TOKENS) as usize);
                let block =
                    block.filter(|block| (**block as usize) < self.kept[0].len()).ok_or_else(|| misfit(slice))?;
                Ok((*block as usize, (position % KV_BLOCK_TOKENS) as usize))
            })
            .collect::<Result<_, RunnerError>>()?;
        for (index, kept) in (u64::from(self.layers.start())..).zip(&mut self.kept) {
            for (row, position) in rows.iter_mut().zip(slice.position as usize..) {
                let (block, offset) = places[position];
                kept[block][offset] = *row;
                let earlier = places[..position].iter().map(|(block, offset)| kept[*block][*offset] % MODULUS);
                *row = layer(earlier, *row, index);
            }
        }
        Ok(())
    }
}

fn misfit(slice: &Slice) -> RunnerError {
    RunnerError::Work {
        field: "slice",
        found: format!("{slice:?}"),
        expected: "blocks and rows for all positions".to_owned(),
    }
}
