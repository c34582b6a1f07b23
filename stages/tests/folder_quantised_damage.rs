//! Folders with quantised weights that do not fit their configuration: each is refused by one sentence.

mod error_chain;
mod folder_support;

use error_chain::chain;
use folder_support::{Folder, Stored, opened};
use schema::LayerRange;
use serde_json::{Value as Json, json};

type Change = fn(&mut Folder);

const DOWN: &str = "model.layers.0.mlp.down_proj";

fn tensor<'a>(folder: &'a mut Folder, end: &str) -> &'a mut Stored {
    folder.tensors.get_mut(&format!("{DOWN}{end}")).unwrap()
}

fn set(folder: &mut Folder, key: &str, value: &Json) {
    for section in ["quantization", "quantization_config"] {
        if let Some(Json::Object(section)) = folder.config.get_mut(section) {
            section.insert(key.to_owned(), value.clone());
        }
    }
}

fn assert_refused(name: &str, case: &str, change: Change, expected: &str) {
    let mut folder = Folder::read(name);
    change(&mut folder);
    let (_scratch, path) = folder.write(1);
    let message = opened(&path).err().unwrap_or_else(|| panic!("{name}: {case}: accepted"));
    assert!(message.contains(expected), "{name}: {case}: {expected:?} is missing in {message}");
    assert!(message.contains("found") && !message.contains('\n') && message.len() < 900, "{message}");
}

#[test]
fn sizes_that_have_no_kernel_are_refused_by_name() {
    let cases: [(&str, &str, Json, &str); 22] = [
        ("qwen3-mlx4", "bits", json!(3), "bits of quantization: expected 4 or 8, found 3"),
        ("qwen3-mlx4", "bits", json!(null), "bits of quantization: expected 4 or 8, found no such key"),
        ("qwen3-mlx4", "group_size", json!(16), "group_size of quantization: expected 32, 64 or 128, found 16"),
        ("qwen3-mlx4", "mode", json!("nvfp4"), "mode of quantization: expected affine or mxfp4, found \"nvfp4\""),
        (
            "qwen3-mlx4",
            "lm_head",
            json!({"bits": 6, "group_size": 64}),
            "bits of \"lm_head\" of quantization: expected 4 or 8",
        ),
        ("qwen2-mlx-mxfp4", "group_size", json!(64), "group_size of quantization: expected 32, found 64"),
        (
            "qwen3-fp8",
            "weight_block_size",
            json!(null),
            "weight_block_size of quantization_config: expected [rows, columns]",
        ),
        (
            "qwen3-fp8",
            "weight_block_size",
            json!([128, 48]),
            "expected [rows, columns] of blocks with a scale, the columns a multiple of 64, found [128,48]",
        ),
        ("qwen3-fp8", "fmt", json!("e5m2"), "fmt of quantization_config: expected e4m3, found e5m2"),
        ("llama-gptq", "bits", json!(8), "bits of quantization_config: expected 4, found 8"),
        (
            "llama-gptq",
            "group_size",
            json!(48),
            "group_size of quantization_config: expected -1 or a multiple of 32, found 48",
        ),
        ("llama-gptq", "group_size", json!(-2), "expected -1 or a multiple of 32, found -2"),
        (
            "llama-gptq",
            "checkpoint_format",
            json!("marlin"),
            "checkpoint_format of quantization_config: expected gptq or gptq_v2",
        ),
        (
            "llama-gptq",
            "desc_act",
            json!(true),
            "desc_act of quantization_config: expected false, as columns in the order",
        ),
        ("llama-gptq", "dynamic", json!({"x": {}}), "dynamic of quantization_config: expected none"),
        ("mistral-awq", "version", json!("gemv"), "version of quantization_config: expected gemm, found \"gemv\""),
        ("mistral-awq", "zero_point", json!(false), "zero_point of quantization_config: expected true, found false"),
        ("mistral-awq", "bits", json!(3), "bits of quantization_config: expected 4, found 3"),
        (
            "mistral-awq",
            "quant_method",
            json!("bitsandbytes"),
            "quant_method of quantization_config: expected fp8 with weight_block_size, gptq of 4 bits",
        ),
        (
            "mistral-awq",
            "quant_method",
            json!("compressed-tensors"),
            "a GGUF file of the model has other kinds, found compressed-tensors",
        ),
        ("mistral-awq", "quant_method", json!(1), "quant_method of quantization_config: expected a text, found 1"),
        ("gpt_oss-mxfp4", "quant_method", json!("awq"), "bits of quantization_config: expected 4, found no such key"),
    ];
    for (name, key, value, expected) in cases {
        let mut folder = Folder::read(name);
        set(&mut folder, key, &value);
        let (_scratch, path) = folder.write(1);
        let message = opened(&path).err().unwrap_or_else(|| panic!("{name}: {key} {value}: accepted"));
        assert!(message.contains(expected), "{name}: {key} {value}: {expected:?} is missing in {message}");
        assert!(!message.contains('\n') && message.len() < 900, "{message}");
    }
}

