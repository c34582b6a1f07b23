//! Damages safetensors files, indices and configurations in many ways: each is refused by one sentence with what was
//! expected and what was found, and nothing panics.

mod error_chain;
mod folder_support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use folder_support::{Folder, Stored, opened, safetensors, with_header};
use schema::record::{KvRoom, KvType};
use serde_json::{Value as Json, json};
use stages::safetensors::SafetensorsHeader;

/// A change of one part of a description, and parts of the refusal.
type Damage = (&'static str, Json, &'static [&'static str]);

/// A tensor of 2 x 3 floats, described by `entry`, and one of two floats after it.
fn described(entry: &Json) -> Vec<u8> {
    let header = json!({"a": entry, "b": {"dtype": "F32", "shape": [2], "data_offsets": [24, 32]}});
    with_header(&header.to_string(), &[0; 32])
}

fn entry() -> Json {
    json!({"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]})
}

/// Checks that `file` is refused in one readable line that has `expected` in this order.
fn assert_refused(name: &str, file: &[u8], expected: &[&str]) {
    let message = match SafetensorsHeader::parse(file) {
        Ok(_) => panic!("{name}: accepted"),
        Err(error) => error.to_string(),
    };
    let mut rest = message.as_str();
    for part in expected {
        let Some(at) = rest.find(part) else { panic!("{name}: expected {part:?} in {rest:?} of {message:?}") };
        rest = &rest[at + part.len()..];
    }
    assert!(message.contains("expected") && message.contains("found"), "{name}: {message}");
    assert!(!message.contains('\n') && message.len() < 700, "{name}: not one readable line: {message}");
}

#[test]
fn the_undamaged_file_is_fine() {
    let header = SafetensorsHeader::parse(&described(&entry())).unwrap();
    assert_eq!(header.tensors[0].shape, [2, 3]);
    assert_eq!(header.tensors[1].range.end - header.data_offset, 32);
    // The file's own notes are no tensor, and spaces may follow the object.
    let text = format!("{}    ", json!({"__metadata__": {"format": "pt"}, "a": entry()}));
    assert_eq!(SafetensorsHeader::parse(&with_header(&text, &[0; 24])).unwrap().tensors.len(), 1);
    assert_eq!(SafetensorsHeader::parse(&with_header("{}", &[])).unwrap().tensors, []);
}

#[test]
fn damaged_descriptions_are_refused() {
    let most = u64::MAX;
    let damages: &[Damage] = &[
        ("dtype", json!("F33"), &["dtype of tensor \"a\"", "expected one of BOOL, U8", "F32", "found \"F33\""]),
        ("dtype", json!("f32"), &["dtype of tensor \"a\"", "found \"f32\""]),
        ("dtype", json!(""), &["found \"\""]),
        ("dtype", json!("F32\nF16"), &["found \"F32\\nF16\""]),
        ("dtype", json!("x".repeat(5000)), &["found \"xxx", "…"]),
        ("dtype", json!(1), &["header", "expected a string"]),
        ("dtype", json!(null), &["header", "expected a string"]),
        (
            "dtype",
            json!("F16"),
            &["data_offsets of tensor \"a\"", "expected 12 bytes, as shape [2, 3] of F16 has", "0 to 24"],
        ),
        ("dtype", json!("F64"), &["expected 48 bytes"]),
        ("dtype", json!("U8"), &["expected 6 bytes"]),
        ("shape", json!([2, 4]), &["expected 32 bytes, as shape [2, 4] of F32 has", "found 0 to 24"]),
        ("shape", json!([2, 0]), &["shape of tensor \"a\"", "none of 0", "found [2, 0]"]),
        ("shape", json!([0]), &["none of 0"]),
        ("shape", json!([]), &["expected 4 bytes"]),
        ("shape", json!([most, most]), &["expected a product below 2^64", "found [18446744073709551615"]),
        ("shape", json!([1_u64 << 62]), &["expected a product below 2^64"]),
        ("shape", json!([1_u64 << 32, 1_u64 << 32]), &["expected a product below 2^64"]),
        ("shape", json!([1_u64 << 61]), &["expected 9223372036854775808 bytes"]),
        ("shape", json!([1, 1, 1, 1, 1, 1, 1, 2, 3]), &["expected at most 8 dimensions"]),
        ("shape", json!(vec![1; 5000]), &["at most 8 dimensions", "and so on, 5000 dimensions"]),
        ("shape", json!([-2, 3]), &["header", "expected u64"]),
        ("shape", json!([2.0, 3]), &["header", "expected u64"]),
        ("shape", json!(["2", 3]), &["header", "expected u64"]),
        ("shape", json!(6), &["header", "expected a sequence"]),
        ("shape", json!({"0": 2}), &["header", "expected a sequence"]),
        ("shape", json!([[2, 3]]), &["header", "expected u64"]),
        ("data_offsets", json!([0, 23]), &["expected 24 bytes", "found 0 to 23"]),
        ("data_offsets", json!([0, 25]), &["found 0 to 25"]),
        ("data_offsets", json!([24, 0]), &["found 24 to 0"]),
        ("data_offsets", json!([most, most]), &["found 18446744073709551615 to"]),
        ("data_offsets", json!([most - 24, most]), &["an end within the 32 bytes after the header"]),
        ("data_offsets", json!([1_u64 << 63, (1_u64 << 63) + 24]), &["an end within the 32 bytes"]),
        ("data_offsets", json!([8, 32]), &["data of tensor \"a\"", "expected a start at byte"]),
        ("data_offsets", json!([4, 28]), &["expected a start at byte"]),
        ("data_offsets", json!([32, 56]), &["an end within the 32 bytes", "found 56"]),
        ("data_offsets", json!([0]), &["header", "expected"]),
        ("data_offsets", json!([0, 24, 24]), &["header", "expected"]),
        ("data_offsets", json!([]), &["header", "expected"]),
        ("data_offsets", json!([-1, 23]), &["header", "expected u64"]),
        ("data_offsets", json!([0.5, 24]), &["header", "expected u64"]),
        ("data_offsets", json!("0-24"), &["header", "expected"]),
        ("data_offsets", json!(null), &["header", "expected"]),
        ("strides", json!([3, 1]), &["header", "unknown field `strides`"]),
    ];
    for (key, value, expected) in damages {
        let mut damaged = entry();
        damaged[*key] = value.clone();
        assert_refused(&format!("{key} {value:.40}"), &described(&damaged), expected);
    }
    for key in ["dtype", "shape", "data_offsets"] {
        let mut damaged = entry();
        damaged.as_object_mut().unwrap().remove(key);
        assert_refused(key, &described(&damaged), &["header", &format!("missing field `{key}`")]);
    }
    for other in [json!(null), json!(1), json!("F32"), json!([]), json!(true), json!({})] {
        assert_refused(&other.to_string(), &described(&other), &["header", "expected a JSON object of tensors"]);
    }
}

#[test]
fn lengths_that_no_file_has_are_refused_without_reading_them() {
    let file = described(&entry());
    let rest = file.len() as u64 - 8;
    let lengths = (0..64).map(|bit| 1_u64 << bit).chain((0..64).map(|bit| u64::MAX >> bit)).chain([rest + 1, 0]);
    for length in lengths {
        let mut damaged = file.clone();
        damaged[..8].copy_from_slice(&length.to_le_bytes());
        let expected: &[&str] = if length > rest { &["length of the header: expected at most"] } else { &["header"] };
        assert_refused(&format!("length {length}"), &damaged, expected);
    }
    for end in 0..file.len() {
        assert!(SafetensorsHeader::parse(&file[..end]).is_err(), "cut at {end}");
    }
    assert_refused("longer", &[&file[..], &[0]].concat(), &["file: expected", "as the tensors end there"]);
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    assert_refused("pointer", pointer, &["file", "Git LFS pointer"]);
}

#[test]
fn bytes_changed_anywhere_in_a_header_never_panic() {
    let file = described(&entry());
    let header_bytes = file.len() - 32;
    for at in 0..header_bytes {
        for byte in [0, b'"', b'{', b'}', b'[', b',', b'9', b'-', b'\\', 0x80, 0xff] {
            let mut damaged = file.clone();
            damaged[at] = byte;
            if let Err(error) = SafetensorsHeader::parse(&damaged) {
                assert!(!error.to_string().contains('\n'), "{error}");
            }
        }
    }
}

#[test]
fn names_twice_overlaps_and_deep_nests_are_refused() {
    let one = |offsets: [u64; 2]| json!({"dtype": "F32", "shape": [2], "data_offsets": offsets}).to_string();
    let twice = format!(r#"{{"a": {}, "a": {}}}"#, one([0, 8]), one([8, 16]));
    assert_refused("twice", &with_header(&twice, &[0; 16]), &["expected each name once", "found \"a\" twice"]);
    let overlap = format!(r#"{{"a": {}, "b": {}}}"#, one([0, 8]), one([4, 12]));
    assert_refused(
        "overlap",
        &with_header(&overlap, &[0; 12]),
        &["data of tensor \"b\"", "where the tensor before it ends"],
    );
    let same = format!(r#"{{"a": {}, "b": {}}}"#, one([0, 8]), one([0, 8]));
    assert_refused("same", &with_header(&same, &[0; 8]), &["data of tensor", "where the tensor before it ends"]);
    let hole = format!(r#"{{"a": {}, "b": {}}}"#, one([0, 8]), one([16, 24]));
    assert_refused("hole", &with_header(&hole, &[0; 24]), &["data of tensor \"b\""]);
    let deep = format!("{{\"a\": {}", "[".repeat(100_000));
    assert_refused("deep", &with_header(&deep, &[]), &["header"]);
    let deep = format!("{{\"__metadata__\": {}{}}}", "[".repeat(50_000), "]".repeat(50_000));
    assert!(SafetensorsHeader::parse(&with_header(&deep, &[])).is_ok(), "notes are skipped, however deep");
    for text in ["", "[]", "null", "{", "{}{}", "{\"a\"", "\u{feff}{}", "x"] {
        assert_refused(text, &with_header(text, &[]), &["header"]);
    }
    assert_refused("bytes", &[&2_u64.to_le_bytes()[..], &[0xff, 0xfe]].concat(), &["header"]);
}

// === Configurations ===

fn refusal(folder: &Folder, files: usize) -> String {
    let (_scratch, path) = folder.write(files);
    let message = opened(&path).err().unwrap_or_else(|| panic!("accepted"));
    assert!(message.contains("expected") && message.contains("found"), "{message}");
    assert!(!message.contains('\n') && message.len() < 900, "not one readable line: {message}");
    message
}

#[test]
fn any_value_of_any_key_is_a_model_or_a_sentence() {
    let values = [
        json!(null),
        json!(0),
        json!(1),
        json!(-1),
        json!(3),
        json!(1.5),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("x"),
        json!([]),
        json!([[]]),
        json!({}),
        json!(true),
        json!(false),
    ];
    let mut refused = 0;
    for name in ["llama-tied", "deepseek_v3", "gemma3", "ministral3", "qwen3_moe"] {
        let whole = Folder::read(name);
        let (_scratch, path) = whole.write(1);
        let rope: Vec<String> = whole.config["rope_parameters"]
            .as_object()
            .unwrap()
            .keys()
            .map(|key| format!("rope_parameters/{key}"))
            .collect();
        for key in whole.config.keys().chain(&rope) {
            for value in &values {
                let mut config = whole.config.clone();
                match key.split_once('/') {
                    Some((outer, inner)) => config[outer][inner] = value.clone(),
                    None => drop(config.insert(key.clone(), value.clone())),
                }
                std::fs::write(path.join("config.json"), Json::from(config).to_string()).unwrap();
                match opened(&path) {
                    Ok(file) => drop(stages::model_record(&file, KvRoom { tokens: 64, kv_type: KvType::F16 }, 1)),
                    Err(message) => {
                        assert!(message.contains("expected"), "{name} {key} {value}: {message}");
                        assert!(!message.contains('\n') && message.len() < 900, "{name} {key} {value}: {message}");
                        refused += 1;
                    }
                }
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn models_that_are_not_supported_are_refused_by_name() {
    type Change = fn(&mut Folder);
    let cases: [(&str, Change, &[&str]); 18] = [
        (
            "qwen3",
            |f| drop(f.config.insert("model_type".to_owned(), json!("mamba"))),
            &["config.json is not usable: model_type: expected one of llama, mistral", "found \"mamba\""],
        ),
        ("qwen3", |f| drop(f.config.remove("model_type")), &["model_type: expected one of", "found \"\""]),
        (
            "gpt_oss",
            |f| drop(f.config.insert("swiglu_limit".to_owned(), json!(3.0))),
            &["swiglu_limit: expected 7 in a gpt-oss model, found 3"],
        ),
        (
            "gpt_oss",
            |f| f.config["rope_parameters"]["truncate"] = json!(true),
            &["truncate: expected false, found true"],
        ),
        (
            "llama4",
            |f| f.config["moe_layers"] = json!([0, 2]),
            &["moe_layers: expected every layer of step 1, found [0,2]"],
        ),
        (
            "qwen3",
            |f| drop(f.config.insert("quantization_config".to_owned(), json!({"quant_method": "gptq"}))),
            &["bits of quantization_config: expected 4, found no such key"],
        ),
        (
            "qwen3",
            |f| drop(f.config.insert("quantization".to_owned(), json!({"bits": 4}))),
            &["group_size of quantization: expected 32, 64 or 128, found no such key"],
        ),
        (
            "qwen3",
            |f| drop(f.config.insert("hidden_act".to_owned(), json!("relu"))),
            &["hidden_act: expected \"silu\" or \"swish\" in a qwen3 model, found \"relu\""],
        ),
        (
            "qwen3",
            |f| drop(f.config.insert("rope_parameters".to_owned(), json!({"rope_type": "dynamic"}))),
            &["rope_scaling: expected rope of type default, linear, llama3 or yarn, found \"dynamic\""],
        ),
        (
            "qwen2",
            |f| drop(f.config.insert("use_sliding_window".to_owned(), json!(true))),
            &["use_sliding_window: expected false or no such key, as it is not implemented, found true"],
        ),
        (
            "gemma2",
            |f| drop(f.config.insert("query_pre_attn_scalar".to_owned(), json!(99))),
            &["query_pre_attn_scalar: expected 32, found 99"],
        ),
        (
            "gemma3",
            |f| f.config["layer_types"][5] = json!("sliding_attention"),
            &["layer_types of layer 5: expected \"full_attention\" in a gemma3 model, found \"sliding_attention\""],
        ),
        (
            "lfm2",
            |f| f.config["layer_types"][2] = json!("mamba"),
            &["layer_types: expected \"conv\" or \"full_attention\" for each of 4 layers, found \"mamba\""],
        ),
        ("lfm2", |f| f.config["conv_bias"] = json!(true), &["conv_bias: expected false in a lfm2 model, found true"]),
        ("smollm3", |f| f.config["no_rope_layers"][3] = json!(1), &["no_rope_layers of layer 3: expected 0, found 1"]),
        (
            "qwen3_moe",
            |f| drop(f.config.insert("norm_topk_prob".to_owned(), json!(false))),
            &["norm_topk_prob: expected true in a qwen3moe model, found false"],
        ),
        (
            "llama",
            |f| drop(f.tensors.remove("lm_head.weight")),
            &["tie_word_embeddings: expected true, or a tensor lm_head.weight, found false without one"],
        ),
        (
            "qwen3",
            |f| drop(f.config.remove("hidden_size")),
            &["hidden_size: expected a whole number, found no such key"],
        ),
    ];
    for (name, change, expected) in cases {
        let mut folder = Folder::read(name);
        change(&mut folder);
        let message = refusal(&folder, 1);
        for expected in expected {
            assert!(message.contains(expected), "{name}: {expected} is missing in {message}");
        }
    }
}

#[test]
fn tensors_that_do_not_fit_are_refused_by_name() {
    type Change = fn(&mut BTreeMap<String, Stored>);
    const EXPERT: &str = "model.layers.1.mlp.experts.5.up_proj.weight";
    let cases: [(&str, Change, &[&str]); 10] = [
        (
            "a stranger",
            |t| drop(t.insert("model.layers.0.mystery.weight".to_owned(), Stored::floats(&[1], vec![0; 4]))),
            &[
                "model.safetensors is not usable: tensor \"model.layers.0.mystery.weight\"",
                "expected none of this name in a qwen3moe model, found one",
            ],
        ),
        (
            "a missing matrix",
            |t| drop(t.remove("model.layers.2.self_attn.o_proj.weight")),
            &["tensor \"blk.2.attn_output.weight\": expected one in every model of this family, found none"],
        ),
        (
            "another shape",
            |t| t.get_mut("model.layers.0.self_attn.q_proj.weight").unwrap().shape = vec![64, 128],
            &["tensor \"blk.0.attn_q.weight\": expected dimensions [64, 128], found [128, 64]"],
        ),
        (
            "an expert missing",
            |t| drop(t.remove(EXPERT)),
            &["expected \"blk.1.ffn_up_exps.weight\" of expert 5, as there is expert 7, found none"],
        ),
        (
            "the last expert missing",
            |t| drop(t.remove("model.layers.1.mlp.experts.7.up_proj.weight")),
            &["tensor \"blk.1.ffn_up_exps.weight\": expected dimensions [64, 32, 8], found [64, 32, 7]"],
        ),
        (
            "an expert of another shape",
            |t| t.get_mut(EXPERT).unwrap().shape = vec![64, 32],
            &[EXPERT, "expected F32 [32, 64], as model.layers.1.mlp.experts.0.up_proj.weight has, found F32 [64, 32]"],
        ),
        (
            "an expert of another type",
            |t| *t.get_mut(EXPERT).unwrap() = t[EXPERT].halved("BF16").0,
            &["expected F32 [32, 64]", "found BF16 [32, 64]"],
        ),
        (
            "a second name",
            |t| drop(t.insert("norm.weight".to_owned(), t["model.norm.weight"].clone())),
            &["expected it once, found another tensor that is \"output_norm.weight\""],
        ),
        (
            "bytes as weights",
            |t| {
                let norm = t.get_mut("model.norm.weight").unwrap();
                (norm.dtype, norm.bytes) = ("I32".to_owned(), vec![0; 256]);
            },
            &["tensor \"model.norm.weight\": expected F32, F16 or BF16, found I32"],
        ),
        (
            "an absurd expert",
            |t| drop(t.insert("model.layers.0.mlp.experts.99999.up_proj.weight".to_owned(), t[EXPERT].clone())),
            &["expected an expert below 4096, found 99999"],
        ),
    ];
    for (name, change, expected) in cases {
        let mut folder = Folder::read("qwen3_moe");
        change(&mut folder.tensors);
        let message = refusal(&folder, 1);
        for expected in expected {
            assert!(message.contains(expected), "{name}: {expected} is missing in {message}");
        }
    }
}

#[test]
fn an_index_that_does_not_fit_its_files_is_refused() {
    let folder = Folder::read("qwen3");
    let index = |path: &Path| -> PathBuf { path.join("model.safetensors.index.json") };
    type Change = fn(&mut Json, &Path);
    let second = "model-00002-of-00002.safetensors";
    let cases: [(&str, Change, &[&str]); 8] = [
        (
            "no map",
            |index, _| drop(index.as_object_mut().unwrap().remove("weight_map")),
            &["weight_map: expected an object"],
        ),
        (
            "an empty map",
            |index, _| index["weight_map"] = json!({}),
            &["weight_map: expected 1 to 1024 files, found 0"],
        ),
        (
            "a path",
            |index, _| index["weight_map"]["x"] = json!("../../etc/passwd"),
            &["weight_map of \"x\": expected the name of a file in the same folder, found \"../../etc/passwd\""],
        ),
        ("a number", |index, _| index["weight_map"]["x"] = json!(1), &["weight_map of \"x\"", "integer `1`"]),
        (
            "a missing file",
            |_, path| std::fs::remove_file(path.join("model-00002-of-00002.safetensors")).unwrap(),
            &["model-00002-of-00002.safetensors is not usable: file: expected it beside model.safetensors.index.json"],
        ),
        (
            "a tensor nowhere",
            |index, _| index["weight_map"]["x"] = json!("model-00002-of-00002.safetensors"),
            &[
                "tensor \"x\": expected it in \"model-00002-of-00002.safetensors\"",
                "where weight_map says it is, found none",
            ],
        ),
        (
            "a tensor elsewhere",
            |index, _| {
                let map = index["weight_map"].as_object_mut().unwrap();
                let place =
                    map.iter().find(|(_, file)| file.as_str().unwrap().starts_with("model-00001")).unwrap().0.clone();
                map[&place] = json!("model-00002-of-00002.safetensors");
            },
            &["found it in model-00001-of-00002.safetensors"],
        ),
        (
            "a tensor twice",
            |_, path| {
                let first = std::fs::read(path.join("model-00001-of-00002.safetensors")).unwrap();
                std::fs::write(path.join("model-00002-of-00002.safetensors"), first).unwrap();
            },
            &[
                "model-00002-of-00002.safetensors",
                "expected none, as model-00001-of-00002.safetensors has it, found a second one",
            ],
        ),
    ];
    for (name, change, expected) in cases {
        let (_scratch, path) = folder.write(2);
        let mut text: Json = serde_json::from_slice(&std::fs::read(index(&path)).unwrap()).unwrap();
        change(&mut text, &path);
        std::fs::write(index(&path), text.to_string()).unwrap();
        let message = opened(&path).err().unwrap_or_else(|| panic!("{name}: accepted"));
        for expected in expected {
            assert!(message.contains(expected), "{name}: {expected} is missing in {message}");
        }
    }
    let (_scratch, path) = folder.write(2);
    std::fs::write(path.join(second), &safetensors(&folder.tensors)[..1000]).unwrap();
    let message = opened(&path).unwrap_err();
    assert!(message.contains("model-00002-of-00002.safetensors is not a usable safetensors file: "), "{message}");
    std::fs::remove_file(index(&path)).unwrap();
    let message = opened(&path).unwrap_err();
    assert!(message.contains("expected model.safetensors or model.safetensors.index.json"), "{message}");
}
