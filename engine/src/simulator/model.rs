//! The simulated model: it does real arithmetic on real keys and values.
//!
//! A layer folds the inputs of all earlier positions, or of those in its window, read back from the blocks that a slice
//! names. So a skipped, doubled or swapped layer, a lost row, and a block that is stale, foreign, wrongly shared or
//! released too early change every value after it. A row that was written for another position counts as garbage. The
//! token is a part of the last value, changed by the position's rule. The log-probability is made of the whole value,
//! so that no wrong value hides behind a right token.

use std::sync::Arc;

use schema::frame::{Alternative, Chosen, HiddenState, PositionRule, Slice};
use schema::record::{FormatSpeed, KvKinds, KvRoom, KvType, MemoryUse, ModelRecord, Speeds, StageRecord};
use schema::{Fingerprint, LayerRange};

use crate::core::token_rules::{Continuation, TokenRules};
use crate::generate::{Finish, Request, ScoredToken, TokenEvent};
use crate::runner::{KV_BLOCK_TOKENS, LoadError, LoadedShard, Loader, Output, Runner, RunnerError, Work};
use crate::testing::{self, VOCABULARY};

/// Values are below this: an f32 carries them exactly.
const MODULUS: u64 = 65_521;
const HIDDEN: u32 = 2;
/// Bytes of a layer's weights, in addition to one byte of keys and values for each token.
const LAYER_BYTES: u64 = 10;
/// Tokens repeat with a short period, so that draft tokens are accepted, except for one value in this number.
const SURPRISES: u64 = 6;
const ROUND: u64 = 5;

/// The value read for a row that was not written for the position at which it is read.
const GARBAGE: u64 = MODULUS - 1;

/// The record of a model whose layers have these windows (0: none), with room for `kv_blocks` blocks.
pub(super) fn record(windows: &[u32], kv_blocks: u32, stages_min: u32) -> ModelRecord {
    ModelRecord {
        layer_windows: windows.to_vec(),
        hidden: HIDDEN,
        fingerprint: Fingerprint("00".to_owned()),
        kv_bytes_per_token_layer: 1,
        kv_tokens: kv_blocks * KV_BLOCK_TOKENS,
        kv_type: KvType::F16,
        stages_min,
        ..testing::model(&vec![LAYER_BYTES; windows.len()], 0)
    }
}

/// The most memory that `layers` layers take, with room for `kv_tokens` tokens in each.
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

/// The token that follows `row` at `position` under a rule. Every part of the rule can change it.
fn choose(row: u64, seed: u64, position: u64, rule: Option<&PositionRule>) -> u32 {
    let value = (row * 31 + seed + position) % MODULUS;
    let token = if value.is_multiple_of(SURPRISES) { value % u64::from(VOCABULARY) } else { position % ROUND };
    let Some(rule) = rule else { return token as u32 };
    let changes = rule.adjustments.iter().filter(|change| change.bias.is_finite());
    let digest = changes.fold(0_u64, |sum, change| {
        let parts = [change.bias, change.repetition, change.penalty].map(|part| u64::from(part.to_bits()));
        parts.into_iter().fold(sum ^ u64::from(change.token), |sum, part| sum.wrapping_mul(31).wrapping_add(part))
    });
    let moved = if digest.is_multiple_of(3) { digest } else { 0 };
    let first = ((token + moved % 1000) % u64::from(VOCABULARY)) as u32;
    let is_free = |token: &u32| {
        let forbids = |change: &schema::frame::Adjustment| change.token == *token && !change.bias.is_finite();
        rule.mask.as_ref().is_none_or(|mask| mask.allows(*token)) && !rule.adjustments.iter().any(forbids)
    };
    (0..VOCABULARY).map(|step| (first + step) % VOCABULARY).find(is_free).unwrap_or(first)
}

/// The score of `token` after `row`. It depends on the whole value of the row. `alternatives` is the number asked for.
fn score(row: u64, token: u32, alternatives: u32) -> ScoredToken {
    let logprob = |token: u64| -(((row + token * 131) % MODULUS) as f32);
    let likeliest = row % u64::from(VOCABULARY);
    let alternative = Alternative { token: likeliest as u32, logprob: logprob(likeliest) };
    let (rank, alternatives) = if alternatives > 0 { (1 + token, vec![alternative]) } else { (0, Vec::new()) };
    ScoredToken { token, logprob: logprob(token.into()), rank, alternatives }
}

/// First position whose input a row at `position` of a layer with this window (0: none) folds.
fn first_visible(window: u32, position: usize) -> usize {
    if window == 0 { 0 } else { (position + 1).saturating_sub(window as usize) }
}

/// The rows of one sequence, computed alone and from the start.
struct Alone {
    /// Of each layer.
    windows: Vec<u32>,
    kept: Vec<Vec<u64>>,
    /// The last layer's value after each token.
    rows: Vec<u64>,
}

