//! A small model with the outputs that transformers computed for it.

use std::path::{Path, PathBuf};

use schema::frame::Chosen;
use serde::Deserialize;

use super::pipeline::{Piece, Pipeline, same};
use super::{Finding, Outcome, SelfTest, SelfTestError};

/// The model in Hugging Face's form, and transformers' outputs: a golden model of the tests.
const CONFIG: &[u8] = include_bytes!("../../tests/data/tiny-qwen3/config.json");
const WEIGHTS: &[u8] = include_bytes!("../../tests/data/tiny-qwen3/model.safetensors");
const EXPECTED: &str = include_str!("../../tests/data/tiny-qwen3/golden.json");
const LAYERS: u32 = 4;
/// Largest difference of the logarithm of a probability from transformers', with keys and values in half precision.
const TOLERANCE: f32 = 2e-3;

/// The results of transformers.
#[derive(Debug, Deserialize)]
struct Expected {
    input_ids: Vec<u32>,
    greedy_16: Vec<u32>,
    last_4_logits: Vec<Vec<f32>>,
}

/// Writes the model to `folder` and returns its path.
pub(super) fn write(folder: &Path) -> Result<PathBuf, SelfTestError> {
    let path = path(folder);
    let written = std::fs::create_dir_all(&path)
        .and_then(|()| std::fs::write(path.join("config.json"), CONFIG))
        .and_then(|()| std::fs::write(path.join("model.safetensors"), WEIGHTS));
    written.map_err(|source| SelfTestError::Write { path: path.clone(), source })?;
    Ok(path)
}

fn path(folder: &Path) -> PathBuf {
    folder.join("golden")
}

/// Compares the device with transformers, and with itself where tokens are divided otherwise.
pub(super) fn check(test: &SelfTest, each: &mut dyn FnMut(Finding)) -> Result<(), SelfTestError> {
    let expected: Expected =
        serde_json::from_str(EXPECTED).map_err(|error| SelfTestError::Model(format!("the golden outputs: {error}")))?;
    let loader = test.loader(&path(&test.folder))?;
    let ids = &expected.input_ids;
    let load = |cuts: &[u32]| Pipeline::load(&*loader, LAYERS, cuts).map_err(|error| error.to_string());
    let mut alone = Vec::new();
    each(Finding::of("golden model against transformers", || {
        let compared = load(&[]).and_then(|mut model| {
            alone = model.step(&[Piece { sequence: 0, position: 0, tokens: ids }])?;
            check_logits(&alone, &expected)?;
            check_greedy(&mut model, &alone, &expected)
        });
        Outcome::from(compared)
    }));
    if alone.is_empty() {
        // The device did not compute at all: nothing is there to compare with.
        return Ok(());
    }
    let mut checked = |name: &str, cuts: &[u32], run: &dyn Fn(&mut Pipeline) -> Result<(), String>| {
        each(Finding::of(name, || load(cuts).and_then(|mut model| run(&mut model)).into()));
    };
    checked("same bits in two shards", &[LAYERS / 2], &|model| same(&model.chunked(0, ids, ids.len())?, &alone));
    checked("same bits in chunks of 7 tokens", &[], &|model| same(&model.chunked(1, ids, 7)?, &alone));
    checked("same bits token by token", &[], &|model| same(&model.chunked(2, ids, 1)?, &alone));
    checked("same bits beside other sequences", &[1], &|model| {
        model.together(ids, 5)?.iter().try_for_each(|found| same(found, &alone))
    });
    Ok(())
}

/// Compares the likeliest tokens of the last positions and their probabilities.
fn check_logits(found: &[Chosen], expected: &Expected) -> Result<(), String> {
    let first = found.len().checked_sub(expected.last_4_logits.len()).ok_or("too few tokens")?;
    for (chosen, logits) in found[first..].iter().zip(&expected.last_4_logits) {
        let largest = logits.iter().copied().fold(f32::MIN, f32::max);
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
        let logprob = -sum.ln() as f32;
        let difference = (chosen.logprob - logprob).abs();
        if difference > TOLERANCE || difference.is_nan() {
            let position = chosen.position;
            return Err(format!("the logarithm at position {position} is {}: expected {logprob}", chosen.logprob));
        }
    }
    Ok(())
}

/// Compares the tokens that are generated.
fn check_greedy(model: &mut Pipeline, prompt: &[Chosen], expected: &Expected) -> Result<(), String> {
    let mut token = prompt.last().ok_or("no token")?.token;
    for (position, expected) in (expected.input_ids.len() as u32..).zip(&expected.greedy_16) {
        if token != *expected {
            return Err(format!("token {token} at position {position}: expected {expected}"));
        }
        let next = model.step(&[Piece { sequence: 0, position, tokens: &[token] }])?;
        token = next.last().ok_or("no token")?.token;
    }
    Ok(())
}
