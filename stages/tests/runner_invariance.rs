//! The invariance of the runner, on random quantised models: a row's bits do not depend on the other rows in its
//! micro-batch, the chunks of its prompt, the number of threads, or the cuts between layers.

mod runner_support;

use std::path::Path;

use runner_support::mixtures::{Mixture, write_mixture};
use runner_support::pipeline::{Piece, Pipeline, bits};
use schema::record::KvType;
use stages::format::Format;
use stages::selftest::{Random, Shape, write_random};

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

/// Tokens of a test's longest sequence: more than one chunk of attention, and not a multiple of a block or chunk.
const TOKENS: usize = 301;
/// Maximum number of sequences at a time.
const SEQUENCES_MAX: u64 = 16;
/// Environment variable with the seed of the first round, in the form that a failure prints. `INVARIANCE_SEED=0x… cargo
/// test --release -p baton-stages --test runner_invariance <the test that failed>` repeats that round first.
const SEED_VARIABLE: &str = "INVARIANCE_SEED";
const SEED: u64 = 0xb5ad_4ece_da1c_e2a9;

/// The random choices of one round.
#[derive(Debug)]
struct Case {
    seed: u64,
    threads: usize,
    cuts: &'static [u32],
    sequences: u64,
    chunk: usize,
    tokens: usize,
}

impl Case {
    fn draw(seed: u64) -> (Self, Random) {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut draw = |bound: usize| below(&mut random, bound);
        let chunk = [1, 7, 64, TOKENS][draw(4)];
        let case = Self {
            seed,
            threads: 1 + draw(3),
            cuts: [&[][..], &[1], &[2], &[1, 2]][draw(4)],
            sequences: [1, 2, 8, SEQUENCES_MAX][draw(4)],
            chunk,
            // One token per step is slow in an unoptimised path. A shorter sequence crosses block boundaries too.
            tokens: if chunk == 1 { 70 } else { TOKENS - draw(40) },
        };
        (case, random)
    }

    /// The token ids of one of its sequences.
    fn ids(&self, sequence: u64, vocabulary: u32) -> Vec<u32> {
        let mut random = Random((self.seed ^ sequence).wrapping_mul(0x2545_f491_4f6c_dd1d) | 1);
        (0..self.tokens).map(|_| (random.bits() >> 20) as u32 % vocabulary).collect()
    }
}

fn below(random: &mut Random, bound: usize) -> usize {
    (random.bits() >> 33) as usize % bound
}

#[expect(clippy::disallowed_methods, reason = "a switch of this test, no setting")]
fn first_seed(shape: Shape) -> u64 {
    match std::env::var(SEED_VARIABLE) {
        Ok(text) => u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("a seed in hexadecimal"),
        // Each format and family has its own seed, and so its own combinations.
        Err(_) => {
            SEED ^ u64::from(shape.format.ggml().unwrap()) << 32 ^ u64::from(shape.heads * shape.head + shape.hidden)
        }
    }
}

/// Draws combinations of chunks, other sequences, threads and cuts, and compares each sequence with its computation
/// alone and in one piece.
fn check(shape: Shape, rounds: u64) {
    check_with_kv_type(KvType::F16, shape, rounds);
}

/// The same with keys and values kept as `kv_type`.
fn check_with_kv_type(kv_type: KvType, shape: Shape, rounds: u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    write_random(&path, shape).unwrap();
    let name = format!("{} {:?}", shape.architecture, shape.format);
    check_file(kv_type, &path, &name, first_seed(shape), rounds);
}

