//! Runs the steps of a loaded shard: computes the output of a step's work, tile by tile.

use candle_core::{Device, Tensor};
use candle_nn::ops::rms_norm;
use engine::runner::{Output, Runner, RunnerError, Work};
use schema::frame::HiddenState;

use super::bounds::{self, HEAD_ROWS_MAX, ROWS_MAX};
use super::dense_model::DenseModel;
use super::hardware::{Hardware, in_pool};
use super::inputs::TileInputs;
use super::kv::{KvCache, KvDtype};
use super::layer::Step;
use super::plan::{AttentionLimits, TilePlan};
use super::weights::{OutputHead, ShardWeights};
use crate::loader::chain;
use crate::model::ModelSpec;
use crate::sampling::Sampler;
use crate::shard::{
    Outcome, RunnerSetup, SetupError, SliceBlocks, WorkBounds, chosen, hidden_state, no_output_head, readout,
};

/// Runs a shard on a candle device.
#[derive(Debug)]
pub struct CandleRunner {
    spec: ModelSpec,
    config: DenseModel,
    device: Device,
    weights: ShardWeights,
    kv: KvCache,
    /// Present in the last stage.
    sampler: Option<Sampler>,
}

/// Reason why a step failed.
enum StepError {
    Candle(candle_core::Error),
    Runner(RunnerError),
}

// === impl CandleRunner ===

impl CandleRunner {
    /// Copies a shard to `hardware` and allocates its keys and values there, in half precision.
    ///
    /// # Errors
    /// [`SetupError`] if the file lacks something or the device has no room.
    pub fn new(setup: RunnerSetup, hardware: &Hardware) -> Result<Self, SetupError> {
        Self::with_kv_dtype(KvDtype::Half, setup, hardware)
    }

    /// As [`Self::new`], with keys and values kept as `kv_dtype`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_kv_dtype(kv_dtype: KvDtype, setup: RunnerSetup, hardware: &Hardware) -> Result<Self, SetupError> {
        let RunnerSetup { spec, shard, room } = setup;
        let config = DenseModel::of(&spec)?;
        let (weights, device) = (ShardWeights::upload(&spec, &shard, hardware)?, hardware.device.clone());
        let blocks = bounds::kv_blocks(room.tokens);
        let kv = KvCache::new(&config, kv_dtype, weights.layers.len(), blocks, &device)?;
        device.synchronize()?;
        let sampler = weights.output_head.is_some().then(|| Sampler::new(config.vocabulary));
        Ok(Self { spec, config, device, weights, kv, sampler })
    }

    /// Blocks of keys and values that the runner has room for.
    pub fn kv_blocks(&self) -> u32 {
        self.kv.blocks() as u32
    }

    /// Logits of every position that needs them, one row after the other. For perplexity measurements and tests.
    ///
    /// # Errors
    /// [`RunnerError::Work`] if the work does not fit, or the shard is not the last.
    pub fn logits(&mut self, work: &Work<'_>) -> Result<Vec<f32>, RunnerError> {
        let mut outcome = Outcome::Logits(Vec::new());
        if self.weights.output_head.is_none() {
            return Err(no_output_head());
        }
        self.run(work, &mut outcome)?;
        outcome.logits()
    }

    fn work_bounds(&self) -> WorkBounds {
        let (first, last) = (self.weights.embedding.is_some(), self.weights.output_head.is_some());
        WorkBounds::new(&self.spec, first, last, self.kv_blocks())
    }

    /// Runs the work tile by tile and appends its result to `into`.
    fn run(&mut self, work: &Work<'_>, into: &mut Outcome) -> Result<(), RunnerError> {
        let rows = self.work_bounds().check(work)?;
        for from in (0..rows).step_by(ROWS_MAX) {
            in_pool(|| self.tile(work, from, into)).map_err(|error| self.failed(work, error))?;
        }
        Ok(())
    }

    fn tile(&mut self, work: &Work<'_>, from: usize, into: &mut Outcome) -> Result<(), StepError> {
        let limits =
            AttentionLimits { heads: self.config.attention.heads, window: self.config.attention.window.tokens_max() };
        let tile = TilePlan::new(work.slices, from, ROWS_MAX, limits);
        let inputs = TileInputs::new(&tile, work.slices, &self.config, &self.weights.rope, &self.device)?;
        let step = Step { config: &self.config, inputs: &inputs, rope_style: self.weights.rope.rope_style() };
        let mut rows = self.input_rows(work, &tile, from)?;
        for (index, layer) in self.weights.layers.iter().enumerate() {
            rows = step.layer(&rows, layer, self.kv.layer(index))?;
        }
        match into {
            Outcome::Activations(values) => {
                let found = rows.flatten_all()?.to_vec1()?;
                check_finite(&found)?;
                values.extend(found);
                Ok(())
            }
            into => self.finish(work, &tile, &rows, into),
        }
    }

    /// The tile's input rows, on the device.
    fn input_rows(&self, work: &Work<'_>, tile: &TilePlan, from: usize) -> Result<Tensor, StepError> {
        let (rows, hidden) = (tile.rows.len(), self.config.hidden);
        let Some(embedding) = &self.weights.embedding else {
            let values = &work.activations[from * hidden..][..rows * hidden];
            return Ok(Tensor::from_slice(values, (rows, hidden), &self.device)?);
        };
        let mut values = vec![0.0; rows * hidden];
        for (row, into) in tile.rows.iter().zip(values.chunks_exact_mut(hidden)) {
            let token = work.slices[row.slice].tokens[row.offset];
            embedding.read(token, into).map_err(|error| RunnerError::Device(chain(&error)))?;
        }
        Ok(Tensor::from_vec(values, (rows, hidden), &self.device)?)
    }

    /// Appends the hidden states, tokens or logits that the tile's rows need to `into`.
    fn finish(&mut self, work: &Work<'_>, tile: &TilePlan, rows: &Tensor, into: &mut Outcome) -> Result<(), StepError> {
        let Self { weights: ShardWeights { output_head: Some(head), .. }, sampler: Some(sampler), config, .. } = self
        else {
            return Ok(());
        };
        if let Outcome::Results(results) = into {
            hidden_states(config, head, work, tile, rows, &mut results.hidden_states)?;
        }
        let needs_logits = |index: &u32| tile.rows[*index as usize].needs_logits(work.slices);
        let logit_rows: Vec<u32> = (0..tile.rows.len() as u32).filter(needs_logits).collect();
        // Rows that need no logits have written keys and values too, which must also be finite.
        let sums = rows.sum(1)?;
        if logit_rows.is_empty() {
            return Ok(check_finite(&sums.to_vec1()?)?);
        }
        for (index, logit_rows) in logit_rows.chunks(HEAD_ROWS_MAX).enumerate() {
            let logits = logits(config, head, rows, logit_rows)?;
            // The sums are fetched together with the first logits, so that a tile waits for the device once.
            let found: Vec<f32> = match index {
                0 => Tensor::cat(&[&logits, &sums], 0)?.to_vec1()?,
                _ => logits.to_vec1()?,
            };
            let (logits, sums) = found.split_at(logit_rows.len() * config.vocabulary);
            check_finite(sums)?;
            match into {
                Outcome::Logits(all) => all.extend(logits),
                Outcome::Results(results) => {
                    for (row, logits) in logit_rows.iter().zip(logits.chunks_exact(config.vocabulary)) {
                        let row = &tile.rows[*row as usize];
                        let slice = &work.slices[row.slice];
                        let choice = sampler.read(logits, slice.rule.alternatives, readout(slice, row));
                        results.chosen.push(chosen(slice, row, choice)?);
                    }
                }
                Outcome::Activations(_) => {}
            }
        }
        Ok(())
    }

    /// Handles the error of a failed step. The content of its blocks is unknown, so they are cleared: nothing must be
    /// left there that could spoil another sequence.
    fn failed(&self, work: &Work<'_>, error: StepError) -> RunnerError {
        let blocks: Vec<u32> = work
            .slices
            .iter()
            .flat_map(|slice| SliceBlocks::of(slice, self.config.attention.window).blocks)
            .copied()
            .collect();
        if let Err(cause) = in_pool(|| self.kv.clear(&blocks)) {
            tracing::warn!(%cause, "cannot clear the blocks of a failed step");
        }
        match error {
            StepError::Runner(error) => error,
            StepError::Candle(error) => RunnerError::Device(chain(&error)),
        }
    }
}

