//! Runs the steps of a loaded shard: computes the output of a step's work, tile by tile.

use std::sync::Arc;

use engine::runner::{KV_BLOCK_TOKENS, Output, Runner, RunnerError, Work};
use schema::LayerRange;
use schema::record::{KvRoom, Speeds};

use super::arena::{Arena, ArenaSizes, ROWS_MAX, kv_shape};
use super::attention::QUERIES_MAX;
use super::kv::{KvCache, KvNumber};
use super::latent_attention::heads_of_part;
use super::layer::Step;
use super::math::add;
use super::parallel;
use super::touched::TouchedExperts;
use super::weights::{Embedding, ShardWeights};
use crate::kernels::Isa;
use crate::kernels::{Split, ThreadPool, dequantise_row};
use crate::loader::chain;
use crate::model::{FeedForward, Mixer, ModelSpec, Rope};
use crate::probe::{PROBE_TIME, Probe, ProbeScratch};
use crate::shard::{Outcome, RunnerSetup, SetupError, WorkBounds, no_output_head};
use crate::weights::{MappedShard, Tensor, major_faults};

/// Runs a shard on the CPU.
#[derive(Debug)]
pub struct CpuRunner {
    pub(super) spec: ModelSpec,
    shard: MappedShard,
    pub(super) pool: Arc<ThreadPool>,
    pub(super) isa: Isa,
    pub(super) weights: ShardWeights,
    pub(super) kv: KvCache,
    /// Blocks of the room for keys and values.
    kv_blocks: u32,
    pub(super) arena: Arena,
    /// Most rows of a sequence whose attention is computed together.
    rows_at_once: usize,
    /// The speed measurement in progress.
    probe: Option<Probe>,
    pub(super) touched: Arc<TouchedExperts>,
    /// Pages that the process had waited for when the last step began.
    major_faults: i64,
}

// === impl CpuRunner ===

impl CpuRunner {
    /// Maximum bytes of keys, values, repacked weights and scratch that the shard `layers` takes.
    pub fn bytes(spec: &ModelSpec, layers: LayerRange, threads: usize, room: KvRoom) -> u64 {
        let pool = spec.kv_kinds().pool(room.tokens);
        let own = spec.layers.get(layers.indices()).unwrap_or_default();
        let of_layer = |mixer: &Mixer| {
            kv_shape(mixer, room.kv_type.into()).block_bytes().saturating_mul(mixer.blocks(pool).into())
        };
        let copies = Self::copied_bytes(spec, layers);
        let kv = own.iter().map(|layer| of_layer(&layer.mixer)).fold(0, u64::saturating_add);
        kv.saturating_add(copies).saturating_add(Self::scratch_bytes(
            spec,
            layers.end() == spec.layer_count(),
            threads,
            room.tokens,
        ))
    }

    /// Bytes of weights of the shard `layers` that a runner copies itself.
    pub fn copied_bytes(spec: &ModelSpec, layers: LayerRange) -> u64 {
        let own = spec.layers.get(layers.indices()).unwrap_or_default();
        own.iter().map(|layer| copied_bytes(&layer.mixer)).fold(0, u64::saturating_add)
    }

    /// Bytes of scratch alone. The last shard takes the most.
    pub fn scratch_bytes(spec: &ModelSpec, last: bool, threads: usize, kv_tokens: u32) -> u64 {
        ArenaSizes::new(spec, last, threads, kv_tokens).bytes()
    }

    /// Prepares a shard for computation by the threads of `pool`.
    ///
    /// # Errors
    /// [`SetupError`] if the shard lacks something or there is no memory.
    pub fn new(setup: RunnerSetup, pool: Arc<ThreadPool>) -> Result<Self, SetupError> {
        setup.spec.check_kv(setup.room.kv_type)?;
        let number = setup.room.kv_type.into();
        Self::with_kv_number(setup, number, pool)
    }

