//! Folders with quantised weights, as MLX, GPTQ, AWQ, FP8 and gpt-oss have them: the values of every matrix are exactly
//! those that `etc/golden/quantised.py` read from the same bytes, and the logits are transformers' with these values.

mod error_chain;
mod folder_support;
mod runner_support;

use std::path::Path;

use folder_support::{Folder, opened};
use runner_support::pipeline::{Piece, Pipeline, bits};
use schema::LayerRange;
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};
use stages::format::Format;
use stages::kernels::dequantise_row;
use stages::weights::{MappedShard, ModelFile};

/// Largest difference of logits from transformers', as the root of mean squares in parts of the logits' own: the
/// activations are rounded to 8 bits.
const OF_INTEGERS: f32 = 0.03;
/// The same where all is computed in single precision.
const OF_FLOATS: f32 = 2e-5;

fn golden(name: &str) -> Json {
    serde_json::from_slice(&std::fs::read(Folder::golden(name).join("golden.json")).unwrap()).unwrap()
}

fn layers(file: &ModelFile) -> u32 {
    file.header()
        .metadata
        .u32(&format!("{}.block_count", file.header().metadata.str("general.architecture").unwrap()))
        .unwrap()
}

fn all_of(file: &ModelFile) -> MappedShard {
    file.map(LayerRange::new(0, layers(file)).unwrap()).unwrap()
}

/// The SHA-256 of the values of the tensor `name`.
fn digest(shard: &MappedShard, name: &str) -> String {
    let mut hasher = Sha256::new();
    let mut add = |row: &mut [f32]| {
        // There is no negative zero among integers.
        row.iter_mut().for_each(|value| *value += 0.0);
        row.iter().for_each(|value| hasher.update(value.to_le_bytes()));
    };
    match shard.tensor(name) {
        Ok(tensor) => {
            let mut row = vec![0.0; tensor.cols()];
            for index in 0..tensor.rows() {
                dequantise_row(&tensor.matrix(), index, &mut row);
                add(&mut row);
            }
        }
        // The embedding is read by rows.
        Err(error) => {
            assert_eq!(name, "token_embd.weight", "{error}");
            let table = shard.embedding().unwrap();
            let mut row = vec![0.0; table.cols()];
            for token in 0..table.rows() {
                table.read(token as u32, &mut row).unwrap();
                add(&mut row);
            }
        }
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn logits(path: &Path, cuts: &[u32], ids: &[u32]) -> Vec<Vec<f32>> {
    Pipeline::with_float_kv(path, cuts, 1).logits(&[Piece { sequence: 0, position: 0, tokens: ids }])
}

/// Compares values and logits of the golden model `name`, whole and cut. Returns the formats of its matrices.
fn check(name: &str, tolerance: f32) -> Vec<Format> {
    let (path, golden) = (Folder::golden(name), golden(name));
    let file = opened(&path).unwrap();
    let shard = all_of(&file);
    for (tensor, expected) in golden["values"].as_object().unwrap() {
        assert_eq!(digest(&shard, tensor), expected.as_str().unwrap(), "{name}: values of {tensor}");
    }
    let ids: Vec<u32> = serde_json::from_value(golden["input_ids"].clone()).unwrap();
    let expected: Vec<Vec<f32>> = serde_json::from_value(golden["logits"].clone()).unwrap();
    let found = logits(&path, &[], &ids);
    assert_eq!(found.len(), expected.len());
    let pairs = || found.iter().flatten().zip(expected.iter().flatten());
    let squares = pairs().map(|(found, expected)| (found - expected).powi(2)).sum::<f32>();
    let off = (squares / pairs().map(|(_, expected)| expected.powi(2)).sum::<f32>()).sqrt();
    println!("{name}: off by {off:.1e}");
    assert!(off < tolerance, "{name} is off by {off}");
    assert_eq!(bits(&logits(&path, &[1], &ids)), bits(&found), "{name}: cut");
    file.matrix_formats()
}

#[test]
fn mlx_folders_of_four_bits_agree_with_transformers() {
    assert_eq!(check("qwen3-mlx4", OF_INTEGERS), [Format::Affine4G64]);
    // Experts in one tensor, a router of 8 bits, and a matrix that is not quantised.
    let formats = check("qwen3_moe-mlx4", OF_INTEGERS);
    assert_eq!(formats, [Format::BF16, Format::Affine4G32, Format::Affine8G64]);
}

#[test]
fn mlx_folders_of_eight_bits_agree_with_transformers() {
    assert_eq!(check("llama-mlx8", OF_INTEGERS), [Format::Affine8G64]);
    assert_eq!(check("mistral-mlx8", OF_INTEGERS), [Format::Affine8G32]);
}

#[test]
fn mlx_folders_of_four_bit_floats_agree_with_transformers() {
    assert_eq!(check("qwen2-mlx-mxfp4", OF_INTEGERS), [Format::Mxfp4]);
}

#[test]
fn folders_of_eight_bit_floats_agree_with_transformers_in_single_precision() {
    assert_eq!(check("qwen3-fp8", OF_FLOATS), [Format::BF16, Format::F8E4M3]);
    // The transposed copy of the keys' part is in half precision.
    assert_eq!(check("deepseek_v3-fp8", 1e-3), [Format::BF16, Format::F8E4M3]);
}

#[test]
fn gptq_folders_agree_with_transformers() {
    assert_eq!(check("llama-gptq", OF_INTEGERS), [Format::BF16, Format::Affine4G32]);
    // A group for each row, and zeros as they are.
    assert_eq!(check("qwen2-gptq", OF_INTEGERS), [Format::BF16, Format::Affine4G64]);
}

#[test]
fn awq_folders_agree_with_transformers() {
    assert_eq!(check("mistral-awq", OF_INTEGERS), [Format::BF16, Format::Affine4G32]);
    assert_eq!(check("qwen3-awq", OF_INTEGERS), [Format::BF16, Format::Affine4G64]);
}

#[test]
fn folders_of_gpt_oss_agree_with_transformers() {
    assert_eq!(check("gpt_oss-mxfp4", OF_INTEGERS), [Format::BF16, Format::Mxfp4]);
}

#[test]
fn a_shard_copies_its_own_layers_only_and_counts_the_copies() {
    let file = opened(&Folder::golden("llama-gptq")).unwrap();
    let copied = |start: u32, end: u32| file.map(LayerRange::new(start, end).unwrap()).unwrap().copied_bytes();
    // 24 bytes for 32 weights: queries and outputs, keys and values, three matrices of the network.
    let layer = (2 * 64 * 64 + 2 * 32 * 64 + 3 * 192 * 64) / 32 * 24;
    assert_eq!((copied(0, 1), copied(1, 2), copied(0, 2)), (layer, layer, 2 * layer));
    let shard = file.map(LayerRange::new(1, 2).unwrap()).unwrap();
    assert_eq!(shard.bytes(), shard.mapped_bytes() + layer);
    let before = shard.residency().bytes();
    let tensor = shard.layer_tensor(1, "ffn_up.weight").unwrap();
    let again = shard.layer_tensor(1, "ffn_up.weight").unwrap();
    assert_eq!(tensor.bytes().as_ptr(), again.bytes().as_ptr(), "one copy for all who use it");
    assert_eq!(shard.residency().bytes(), before + tensor.bytes().len() as u64);
    drop((tensor, again));
    assert_eq!(shard.residency().bytes(), before, "a copy that nobody uses is gone");
}
