//! The CPU runner's loss for each token of a text.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use engine::runner::{KV_BLOCK_TOKENS, Work};
use schema::frame::Slice;
use schema::record::{KvRoom, KvType};
use schema::{LayerRange, SequenceId};
use stages::cpu::CpuRunner;
use stages::kernels::ThreadPool;
use stages::model::ModelSpec;
use stages::shard::RunnerSetup;
use stages::weights::ModelFile;

/// Number of tokens that are computed together.
const ROWS: usize = 120;

/// The negative natural logarithm of the probability of each token except the first. Element `i` is that of `ids[i +
/// 1]` after `ids[..=i]`.
pub fn losses(model: &Path, ids: &[u32], threads: usize, kv_type: KvType) -> Vec<f64> {
    let file = ModelFile::open(model).unwrap();
    let spec = ModelSpec::read(file.header()).unwrap();
    let vocabulary = spec.vocabulary;
    let shard = file.map(LayerRange::new(0, spec.layer_count()).unwrap()).unwrap();
    let pool = Arc::new(ThreadPool::new(NonZeroUsize::new(threads).unwrap()));
    let room = KvRoom { tokens: (ids.len() as u32).next_multiple_of(KV_BLOCK_TOKENS), kv_type };
    let mut runner = CpuRunner::new(RunnerSetup { spec, shard, room }, pool).unwrap();
    let mut losses = Vec::new();
    for position in (0..ids.len() - 1).step_by(ROWS) {
        let count = ROWS.min(ids.len() - 1 - position);
        let slices = [slice(ids, position, count)];
        let logits = runner.logits(&Work { slices: &slices, activations: &[] }).unwrap();
        let rows = logits.chunks_exact(vocabulary).zip(&ids[position + 1..]);
        losses.extend(rows.map(|(logits, next)| loss(logits, *next)));
    }
    assert_eq!(losses.len(), ids.len() - 1);
    losses
}

pub fn mean(losses: &[f64]) -> f64 {
    losses.iter().sum::<f64>() / losses.len() as f64
}

fn slice(ids: &[u32], position: usize, count: usize) -> Slice {
    let blocks = (position + count).div_ceil(KV_BLOCK_TOKENS as usize) as u32;
    Slice {
        position: position as u32,
        count: count as u32,
        tokens: ids[position..position + count].to_vec(),
        blocks: (0..blocks).collect(),
        logits: (0..count as u32).collect(),
        ..Slice::empty(SequenceId(1))
    }
}

fn loss(logits: &[f32], next: u32) -> f64 {
    let most = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - most).exp()).sum();
    sum.ln() - f64::from(logits[next as usize] - most)
}
