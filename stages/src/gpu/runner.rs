//! Runs the steps of a loaded shard: encodes the launches of a tile, submits them once, and reads what they wrote.

use engine::runner::{KV_BLOCK_TOKENS, Output, Runner, RunnerError, Work};
use schema::frame::{Chosen, HiddenState, Slice};
use schema::record::{KvBlocks, KvType, Speeds};

use super::choice_rule::ChoiceRule;
use super::device::{DeviceBuffer, Gpu, GpuError};
use super::inputs::{TileInputs, write};
use super::kv::LayerKv;
use super::layer::{Product, Step, read_floats, read_numbers};
use super::limits::{ROWS_MAX, SPLIT_TOKENS};
use super::scratch::Scratch;
use super::speed::SpeedProbe;
use super::support;
use super::weights::{MappedPages, OutputHead, Sample, ShardWeights};
use crate::format::Format;
use crate::loader::chain;
use crate::model::{Mixer, ModelSpec, Rope};
use crate::sampling::{SampledToken, Sampler};
use crate::shard::{
    Outcome, RowTile, RunnerSetup, SetupError, WorkBounds, chosen, hidden_state, no_output_head, readout,
};
use crate::weights::MappedShard;

/// Runs a shard on a device.
#[derive(Debug)]
pub struct GpuRunner<G: Gpu> {
    gpu: G,
    spec: ModelSpec,
    kv_type: KvType,
    kv_blocks: u32,
    /// Its blocks of each kind of layer.
    pool: KvBlocks,
    /// Tokens of the longest sequence.
    tokens_max: u32,
    weights: ShardWeights<G::Buffer>,
    /// Of each of the shard's layers.
    kv: Vec<LayerKv<G::Buffer>>,
    ropes: Vec<Rope>,
    inputs: TileInputs<G::Buffer>,
    scratch: Scratch<G::Buffer>,
    tile: RowTile,
    /// The formats of the file's matrices, and a measurement of their speeds in progress.
    formats: Vec<Format>,
    probe: Option<SpeedProbe>,
    /// Chooses where the device does not. Present in the last stage.
    pub(super) sampler: Option<Sampler>,
}

// === impl GpuRunner ===

impl<G: Gpu> GpuRunner<G> {
    /// Prepares a shard on `gpu`: its weights in place, its keys and values, and all memory that steps need.
    ///
    /// # Errors
    /// [`SetupError`] if the kernels do not compute the model, the file lacks something, or the device has no room.
    pub fn new(setup: RunnerSetup, gpu: G) -> Result<Self, SetupError> {
        Self::prepare(setup, gpu).map(|(runner, _)| runner)
    }

    /// As [`Self::new`], after every kernel that the shard needs was compared with double precision on its weights.
    ///
    /// # Errors
    /// As [`Self::new`]; [`GpuError::Kernel`] inside names a kernel that computes wrongly.
    pub fn compared(setup: RunnerSetup, gpu: G) -> Result<Self, SetupError> {
        let (mut runner, samples) = Self::prepare(setup, gpu)?;
        let compared = G::scoped(|| runner.compare(&samples));
        // A copy that failed explains a result that differs.
        runner.gpu.check_transfers()?;
        compared?;
        Ok(runner)
    }

    fn prepare(setup: RunnerSetup, mut gpu: G) -> Result<(Self, Vec<Sample<G::Buffer>>), SetupError> {
        let RunnerSetup { spec, shard, room } = setup;
        support::check(&spec, shard.file(), room.kv_type)?;
        let pages = MappedPages::new(&shard, &mut gpu)?;
        let weights = ShardWeights::new(&spec, &shard, &pages, &mut gpu)?;
        let samples = Sample::of_each_kind(&shard, &pages)?;
        let pool = spec.kv_kinds().pool(room.tokens);
        let mut kv = Vec::new();
        for layer in &spec.layers[shard.layers().indices()] {
            if let Mixer::Attention(attention) = &layer.mixer {
                kv.push(LayerKv::new(attention, room.kv_type, pool, &mut gpu)?);
            }
        }
        let tokens_max = spec.sequence_tokens_max(room.tokens);
        let ropes = ropes(&spec, &shard, tokens_max)?;
        let inputs = TileInputs::new(&ropes, tokens_max, &mut gpu)?;
        let formats = shard.file().matrix_formats();
        let last = weights.output_head.is_some();
        let scratch = Scratch::new(&spec, last, tokens_max, &mut gpu)?;
        let runner = Self {
            kv_type: room.kv_type,
            kv_blocks: room.tokens.div_ceil(KV_BLOCK_TOKENS),
            sampler: last.then(|| Sampler::new(spec.vocabulary)),
            tile: RowTile::with_capacity(ROWS_MAX),
            formats,
            probe: None,
            gpu,
            spec,
            weights,
            kv,
            tokens_max,
            pool,
            ropes,
            inputs,
            scratch,
        };
        Ok((runner, samples))
    }