    /// As [`Self::new`], with keys and values in single precision whatever the setup says: to compare with references
    /// that do not round them. Takes twice the memory of half precision.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_float_kv(setup: RunnerSetup, pool: Arc<ThreadPool>) -> Result<Self, SetupError> {
        Self::with_kv_number(setup, KvNumber::Float, pool)
    }

    fn with_kv_number(setup: RunnerSetup, number: KvNumber, pool: Arc<ThreadPool>) -> Result<Self, SetupError> {
        let RunnerSetup { spec, shard, room } = setup;
        let weights = ShardWeights::find(&spec, &shard)?;
        let ropes = ropes_of(&spec, &shard, room.tokens)?;
        let sizes = ArenaSizes::new(&spec, weights.last, pool.threads(), room.tokens);
        let pool_blocks = spec.kv_kinds().pool(room.tokens);
        let layers = spec.layers[shard.layers().indices()]
            .iter()
            .map(|layer| (kv_shape(&layer.mixer, number), layer.mixer.blocks(pool_blocks) as usize));
        let kv = KvCache::new(layers).map_err(|cause| SetupError::Memory { tokens: room.tokens, cause })?;
        let rows_at_once = spec.layers.iter().map(|layer| queries_of_row(&layer.mixer)).max();
        let rows_at_once = (QUERIES_MAX / rows_at_once.unwrap_or(1)).max(1);
        let arena = Arena::new(&sizes, ropes);
        let experts = spec.layers[shard.layers().indices()].iter().map(|layer| match &layer.feed_forward {
            FeedForward::Dense(_) | FeedForward::Plain(_) => 0,
            FeedForward::Experts(experts) => experts.count,
        });
        let touched = Arc::new(TouchedExperts::new(shard.layers().start(), experts));
        let (isa, major_faults) = (Isa::best(), major_faults());
        let kv_blocks = room.tokens.div_ceil(KV_BLOCK_TOKENS);
        let probe = None;
        Ok(Self { arena, isa, spec, shard, pool, weights, kv, kv_blocks, rows_at_once, probe, touched, major_faults })
    }

    /// Blocks of the room for keys and values that the runner was made with.
    pub fn kv_blocks(&self) -> u32 {
        self.kv_blocks
    }

    /// The experts that were chosen since the shard was loaded.
    pub fn touched(&self) -> Arc<TouchedExperts> {
        Arc::clone(&self.touched)
    }

    fn work_bounds(&self) -> WorkBounds {
        let (first, last) = (self.weights.embedding.is_some(), self.weights.last);
        WorkBounds::new(&self.spec, first, last, self.kv_blocks())
    }

    /// Fills the tile with the rows of the work from `from` on, and computes their angles.
    pub(super) fn begin_tile(&mut self, work: &Work<'_>, from: usize) {
        let rows_at_once = self.rows_at_once;
        let Arena { tile, angles, .. } = &mut self.arena;
        tile.fill(work.slices, from, ROWS_MAX, |_, _| rows_at_once);
        for angles in angles {
            tile.rows.iter().enumerate().for_each(|(index, row)| angles.set(index, row.position));
        }
    }

    /// Writes the tile's input to the residual stream.
    pub(super) fn load_input(&mut self, work: &Work<'_>, from: usize) -> Result<(), RunnerError> {
        let (hidden, scale) = (self.spec.hidden, self.spec.embedding.scale);
        let Arena { x, tile, .. } = &mut self.arena;
        let Some(embedding) = &self.weights.embedding else {
            let rows = &work.activations[from * hidden..][..tile.rows.len() * hidden];
            x[..rows.len()].copy_from_slice(rows);
            return Ok(());
        };
        for (row, x) in tile.rows.iter().zip(x.chunks_exact_mut(hidden)) {
            let token = work.slices[row.slice].tokens[row.offset];
            match embedding {
                Embedding::Mapped(table) => dequantise_row(&table.matrix(), token as usize, x),
                Embedding::Read(rows) => {
                    rows.read(token, x).map_err(|error| RunnerError::Device(chain(&error)))?;
                }
            }
            if scale != 1.0 {
                x.iter_mut().for_each(|value| *value *= scale);
            }
            if let Some(added) = &self.weights.added {
                added.add(self.isa, row.position, x);
            }
        }
        Ok(())
    }

    /// Runs all layers on the tile. The term that the last one adds is left in `arena.out`.
    fn layers(&mut self, work: &Work<'_>, pages_left: bool) {
        let Self { spec, pool, isa, weights, kv, arena, touched, .. } = self;
        let mut step = Step { spec, pool, isa: *isa, slices: work.slices, arena, touched, pages_left };
        for (index, layer) in weights.layers.iter().enumerate() {
            step.layer(layer, kv, index);
        }
    }

    /// Adds the term that the last layer left, and appends the rows to `activations`.
    fn append_activations(&mut self, activations: &mut Vec<f32>) {
        let hidden = self.spec.hidden;
        let rows = self.arena.tile.rows.len();
        let (x, out) = (Split::new(&mut self.arena.x[..rows * hidden]), &self.arena.out);
        parallel::rows(&self.pool, rows, &|range| {
            let values = range.start * hidden..range.end * hidden;
            // SAFETY: the ranges do not overlap.
            let x = unsafe { x.part(values.clone()) };
            add(self.isa, x, &out[values]);
        });
        activations.extend_from_slice(&self.arena.x[..rows * hidden]);
    }

    /// Runs the work tile by tile and appends its result to `into`.
    fn run(&mut self, work: &Work<'_>, into: &mut Outcome) -> Result<(), RunnerError> {
        let rows = self.work_bounds().check(work)?;
        match into {
            Outcome::Activations(values) => values.reserve_exact(rows * self.spec.hidden),
            Outcome::Results(results) => {
                results.chosen.reserve_exact(work.slices.iter().map(|slice| slice.logits.len()).sum());
                let states = work.slices.iter().map(|slice| slice.hidden_states.len()).sum();
                results.hidden_states.reserve_exact(states);
            }
            Outcome::Logits(_) => {}
        }
        let faults = major_faults();
        let pages_left = faults != std::mem::replace(&mut self.major_faults, faults);
        // The keys and values of a single tile are all written before its queries read them.
        if rows > ROWS_MAX && self.spec.is_bidirectional() {
            return self.run_texts(work, rows, into, pages_left);
        }
        for from in (0..rows).step_by(ROWS_MAX) {
            self.begin_tile(work, from);
            self.load_input(work, from)?;
            self.layers(work, pages_left);
            if let Outcome::Activations(values) = into {
                self.append_activations(values);
            } else {
                self.finish(work, into, pages_left)?;
            }
        }
        Ok(())
    }

    /// Appends what the last shard makes of the tile's rows to `into`.
    pub(super) fn finish(&mut self, work: &Work<'_>, into: &mut Outcome, pages_left: bool) -> Result<(), RunnerError> {
        let Self { spec, pool, isa, arena, touched, weights, .. } = self;
        let mut step = Step { spec, pool, isa: *isa, slices: work.slices, arena, touched, pages_left };
        step.finish(weights.output_head.as_ref(), into)
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
}

