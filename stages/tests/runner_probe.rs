//! A shard's measurement of its own speed: it returns speeds and does not change later steps.

mod runner_support;

use runner_support::pipeline::{Piece, Pipeline, bits};
use stages::format::Format;
use stages::selftest::{Shape, write_random};

const SHAPE: Shape = Shape {
    architecture: "llama",
    layers: 3,
    hidden: 64,
    feed_forward: 96,
    heads: 4,
    kv_heads: 2,
    head: 32,
    vocabulary: 500,
    context: 512,
    window: None,
    format: Format::Q5_0,
};

#[test]
fn a_shard_measures_between_two_steps_and_changes_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    write_random(&path, SHAPE).unwrap();
    let tokens: Vec<u32> = (0..200).collect();
    let piece = |position: usize, count: usize| Piece {
        sequence: 0,
        position: position as u32,
        tokens: &tokens[position..position + count],
    };
    let (mut measured, mut unmeasured) = (Pipeline::new(&path, &[1], 2), Pipeline::new(&path, &[1], 2));
    for (position, count) in [(0, 150), (150, 1), (151, 49)] {
        let expected = unmeasured.logits(&[piece(position, count)]);
        assert_eq!(bits(&measured.logits(&[piece(position, count)])), bits(&expected), "at {position}");
        for speeds in measured.probe() {
            let speed = speeds["Q5_0"];
            assert!(speeds.len() == 1 && speed.bytes_per_second > 0, "{speeds:?}");
            assert!(speed.multiplications_per_second > 0, "{speeds:?}");
        }
    }
}
