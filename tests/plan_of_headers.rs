//! `baton plan` and `baton models --headers` of models that are at a hub: by their headers alone. A small hub of the
//! tests counts the bytes that it sends.

mod header_hub;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use header_hub::{Answers, Hub};
use serde_json::Value;
use stages::format::Format;
use stages::gguf::GgufWriter;
use tempfile::TempDir;

/// Bytes that are asked for first of a GGUF file.
const FIRST: u64 = 64 << 10;

/// Metadata of a model of the Llama family with `layers` layers and `vocabulary` tokens.
fn metadata(layers: u32, vocabulary: u64) -> GgufWriter {
    let tokens: Vec<String> = (0..vocabulary).map(|token| format!("token-{token}")).collect();
    GgufWriter::new()
        .metadata("general.architecture", "llama")
        .metadata("llama.block_count", layers)
        .metadata("llama.context_length", 2048_u32)
        .metadata("llama.embedding_length", 256_u32)
        .metadata("llama.feed_forward_length", 1024_u32)
        .metadata("llama.attention.head_count", 8_u32)
        .metadata("llama.attention.head_count_kv", 2_u32)
        .metadata("llama.attention.layer_norm_rms_epsilon", 1e-5_f32)
        .metadata("tokenizer.ggml.model", "gpt2")
        .metadata("tokenizer.ggml.tokens", &tokens[..])
}

fn matrix(writer: GgufWriter, name: &str, dims: &[u64]) -> GgufWriter {
    let bytes = vec![0; (dims.iter().product::<u64>() / 32 * 34) as usize];
    writer.tensor(name, dims, Format::Q8_0, bytes).unwrap()
}

fn norm(writer: GgufWriter, name: &str) -> GgufWriter {
    writer.tensor(name, &[256], Format::F32, vec![0; 1024]).unwrap()
}

/// Adds the tensors of the layers, each of about a megabyte.
fn layers(mut writer: GgufWriter, layers: std::ops::Range<u32>) -> GgufWriter {
    for layer in layers {
        let name = |what: &str| format!("blk.{layer}.{what}.weight");
        writer = norm(norm(writer, &name("attn_norm")), &name("ffn_norm"));
        for (what, cols, rows) in [
            ("attn_q", 256, 256),
            ("attn_k", 256, 64),
            ("attn_v", 256, 64),
            ("attn_output", 256, 256),
            ("ffn_gate", 256, 1024),
            ("ffn_up", 256, 1024),
            ("ffn_down", 1024, 256),
        ] {
            writer = matrix(writer, &name(what), &[cols, rows]);
        }
    }
    writer
}

/// A model in one file.
fn model(count: u32, vocabulary: u64) -> Vec<u8> {
    let writer = matrix(metadata(count, vocabulary), "token_embd.weight", &[256, vocabulary]);
    layers(norm(writer, "output_norm.weight"), 0..count).to_bytes().unwrap()
}

/// The same model of six layers in two files.
fn parts() -> [Vec<u8>; 2] {
    let place = |writer: GgufWriter, number: u32| {
        let writer = writer.metadata("split.no", number).metadata("split.count", 2_u32);
        writer.metadata("split.tensors.count", 2 + 6 * 9_i32)
    };
    let first = matrix(place(metadata(6, 512), 0), "token_embd.weight", &[256, 512]);
    let first = layers(norm(first, "output_norm.weight"), 0..3);
    let second = layers(place(GgufWriter::new(), 1), 3..6);
    [first.to_bytes().unwrap(), second.to_bytes().unwrap()]
}

/// The end of a GGUF file's header.
fn header_bytes(file: &[u8]) -> u64 {
    match stages::gguf::Extent::of(file, file.len() as u64) {
        Ok(stages::gguf::Extent::Whole(bytes)) => bytes,
        other => panic!("{other:?}"),
    }
}

