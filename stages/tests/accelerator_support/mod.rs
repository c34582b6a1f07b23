//! A model cut into shards on candle's device, and helpers that run them and compare their logits.

#![allow(dead_code, reason = "each test file uses its part")]

use std::path::Path;

use candle_core::Device;
use engine::runner::{Output, Runner, RunnerError, Work};
use schema::LayerRange;
use schema::frame::Slice;
use schema::record::{DeviceKind, KvRoom, KvType};
use stages::accelerator::{CandleRunner, Hardware, KvDtype};
use stages::model::ModelSpec;
use stages::shard::RunnerSetup;
use stages::weights::ModelFile;

use crate::runner_support::pipeline::{KV_TOKENS, Piece, for_hidden_states, hidden_states, slice};

/// All shards of a model, on candle's CPU device.
pub struct Shards {
    runners: Vec<CandleRunner>,
    pub spec: ModelSpec,
}

impl Shards {
    /// The model at `path`, cut before each of the layers `cuts`.
    pub fn new(path: &Path, cuts: &[u32]) -> Self {
        Self::with_kv_dtype(KvDtype::Half, path, cuts)
    }

    /// The same with keys and values kept as `kv_dtype`.
    pub fn with_kv_dtype(kv_dtype: KvDtype, path: &Path, cuts: &[u32]) -> Self {
        Self::on(DeviceKind::Cpu, kv_dtype, path, cuts)
    }

    /// The same with matrices in the form that they have on the device `kind`.
    pub fn on(kind: DeviceKind, kv_dtype: KvDtype, path: &Path, cuts: &[u32]) -> Self {
        let file = ModelFile::open(path).expect("the model opens");
        let spec = ModelSpec::read(file.header()).expect("the model is supported");
        let ends: Vec<u32> = [0].iter().chain(cuts).chain([&spec.layer_count()]).copied().collect();
        let runner = |ends: &[u32]| {
            let layers = LayerRange::new(ends[0], ends[1]).expect("a range");
            let room = KvRoom { tokens: KV_TOKENS, kv_type: KvType::F16 };
            let setup =
                RunnerSetup { spec: spec.clone(), shard: file.map(layers).expect("the layers are there"), room };
            CandleRunner::with_kv_dtype(kv_dtype, setup, &stand_in(kind)).expect("the shard is ready")
        };
        Self { runners: ends.windows(2).map(runner).collect(), spec: spec.clone() }
    }

    /// The logits at every position of the pieces, in one micro-batch.
    pub fn logits(&mut self, pieces: &[Piece<'_>]) -> Vec<Vec<f32>> {
        let (slices, activations) = self.before_last(pieces, |slice| slice);
        let last = self.runners.last_mut().expect("a shard");
        let logits = last.logits(&Work { slices: &slices, activations: &activations }).expect("it runs");
        logits.chunks_exact(self.spec.vocabulary).map(<[f32]>::to_vec).collect()
    }

    /// The hidden states at every position of the pieces, in one micro-batch.
    pub fn hidden_states(&mut self, pieces: &[Piece<'_>]) -> Vec<Vec<f32>> {
        let (slices, activations) = self.before_last(pieces, for_hidden_states);
        hidden_states(self.step(Work { slices: &slices, activations: &activations }).expect("it runs"), &slices)
    }

    /// Runs a step of the last shard, for a model of one shard.
    pub fn step(&mut self, work: Work<'_>) -> Result<Output, RunnerError> {
        self.runners.last_mut().expect("a shard").step(work)
    }

    /// The input of the last shard: its slices, as `ask` makes them, and activations.
    fn before_last(&mut self, pieces: &[Piece<'_>], ask: fn(Slice) -> Slice) -> (Vec<Slice>, Vec<f32>) {
        let blocks_each = self.spec.context_tokens.div_ceil(engine::runner::KV_BLOCK_TOKENS);
        let mut slices: Vec<Slice> = pieces.iter().map(|piece| ask(slice(*piece, blocks_each))).collect();
        let mut activations = Vec::new();
        let others = self.runners.len() - 1;
        for runner in &mut self.runners[..others] {
            let work = Work { slices: &slices, activations: &activations };
            let Output::Activations(rows) = runner.step(work).expect("it runs") else {
                panic!("only the last shard gives tokens")
            };
            activations = rows;
            slices.iter_mut().for_each(|slice| slice.tokens.clear());
        }
        (slices, activations)
    }
}

/// Candle's CPU device in place of `kind`: it stores the same numbers as that device, and computes on the CPU.
pub fn stand_in(kind: DeviceKind) -> Hardware {
    Hardware { device: Device::Cpu, kind }
}

/// The largest difference of two sets of logits.
pub fn largest_difference(found: &[Vec<f32>], expected: &[Vec<f32>]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().flatten().zip(expected.iter().flatten());
    pairs.map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max)
}
