//! A model cut into shards that run one after the other in this process, and helpers that run sequences through it.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use engine::runner::{KV_BLOCK_TOKENS, Output, Runner, Work};
use schema::frame::{Sampling, Slice};
use schema::record::{KvKinds, KvRoom, KvType, Speeds};
use schema::{LayerRange, SequenceId};
use stages::cpu::CpuRunner;
use stages::kernels::ThreadPool;
use stages::model::ModelSpec;
use stages::shard::{RunnerSetup, SetupError};
use stages::weights::ModelFile;

pub const GREEDY: Sampling = Sampling::GREEDY;
/// Room for sixteen sequences of 320 tokens.
pub const KV_TOKENS: u32 = 16 * 320;

/// All shards of a model.
pub struct Pipeline {
    runners: Vec<CpuRunner>,
    pub spec: ModelSpec,
}

/// A part of a sequence to compute: `tokens` from `position` on. `sequence` is the sequence's index, which decides its
/// blocks.
#[derive(Clone, Copy)]
pub struct Piece<'a> {
    pub sequence: u32,
    pub position: u32,
    pub tokens: &'a [u32],
}

type NewRunner = fn(RunnerSetup, Arc<ThreadPool>) -> Result<CpuRunner, SetupError>;

impl Pipeline {
    /// The model at `path`, cut before each of the layers `cuts`.
    pub fn new(path: &Path, cuts: &[u32], threads: usize) -> Self {
        Self::with_kv_type(KvType::F16, path, cuts, threads)
    }

    /// The same with keys and values in single precision.
    pub fn with_float_kv(path: &Path, cuts: &[u32], threads: usize) -> Self {
        Self::of(KvType::F16, CpuRunner::with_float_kv, path, cuts, threads)
    }

    /// The same with keys and values kept as `kv_type`.
    pub fn with_kv_type(kv_type: KvType, path: &Path, cuts: &[u32], threads: usize) -> Self {
        Self::of(kv_type, CpuRunner::new, path, cuts, threads)
    }

    fn of(kv_type: KvType, new: NewRunner, path: &Path, cuts: &[u32], threads: usize) -> Self {
        let file = ModelFile::open(path).expect("the model opens");
        let spec = ModelSpec::read(file.header()).expect("the model is supported");
        spec.check_tensors(file.header()).expect("the tensors are there");
        let pool = Arc::new(ThreadPool::new(NonZeroUsize::new(threads).expect("a thread")));
        let ends: Vec<u32> = [0].iter().chain(cuts).chain([&spec.layer_count()]).copied().collect();
        let runner = |ends: &[u32]| {
            let shard = file.map(LayerRange::new(ends[0], ends[1]).expect("a range")).expect("the shard maps");
            // Layers with a window beside others have fewer blocks of this room, and then as many as these tests need.
            let rooms = if matches!(spec.kv_kinds(), KvKinds::Both(_)) { 4 } else { 1 };
            let room = KvRoom { tokens: rooms * KV_TOKENS, kv_type };
            let setup = RunnerSetup { spec: spec.clone(), shard, room };
            new(setup, Arc::clone(&pool)).expect("the shard is ready")
        };
        Self { runners: ends.windows(2).map(runner).collect(), spec }
    }

