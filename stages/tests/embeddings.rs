//! Compares embeddings of the default model with llama.cpp's. Both read the same file, whose weights are 32-bit floats:
//! so nothing is rounded but keys and values, to half precision in both.

mod common;
mod requantise;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use engine::runner::{KV_BLOCK_TOKENS, Output, Runner, Work};
use requantise::Stored;
use schema::frame::Slice;
use schema::record::{KvRoom, KvType};
use schema::{LayerRange, SequenceId};
use serde_json::Value;
use stages::cpu::CpuRunner;
use stages::format::Format;
use stages::kernels::ThreadPool;
use stages::model::ModelSpec;
use stages::shard::RunnerSetup;
use stages::weights::ModelFile;

/// Least cosine between an embedding and llama.cpp's, by the same weights.
const COSINE_MIN: f64 = 0.999_9;
/// The same where our kernels for Q4_1 round activations to 8 bits and llama.cpp's weights are expanded.
const QUANTISED_COSINE_MIN: f64 = 0.99;
/// Tokens of a prompt that are computed together.
const CHUNK: usize = 64;
/// Room for keys and values, in tokens: more than the longest prompt.
const KV_TOKENS: u32 = 1024;

/// The prompts, and llama.cpp's embeddings of each: by the last token, and by the mean.
fn cases(golden: &Value) -> Vec<(Vec<u32>, [Vec<f64>; 2])> {
    let prompts: Value = serde_json::from_str(include_str!("../../tests/data/smollm2_greedy.json")).unwrap();
    let case = |case: &Value| {
        let prompt = &prompts["cases"][case["case"].as_u64().unwrap() as usize]["ids"];
        let vector = |pooling: &str| floats(case[pooling].as_str().unwrap());
        (serde_json::from_value(prompt.clone()).unwrap(), [vector("last"), vector("mean")])
    };
    golden["cases"].as_array().unwrap().iter().map(case).collect()
}

/// The whole model at `path`.
fn runner(path: &Path) -> CpuRunner {
    let file = ModelFile::open(path).unwrap();
    let spec = ModelSpec::read(file.header()).unwrap();
    let shard = file.map(LayerRange::new(0, spec.layer_count()).unwrap()).unwrap();
    let room = KvRoom { tokens: KV_TOKENS, kv_type: KvType::F16 };
    let pool = Arc::new(ThreadPool::new(NonZeroUsize::new(2).unwrap()));
    CpuRunner::new(RunnerSetup { spec, shard, room }, pool).unwrap()
}

/// Embeds `prompt` as the gateway does: by the last token, and by the mean of all, added in their order.
fn embeddings(runner: &mut CpuRunner, prompt: &[u32], width: usize) -> [Vec<f64>; 2] {
    let (mut last, mut sums) = (Vec::new(), vec![0.0; width]);
    for (position, tokens) in (0..).step_by(CHUNK).zip(prompt.chunks(CHUNK)) {
        let count = tokens.len() as u32;
        let slice = Slice {
            position,
            count,
            tokens: tokens.to_vec(),
            blocks: (0..KV_TOKENS / KV_BLOCK_TOKENS).collect(),
            hidden_states: (0..count).collect(),
            ..Slice::empty(SequenceId(1))
        };
        let output = runner.step(Work { slices: &[slice], activations: &[] }).unwrap();
        let Output::Tokens { hidden_states, .. } = output else { panic!("the last shard gives hidden states") };
        assert_eq!(hidden_states.len(), tokens.len());
        for state in hidden_states {
            last = state.values[..width].iter().map(|value| f64::from(*value)).collect();
            sums.iter_mut().zip(&last).for_each(|(sum, value)| *sum += value);
        }
    }
    [last, sums]
}

/// The cosine of the angle between two vectors.
fn cosine(one: &[f64], other: &[f64]) -> f64 {
    let dot = |one: &[f64], other: &[f64]| -> f64 { one.iter().zip(other).map(|(one, other)| one * other).sum() };
    dot(one, other) / (dot(one, one) * dot(other, other)).sqrt()
}

/// The smallest cosine between our embeddings by the model at `path` and llama.cpp's.
fn least_cosine(path: &Path, golden: &Value) -> f64 {
    let mut runner = runner(path);
    let mut least: f64 = 1.0;
    for (prompt, expected) in cases(golden) {
        let found = embeddings(&mut runner, &prompt, expected[0].len());
        let cosines: Vec<f64> = expected.iter().zip(&found).map(|(exact, found)| cosine(exact, found)).collect();
        println!("{} tokens: last {:.7}, mean {:.7}", prompt.len(), cosines[0], cosines[1]);
        least = cosines.into_iter().fold(least, f64::min);
    }
    least
}

/// The values of 32-bit floats in base64.
fn floats(text: &str) -> Vec<f64> {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = text
        .bytes()
        .filter(|letter| *letter != b'=')
        .map(|letter| digits.iter().position(|digit| *digit == letter).expect("a digit of base64") as u32);
    let bits: Vec<u32> = bits.collect();
    let group = |four: &[u32]| {
        let word = (0..4).fold(0_u32, |word, place| word << 6 | four.get(place).copied().unwrap_or(0));
        word.to_be_bytes()[1..four.len()].to_vec()
    };
    let bytes: Vec<u8> = bits.chunks(4).flat_map(group).collect();
    bytes.as_chunks().0.iter().map(|four| f64::from(f32::from_le_bytes(*four))).collect()
}

#[test]
fn embeddings_are_llama_cpps_by_the_same_weights() {
    let golden: Value = serde_json::from_str(include_str!("../../tests/data/smollm2_embeddings.json")).unwrap();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("f32.gguf");
    let hash = requantise::write(&common::default_model(), Format::F32, Stored::Quantised, &path).unwrap();
    assert_eq!(hash, golden["sha256"], "llama.cpp read another file: see etc/golden/README.md");
    let least = least_cosine(&path, &golden);
    assert!(least >= COSINE_MIN, "the least cosine by the same weights is {least}");
    let least = least_cosine(&common::default_model(), &golden);
    assert!(least >= QUANTISED_COSINE_MIN, "the least cosine with rounded activations is {least}");
}
