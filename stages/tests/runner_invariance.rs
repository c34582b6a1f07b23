//! The law of the runner, on random quantised models: a row's bits do not depend on what shares its micro-batch, how its
//! prompt was cut, the number of threads, or where the layers were cut.

mod runner_support;

use runner_support::fixture::{Random, Shape, write_random};
use runner_support::pipeline::{Piece, Pipeline, bits};
use stages::kernels::Format;

const SMALL: Shape = Shape {
    architecture: "llama",
    layers: 3,
    hidden: 64,
    feed_forward: 96,
    heads: 6,
    kv_heads: 2,
    head: 32,
    vocabulary: 160,
    context: 320,
    window: None,
    format: Format::Q4_1,
};

/// Tokens of a test's longest sequence: beyond one chunk of attention, and no multiple of anything.
const TOKENS: usize = 301;

fn ids(seed: u64, vocabulary: u32) -> Vec<u32> {
    let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1);
    (0..TOKENS).map(|_| (random.next() >> 20) as u32 % vocabulary).collect()
}

/// Draws combinations of chunks, companions, threads and cuts, and compares each with one sequence in one piece.
fn check(shape: Shape, rounds: u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    write_random(&path, shape);
    let mut reference = Pipeline::new(&path, &[], 1);
    let mut random = Random(0xb5ad_4ece_da1c_e2a9);
    let mut draw = |bound: usize| (random.next() >> 33) as usize % bound;
    for round in 0..rounds {
        let threads = 1 + draw(3);
        let cuts: &[u32] = [&[][..], &[1], &[2], &[1, 2]][draw(4)];
        let together = [1, 2, 6][draw(3)];
        let chunk = [1, 7, 64, TOKENS][draw(4)];
        // One token a step is slow work for an unoptimised path; a shorter sequence crosses blocks all the same.
        let tokens = if chunk == 1 { 70 } else { TOKENS - draw(40) };
        let sequences: Vec<Vec<u32>> = (0..together)
            .map(|sequence| ids(round * 8 + sequence as u64, shape.vocabulary)[..tokens].to_vec())
            .collect();
        let mut pipeline = Pipeline::new(&path, cuts, threads);
        let found = interleaved(&mut pipeline, &sequences, chunk, &mut draw);
        for (sequence, found) in found.iter().enumerate() {
            let whole = reference.logits(&[Piece { sequence: 0, position: 0, tokens: &sequences[sequence] }]);
            let differs = bits(&whole).iter().zip(found).position(|(expected, found)| expected != found);
            assert_eq!(
                differs, None,
                "{:?}: sequence {sequence} of {together}, chunks of {chunk}, {threads} threads, cuts at {cuts:?}",
                shape.format
            );
            assert_eq!(found.len(), tokens);
            assert!(whole.iter().flatten().all(|logit| logit.is_finite()));
        }
    }
}

/// All sequences in chunks, each micro-batch with a drawn selection of them.
fn interleaved(
    pipeline: &mut Pipeline,
    sequences: &[Vec<u32>],
    chunk: usize,
    draw: &mut impl FnMut(usize) -> usize,
) -> Vec<Vec<Vec<u32>>> {
    let mut found: Vec<Vec<Vec<u32>>> = vec![Vec::new(); sequences.len()];
    while found.iter().zip(sequences).any(|(found, tokens)| found.len() < tokens.len()) {
        let pieces: Vec<Piece<'_>> = (0..sequences.len())
            .filter(|sequence| found[*sequence].len() < sequences[*sequence].len() && draw(4) > 0)
            .map(|sequence| {
                let position = found[sequence].len();
                let tokens = &sequences[sequence][position..];
                Piece {
                    sequence: sequence as u32,
                    position: position as u32,
                    tokens: &tokens[..chunk.min(tokens.len())],
                }
            })
            .collect();
        if pieces.is_empty() {
            continue;
        }
        let mut rows = bits(&pipeline.logits(&pieces)).into_iter();
        for piece in pieces {
            found[piece.sequence as usize].extend(rows.by_ref().take(piece.tokens.len()));
        }
    }
    found
}

#[test]
fn blocks_of_32_weights_keep_the_law() {
    for format in [Format::Q4_1, Format::Q4_0, Format::Q5_0, Format::Q5_1, Format::Q8_0] {
        check(Shape { format, ..SMALL }, 4);
    }
}

#[test]
fn unquantised_weights_keep_the_law() {
    for format in [Format::F32, Format::F16, Format::BF16] {
        check(Shape { format, ..SMALL }, 3);
    }
}

#[test]
fn blocks_of_256_weights_keep_the_law() {
    for format in [Format::Q4K, Format::Q6K, Format::Q5K, Format::Q3K, Format::Q2K] {
        let wide = Shape { hidden: 256, feed_forward: 256, heads: 8, head: 32, layers: 3, format, ..SMALL };
        check(wide, 2);
    }
}

#[test]
fn every_family_and_a_window_keep_the_law() {
    check(Shape { architecture: "qwen2", heads: 7, kv_heads: 1, hidden: 96, ..SMALL }, 4);
    check(Shape { architecture: "qwen3", head: 64, ..SMALL }, 4);
    check(Shape { window: Some(45), ..SMALL }, 4);
}

#[test]
fn heads_of_odd_sizes_keep_the_law() {
    check(Shape { heads: 4, kv_heads: 4, head: 24, ..SMALL }, 3);
    check(Shape { heads: 32, kv_heads: 1, head: 16, ..SMALL }, 3);
    check(Shape { heads: 2, kv_heads: 1, head: 112, hidden: 64, ..SMALL }, 3);
}