#[test]
fn any_value_of_any_key_is_a_model_or_a_sentence() {
    let values = [
        json!(0),
        json!(1),
        json!(-1),
        json!(1e300),
        json!(u64::MAX),
        json!("x"),
        json!([]),
        json!({}),
        json!(true),
        json!(false),
        json!(null),
    ];
    for name in ["qwen3-mlx4", "qwen2-mlx-mxfp4", "qwen3-fp8", "llama-gptq", "mistral-awq", "gpt_oss-mxfp4"] {
        let whole = Folder::read(name);
        let (_scratch, path) = whole.write(1);
        for section in ["quantization", "quantization_config"] {
            let Some(Json::Object(keys)) = whole.config.get(section) else { continue };
            for key in keys.keys() {
                for value in &values {
                    let mut config = Json::from(whole.config.clone());
                    config[section][key] = value.clone();
                    std::fs::write(path.join("config.json"), config.to_string()).unwrap();
                    if let Err(message) = opened(&path) {
                        assert!(message.contains("expected"), "{name} {key} {value}: {message}");
                        assert!(!message.contains('\n') && message.len() < 900, "{name} {key} {value}: {message}");
                    }
                }
            }
        }
    }
}

#[test]
fn tensors_that_do_not_fit_are_refused_by_name() {
    let cases: [(&str, &str, Change, &str); 15] = [
        (
            "qwen3-mlx4",
            "no scales",
            |f| drop(f.tensors.remove(&format!("{DOWN}.scales"))),
            "down_proj.weight\": expected a tensor \"model.layers.0.mlp.down_proj.scales\" beside it, found none",
        ),
        (
            "qwen3-mlx4",
            "no biases",
            |f| drop(f.tensors.remove(&format!("{DOWN}.biases"))),
            "expected a tensor \"model.layers.0.mlp.down_proj.biases\" beside it",
        ),
        (
            "qwen3-mlx4",
            "no weights",
            |f| drop(f.tensors.remove(&format!("{DOWN}.weight"))),
            "expected \"model.layers.0.mlp.down_proj.weight\" of U32 beside it, found none",
        ),
        (
            "qwen3-mlx4",
            "other scales",
            |f| tensor(f, ".scales").shape = vec![3, 64],
            "expected F32 or F16 or BF16 [64, 3], as model.layers.0.mlp.down_proj.weight asks for, found BF16 [3, 64]",
        ),
        (
            "qwen3-mlx4",
            "biases of another type",
            |f| tensor(f, ".biases").dtype = "F16".to_owned(),
            "expected BF16 [64, 3]",
        ),
        (
            "qwen3-mlx4",
            "a group that does not divide",
            |f| set(f, "group_size", &json!(128)),
            "expected rows of whole groups of 128 values, found ",
        ),
        (
            "qwen3-mlx4",
            "other bits",
            |f| set(f, "bits", &json!(8)),
            "expected rows of whole groups of 64 values, found",
        ),
        (
            "qwen3-mlx4",
            "not quantised",
            |f| set(f, DOWN, &json!(false)),
            "expected floats, as the configuration has false for it, found U32",
        ),
        (
            "qwen3-fp8",
            "no scales",
            |f| drop(f.tensors.remove(&format!("{DOWN}.weight_scale_inv"))),
            "expected a tensor \"model.layers.0.mlp.down_proj.weight_scale_inv\" beside it",
        ),
        (
            "qwen3-fp8",
            "other blocks",
            |f| set(f, "weight_block_size", &json!([32, 64])),
            "weight_scale_inv\": expected F32 or F16 or BF16 [",
        ),
        (
            "llama-gptq",
            "no zeros",
            |f| drop(f.tensors.remove(&format!("{DOWN}.qzeros"))),
            "expected a tensor \"model.layers.0.mlp.down_proj.qzeros\" beside it",
        ),
        ("llama-gptq", "another group", |f| set(f, "group_size", &json!(64)), "expected I32 ["),
        (
            "mistral-awq",
            "no scales",
            |f| drop(f.tensors.remove(&format!("{DOWN}.scales"))),
            "expected a tensor \"model.layers.0.mlp.down_proj.scales\" beside it",
        ),
        (
            "mistral-awq",
            "no weights",
            |f| drop(f.tensors.remove(&format!("{DOWN}.qweight"))),
            "expected \"model.layers.0.mlp.down_proj.qweight\" of I32 beside it",
        ),
        (
            "gpt_oss-mxfp4",
            "no scales",
            |f| drop(f.tensors.remove("model.layers.1.mlp.experts.gate_up_proj_scales")),
            "expected a tensor \"model.layers.1.mlp.experts.gate_up_proj_scales\" beside it",
        ),
    ];
    for (name, case, change, expected) in cases {
        assert_refused(name, case, change, expected);
    }
}