    /// The device.
    pub fn gpu(&self) -> &G {
        &self.gpu
    }

    /// Blocks of keys and values that its room has.
    pub fn kv_blocks(&self) -> u32 {
        self.kv_blocks
    }

    /// Values in a row.
    pub(super) fn hidden(&self) -> usize {
        self.spec.hidden
    }

    /// Number of tokens.
    pub(super) fn vocabulary(&self) -> usize {
        self.spec.vocabulary
    }

    pub(super) fn pool(&self) -> KvBlocks {
        self.pool
    }

    pub(super) fn sequence_tokens_max(&self) -> usize {
        self.tokens_max as usize
    }

    pub(super) fn rope(&self, index: usize) -> Option<&Rope> {
        self.ropes.get(index)
    }

    /// The rows of attention's results.
    pub(super) fn attended(&self) -> &G::Buffer {
        &self.scratch.attended
    }

    /// Takes the rows of `slices` from row `from` on, as many as a tile holds.
    pub(super) fn set_tile(&mut self, slices: &[Slice], from: usize) {
        self.tile.fill(slices, from, ROWS_MAX, |_, rows| rows);
        self.inputs.set(&self.tile, slices, &self.ropes);
    }

    /// Logits of every position that needs them, one row after the other. For perplexity measurements and tests.
    ///
    /// # Errors
    /// [`RunnerError::Work`] if the work does not fit, or the shard is not the last.
    pub fn logits(&mut self, work: &Work<'_>) -> Result<Vec<f32>, RunnerError> {
        if self.weights.output_head.is_none() {
            return Err(no_output_head());
        }
        let mut outcome = Outcome::Logits(Vec::new());
        self.run(work, &mut outcome)?;
        outcome.logits()
    }

    /// Runs the work tile by tile and appends its result to `into`.
    fn run(&mut self, work: &Work<'_>, into: &mut Outcome) -> Result<(), RunnerError> {
        let (first, last) = (self.weights.embedding.is_some(), self.weights.output_head.is_some());
        let rows = WorkBounds::new(&self.spec, first, last, self.kv_blocks).check(work)?;
        for from in (0..rows).step_by(ROWS_MAX) {
            self.set_tile(work.slices, from);
            self.load_input(work, from)?;
            self.tile(work.slices, into)?;
        }
        Ok(())
    }

    /// Writes the tile's rows to the residual stream.
    fn load_input(&mut self, work: &Work<'_>, from: usize) -> Result<(), RunnerError> {
        let hidden = self.spec.hidden;
        let mut bytes = Vec::new();
        let Some(embedding) = &self.weights.embedding else {
            let values = &work.activations[from * hidden..][..self.tile.rows.len() * hidden];
            write(&self.scratch.stream, &mut bytes, values.iter().map(|value| value.to_bits()));
            return Ok(());
        };
        let mut values = vec![0.0; self.tile.rows.len() * hidden];
        for (row, into) in self.tile.rows.iter().zip(values.chunks_exact_mut(hidden)) {
            let token = work.slices[row.slice].tokens[row.offset];
            embedding.read(token, into).map_err(|error| RunnerError::Device(chain(&error)))?;
        }
        write(&self.scratch.stream, &mut bytes, values.iter().map(|value: &f32| value.to_bits()));
        Ok(())
    }