impl Runner for CandleRunner {
    fn step(&mut self, work: Work<'_>) -> Result<Output, RunnerError> {
        let mut outcome = Outcome::of_step(self.weights.output_head.is_some());
        self.run(&work, &mut outcome)?;
        outcome.output()
    }
}

/// Appends the hidden states that the rows of a tile need.
fn hidden_states(
    config: &DenseModel,
    head: &OutputHead,
    work: &Work<'_>,
    tile: &TilePlan,
    rows: &Tensor,
    into: &mut Vec<HiddenState>,
) -> Result<(), StepError> {
    let needs_state = |index: &u32| tile.rows[*index as usize].needs_hidden_state(work.slices);
    let state_rows: Vec<u32> = (0..tile.rows.len() as u32).filter(needs_state).collect();
    if state_rows.is_empty() {
        return Ok(());
    }
    let values: Vec<f32> = normed(config, head, rows, &state_rows)?.flatten_all()?.to_vec1()?;
    for (row, values) in state_rows.iter().zip(values.chunks_exact(config.hidden)) {
        let row = &tile.rows[*row as usize];
        into.push(hidden_state(&work.slices[row.slice], row, values.to_vec())?);
    }
    Ok(())
}

/// Some rows after the final norm.
fn normed(config: &DenseModel, head: &OutputHead, rows: &Tensor, row_indices: &[u32]) -> candle_core::Result<Tensor> {
    let rows = rows.index_select(&Tensor::new(row_indices, rows.device())?, 0)?;
    rms_norm(&rows, &head.norm, config.norm_epsilon)
}

/// The logits of some rows, one row after the other.
fn logits(config: &DenseModel, head: &OutputHead, rows: &Tensor, row_indices: &[u32]) -> candle_core::Result<Tensor> {
    head.output.multiply(&normed(config, head, rows, row_indices)?)?.flatten_all()
}

/// Refuses values that are not finite.
fn check_finite(values: &[f32]) -> Result<(), RunnerError> {
    match values.iter().find(|value| !value.is_finite()) {
        Some(found) => Err(RunnerError::Device(format!("a row has the value {found}: expected finite numbers"))),
        None => Ok(()),
    }
}

// === impl StepError ===

impl From<candle_core::Error> for StepError {
    fn from(error: candle_core::Error) -> Self {
        Self::Candle(error)
    }
}

impl From<RunnerError> for StepError {
    fn from(error: RunnerError) -> Self {
        Self::Runner(error)
    }
}