/// The rotary embeddings of a model with room for `tokens` tokens.
fn ropes_of(spec: &ModelSpec, shard: &MappedShard, tokens: u32) -> Result<Vec<Rope>, SetupError> {
    let tokens_max = spec.sequence_tokens_max(tokens);
    let mut ropes = Vec::new();
    for rope in &spec.ropes {
        let name = rope.factor_tensor(tokens_max);
        let tensor = name.map(|name| shard.find(name)).transpose()?.flatten();
        let factors = tensor.map(|tensor| tensor.f32s()).transpose()?;
        ropes.push(rope.rope(name.zip(factors.as_deref()))?);
    }
    Ok(ropes)
}

/// Query heads of one row that attend to the same keys.
fn queries_of_row(mixer: &Mixer) -> usize {
    match mixer {
        Mixer::Attention(attention) => attention.group(),
        Mixer::Latent(latent) => heads_of_part(latent),
        Mixer::ShortConv(_) => 1,
    }
}

/// Bytes of weights that are not used in place.
fn copied_bytes(mixer: &Mixer) -> u64 {
    match mixer {
        Mixer::Attention(_) | Mixer::ShortConv(_) => 0,
        Mixer::Latent(latent) => latent.key_copy().map_or(0, |(_, bytes)| bytes),
    }
}

impl Runner for CpuRunner {
    fn step(&mut self, work: Work<'_>) -> Result<Output, RunnerError> {
        let mut outcome = Outcome::of_step(self.weights.last);
        self.run(&work, &mut outcome)?;
        outcome.output()
    }

    fn probe(&mut self) -> Option<Speeds> {
        let Self { shard, pool, arena, probe, .. } = self;
        let probe = probe.get_or_insert_with(|| Probe::new(&shard.file().matrix_formats(), PROBE_TIME));
        let tensors = shard.matrices();
        let matrices: Vec<_> = tensors.iter().map(Tensor::matrix).collect();
        // No step is running, so its memory is free.
        let scratch = ProbeScratch { rows: &mut arena.input, out: &mut arena.gate };
        if !probe.measure_slice(&matrices, pool, scratch) {
            return None;
        }
        self.probe.take().map(|probe| probe.speeds())
    }
}