/// A run of `baton` with an empty home, against `hub`.
struct Run {
    home: TempDir,
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn baton(hub: &Hub, arguments: &[&str]) -> Run {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command.env_clear().env("HOME", home.path()).env("PATH", "/usr/bin:/bin").env("HF_ENDPOINT", &hub.endpoint);
    let output = command.args(arguments).args(["--etcd", "127.0.0.1:1"]).stdin(Stdio::null()).output().unwrap();
    Run {
        home,
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The plan of `model` in JSON, and the same without what differs from run to run.
fn plan(hub: &Hub, model: &str) -> (Value, Value) {
    let run = baton(hub, &["plan", model, "--json"]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{model}");
    let mut plan: Value = serde_json::from_str(&run.stdout).unwrap();
    assert!(plan["expected"]["one_stream"].as_f64() > Some(0.1), "{plan}");
    let whole = plan.clone();
    let object = plan.as_object_mut().unwrap();
    object.remove("expected");
    object.remove("figures");
    // The memory that is free.
    object["stages"][0].as_object_mut().unwrap().remove("budget_bytes");
    let left: Vec<PathBuf> = walk(run.home.path());
    assert!(left.is_empty(), "{left:?} were left behind");
    (whole, plan)
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// The plan of the files `files` on this machine, the first of which names the model.
fn local_plan(hub: &Hub, folder: &str, files: &[(&str, &[u8])]) -> Value {
    let place = tempfile::tempdir().unwrap();
    let place = place.path().join(folder);
    std::fs::create_dir_all(&place).unwrap();
    files.iter().for_each(|(name, bytes)| std::fs::write(place.join(name), bytes).unwrap());
    let named = if files[0].0.ends_with(".gguf") { place.join(files[0].0) } else { place.clone() };
    plan(hub, named.to_str().unwrap()).1
}

#[test]
fn a_file_of_a_hub_is_planned_as_if_it_were_here_and_no_weights_are_fetched() {
    let file = model(6, 512);
    let hub = Hub::start(&[("m-Q8_0.gguf", &file)], Answers::Ranges);
    let local = local_plan(&hub, "r", &[("m-Q8_0.gguf", &file)]);
    assert_eq!(hub.sent(), 0);
    for name in ["hf:o/r", "hf:o/r:q8_0", "hf:o/r/m-Q8_0.gguf"] {
        hub.forget();
        let (whole, remote) = plan(&hub, name);
        assert_eq!(remote, local, "{name}");
        // The header is shorter than the first piece, so that all is in it.
        assert_eq!(hub.ranges("m-Q8_0.gguf"), [(0, FIRST)]);
        assert_eq!(whole["figures"]["from"], "remote_header", "{whole}");
        assert_eq!(whole["figures"]["fetched_bytes"], FIRST);
        assert_eq!((&whole["family"], &whole["by_catalogue"]), (&"llama".into(), &false.into()));
    }
    println!("{} of {} bytes were sent", FIRST, file.len());
    let text = baton(&hub, &["plan", "hf:o/r"]).stdout;
    assert!(text.contains("its file is not here: 64.0 KiB of it were read, the header, from hf:o/r"), "{text}");
}

#[test]
fn a_long_header_is_read_by_ranges_that_grow_and_end_with_it() {
    let file = model(2, 40_000);
    let header = header_bytes(&file);
    assert!(header > 600_000, "{header}");
    let hub = Hub::start(&[("m.gguf", &file)], Answers::Ranges);
    let local = local_plan(&hub, "r", &[("m.gguf", &file)]);
    assert_eq!(plan(&hub, "hf:o/r/m.gguf").1, local);
    let ranges = hub.ranges("m.gguf");
    assert!(ranges.len() > 1 && ranges.len() < 6, "{ranges:?}");
    assert!(ranges.windows(2).all(|pair| pair[0].1 == pair[1].0), "none is asked for twice: {ranges:?}");
    let end = ranges.last().unwrap().1;
    assert!(end >= header && end <= 4 * header && hub.sent() == end, "{ranges:?} for {header} of {}", file.len());
    println!("{end} bytes were sent for a header of {header} in a file of {}", file.len());
}

#[test]
fn of_a_split_model_each_parts_header_is_read() {
    let [first, second] = parts();
    let names = ["q/m-00001-of-00002.gguf", "q/m-00002-of-00002.gguf"];
    let hub = Hub::start(&[(names[0], &first), (names[1], &second)], Answers::Ranges);
    let here = [("m-00001-of-00002.gguf", first.as_slice()), ("m-00002-of-00002.gguf", second.as_slice())];
    let local = local_plan(&hub, "r", &here);
    for name in ["hf:o/r", "hf:o/r/q/m-00002-of-00002.gguf"] {
        hub.forget();
        assert_eq!(plan(&hub, name).1, local, "{name}");
        assert_eq!((hub.ranges(names[0]), hub.ranges(names[1])), (vec![(0, FIRST)], vec![(0, FIRST)]));
    }
    let lacking = Hub::start(&[(names[0], &first)], Answers::Ranges);
    let run = baton(&lacking, &["plan", "hf:o/r/q/m-00001-of-00002.gguf"]);
    assert!(run.code == Some(1) && run.stderr.contains("m-00002-of-00002.gguf") && run.stderr.contains("status 404"));
}

#[test]
fn of_a_folder_the_headers_are_read_to_the_byte() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("stages/tests/data/tiny-mixtral");
    let read = |name: &str| std::fs::read(data.join(name)).unwrap();
    let (config, weights) = (read("config.json"), read("model.safetensors"));
    let hub = Hub::start(&[("config.json", &config), ("model.safetensors", &weights)], Answers::Ranges);
    let local = local_plan(&hub, "r", &[("config.json", &config), ("model.safetensors", &weights)]);
    let (whole, remote) = plan(&hub, "hf:o/r");
    assert_eq!(remote, local);
    assert!(whole["active_parameters"].as_u64() < whole["parameters"].as_u64(), "{whole}");
    let header = 8 + u64::from_le_bytes(weights[..8].try_into().unwrap());
    assert_eq!(hub.ranges("model.safetensors"), [(0, 8), (8, header)], "no byte of a weight");
    println!("{header} of {} bytes of the weights' file were sent", weights.len());

    // The same in a file of its own that a list names.
    let name = "model-00001-of-00001.safetensors";
    let tensors: Value = serde_json::from_slice(&weights[8..header as usize]).unwrap();
    let tensors = tensors.as_object().unwrap().keys().filter(|key| *key != "__metadata__");
    let map: serde_json::Map<_, _> = tensors.map(|tensor| (tensor.clone(), name.into())).collect();
    let index = serde_json::json!({"weight_map": map}).to_string();
    let list = "model.safetensors.index.json";
    let hub = Hub::start(
        &[("config.json", &config), (name, &weights), (list, index.as_bytes()), ("other.safetensors", b"x")],
        Answers::Ranges,
    );
    assert_eq!(plan(&hub, "hf:o/r").1["layers"], local["layers"]);
    assert_eq!((hub.ranges(name), hub.ranges("other.safetensors")), (vec![(0, 8), (8, header)], vec![]));
}

#[test]
fn a_server_that_answers_no_ranges_is_refused_and_not_read() {
    let file = model(40, 512);
    let hub = Hub::start(&[("m.gguf", &file)], Answers::Whole);
    let run = baton(&hub, &["plan", "hf:o/r/m.gguf"]);
    assert_eq!(run.code, Some(1));
    let expected = "expected status 206 with bytes 0-65535, found status 200, an answer that is no range of the file";
    assert!(run.stderr.contains(expected) && run.stderr.contains("baton pull hf:o/r/m.gguf"), "{}", run.stderr);
    // What the sockets hold may leave the server before it notices.
    assert!(hub.sent() < 8 << 20 && file.len() > 32 << 20, "{} of {} were sent", hub.sent(), file.len());
}

#[test]
fn answers_that_are_not_what_was_asked_are_refused() {
    let file = model(2, 512);
    for (answers, expected) in [
        (Answers::From(1), "found content-range \"bytes 1-"),
        (Answers::OfLength(1 << 63), "expected a file of at most 17592186044416 bytes, found 9223372036854775808"),
        (Answers::Short, "expected 65536 bytes, found 65535 of them"),
    ] {
        let hub = Hub::start(&[("m.gguf", &file)], answers);
        let run = baton(&hub, &["plan", "hf:o/r/m.gguf"]);
        let refused = run.stderr.contains(expected) || answers == Answers::Short && run.stderr.contains("cannot fetch");
        assert!(run.code == Some(1) && refused, "{answers:?}: {}", run.stderr);
    }
    // Bytes beyond the range are not read.
    let hub = Hub::start(&[("m.gguf", &file)], Answers::Longer);
    assert_eq!(plan(&hub, "hf:o/r/m.gguf").0["figures"]["fetched_bytes"], FIRST);
}

#[test]
fn headers_that_no_file_could_have_are_refused_by_their_first_bytes() {
    let mut file = model(2, 512);
    // The length of the first key.
    file[24..32].copy_from_slice(&(1_u64 << 63).to_le_bytes());
    let mut long = model(2, 512);
    long[24..32].copy_from_slice(&(200_u64 << 20).to_le_bytes());
    let weights = [&(1_u64 << 63).to_le_bytes()[..], &[b' '; 64]].concat();
    let config = br#"{"model_type": "llama"}"#;
    let files: [(&str, &[u8]); 4] =
        [("m.gguf", &file), ("long.gguf", &long), ("config.json", config), ("model.safetensors", &weights)];
    let refused = |hub: &Hub, name: &str, expected: &str| {
        let run = baton(hub, &["plan", name]);
        assert!(run.code == Some(1) && run.stderr.contains(expected), "{name}: {}", run.stderr);
        assert!(hub.sent() < 1 << 20, "{name}: {} bytes", hub.sent());
    };
    let hub = Hub::start(&files[..1], Answers::Ranges);
    refused(&hub, "hf:o/r/m.gguf", "found 9223372036854775808");
    let hub = Hub::start(&files[1..2], Answers::OfLength(1 << 40));
    refused(&hub, "hf:o/r/long.gguf", "expected a header of at most 134217728 bytes");
    let hub = Hub::start(&files[2..], Answers::Ranges);
    refused(&hub, "hf:o/r", "found 9223372036854775808");
}

#[test]
fn a_hub_that_never_answers_is_given_up() {
    let hub = Hub::start(&[], Answers::Never);
    let started = Instant::now();
    let run = baton(&hub, &["plan", "hf:o/r/m.gguf"]);
    assert!(run.code == Some(1) && run.stderr.contains("timeout"), "{}", run.stderr);
    assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
}

#[test]
fn a_listed_model_is_planned_by_its_header_at_the_first_hub_that_has_it() {
    let file = model(6, 512);
    let hub = Hub::start(&[("SmolLM2-1.7B-Instruct-Q4_K_M.gguf", &file)], Answers::Ranges);
    let (whole, _) = plan(&hub, "smollm2-1.7b");
    let source = "hf:bartowski/SmolLM2-1.7B-Instruct-GGUF/SmolLM2-1.7B-Instruct-Q4_K_M.gguf";
    assert_eq!((&whole["figures"]["source"], &whole["by_catalogue"]), (&source.into(), &false.into()));
    assert_eq!(
        (whole["layers"].as_array().unwrap().len(), &whole["model"]),
        (6, &"SmolLM2-1.7B-Instruct-Q4_K_M".into())
    );
    // One of another family keeps the catalogue's figures.
    let hub = Hub::start(&[("Qwen_Qwen3-0.6B-Q8_0.gguf", &file), ("Qwen3-0.6B-Q8_0.gguf", &file)], Answers::Ranges);
    let (whole, _) = plan(&hub, "qwen3-0.6b");
    assert_eq!((&whole["figures"]["from"], &whole["by_catalogue"]), (&"catalogue".into(), &true.into()), "{whole}");
}

#[test]
fn the_list_shows_headers_if_they_are_asked_for_and_the_catalogue_for_the_rest() {
    let file = model(6, 512);
    let hub = Hub::start(&[("SmolLM2-1.7B-Instruct-Q4_K_M.gguf", &file)], Answers::Ranges);
    let of = |arguments: &[&str]| {
        let run = baton(&hub, arguments);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
        serde_json::from_str::<Vec<Value>>(&run.stdout).unwrap()
    };
    let without = of(&["models", "--json"]);
    assert_eq!(hub.sent(), 0, "nothing is asked for without the flag");
    let with = of(&["models", "--json", "--headers"]);
    assert_eq!(without.len(), with.len());
    for (without, with) in without.iter().zip(&with) {
        let is_there = with["model"] == "smollm2-1.7b";
        assert_eq!((&without["by_header"], &with["by_header"]), (&false.into(), &is_there.into()));
        let bytes = if is_there { file.len().into() } else { without["bytes"].clone() };
        assert_eq!(with["bytes"], bytes, "{with}");
    }
}
