//! Compares every model family with transformers, and all ways of computing it with each other, bit by bit.

mod runner_support;

use std::path::Path;

use runner_support::golden::Golden;
use runner_support::pipeline::{Piece, Pipeline, bits};
use runner_support::reference;
use schema::record::KvType;

/// Largest difference of a logit between transformers' float32 and the reference's double precision.
const GOLDEN_TOLERANCE: f64 = 1e-5;
/// Largest difference of a logit between the reference with half-precision keys and values and the runner. Single
/// precision rounds a few keys and values to the other half-precision neighbour, and those change all later results.
/// Half precision as such changes the logits by up to 1.2e-3.
const TOLERANCE: f64 = 4e-4;
/// The same with keys and values in 8 bits, whose steps are about eight times those of half precision near a block's
/// largest value.
const EIGHT_BITS_TOLERANCE: f64 = 5e-2;
/// Least cosine between a token's hidden state and the reference's.
const COSINE_MIN: f64 = 0.999_999;

/// Largest difference of a logit from transformers', in parts of the row's largest, with keys and values in single
/// precision.
const RELATIVE_TOLERANCE: f32 = 1e-4;

/// Compares the logits of all positions with those of transformers, and all ways of computing them with each other.
fn check_all_positions(name: &str) {
    let golden = Golden::read(name);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    golden.write_gguf(&path);
    let ids = &golden.input_ids;
    assert_eq!(golden.last_logits.len(), ids.len(), "{name}: transformers' logits of all positions");

    let mut pipeline = Pipeline::with_float_kv(&path, &[], 1);
    let whole = pipeline.logits(&[Piece { sequence: 0, position: 0, tokens: ids }]);
    for (position, (found, expected)) in whole.iter().zip(&golden.last_logits).enumerate() {
        let largest = expected.iter().fold(0.0_f32, |largest, logit| largest.max(logit.abs()));
        let pairs = found.iter().zip(expected);
        let off = pairs.map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max) / largest;
        assert!(off < RELATIVE_TOLERANCE, "{name}: position {position} is off by {off}");
        assert_eq!(best(found), best(expected), "{name}: the best token of position {position}");
    }
    let mut history = ids.clone();
    let mut last = whole[whole.len() - 1].clone();
    for expected in &golden.greedy {
        let token = best(&last);
        assert_eq!(token, *expected, "{name}: token {} of the continuation", history.len() - ids.len());
        let position = history.len() as u32;
        history.push(token);
        last = pipeline.logits(&[Piece { sequence: 0, position, tokens: &[token] }]).remove(0);
    }

    for kv_type in [KvType::F16, KvType::Q8] {
        // Fixtures whose heads are not whole blocks are refused, as `runner_refusals` tests.
        if pipeline.spec.check_kv(kv_type).is_ok() {
            let piece = Piece { sequence: 0, position: 0, tokens: ids };
            let whole = Pipeline::with_kv_type(kv_type, &path, &[], 1).logits(&[piece]);
            assert_invariant(kv_type, name, &path, ids, &bits(&whole));
        }
    }
}

fn best(logits: &[f32]) -> u32 {
    (0..).zip(logits).fold((0, f32::MIN), |best, (id, logit)| if *logit > best.1 { (id, *logit) } else { best }).0
}

fn check(name: &str) {
    let golden = Golden::read(name);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    golden.write_gguf(&path);
    let ids = &golden.input_ids;

    let mut pipeline = Pipeline::new(&path, &[], 1);
    let whole = pipeline.logits(&[Piece { sequence: 0, position: 0, tokens: ids }]);
    let exact = reference::logits(&golden, false);
    let off = largest_difference(&exact[ids.len() - 4..], &golden.last_logits);
    assert!(off < GOLDEN_TOLERANCE, "{name}: the reference is off by {off} from transformers");
    let off = largest_difference(&reference::logits(&golden, true), &whole);
    assert!(off < TOLERANCE, "{name}: the runner is off by {off} from the reference");

    let mut history = ids.clone();
    let mut last = whole[whole.len() - 1].clone();
    for expected in &golden.greedy {
        let found =
            (0..).zip(&last).fold((0, f32::MIN), |best, (id, logit)| if *logit > best.1 { (id, *logit) } else { best });
        assert_eq!(found.0, *expected, "{name}: token {} of the continuation", history.len() - ids.len());
        let position = history.len() as u32;
        history.push(found.0);
        last = pipeline.logits(&[Piece { sequence: 0, position, tokens: &[found.0] }]).remove(0);
    }

    check_hidden_states(&golden, name, &path);
    assert_invariant(KvType::F16, name, &path, ids, &bits(&whole));
    // Fixtures whose heads are not whole blocks are refused, as `runner_refusals` tests.
    if pipeline.spec.check_kv(KvType::Q8).is_ok() {
        let whole = Pipeline::with_kv_type(KvType::Q8, &path, &[], 1).logits(&[Piece {
            sequence: 0,
            position: 0,
            tokens: ids,
        }]);
        let off = largest_difference(&reference::logits(&golden, true), &whole);
        assert!(off < EIGHT_BITS_TOLERANCE, "{name}: with q8_0 the runner is off by {off} from the reference");
        assert_invariant(KvType::Q8, name, &path, ids, &bits(&whole));
    }
}

