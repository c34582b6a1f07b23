//! Compares candle's device with the CPU runner, for every weight format and for long sequences.

mod accelerator_support;
mod runner_support;

use accelerator_support::{Shards, largest_difference};
use runner_support::pipeline::{Piece, Pipeline};
use schema::record::DeviceKind;
use stages::accelerator::KvDtype;
use stages::format::Format;
use stages::selftest::{Random, Shape, write_random};

const SMALL: Shape = Shape {
    architecture: "llama",
    layers: 2,
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

/// Number of tokens: more than one tile of rows, and not a multiple of a block or tile.
const TOKENS: u32 = 301;

/// Maximum difference of the logits, as a fraction of their standard deviation. Both runners quantise activations to 8
/// bits for quantised weights, for some formats in blocks of different sizes, so logits differ by a small part of their
/// spread.
const TOLERANCE_OF_SPREAD: f32 = 0.03;

fn check(shape: Shape) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    write_random(&path, shape).unwrap();
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let ids: Vec<u32> = (0..TOKENS).map(|_| (random.bits() >> 20) as u32 % shape.vocabulary).collect();
    let expected = Pipeline::new(&path, &[], 2).logits(&[Piece { sequence: 0, position: 0, tokens: &ids }]);
    let values = || expected.iter().flatten().copied();
    let count = values().count() as f32;
    let mean = values().sum::<f32>() / count;
    let spread = (values().map(|value| (value - mean).powi(2)).sum::<f32>() / count).sqrt();
    for cuts in [&[][..], &[1]] {
        let found = Shards::new(&path, cuts).logits(&[Piece { sequence: 0, position: 0, tokens: &ids }]);
        let squares = found.iter().flatten().zip(values()).map(|(found, expected)| (found - expected).powi(2));
        let difference = (squares.sum::<f32>() / count).sqrt() / spread;
        assert!(difference < TOLERANCE_OF_SPREAD, "{:?}, cuts at {cuts:?}: off by {difference}", shape.format);
    }
}

#[test]
fn blocks_of_32_weights_agree() {
    for format in [Format::Q4_0, Format::Q4_1, Format::Q5_0, Format::Q5_1, Format::Q8_0, Format::Iq4Nl, Format::Mxfp4] {
        check(Shape { format, ..SMALL });
    }
}

#[test]
fn blocks_of_256_weights_agree() {
    let ternary = [Format::Tq1_0, Format::Tq2_0];
    let with_grid =
        [Format::Iq2Xxs, Format::Iq2Xs, Format::Iq2S, Format::Iq3Xxs, Format::Iq3S, Format::Iq1S, Format::Iq1M];
    for format in [Format::Q2K, Format::Q3K, Format::Q4K, Format::Q5K, Format::Q6K, Format::Iq4Xs]
        .into_iter()
        .chain(ternary)
        .chain(with_grid)
    {
        check(Shape { format, hidden: 256, feed_forward: 256, heads: 8, ..SMALL });
    }
}

#[test]
fn sixteen_bit_weights_agree() {
    for format in [Format::F16, Format::BF16] {
        check(Shape { format, ..SMALL });
    }
}

#[test]
fn sixteen_bit_weights_agree_closely_in_the_form_that_metal_has() {
    for format in [Format::F16, Format::BF16] {
        let shape = Shape { format, ..SMALL };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        write_random(&path, shape).unwrap();
        let ids: Vec<u32> = (0..TOKENS).map(|index| index * 7 % shape.vocabulary).collect();
        let mut shards = Shards::on(DeviceKind::Metal, KvDtype::Half, &path, &[1]);
        let mut expected = Pipeline::new(&path, &[], 1);
        // A prompt, then one row.
        let (prompt, last) = ids.split_at(ids.len() - 1);
        for (position, tokens) in [(0, prompt), (prompt.len() as u32, last)] {
            let piece = [Piece { sequence: 0, position, tokens }];
            let difference = largest_difference(&shards.logits(&piece), &expected.logits(&piece));
            assert!(difference < 1e-3, "{}: off by {difference}", format.name());
        }
    }
}

#[test]
fn floats_agree_closely_with_families_windows_and_odd_heads() {
    let exact = Shape { format: Format::F32, ..SMALL };
    let shapes = [
        exact,
        Shape { architecture: "qwen2", heads: 7, kv_heads: 1, hidden: 96, ..exact },
        Shape { architecture: "qwen3", head: 64, ..exact },
        Shape { window: Some(45), ..exact },
        Shape { heads: 4, kv_heads: 4, head: 24, ..exact },
    ];
    for shape in shapes {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        write_random(&path, shape).unwrap();
        let ids: Vec<u32> = (0..TOKENS).map(|index| index * 7 % shape.vocabulary).collect();
        let piece = [Piece { sequence: 0, position: 0, tokens: &ids }];
        let expected = Pipeline::new(&path, &[], 1).logits(&piece);
        let difference = largest_difference(&Shards::new(&path, &[]).logits(&piece), &expected);
        assert!(difference < 1e-3, "{}: off by {difference}", shape.architecture);
    }
}
