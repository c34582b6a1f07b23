//! Models in Hugging Face's form: their logits against transformers' and against those of GGUF files, and folders that
//! are refused.

mod error_chain;
mod folder_support;
mod runner_support;

use std::path::Path;

use folder_support::{Folder, Stored, opened};
use runner_support::golden::Golden;
use runner_support::pipeline::{Piece, Pipeline, bits};
use serde_json::json;
use stages::weights::ModelFile;

/// Largest difference of a logit from transformers', in parts of the row's largest, with keys and values in single
/// precision.
const RELATIVE_TOLERANCE: f32 = 1e-4;

/// The comparison with a GGUF file of the same model.
#[derive(Clone, Copy, PartialEq)]
enum Gguf {
    /// It gives the same bits.
    Same,
    /// llama.cpp's converter reorders the rows of queries and keys, so sums are taken in another order.
    Reordered,
}

fn logits(path: &Path, cuts: &[u32], ids: &[u32]) -> Vec<Vec<f32>> {
    Pipeline::with_float_kv(path, cuts, 1).logits(&[Piece { sequence: 0, position: 0, tokens: ids }])
}

fn assert_near(name: &str, found: &[Vec<f32>], expected: &[Vec<f32>]) {
    for (position, (found, expected)) in found[found.len() - expected.len()..].iter().zip(expected).enumerate() {
        let largest = expected.iter().fold(0.0_f32, |largest, logit| largest.max(logit.abs()));
        let pairs = found.iter().zip(expected);
        let off = pairs.map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max) / largest;
        assert!(off < RELATIVE_TOLERANCE, "{name}: position {position} is off by {off}");
    }
}

/// Compares the logits of the golden model `name`, straight from its folder, with transformers' and with those of the
/// GGUF file made of it, whole and cut.
fn check(name: &str, gguf: Gguf) {
    let golden = Golden::read(name);
    let folder = Folder::golden(name);
    let ids = &golden.input_ids;
    let whole = logits(&folder, &[], ids);
    assert_near(name, &whole, &golden.last_logits);
    for cuts in [&[1][..], &[1, 2, 3]] {
        assert_eq!(bits(&logits(&folder, cuts, ids)), bits(&whole), "{name}: cuts at {cuts:?}");
    }
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("model.gguf");
    golden.write_gguf(&path);
    let of_gguf = logits(&path, &[], ids);
    match gguf {
        Gguf::Same => assert_eq!(bits(&whole), bits(&of_gguf), "{name}: the bits of a GGUF file"),
        Gguf::Reordered => assert_near(name, &whole, &of_gguf),
    }
}

#[test]
fn families_without_reordered_rows_have_the_bits_of_gguf_files() {
    for name in ["qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "deepseek_v2", "deepseek_v3", "gemma2", "gemma3"] {
        check(name, Gguf::Same);
    }
    for name in ["glm4_moe", "minimax_m2", "olmo2", "phi3", "ernie4_5_moe", "glm4", "hunyuan_v1_moe", "qwen2_vl"] {
        check(name, Gguf::Same);
    }
    for name in ["qwen3_vl", "qwen3_vl_moe", "phi3-longrope", "gemma4-small", "gemma4-moe", "gpt_oss", "llama4", "lfm2"]
    {
        check(name, Gguf::Same);
    }
}

#[test]
fn families_with_reordered_rows_rotate_halves() {
    for name in ["llama", "llama-tied", "mistral", "mixtral", "granite", "granitemoe", "ministral3", "smollm3"] {
        check(name, Gguf::Reordered);
    }
}

#[test]
fn encoders_have_the_bits_of_gguf_files() {
    for name in ["bert", "bert-odd", "xlm_roberta", "nomic_bert", "nomic_bert-odd"] {
        let golden = Golden::read(name);
        let text = [Piece { sequence: 0, position: 0, tokens: &golden.input_ids }];
        let states = |path: &Path, cuts: &[u32]| bits(&Pipeline::with_float_kv(path, cuts, 1).hidden_states(&text));
        let folder = Folder::golden(name);
        let whole = states(&folder, &[]);
        assert_eq!(states(&folder, &[1, 2]), whole, "{name}: cut");
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("model.gguf");
        golden.write_gguf(&path);
        assert_eq!(states(&path, &[]), whole, "{name}: the bits of a GGUF file");
    }
}

#[test]
fn odd_sizes_are_computed_as_well() {
    for name in ["qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "deepseek_v2", "deepseek_v3", "gemma2", "gemma3"] {
        check(&format!("{name}-odd"), Gguf::Same);
    }
    for name in ["glm4_moe", "minimax_m2", "olmo2", "phi3", "ernie4_5_moe", "glm4", "hunyuan_v1_moe", "qwen2_vl"] {
        check(&format!("{name}-odd"), Gguf::Same);
    }
    for name in ["qwen3_vl", "qwen3_vl_moe", "gemma4", "gpt_oss", "llama4", "lfm2"] {
        check(&format!("{name}-odd"), Gguf::Same);
    }
    for name in ["llama", "mistral", "mixtral", "granite", "granitemoe", "ministral3", "smollm3"] {
        check(&format!("{name}-odd"), Gguf::Reordered);
    }
}