/// Checks that hidden states are those of the reference, and that chunks, other sequences, threads and cuts change no
/// bit of them.
fn check_hidden_states(golden: &Golden, name: &str, path: &Path) {
    let ids = &golden.input_ids;
    let whole = Pipeline::new(path, &[], 1).hidden_states(&[Piece { sequence: 0, position: 0, tokens: ids }]);
    for (position, (exact, found)) in reference::hidden_states(golden, true).iter().zip(&whole).enumerate() {
        let cosine = reference::cosine(exact, found);
        assert!(cosine > COSINE_MIN, "{name}: the cosine at position {position} is {cosine}");
    }
    for (threads, cuts, chunk) in [(1, &[][..], 7), (2, &[2], 24), (1, &[1, 2, 3], 1), (2, &[1, 3], 5)] {
        let mut pipeline = Pipeline::new(path, cuts, threads);
        let mut found = Vec::new();
        for (position, tokens) in (0..).step_by(chunk).zip(ids.chunks(chunk)) {
            // A sequence beside it has the same tokens, all of them at once.
            let beside = Piece { sequence: 1, position: 0, tokens: ids };
            let mut states = pipeline.hidden_states(&[Piece { sequence: 0, position, tokens }, beside]);
            assert_eq!(bits(&states.split_off(tokens.len())), bits(&whole), "{name}: the sequence beside it");
            found.extend(states);
        }
        assert_eq!(bits(&found), bits(&whole), "{name}: {threads} threads, cuts at {cuts:?}, chunks of {chunk}");
    }
}

/// Checks that chunks, other sequences, threads and cuts change no bit of the logits.
fn assert_invariant(kv_type: KvType, name: &str, path: &Path, ids: &[u32], expected: &[Vec<u32>]) {
    for threads in [1, 2] {
        for cuts in [&[][..], &[1], &[2], &[3], &[1, 2, 3]] {
            for chunk in [1, 7, ids.len()] {
                let found = in_chunks(&mut Pipeline::with_kv_type(kv_type, path, cuts, threads), ids, chunk);
                assert_eq!(
                    found, expected,
                    "{name}: {kv_type}, {threads} threads, cuts at {cuts:?}, chunks of {chunk}"
                );
            }
            let found = three_staggered(&mut Pipeline::with_kv_type(kv_type, path, cuts, threads), ids);
            for (sequence, found) in found.iter().enumerate() {
                assert_eq!(
                    *found, expected,
                    "{name}: {kv_type}, {threads} threads, cuts at {cuts:?}, sequence {sequence} of three"
                );
            }
        }
    }
}

fn largest_difference(exact: &[Vec<f64>], found: &[Vec<f32>]) -> f64 {
    assert_eq!(exact.len(), found.len());
    let pairs = exact.iter().flatten().zip(found.iter().flatten());
    pairs.map(|(exact, found)| (exact - f64::from(*found)).abs()).fold(0.0, f64::max)
}

fn in_chunks(pipeline: &mut Pipeline, ids: &[u32], chunk: usize) -> Vec<Vec<u32>> {
    let pieces = (0..).step_by(chunk).zip(ids.chunks(chunk));
    pieces.flat_map(|(position, tokens)| bits(&pipeline.logits(&[Piece { sequence: 1, position, tokens }]))).collect()
}

/// Computes three sequences of the same tokens, each ahead of the next, in shared micro-batches.
fn three_staggered(pipeline: &mut Pipeline, ids: &[u32]) -> Vec<Vec<Vec<u32>>> {
    let mut found = vec![Vec::new(); 3];
    let chunks: Vec<(u32, &[u32])> = (0..).step_by(5).zip(ids.chunks(5)).collect();
    for step in 0..chunks.len() + 2 {
        let pieces: Vec<Piece<'_>> = (0..3)
            .filter_map(|sequence| {
                let (position, tokens) = chunks.get(step.checked_sub(sequence as usize)?)?;
                Some(Piece { sequence, position: *position, tokens })
            })
            .collect();
        let mut rows = bits(&pipeline.logits(&pieces)).into_iter();
        for piece in pieces {
            found[piece.sequence as usize].extend(rows.by_ref().take(piece.tokens.len()));
        }
    }
    found
}

#[test]
fn llama_agrees_with_transformers() {
    check("llama");
}

#[test]
fn llama_with_a_tied_head_and_stretched_rope_agrees_with_transformers() {
    check("llama-tied");
}

#[test]
fn mistral_with_its_window_agrees_with_transformers() {
    check("mistral");
}

#[test]
fn qwen2_agrees_with_transformers() {
    check("qwen2");
}

#[test]
fn qwen3_agrees_with_transformers() {
    check("qwen3");
}

#[test]
fn mixtral_agrees_with_transformers() {
    check_all_positions("mixtral");
}

