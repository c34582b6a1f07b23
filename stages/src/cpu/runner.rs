//! A loaded shard and its steps: from work to output, tile by tile.

use std::sync::Arc;

use engine::runner::{KV_BLOCK_TOKENS, Output, Runner, RunnerError, Work};
use schema::LayerRange;
use schema::frame::Chosen;
use schema::record::{KvRoom, Speeds};

use super::arena::{Arena, ArenaSizes, ROWS_MAX, kv_shape};
use super::attention::QUERIES_MAX;
use super::check::Accepted;
use super::kv::KvCache;
use super::lanes::Level;
use super::layer::Step;
use super::math::add;
use super::share;
use super::split::Split;
use super::weights::{Embedding, ShardWeights};
use crate::kernels::{Pool, dequantise_row};
use crate::loader::chain;
use crate::model::{Hyper, ModelError, ROPE_FACTORS};
use crate::probe::{PROBE_TIME, Probe, ProbeScratch};
use crate::weights::{Shard, Tensor, TensorError};

/// What a shard's runner is made of.
#[derive(Debug)]
pub struct RunnerSetup {
    /// The model's sizes.
    pub hyper: Hyper,
    /// The mapped weights; their tensors were checked against the sizes.
    pub shard: Shard,
    /// The threads that compute.
    pub pool: Arc<Pool>,
    /// Keys and values to have room for.
    pub room: KvRoom,
}

/// Why a shard's runner could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The shard lacks a tensor.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The model is not what it should be.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// There is no memory.
    #[error("cannot reserve keys and values of {tokens} tokens")]
    Memory {
        /// How many tokens.
        tokens: u32,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
}

/// Runs a shard on the processor.
#[derive(Debug)]
pub struct CpuRunner {
    hyper: Hyper,
    shard: Shard,
    pool: Arc<Pool>,
    level: Level,
    weights: ShardWeights,
    kv: KvCache,
    arena: Arena,
    /// The measurement under way.
    probe: Option<Probe>,
}

/// What is wanted of a run.
pub(super) enum Outcome {
    /// The rows as the next stage takes them.
    Activations(Vec<f32>),
    /// A token for each position that wants one.
    Tokens(Vec<Chosen>),
    /// The logits of each position that wants a token.
    Logits(Vec<f32>),
}

// === impl RunnerSetup ===

impl RunnerSetup {
    /// Bytes of keys, values and scratch that the shard `layers` takes at most.
    pub fn bytes(hyper: &Hyper, layers: LayerRange, threads: usize, room: KvRoom) -> u64 {
        let blocks = u64::from(room.tokens.div_ceil(KV_BLOCK_TOKENS));
        let kv = kv_shape(hyper, room.kv_type).block_bytes(layers.count() as usize).saturating_mul(blocks);
        kv.saturating_add(Self::scratch_bytes(hyper, layers.end() == hyper.layers, threads, room.tokens))
    }

    /// Bytes of scratch alone; the last shard's are the most.
    pub fn scratch_bytes(hyper: &Hyper, last: bool, threads: usize, kv_tokens: u32) -> u64 {
        ArenaSizes::new(hyper, last, threads, kv_tokens).bytes()
    }
}

// === impl CpuRunner ===

impl CpuRunner {
    /// Gets a shard ready.
    ///
    /// # Errors
    /// [`SetupError`] when the shard lacks something or there is no memory.
    pub fn new(setup: RunnerSetup) -> Result<Self, SetupError> {
        let RunnerSetup { hyper, shard, pool, room } = setup;
        hyper.check_kv(room.kv_type)?;
        let weights = ShardWeights::find(&hyper, &shard)?;
        let factors = shard.find(ROPE_FACTORS)?.map(|tensor| tensor.f32s()).transpose()?;
        let rope = hyper.rope(factors.as_deref())?;
        let sizes = ArenaSizes::new(&hyper, weights.head.is_some(), pool.threads(), room.tokens);
        let blocks = room.tokens.div_ceil(KV_BLOCK_TOKENS) as usize;
        let kv = KvCache::new(kv_shape(&hyper, room.kv_type), weights.layers.len(), blocks)
            .map_err(|cause| SetupError::Memory { tokens: room.tokens, cause })?;
        Ok(Self {
            arena: Arena::new(&sizes, rope),
            level: Level::detect(),
            hyper,
            shard,
            pool,
            weights,
            kv,
            probe: None,
        })
    }

    /// Blocks of keys and values it has room for.
    pub fn kv_blocks(&self) -> u32 {
        self.kv.blocks() as u32
    }

    fn accepted(&self) -> Accepted {
        Accepted {
            first: self.weights.embedding.is_some(),
            last: self.weights.head.is_some(),
            hidden: self.hyper.hidden,
            vocabulary: self.hyper.vocabulary,
            context_tokens: self.hyper.context_tokens,
            kv_blocks: self.kv_blocks(),
        }
    }