#[test]
fn weights_in_several_files_and_old_keys_change_no_bit() {
    let golden = Golden::read("qwen3_moe");
    let expected = bits(&logits(&Folder::golden("qwen3_moe"), &[], &golden.input_ids));
    let mut folder = Folder::read("qwen3_moe");
    let rope = folder.config.remove("rope_parameters").unwrap();
    folder.config.insert("rope_theta".to_owned(), rope["rope_theta"].clone());
    folder.config.insert("rope_scaling".to_owned(), json!(null));
    let dtype = folder.config.remove("dtype").unwrap();
    folder.config.insert("torch_dtype".to_owned(), dtype);
    let count = folder.config.remove("num_local_experts").unwrap();
    folder.config.insert("num_experts".to_owned(), count);
    let (_scratch, path) = folder.write(3);
    assert_eq!(bits(&logits(&path, &[2], &golden.input_ids)), expected);
    let file = opened(&path).unwrap();
    assert!(file.check_unchanged().is_ok());
    let second = path.join("model-00002-of-00003.safetensors");
    std::fs::File::options().write(true).open(&second).unwrap().set_len(100).unwrap();
    let error = file.check_unchanged().unwrap_err().to_string();
    assert!(error.contains("model-00002-of-00003.safetensors"), "{error}");
}

#[test]
fn experts_in_one_tensor_with_gates_and_ups_together_change_no_bit() {
    let golden = Golden::read("qwen3_moe");
    let expected = bits(&logits(&Folder::golden("qwen3_moe"), &[], &golden.input_ids));
    let mut folder = Folder::read("qwen3_moe");
    for layer in 0..4 {
        let named = |expert: usize, matrix: &str| format!("model.layers.{layer}.mlp.experts.{expert}.{matrix}.weight");
        let (mut both, mut downs) = (Vec::new(), Vec::new());
        for expert in 0..8 {
            both.extend(folder.tensors.remove(&named(expert, "gate_proj")).unwrap().bytes);
            both.extend(folder.tensors.remove(&named(expert, "up_proj")).unwrap().bytes);
            downs.extend(folder.tensors.remove(&named(expert, "down_proj")).unwrap().bytes);
        }
        let prefix = format!("model.layers.{layer}.mlp.experts");
        folder.tensors.insert(format!("{prefix}.gate_up_proj"), Stored::floats(&[8, 64, 64], both));
        folder.tensors.insert(format!("{prefix}.down_proj"), Stored::floats(&[8, 64, 32], downs));
    }
    let (_scratch, path) = folder.write(1);
    assert_eq!(bits(&logits(&path, &[1], &golden.input_ids)), expected);
}

#[test]
fn a_model_with_other_senses_is_read_for_its_text() {
    let golden = Golden::read("gemma3");
    let expected = bits(&logits(&Folder::golden("gemma3"), &[], &golden.input_ids));
    let mut folder = Folder::read("gemma3");
    let config = std::mem::take(&mut folder.config);
    folder.config.insert("model_type".to_owned(), json!("gemma3"));
    folder.config.insert("text_config".to_owned(), config.into());
    let tensors = std::mem::take(&mut folder.tensors);
    folder.tensors = tensors.into_iter().map(|(name, tensor)| (format!("language_model.{name}"), tensor)).collect();
    folder.tensors.insert("vision_tower.a.weight".to_owned(), Stored::floats(&[2], vec![0; 8]));
    let (_scratch, path) = folder.write(1);
    assert_eq!(bits(&logits(&path, &[], &golden.input_ids)), expected);
}

#[test]
fn half_precision_is_read_in_place() {
    let golden = Golden::read("qwen3");
    for dtype in ["BF16", "F16"] {
        let mut folder = Folder::read("qwen3");
        let mut rounded = Folder::read("qwen3");
        for (name, tensor) in &mut folder.tensors {
            let (half, exact) = tensor.halved(dtype);
            (*tensor, rounded.tensors.get_mut(name).unwrap().bytes) = (half, exact);
        }
        let (_scratch, halves) = folder.write(1);
        let (_other, floats) = rounded.write(1);
        let [found, expected] = [&halves, &floats].map(|path| logits(path, &[], &golden.input_ids));
        assert_near(dtype, &found, &expected);
        let mapped = opened(&halves).unwrap().bytes();
        assert!(mapped * 2 < opened(&floats).unwrap().bytes() + (1 << 16), "{dtype} takes half the bytes");
    }
}

#[test]
fn the_fingerprint_covers_configuration_tokenizer_and_weights() {
    let fingerprint = |change: &dyn Fn(&mut Folder)| {
        let mut folder = Folder::read("qwen3");
        change(&mut folder);
        let (_scratch, path) = folder.write(1);
        ModelFile::open(&path).unwrap().fingerprint().clone()
    };
    let original = fingerprint(&|_| {});
    assert_eq!(fingerprint(&|_| {}), original, "a copy elsewhere is the same model");
    assert_ne!(fingerprint(&|folder| drop(folder.config.insert("rms_norm_eps".to_owned(), json!(1e-5)))), original);
    assert_ne!(fingerprint(&|folder| folder.texts.push(("tokenizer.json", "{}".to_owned()))), original);
    let changed = |folder: &mut Folder| folder.tensors.get_mut("model.norm.weight").unwrap().bytes[0] ^= 1;
    assert_ne!(fingerprint(&changed), original);
}

#[test]
fn recommended_sampling_is_in_the_metadata() {
    let mut folder = Folder::read("qwen3");
    let texts = json!({"temperature": 0.6, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.05, "eos_token_id": 2});
    folder.texts.push(("generation_config.json", texts.to_string()));
    let (_scratch, path) = folder.write(1);
    let file = opened(&path).unwrap();
    let metadata = &file.header().metadata;
    assert_eq!(metadata.f32("general.sampling.temp").unwrap(), 0.6);
    assert_eq!(metadata.i32("general.sampling.top_k").unwrap(), 20);
    assert_eq!(metadata.f32("general.sampling.penalty_repeat").unwrap(), 1.05);
}
