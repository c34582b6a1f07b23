//! Compares models whose tokens attend to the whole text with transformers, and all ways of computing a text with each
//! other, bit by bit: cuts of the layers, other texts in the micro-batch, numbers of threads.

mod runner_support;

use std::path::Path;

use engine::runner::{RunnerError, Work};
use runner_support::golden::Golden;
use runner_support::pipeline::{Piece, Pipeline, bits, slice};
use schema::record::KvType;

/// Largest difference of a value from transformers', in parts of the row's largest, with keys and values in single
/// precision.
const RELATIVE_TOLERANCE: f32 = 1e-4;
/// Lengths of texts: within a block, at the edges of blocks and of tiles of rows, and over them.
const LENGTHS: [usize; 7] = [1, 31, 32, 33, 128, 129, 150];

fn text(sequence: u32, tokens: &[u32]) -> Piece<'_> {
    Piece { sequence, position: 0, tokens }
}

fn check(name: &str) {
    let golden = Golden::read(name);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    golden.write_gguf(&path);
    let ids = &golden.input_ids;
    let mut exact = Pipeline::with_float_kv(&path, &[], 1);
    let found = exact.hidden_states(&[text(0, ids)]);
    for (position, expected) in &golden.hidden_states {
        let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let pairs = found[*position].iter().zip(expected);
        let off = pairs.map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max) / largest;
        assert!(off < RELATIVE_TOLERANCE, "{name}: position {position} is off by {off}");
    }
    // Heads that are not whole blocks of 8 bits are refused.
    for kv_type in [KvType::F16, KvType::Q8].into_iter().filter(|kv_type| exact.spec.check_kv(*kv_type).is_ok()) {
        assert_invariant(kv_type, name, &path, ids);
    }
}

/// Checks that each text has the same bits for every cut, beside any other texts, and for every number of threads.
fn assert_invariant(kv_type: KvType, name: &str, path: &Path, ids: &[u32]) {
    let mut whole = Pipeline::with_kv_type(kv_type, path, &[], 1);
    let texts = LENGTHS.map(|length| &ids[ids.len() - length..]);
    let alone = texts.map(|tokens| bits(&whole.hidden_states(&[text(0, tokens)])));
    let layers = whole.spec.layer_count();
    for (cuts, threads) in (1..layers).map(|cut| (vec![cut], 1)).chain([((1..layers).collect(), 2), (vec![], 3)]) {
        let mut cut = Pipeline::with_kv_type(kv_type, path, &cuts, threads);
        for (tokens, expected) in texts.iter().zip(&alone) {
            let found = bits(&cut.hidden_states(&[text(0, tokens)]));
            assert!(found == *expected, "{name}: {} tokens, cut at {cuts:?}, {threads} threads", tokens.len());
        }
        // All together, which takes several tiles, in this order and in the other one.
        for order in [[0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0]] {
            for chosen in [&order[..], &order[2..5]] {
                let few: Vec<usize> = fitting(chosen, whole.spec.text_rows_max());
                let pieces: Vec<_> = (0..).zip(&few).map(|(sequence, index)| text(sequence, texts[*index])).collect();
                let found = bits(&cut.hidden_states(&pieces));
                let expected: Vec<_> = few.iter().flat_map(|index| alone[*index].clone()).collect();
                assert!(found == expected, "{name}: texts {few:?} together, cut at {cuts:?}, {threads} threads");
            }
        }
    }
}

/// The first of these texts that have at most `rows` rows together.
fn fitting(order: &[usize], rows: usize) -> Vec<usize> {
    let mut sum = 0;
    let fits = |index: &usize| {
        let fits = sum + LENGTHS[*index] <= rows;
        sum += if fits { LENGTHS[*index] } else { 0 };
        fits
    };
    order.iter().copied().filter(fits).collect()
}

#[test]
fn bert_is_that_of_transformers() {
    check("bert");
    check("bert-odd");
}

#[test]
fn xlm_roberta_is_that_of_transformers() {
    check("xlm_roberta");
}

#[test]
fn nomic_bert_is_that_of_transformers() {
    check("nomic_bert");
    check("nomic_bert-odd");
}

#[test]
fn work_that_is_no_whole_text_is_refused_by_field() {
    let golden = Golden::read("bert-odd");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    golden.write_gguf(&path);
    let mut pipeline = Pipeline::new(&path, &[], 1);
    let blocks = pipeline.blocks_each();
    let mut refused = |pieces: &[Piece<'_>], logits: bool| {
        let slices: Vec<_> = pieces.iter().map(|piece| slice(*piece, blocks)).collect();
        let slices: Vec<_> = slices
            .into_iter()
            .map(|slice| if logits { slice } else { runner_support::pipeline::for_hidden_states(slice) })
            .collect();
        match pipeline.step(Work { slices: &slices, activations: &[] }) {
            Err(RunnerError::Work { field, .. }) => field,
            other => panic!("expected a refusal, found {other:?}"),
        }
    };
    let ids = &golden.input_ids;
    assert_eq!(refused(&[Piece { sequence: 0, position: 1, tokens: &ids[..3] }], false), "position");
    assert_eq!(refused(&[text(0, &ids[..3])], true), "logits");
    assert_eq!(refused(&[text(0, &ids[..150]), text(1, &ids[..150])], false), "rows");
    let long: Vec<u32> = ids.iter().chain(ids).copied().collect();
    assert_eq!(refused(&[text(0, &long[..152])], false), "position + count");
}