impl Alone {
    fn push(&mut self, token: u32) {
        let mut row = u64::from(token);
        for ((index, kept), window) in (0..).zip(&mut self.kept).zip(&self.windows) {
            let visible = &kept[first_visible(*window, kept.len())..];
            let next = layer(visible.iter().copied(), row, index);
            kept.push(std::mem::replace(&mut row, next));
        }
        self.rows.push(row);
    }
}

/// The end of a sequence without an error.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ending {
    Finished(Finish),
    Embedded(Vec<f32>),
}

/// The hidden state of the token at `position`, whose last row is `row`.
fn hidden_state(row: u64, position: u32) -> [f32; HIDDEN as usize] {
    [row as f32, position as f32]
}

/// The mean of the hidden states at `positions`. Sums of whole numbers of this size are exact, in any order.
fn mean(rows: &[u64], positions: std::ops::Range<u32>) -> Vec<f32> {
    let count = positions.len() as f64;
    let states = positions.map(|position| hidden_state(rows[position as usize], position).map(f64::from));
    let sums = states.fold([0.0; HIDDEN as usize], |sums, state| [sums[0] + state[0], sums[1] + state[1]]);
    sums.map(|sum| (sum / count) as f32).to_vec()
}

/// The expected events of a request to a model whose layers have these windows, without beginning and end, and its end.
pub(super) fn reference(windows: &[u32], request: &Request) -> (Vec<TokenEvent>, Ending) {
    let kept = vec![Vec::new(); windows.len()];
    let mut alone = Alone { windows: windows.to_vec(), kept, rows: Vec::new() };
    request.prompt.iter().for_each(|token| alone.push(*token));
    if let Some(pooling) = request.pooling {
        return (Vec::new(), Ending::Embedded(mean(&alone.rows, pooling.positions(alone.rows.len() as u32))));
    }
    let (events, finish) = continuation(alone, request);
    (events, Ending::Finished(finish))
}

/// The events of a request whose prompt `alone` has computed, and the reason for its end.
fn continuation(mut alone: Alone, request: &Request) -> (Vec<TokenEvent>, Finish) {
    let Request { prompt, tokens, .. } = request;
    let alternatives = tokens.alternatives.unwrap_or(0);
    let mut events = Vec::new();
    if tokens.scores_prompt {
        let scored = prompt[1..].iter().zip(&alone.rows);
        events.extend(scored.map(|(token, row)| TokenEvent::Scored(score(*row, *token, alternatives))));
    }
    let mut rules = TokenRules::new(request);
    let mut history = prompt.clone();
    let mut forced = Vec::new();
    while history.len() - prompt.len() < request.tokens_max as usize {
        let row = alone.rows[history.len() - 1];
        let is_forced = !forced.is_empty();
        let token = if is_forced {
            forced.remove(0)
        } else {
            match rules.advance().expect("the grammar has no errors") {
                Continuation::End => return (events, Finish::Stop),
                Continuation::Forced(tokens) => {
                    forced = tokens;
                    continue;
                }
                Continuation::Chosen => {
                    let rule = rules.assume(&history, &[]).positions.pop();
                    choose(row, tokens.sampling.seed, history.len() as u64, rule.as_ref())
                }
            }
        };
        let is_scored = !is_forced || tokens.alternatives.is_some() || tokens.scores_prompt;
        let unscored = ScoredToken { token, ..ScoredToken::default() };
        events.push(TokenEvent::Token(if is_scored { score(row, token, alternatives) } else { unscored }));
        history.push(token);
        alone.push(token);
        if request.stop_tokens.contains(&token) {
            return (events, Finish::Stop);
        }
        assert!(rules.push(token).expect("the grammar has no errors"), "the grammar does not allow token {token}");
    }
    (events, Finish::Length)
}

/// Makes runners for one simulated machine.
pub(super) struct SimulatedLoader {
    /// The window of each of the model's layers.
    pub(super) windows: Vec<u32>,
    pub(super) budget_bytes: u64,
}

struct Shard {
    layers: LayerRange,
    is_last: bool,
    /// The window of each of its layers.
    windows: Vec<u32>,
    /// For each of its layers, each block and each offset, the position of the sequence that was last written there,
    /// and that position's input row of the layer.
    kept: Vec<Vec<[(usize, u64); KV_BLOCK_TOKENS as usize]>>,
}

// === impl SimulatedLoader ===

impl SimulatedLoader {
    pub(super) fn shared(self) -> Arc<dyn Loader> {
        Arc::new(self)
    }
}