#[test]
fn numbers_that_no_weight_has_are_refused_when_the_layer_is_loaded() {
    let cases: [(&str, Change, &str); 5] = [
        (
            "llama-gptq",
            |f| tensor(f, ".g_idx").bytes[4] = 1,
            "expected group 0 of column 1, as columns in the order of activations (desc_act) are not supported",
        ),
        (
            "qwen3-mlx4",
            |f| tensor(f, ".scales").bytes[..2].copy_from_slice(&[0xff, 0x7f]),
            "expected finite scales, found NaN in row 0",
        ),
        ("qwen3-fp8", |f| tensor(f, ".weight").bytes[0] = 0x7f, "expected finite weights, found NaN in row 0"),
        (
            "llama-gptq",
            |f| tensor(f, ".scales").bytes[..2].copy_from_slice(&[0, 0x7c]),
            "expected finite scales, found inf in row 0",
        ),
        (
            "mistral-awq",
            |f| tensor(f, ".scales").bytes[..2].copy_from_slice(&[1, 0x7c]),
            "expected finite scales, found NaN in row 0",
        ),
    ];
    for (name, change, expected) in cases {
        let mut folder = Folder::read(name);
        change(&mut folder);
        let (_scratch, path) = folder.write(1);
        let file = opened(&path).unwrap();
        let shard = file.map(LayerRange::new(0, 1).unwrap()).unwrap();
        let message = chain(&shard.layer_tensor(0, "ffn_down.weight").unwrap_err());
        let expected = format!("tensor \"blk.0.ffn_down.weight\": {expected}");
        assert!(message.starts_with(&expected), "{name}: {expected:?} is missing in {message}");
        assert!(shard.layer_tensor(0, "ffn_up.weight").is_ok(), "{name}");
    }
}