    /// Computes the tile.
    fn tile(&mut self, slices: &[Slice], into: &mut Outcome) -> Result<(), RunnerError> {
        let rows_that = |needs: &dyn Fn(usize) -> bool| -> Vec<u32> {
            (0..self.tile.rows.len()).filter(|row| needs(*row)).map(|row| row as u32).collect()
        };
        let logit_rows = rows_that(&|row| self.tile.rows[row].needs_logits(slices));
        let state_rows = rows_that(&|row| self.tile.rows[row].needs_hidden_state(slices));
        let (rows, hidden) = (self.tile.rows.len(), self.spec.hidden);
        self.encode_layers()?;
        if !logit_rows.is_empty() && self.weights.output_head.is_some() {
            self.encode_logits(slices, &logit_rows)?;
        }
        self.gpu.finish().map_err(device)?;
        check_finite(&read_numbers(&self.scratch.unusable, rows))?;
        match into {
            Outcome::Activations(values) => values.extend(read_floats(&self.scratch.stream, rows * hidden)),
            Outcome::Logits(all) => {
                all.extend(read_floats(&self.scratch.logits, logit_rows.len() * self.spec.vocabulary));
            }
            Outcome::Results(results) => {
                self.choose(slices, &logit_rows, &mut results.chosen)?;
                if !state_rows.is_empty() {
                    self.hidden_states(slices, &state_rows, &mut results.hidden_states)?;
                }
            }
        }
        self.gpu.check_transfers().map_err(device)
    }

    /// Places whose products are measured: the layers, and one for the output head.
    pub(super) fn probed_places(&self) -> usize {
        self.weights.layers.len() + 1
    }

    /// Waits for the products that were encoded.
    pub(super) fn finish_products(&mut self) -> Result<(), GpuError> {
        self.gpu.finish()
    }

    /// A step of the tile's launches.
    pub(super) fn step(&mut self) -> (Step<'_, G>, &ShardWeights<G::Buffer>, &[LayerKv<G::Buffer>]) {
        let Self { gpu, spec, kv_type, weights, kv, ropes, inputs, scratch, tile, .. } = self;
        let last = tile.rows.iter().map(|row| row.position).max().unwrap_or(0);
        let (rows, splits) = (tile.rows.len(), last / SPLIT_TOKENS as u32 + 1);
        let step = Step { gpu, inputs, scratch, ropes, kv_type: *kv_type, rows, splits, hidden: spec.hidden };
        (step, weights, kv)
    }

    fn encode_layers(&mut self) -> Result<(), RunnerError> {
        let (mut step, weights, kv) = self.step();
        for (layer, kv) in weights.layers.iter().zip(kv) {
            step.layer(layer, kv).map_err(device)?;
        }
        let (rows, hidden) = (step.rows, step.hidden);
        step.find_unusable(&step.scratch.stream, rows, hidden).map_err(device)
    }

    /// Epsilon of the norm before the output head, which every model that is computed has.
    fn norm_epsilon(&self) -> f32 {
        self.spec.head.map_or(0.0, |head| head.norm_epsilon)
    }

    /// Encodes the logits of some rows, and the choice of a token for each.
    fn encode_logits(&mut self, slices: &[Slice], rows_at: &[u32]) -> Result<(), RunnerError> {
        let (epsilon, vocabulary) = (self.norm_epsilon(), self.spec.vocabulary);
        let mut bytes = Vec::new();
        write(&self.scratch.logit_rows, &mut bytes, rows_at.iter().copied());
        let rule = |row: &u32| {
            let row = &self.tile.rows[*row as usize];
            ChoiceRule::of(&slices[row.slice], row).unwrap_or_default().numbers()
        };
        write(&self.scratch.rules, &mut bytes, rows_at.iter().flat_map(rule));
        let (mut step, weights, _) = self.step();
        let Some(OutputHead { norm, output }) = &weights.output_head else { return Err(no_output_head()) };
        let Scratch { normed, logits, logit_rows, .. } = step.scratch;
        let rows = rows_at.len();
        step.norm(logit_rows, rows, norm, epsilon).map_err(device)?;
        let product = Product { input: normed, rows, bias: None, out: logits, out_stride: vocabulary, add: false };
        step.multiply(output, &product).map_err(device)?;
        step.choose_tokens(rows, vocabulary).map_err(device)
    }

