//! Mean loss and perplexity of token ids: `perplexity_ids <model.gguf> <threads> <id,id,…>`.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use engine::runner::{KV_BLOCK_TOKENS, Work};
use schema::frame::{Sampling, Slice};
use schema::{Attempt, LayerRange, SequenceId};
use stages::cpu::{CpuRunner, RunnerSetup};
use stages::kernels::Pool;
use stages::model::Hyper;
use stages::weights::ModelFile;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, threads, ids] = arguments.as_slice() else {
        return Err("usage: perplexity_ids <model.gguf> <threads> <id,id,…>".into());
    };
    let threads: NonZeroUsize = threads.parse()?;
    let ids = ids.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>()?;

    let file = ModelFile::open(Path::new(path))?;
    let hyper = Hyper::read(file.header())?;
    hyper.check_tensors(file.header())?;
    let shard = file.map(LayerRange::new(0, hyper.layers).ok_or("no layers")?)?;
    let count = ids.len() as u32;
    let vocabulary = hyper.vocabulary;
    let mut runner =
        CpuRunner::new(RunnerSetup { hyper, shard, pool: Arc::new(Pool::new(threads)), kv_tokens: count })?;
    let slice = Slice {
        sequence: SequenceId(0),
        attempt: Attempt(0),
        position: 0,
        count,
        tokens: ids.clone(),
        blocks: (0..count.div_ceil(KV_BLOCK_TOKENS)).collect(),
        logits: (0..count).collect(),
        sampling: Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0, choice: 0 },
    };
    let logits = runner.logits(&Work { slices: &[slice], activations: &[] })?;
    let losses = logits.chunks_exact(vocabulary).zip(&ids[1..]).map(|(logits, next)| loss(logits, *next));
    let losses: Vec<f64> = losses.collect();
    let mean = losses.iter().sum::<f64>() / losses.len() as f64;
    println!("{} predictions, mean loss {mean:.6}, perplexity {:.5}", losses.len(), mean.exp());
    Ok(())
}

/// Minus the logarithm of the probability of `token`.
fn loss(logits: &[f32], token: u32) -> f64 {
    let largest = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
    sum.ln() - f64::from(logits[token as usize] - largest)
}