    /// The logits at every position of the pieces, in one micro-batch.
    pub fn logits(&mut self, pieces: &[Piece<'_>]) -> Vec<Vec<f32>> {
        let slices = pieces.iter().map(|piece| slice(*piece, self.blocks_each())).collect();
        let (slices, activations) = self.before_last(slices);
        let last = self.runners.last_mut().expect("a shard");
        let logits = last.logits(&Work { slices: &slices, activations: &activations }).expect("it runs");
        logits.chunks_exact(self.spec.vocabulary).map(<[f32]>::to_vec).collect()
    }

    /// The hidden states at every position of the pieces, in one micro-batch.
    pub fn hidden_states(&mut self, pieces: &[Piece<'_>]) -> Vec<Vec<f32>> {
        let slices = pieces.iter().map(|piece| for_hidden_states(slice(*piece, self.blocks_each()))).collect();
        let (slices, activations) = self.before_last(slices);
        let last = self.runners.last_mut().expect("a shard");
        hidden_states(last.step(Work { slices: &slices, activations: &activations }).expect("it runs"), &slices)
    }

    /// The input of the last shard: its slices and activations.
    fn before_last(&mut self, mut slices: Vec<Slice>) -> (Vec<Slice>, Vec<f32>) {
        let (_, others) = self.runners.split_last_mut().expect("a shard");
        let mut activations = Vec::new();
        for runner in others {
            let Output::Activations(rows) =
                runner.step(Work { slices: &slices, activations: &activations }).expect("it runs")
            else {
                panic!("only the last shard gives tokens")
            };
            activations = rows;
            // Only the first shard gets token ids; the others get activations.
            slices.iter_mut().for_each(|slice| slice.tokens.clear());
        }
        (slices, activations)
    }

    /// Runs a step of the last shard, for a model of one shard.
    pub fn step(&mut self, work: Work<'_>) -> Result<Output, engine::runner::RunnerError> {
        self.runners.last_mut().expect("a shard").step(work)
    }

    /// The speeds that each shard measures.
    pub fn probe(&mut self) -> Vec<Speeds> {
        // A call measures for a moment and returns `None` until all is measured.
        let probe_to_end = |runner: &mut CpuRunner| std::iter::repeat_with(|| runner.probe()).find_map(|speeds| speeds);
        self.runners.iter_mut().map(|runner| probe_to_end(runner).expect("it ends")).collect()
    }

    /// Number of KV cache blocks that each sequence gets: enough for the model's whole context.
    pub fn blocks_each(&self) -> u32 {
        self.spec.context_tokens.div_ceil(KV_BLOCK_TOKENS)
    }
}

/// The slice of a piece, with logits requested at all positions. The sequence's blocks are scattered over the cache, to
/// show mistakes in addressing them: block numbers of different sequences alternate, and each sequence's descend.
pub fn slice(piece: Piece<'_>, blocks_each: u32) -> Slice {
    let sequences = KV_TOKENS / KV_BLOCK_TOKENS / blocks_each;
    assert!(piece.sequence < sequences, "sequence {} of {sequences}", piece.sequence);
    let blocks: Vec<u32> = (0..blocks_each).rev().map(|block| block * sequences + piece.sequence).collect();
    Slice {
        position: piece.position,
        count: piece.tokens.len() as u32,
        tokens: piece.tokens.to_vec(),
        window_blocks: blocks.clone(),
        blocks,
        logits: (0..piece.tokens.len() as u32).collect(),
        ..Slice::empty(SequenceId(piece.sequence.into()))
    }
}

/// The same slice with its hidden states requested in place of logits.
pub fn for_hidden_states(slice: Slice) -> Slice {
    Slice { logits: Vec::new(), hidden_states: slice.logits.clone(), ..slice }
}

/// The hidden states of a step, which must be those of the slices' tokens, in order.
pub fn hidden_states(output: Output, slices: &[Slice]) -> Vec<Vec<f32>> {
    let Output::Tokens { chosen, hidden_states } = output else { panic!("the last shard gives hidden states") };
    assert_eq!(chosen, []);
    let positions = |slice: &Slice| {
        let (sequence, position) = (slice.sequence, slice.position);
        slice.hidden_states.iter().map(move |offset| (sequence, position + offset)).collect::<Vec<_>>()
    };
    let found: Vec<_> = hidden_states.iter().map(|state| (state.sequence, state.position)).collect();
    assert_eq!(found, slices.iter().flat_map(positions).collect::<Vec<_>>());
    hidden_states.into_iter().map(|state| state.values).collect()
}

/// The bits of logits, for exact comparison.
pub fn bits(logits: &[Vec<f32>]) -> Vec<Vec<u32>> {
    logits.iter().map(|row| row.iter().map(|logit| logit.to_bits()).collect()).collect()
}