    /// Appends the tokens that are chosen or scored after rows with logits. The logits are fetched only for a row whose
    /// rule the device does not know.
    fn choose(&mut self, slices: &[Slice], logit_rows: &[u32], into: &mut Vec<Chosen>) -> Result<(), RunnerError> {
        let by_device = read_numbers(&self.scratch.chosen, 2 * logit_rows.len());
        let vocabulary = self.spec.vocabulary;
        for (index, row) in logit_rows.iter().enumerate() {
            let row = &self.tile.rows[*row as usize];
            let slice = &slices[row.slice];
            let (token, logprob) = (by_device[2 * index], f32::from_bits(by_device[2 * index + 1]));
            let sampled = if ChoiceRule::of(slice, row).is_some() && logprob.is_finite() {
                Ok(SampledToken { token, logprob, rank: 0, alternatives: Vec::new() })
            } else {
                let Some(sampler) = &mut self.sampler else { return Err(no_output_head()) };
                let mut bytes = vec![0; 4 * vocabulary];
                self.scratch.logits.read(4 * vocabulary * index, &mut bytes);
                let logits: Vec<f32> =
                    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
                sampler.read(&logits, slice.rule.alternatives, readout(slice, row))
            };
            into.push(chosen(slice, row, sampled)?);
        }
        Ok(())
    }

    fn hidden_states(
        &mut self,
        slices: &[Slice],
        rows_at: &[u32],
        into: &mut Vec<HiddenState>,
    ) -> Result<(), RunnerError> {
        let (epsilon, hidden) = (self.norm_epsilon(), self.spec.hidden);
        write(&self.scratch.logit_rows, &mut Vec::new(), rows_at.iter().copied());
        let (mut step, weights, _) = self.step();
        let Some(OutputHead { norm, .. }) = &weights.output_head else { return Err(no_output_head()) };
        step.norm(&step.scratch.logit_rows, rows_at.len(), norm, epsilon).map_err(device)?;
        self.gpu.finish().map_err(device)?;
        let values = read_floats(&self.scratch.normed, rows_at.len() * hidden);
        for (row, values) in rows_at.iter().zip(values.chunks_exact(hidden)) {
            let row = &self.tile.rows[*row as usize];
            into.push(hidden_state(&slices[row.slice], row, values.to_vec())?);
        }
        Ok(())
    }
}

impl<G: Gpu + Send> Runner for GpuRunner<G> {
    fn step(&mut self, work: Work<'_>) -> Result<Output, RunnerError> {
        let mut outcome = Outcome::of_step(self.weights.output_head.is_some());
        G::scoped(|| self.run(&work, &mut outcome))?;
        outcome.output()
    }

    fn probe(&mut self) -> Option<Speeds> {
        let mut probe = self.probe.take().unwrap_or_else(|| SpeedProbe::new(&self.formats));
        match G::scoped(|| probe.measure_slice(self)) {
            Ok(true) => Some(probe.speeds()),
            Ok(false) => {
                self.probe = Some(probe);
                None
            }
            Err(error) => {
                tracing::warn!(%error, "the device's speed cannot be measured");
                Some(Speeds::new())
            }
        }
    }
}

/// The rotary embeddings of a model, for sequences up to `tokens_max` tokens.
fn ropes(spec: &ModelSpec, shard: &MappedShard, tokens_max: u32) -> Result<Vec<Rope>, SetupError> {
    let mut ropes = Vec::new();
    for rope in &spec.ropes {
        let name = rope.factor_tensor(tokens_max);
        let tensor = name.map(|name| shard.find(name)).transpose()?.flatten();
        let factors = tensor.map(|tensor| tensor.f32s()).transpose()?;
        ropes.push(rope.rope(name.zip(factors.as_deref()))?);
    }
    Ok(ropes)
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to `map_err`")]
fn device(error: GpuError) -> RunnerError {
    RunnerError::Device(error.to_string())
}

/// Refuses rows that the device marked.
fn check_finite(unusable: &[u32]) -> Result<(), RunnerError> {
    match unusable.iter().position(|found| *found != 0) {
        None => Ok(()),
        Some(row) => Err(RunnerError::Device(format!("row {row} of a tile has a value that is not a finite number"))),
    }
}