impl Loader for SimulatedLoader {
    fn memory_bound(&self, layers: LayerRange, room: KvRoom) -> u64 {
        let pool = KvKinds::of(self.windows.iter().copied()).pool(room.tokens);
        let kept = |window: &u32| if *window == 0 { room.tokens } else { pool.window * KV_BLOCK_TOKENS };
        let kept: u32 = self.windows[layers.indices()].iter().map(kept).sum();
        u64::from(layers.count()) * LAYER_BYTES + u64::from(kept)
    }

    fn load(&self, layers: LayerRange, room: KvRoom, budget_bytes: u64) -> Result<LoadedShard, LoadError> {
        let needed_bytes = self.memory_bound(layers, room);
        if needed_bytes > budget_bytes {
            return Err(LoadError::OverBudget { layers, needed_bytes, budget_bytes });
        }
        let kv_blocks = room.tokens.div_ceil(KV_BLOCK_TOKENS);
        let block = [(usize::MAX, GARBAGE); KV_BLOCK_TOKENS as usize];
        let pool = KvKinds::of(self.windows.iter().copied()).pool(room.tokens);
        let windows = self.windows[layers.indices()].to_vec();
        let blocks = |window: &u32| if *window == 0 { pool.full } else { pool.window };
        let kept = windows.iter().map(|window| vec![block; blocks(window) as usize]).collect();
        let is_last = layers.end() as usize == self.windows.len();
        let runner = Box::new(Shard { layers, is_last, windows, kept });
        Ok(LoadedShard { runner, weights_bytes: u64::from(layers.count()) * LAYER_BYTES, copied_bytes: 0, kv_blocks })
    }

    fn read_ahead(&self, _layers: LayerRange, bytes_max: u64, _wanted: &dyn Fn() -> bool) -> u64 {
        bytes_max.min(10)
    }

    fn describe(&self) -> StageRecord {
        // The stages of one machine have enough of it for all of their budgets together.
        StageRecord { memory_total_bytes: self.budget_bytes.saturating_mul(8), ..testing::stage(self.budget_bytes) }
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
        let (mut chosen, mut hidden_states) = (Vec::new(), Vec::new());
        let mut rest = rows.as_mut_slice();
        for slice in work.slices {
            let (own, after) = rest.split_at_mut_checked(slice.count as usize).ok_or_else(|| misfit(slice))?;
            self.compute(slice, own)?;
            for offset in &slice.hidden_states {
                let (sequence, attempt, position) = (slice.sequence, slice.attempt, slice.position + offset);
                let values = hidden_state(own[*offset as usize], position).to_vec();
                hidden_states.push(HiddenState { sequence, attempt, position, values });
            }
            for (index, offset) in slice.logits.iter().enumerate() {
                let (row, position) = (own[*offset as usize], slice.position + offset + 1);
                let rule = || slice.rule.positions.get(index - slice.scored.len());
                let seed = slice.rule.sampling.seed;
                let scored = slice.scored.get(index).copied();
                let token = scored.unwrap_or_else(|| choose(row, seed, position.into(), rule()));
                let ScoredToken { token, logprob, rank, alternatives } = score(row, token, slice.rule.alternatives);
                let (sequence, attempt) = (slice.sequence, slice.attempt);
                chosen.push(Chosen { sequence, attempt, position, token, logprob, rank, alternatives });
            }
            rest = after;
        }
        if self.is_last {
            return Ok(Output::Tokens { chosen, hidden_states });
        }
        Ok(Output::Activations(rows.into_iter().flat_map(|row| [row as f32, 0.0]).collect()))
    }
}

impl Shard {
    fn compute(&mut self, slice: &Slice, rows: &mut [u64]) -> Result<(), RunnerError> {
        let layers = (u64::from(self.layers.start())..).zip(&self.windows);
        for ((index, window), kept) in layers.zip(&mut self.kept) {
            let (first, blocks) = match window {
                0 => (0, &slice.blocks),
                _ => (slice.window_first as usize, &slice.window_blocks),
            };
            let count = kept.len();
            let place = |position: usize| {
                let index = (position / KV_BLOCK_TOKENS as usize).checked_sub(first);
                let block = index.and_then(|index| blocks.get(index)).map(|block| *block as usize);
                let block = block.filter(|block| *block < count).ok_or_else(|| misfit(slice))?;
                Ok((block, position % KV_BLOCK_TOKENS as usize))
            };
            for (row, position) in rows.iter_mut().zip(slice.position as usize..) {
                let (block, offset) = place(position)?;
                kept[block][offset] = (position, *row);
                let places = (first_visible(*window, position)..position).map(|read| Ok((read, place(read)?)));
                let places = places.collect::<Result<Vec<_>, RunnerError>>()?;
                let earlier = places.into_iter().map(|(read, (block, offset))| {
                    let (written, row) = kept[block][offset];
                    if written == read { row % MODULUS } else { GARBAGE }
                });
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
