//! Compares every model family on candle's device with transformers and with the CPU runner: as one shard, cut into
//! shards, in chunks, and with other sequences in the micro-batch.

mod accelerator_support;
mod runner_support;

use accelerator_support::{Shards, largest_difference};
use runner_support::golden::Golden;
use runner_support::pipeline::{Piece, Pipeline};
use runner_support::reference;
use stages::accelerator::KvDtype;

/// Largest difference of a logit from transformers, with keys and values in single precision as in transformers.
const TOLERANCE: f32 = 1e-5;
/// Largest difference of a logit between two ways of computing it, which add the same numbers in different orders.
const TOLERANCE_OF_ORDER: f32 = 1e-5;
/// Largest difference of a logit from the CPU runner, both with keys and values in half precision: a number midway
/// between two half-precision numbers may be rounded to either.
const TOLERANCE_OF_HALVES: f32 = 5e-4;
/// Least cosine between a token's hidden state and the reference's.
const COSINE_MIN: f64 = 0.999_999;

fn check(name: &str) {
    let golden = Golden::read(name);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    golden.write_gguf(&path);
    let ids = &golden.input_ids;

    let mut shards = Shards::with_kv_dtype(KvDtype::Float, &path, &[]);
    let whole = shards.logits(&[Piece { sequence: 0, position: 0, tokens: ids }]);
    let last = &whole[whole.len() - golden.last_logits.len()..];
    let difference = largest_difference(last, &golden.last_logits);
    assert!(difference < TOLERANCE, "{name}: a logit is off by {difference}");

    let mut history = ids.clone();
    let mut logits = whole[whole.len() - 1].clone();
    for expected in &golden.greedy {
        let best = (0..)
            .zip(&logits)
            .fold((0, f32::MIN), |best, (id, logit)| if *logit > best.1 { (id, *logit) } else { best });
        assert_eq!(best.0, *expected, "{name}: token {} of the continuation", history.len() - ids.len());
        let position = history.len() as u32;
        history.push(best.0);
        logits = shards.logits(&[Piece { sequence: 0, position, tokens: &[best.0] }]).remove(0);
    }

    let close = |found: &[Vec<f32>], how: &str| {
        let difference = largest_difference(found, &whole);
        assert!(difference < TOLERANCE_OF_ORDER, "{name}: {how}: a logit is off by {difference}");
    };
    for cuts in [&[][..], &[2], &[1, 2, 3]] {
        let shards = || Shards::with_kv_dtype(KvDtype::Float, &path, cuts);
        for chunk in [1, 7, ids.len()] {
            let mut shards = shards();
            let pieces = (0..).step_by(chunk).zip(ids.chunks(chunk));
            let found = pieces.flat_map(|(position, tokens)| shards.logits(&[Piece { sequence: 1, position, tokens }]));
            close(&found.collect::<Vec<_>>(), &format!("cuts at {cuts:?}, chunks of {chunk}"));
        }
        for (sequence, found) in three_staggered(&mut shards(), ids).iter().enumerate() {
            close(found, &format!("cuts at {cuts:?}, sequence {sequence} of three"));
        }
    }

    let states = Shards::new(&path, &[1]).hidden_states(&[Piece { sequence: 0, position: 0, tokens: ids }]);
    for (position, (exact, found)) in reference::hidden_states(&golden, true).iter().zip(&states).enumerate() {
        let cosine = reference::cosine(exact, found);
        assert!(cosine > COSINE_MIN, "{name}: the cosine of hidden state {position} is {cosine}");
    }

    let expected = Pipeline::new(&path, &[], 1).logits(&[Piece { sequence: 0, position: 0, tokens: ids }]);
    for found in three_staggered(&mut Shards::new(&path, &[2]), ids) {
        let difference = largest_difference(&found, &expected);
        assert!(difference < TOLERANCE_OF_HALVES, "{name}: off by {difference} from the CPU runner");
    }
}

/// Computes three sequences of the same tokens, each ahead of the next, in micro-batches that mix chunks and single
/// tokens.
fn three_staggered(shards: &mut Shards, ids: &[u32]) -> Vec<Vec<Vec<f32>>> {
    let chunks: [Vec<(u32, &[u32])>; 3] = [5, 1, 5].map(|chunk| (0..).step_by(chunk).zip(ids.chunks(chunk)).collect());
    let mut found = vec![Vec::new(); 3];
    for step in 0..ids.len() + 2 {
        let pieces: Vec<Piece<'_>> = (0..3)
            .filter_map(|sequence| {
                let (position, tokens) = chunks[sequence].get(step.checked_sub(sequence)?)?;
                Some(Piece { sequence: sequence as u32, position: *position, tokens })
            })
            .collect();
        if pieces.is_empty() {
            continue;
        }
        let mut rows = shards.logits(&pieces).into_iter();
        for piece in pieces {
            found[piece.sequence as usize].extend(rows.by_ref().take(piece.tokens.len()));
        }
    }
    found
}

#[test]
fn llama_agrees_with_transformers_and_the_cpu_runner() {
    check("llama");
}

#[test]
fn llama_with_a_tied_head_and_stretched_rope_agrees_with_transformers_and_the_cpu_runner() {
    check("llama-tied");
}

#[test]
fn mistral_with_its_window_agrees_with_transformers_and_the_cpu_runner() {
    check("mistral");
}

#[test]
fn qwen2_agrees_with_transformers_and_the_cpu_runner() {
    check("qwen2");
}

#[test]
fn qwen3_agrees_with_transformers_and_the_cpu_runner() {
    check("qwen3");
}