#[test]
fn qwen2_with_experts_agrees_with_transformers() {
    check_all_positions("qwen2_moe");
}

#[test]
fn qwen3_with_experts_agrees_with_transformers() {
    check_all_positions("qwen3_moe");
}

#[test]
fn deepseek_v2_agrees_with_transformers() {
    check_all_positions("deepseek_v2");
}

#[test]
fn deepseek_v3_agrees_with_transformers() {
    check_all_positions("deepseek_v3");
}

#[test]
fn gemma2_agrees_with_transformers() {
    check_all_positions("gemma2");
}

#[test]
fn gemma3_agrees_with_transformers() {
    check_all_positions("gemma3");
}

#[test]
fn granite_agrees_with_transformers() {
    check_all_positions("granite");
}

#[test]
fn minimax_m2_agrees_with_transformers() {
    check_all_positions("minimax_m2");
}

#[test]
fn olmo2_agrees_with_transformers() {
    check_all_positions("olmo2");
}

#[test]
fn phi3_agrees_with_transformers() {
    check_all_positions("phi3");
}

#[test]
fn smollm3_agrees_with_transformers() {
    check_all_positions("smollm3");
}

#[test]
fn lfm2_with_its_short_convolutions_agrees_with_transformers() {
    check_all_positions("lfm2");
}

#[test]
fn glm4_with_experts_agrees_with_transformers() {
    check_all_positions("glm4_moe");
}

#[test]
fn mistral3_with_yarn_agrees_with_transformers() {
    check_all_positions("ministral3");
}

#[test]
fn gpt_oss_agrees_with_transformers() {
    check_all_positions("gpt_oss");
}

#[test]
fn gemma4_agrees_with_transformers() {
    check_all_positions("gemma4-small");
}

#[test]
fn gemma4_with_experts_agrees_with_transformers() {
    check_all_positions("gemma4-moe");
}

#[test]
fn gemma4_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("gemma4-odd");
}

#[test]
fn phi3_with_longrope_agrees_with_transformers() {
    check_all_positions("phi3-longrope");
}

#[test]
fn phi3_of_odd_sizes_within_its_original_context_agrees_with_transformers() {
    check_all_positions("phi3-odd");
}

#[test]
fn granite_with_experts_agrees_with_transformers() {
    check_all_positions("granitemoe");
}

#[test]
fn granite_with_experts_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("granitemoe-odd");
}

#[test]
fn glm4_agrees_with_transformers() {
    check_all_positions("glm4");
}

#[test]
fn glm4_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("glm4-odd");
}

#[test]
fn ernie_with_experts_agrees_with_transformers() {
    check_all_positions("ernie4_5_moe");
}

#[test]
fn ernie_with_experts_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("ernie4_5_moe-odd");
}

#[test]
fn hunyuan_with_experts_agrees_with_transformers() {
    check_all_positions("hunyuan_v1_moe");
}

#[test]
fn hunyuan_with_experts_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("hunyuan_v1_moe-odd");
}

#[test]
fn llama4_agrees_with_transformers() {
    check_all_positions("llama4");
}

#[test]
fn llama4_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("llama4-odd");
}

#[test]
fn qwen2vl_agrees_with_transformers() {
    check_all_positions("qwen2_vl");
}

#[test]
fn qwen2vl_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("qwen2_vl-odd");
}

#[test]
fn qwen3vl_agrees_with_transformers() {
    check_all_positions("qwen3_vl");
}

#[test]
fn qwen3vl_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("qwen3_vl-odd");
}

#[test]
fn qwen3vl_with_experts_agrees_with_transformers() {
    check_all_positions("qwen3_vl_moe");
}

#[test]
fn qwen3vl_with_experts_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("qwen3_vl_moe-odd");
}

#[test]
fn llama_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("llama-odd");
}

#[test]
fn mistral_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("mistral-odd");
}

#[test]
fn mixtral_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("mixtral-odd");
}

#[test]
fn qwen2_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("qwen2-odd");
}

#[test]
fn qwen3_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("qwen3-odd");
}

#[test]
fn qwen2_moe_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("qwen2_moe-odd");
}

#[test]
fn qwen3_moe_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("qwen3_moe-odd");
}

#[test]
fn deepseek_v2_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("deepseek_v2-odd");
}

#[test]
fn deepseek_v3_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("deepseek_v3-odd");
}

#[test]
fn gemma2_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("gemma2-odd");
}

#[test]
fn gemma3_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("gemma3-odd");
}

#[test]
fn granite_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("granite-odd");
}

#[test]
fn minimax_m2_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("minimax_m2-odd");
}

#[test]
fn ministral3_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("ministral3-odd");
}

#[test]
fn olmo2_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("olmo2-odd");
}

#[test]
fn lfm2_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("lfm2-odd");
}

#[test]
fn smollm3_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("smollm3-odd");
}

#[test]
fn glm4_moe_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("glm4_moe-odd");
}

#[test]
fn gpt_oss_of_odd_sizes_agrees_with_transformers() {
    check_all_positions("gpt_oss-odd");
}