/// The same for a model file called `name`, with seeds from `first` on.
fn check_file(kv_type: KvType, path: &Path, name: &str, first: u64, rounds: u64) {
    let mut reference = Pipeline::with_kv_type(kv_type, path, &[], 1);
    let vocabulary = reference.spec.vocabulary as u32;
    for round in 0..rounds {
        let (case, mut random) = Case::draw(first.wrapping_add(round));
        let sequences: Vec<_> = (0..case.sequences).map(|sequence| case.ids(sequence, vocabulary)).collect();
        let mut pipeline = Pipeline::with_kv_type(kv_type, path, case.cuts, case.threads);
        let found = interleaved(&mut pipeline, &sequences, case.chunk, &mut |bound| below(&mut random, bound));
        for (sequence, found) in found.iter().enumerate() {
            let whole = reference.logits(&[Piece { sequence: 0, position: 0, tokens: &sequences[sequence] }]);
            let differs = bits(&whole).iter().zip(found).position(|(expected, found)| expected != found);
            assert_eq!(
                differs, None,
                "{name}, {kv_type}: the first position of sequence {sequence} that differs in {case:?}; \
                 to repeat it: {SEED_VARIABLE}={:#x}",
                case.seed
            );
            assert_eq!(found.len(), case.tokens, "{case:?}");
            assert!(whole.iter().flatten().all(|logit| logit.is_finite()), "{case:?}");
        }
    }
}

/// Computes all sequences in chunks. Each micro-batch has a random selection of the sequences.
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
fn blocks_of_32_weights_are_invariant() {
    for format in [Format::Q4_1, Format::Q4_0, Format::Q5_0, Format::Q5_1, Format::Q8_0, Format::Iq4Nl, Format::Mxfp4] {
        check(Shape { format, ..SMALL }, 4);
    }
}

#[test]
fn unquantised_weights_are_invariant() {
    for format in [Format::F32, Format::F16, Format::BF16] {
        check(Shape { format, ..SMALL }, 3);
    }
}

#[test]
fn blocks_of_256_weights_are_invariant() {
    let ternary = [Format::Tq1_0, Format::Tq2_0];
    let with_grid =
        [Format::Iq2Xxs, Format::Iq2Xs, Format::Iq2S, Format::Iq3Xxs, Format::Iq3S, Format::Iq1S, Format::Iq1M];
    for format in [Format::Q4K, Format::Q6K, Format::Q5K, Format::Q3K, Format::Q2K, Format::Iq4Xs]
        .into_iter()
        .chain(ternary)
        .chain(with_grid)
    {
        let wide = Shape { hidden: 256, feed_forward: 256, heads: 8, head: 32, layers: 3, format, ..SMALL };
        check(wide, 2);
    }
}

#[test]
fn every_family_and_a_window_are_invariant() {
    check(Shape { architecture: "qwen2", heads: 7, kv_heads: 1, hidden: 96, ..SMALL }, 4);
    check(Shape { architecture: "qwen3", head: 64, ..SMALL }, 4);
    check(Shape { window: Some(45), ..SMALL }, 4);
}

#[test]
fn keys_and_values_in_8_bits_are_invariant_in_every_family() {
    check_with_kv_type(KvType::Q8, SMALL, 4);
    check_with_kv_type(KvType::Q8, Shape { window: Some(45), ..SMALL }, 4);
    check_with_kv_type(KvType::Q8, Shape { architecture: "qwen2", heads: 7, kv_heads: 1, hidden: 96, ..SMALL }, 4);
    check_with_kv_type(KvType::Q8, Shape { architecture: "qwen3", head: 64, ..SMALL }, 4);
    check_with_kv_type(KvType::Q8, Shape { heads: 2, kv_heads: 1, head: 128, ..SMALL }, 4);
}

#[test]
fn experts_and_latent_attention_are_invariant() {
    let kinds = [Mixture::Qwen3, Mixture::DeepSeekV2, Mixture::DeepSeekV3];
    let formats = [Format::Q4K, Format::Q8_0, Format::BF16];
    for (kind, format) in kinds.into_iter().flat_map(|kind| formats.map(|format| (kind, format))) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        write_mixture(&path, kind, format);
        let first = SEED ^ u64::from(format.ggml().unwrap()) << 32 ^ kind as u64;
        for kv_type in [KvType::F16, KvType::Q8] {
            check_file(kv_type, &path, &format!("{kind:?} {format:?}"), first, 2);
        }
    }
}

#[test]
fn heads_of_odd_sizes_are_invariant() {
    check(Shape { heads: 4, kv_heads: 4, head: 24, ..SMALL }, 3);
    check(Shape { heads: 32, kv_heads: 1, head: 16, ..SMALL }, 3);
    check(Shape { heads: 2, kv_heads: 1, head: 112, hidden: 64, ..SMALL }, 3);
}
