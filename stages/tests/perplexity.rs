//! The default model against llama.cpp on a fixed text: the perplexity, and the loss of every single token.

mod common;

use std::num::NonZeroUsize;
use std::sync::Arc;

use engine::runner::{KV_BLOCK_TOKENS, Work};
use schema::frame::{Sampling, Slice};
use schema::{Attempt, LayerRange, SequenceId};
use serde_json::Value;
use stages::cpu::{CpuRunner, RunnerSetup};
use stages::kernels::Pool;
use stages::model::Hyper;
use stages::weights::ModelFile;

/// By how much our perplexity may differ from llama.cpp's: both quantise activations, each in its own way.
const RATIO_MAX: f64 = 0.005;
/// By how much the loss of a token may differ on average (0.06 here). With weights expanded to f32, and nothing rounded to
/// 8 bits, its perplexity is 24.9990, a reference's 24.9988: all that differs is how activations are rounded.
const DIFFERENCE_MAX: f64 = 0.1;
const ROWS: usize = 120;

fn slice(ids: &[u32], position: usize, count: usize) -> Slice {
    let blocks = (position + count).div_ceil(KV_BLOCK_TOKENS as usize) as u32;
    Slice {
        sequence: SequenceId(1),
        attempt: Attempt(0),
        position: position as u32,
        count: count as u32,
        tokens: ids[position..position + count].to_vec(),
        blocks: (0..blocks).collect(),
        logits: (0..count as u32).collect(),
        sampling: Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0, choice: 0 },
    }
}

fn loss(logits: &[f32], next: u32) -> f64 {
    let most = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - most).exp()).sum();
    sum.ln() - f64::from(logits[next as usize] - most)
}

#[test]
fn perplexity_is_llama_cpps_within_half_a_percent() {
    let golden: Value = serde_json::from_str(include_str!("../../tests/data/smollm2_perplexity.json")).unwrap();
    let ids: Vec<u32> = golden["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
    let theirs: Vec<f64> = golden["losses"].as_array().unwrap().iter().map(|loss| loss.as_f64().unwrap()).collect();
    let file = ModelFile::open(&common::default_model()).unwrap();
    let hyper = Hyper::read(file.header()).unwrap();
    let vocabulary = hyper.vocabulary;
    let shard = file.map(LayerRange::new(0, 30).unwrap()).unwrap();
    let pool = Arc::new(Pool::new(NonZeroUsize::new(2).unwrap()));
    let mut runner = CpuRunner::new(RunnerSetup { hyper, shard, pool, kv_tokens: 1024 }).unwrap();
    let mut ours = Vec::new();
    for position in (0..ids.len() - 1).step_by(ROWS) {
        let count = ROWS.min(ids.len() - 1 - position);
        let slices = [slice(&ids, position, count)];
        let logits = runner.logits(&Work { slices: &slices, activations: &[] }).unwrap();
        let rows = logits.chunks_exact(vocabulary).zip(&ids[position + 1..]);
        ours.extend(rows.map(|(logits, next)| loss(logits, *next)));
    }
    assert_eq!(ours.len(), theirs.len());
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (ours_perplexity, theirs_perplexity) = (mean(&ours).exp(), mean(&theirs).exp());
    let differences: Vec<f64> = ours.iter().zip(&theirs).map(|(ours, theirs)| (ours - theirs).abs()).collect();
    let most = differences.iter().copied().fold(0.0, f64::max);
    println!(
        "perplexity {ours_perplexity:.4}, llama.cpp's {theirs_perplexity:.4}, ratio {:.5}; loss of a token differs by \
         {:.4} on average, {most:.4} at most",
        ours_perplexity / theirs_perplexity,
        mean(&differences)
    );
    assert!((ours_perplexity / theirs_perplexity - 1.0).abs() < RATIO_MAX);
    assert!(mean(&differences) < DIFFERENCE_MAX, "single tokens differ by more than rounding");
}