    /// Puts what the tile starts from into the residual stream.
    fn begin(&mut self, work: &Work<'_>, from: usize) -> Result<(), RunnerError> {
        let hidden = self.hyper.hidden;
        let Arena { x, tile, angles, .. } = &mut self.arena;
        for (index, row) in tile.rows.iter().enumerate() {
            angles.set(index, row.position);
        }
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
        }
        Ok(())
    }

    /// Runs all layers on the tile; what the last one adds is left in `arena.out`.
    fn layers(&mut self, work: &Work<'_>) {
        let Self { hyper, pool, level, weights, kv, arena, .. } = self;
        let mut step = Step { hyper, pool, level: *level, slices: work.slices, arena };
        for (index, layer) in weights.layers.iter().enumerate() {
            step.layer(layer, kv, index);
        }
    }

    /// Adds what the last layer left and appends the rows to `activations`.
    fn hand_on(&mut self, activations: &mut Vec<f32>) {
        let hidden = self.hyper.hidden;
        let rows = self.arena.tile.rows.len();
        let (x, out) = (Split::new(&mut self.arena.x[..rows * hidden]), &self.arena.out);
        share::rows(&self.pool, rows, &|range| {
            let values = range.start * hidden..range.end * hidden;
            // SAFETY: the ranges do not overlap.
            let x = unsafe { x.part(values.clone()) };
            add(self.level, x, &out[values]);
        });
        activations.extend_from_slice(&self.arena.x[..rows * hidden]);
    }

    /// Runs the work tile by tile and hands its outcome to `into`.
    fn run(&mut self, work: &Work<'_>, into: &mut Outcome) -> Result<(), RunnerError> {
        let rows = self.accepted().check(work)?;
        match into {
            Outcome::Activations(values) => values.reserve_exact(rows * self.hyper.hidden),
            Outcome::Tokens(chosen) => chosen.reserve_exact(work.slices.iter().map(|slice| slice.logits.len()).sum()),
            Outcome::Logits(_) => {}
        }
        let together = (QUERIES_MAX / self.hyper.group()).max(1);
        for from in (0..rows).step_by(ROWS_MAX) {
            self.arena.tile.fill(work.slices, from, ROWS_MAX, together);
            self.begin(work, from)?;
            self.layers(work);
            match (&self.weights.head, &mut *into) {
                (None, Outcome::Activations(values)) => self.hand_on(values),
                (Some(head), into) => {
                    let Self { hyper, pool, level, arena, .. } = self;
                    Step { hyper, pool, level: *level, slices: work.slices, arena }.finish(head, into)?;
                }
                (None, _) => return Err(no_head()),
            }
        }
        Ok(())
    }

    /// The logits of every position that wants some, one row after the other: for measuring perplexity, and for tests.
    ///
    /// # Errors
    /// [`RunnerError::Work`] when the work does not fit, or the shard is not the last.
    pub fn logits(&mut self, work: &Work<'_>) -> Result<Vec<f32>, RunnerError> {
        let mut outcome = Outcome::Logits(Vec::new());
        if self.weights.head.is_none() {
            return Err(no_head());
        }
        self.run(work, &mut outcome)?;
        if let Outcome::Logits(logits) = outcome { Ok(logits) } else { Err(no_head()) }
    }
}

impl Runner for CpuRunner {
    fn step(&mut self, work: Work<'_>) -> Result<Output, RunnerError> {
        let mut outcome = match self.weights.head {
            Some(_) => Outcome::Tokens(Vec::new()),
            None => Outcome::Activations(Vec::new()),
        };
        self.run(&work, &mut outcome)?;
        match outcome {
            Outcome::Activations(values) => Ok(Output::Activations(values)),
            Outcome::Tokens(chosen) => Ok(Output::Tokens(chosen)),
            Outcome::Logits(_) => Err(no_head()),
        }
    }

    fn probe(&mut self) -> Option<Speeds> {
        let Self { shard, pool, arena, probe, .. } = self;
        let probe = probe.get_or_insert_with(|| Probe::new(&shard.file().matrix_formats(), PROBE_TIME));
        let tensors = shard.matrices();
        let matrices: Vec<_> = tensors.iter().map(Tensor::matrix).collect();
        // No step is under way, so its memory is free.
        let scratch = ProbeScratch { rows: &mut arena.input, out: &mut arena.gate };
        if !probe.slice(&matrices, pool, scratch) {
            return None;
        }
        self.probe.take().map(|probe| probe.speeds())
    }
}

fn no_head() -> RunnerError {
    let (found, expected) =
        ("a shard without the last layer".to_owned(), "the last one, which has the head".to_owned());
    RunnerError::Work { field: "shard", found, expected }
}
