//! Hugging Face folders as a whole: a vocabulary written as `tokenizer.json` has the tokens that it has in a GGUF file,
//! and a started cluster serves a folder.

mod common;

use std::path::{Path, PathBuf};

use common::cluster::Cluster;
use gateway::text::{FolderFiles, Special, TokenKind, Tokenizer, Vocabulary};
use serde_json::{Map, Value as Json, json};
use stages::weights::ModelFile;

/// The folder of a golden model: random weights, and what transformers computed with them.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("stages/tests/data").join(format!("tiny-{name}"))
}

fn object(value: &Json) -> Map<String, Json> {
    value.as_object().expect("an object").clone()
}

/// The default model's vocabulary, as its authors' `tokenizer.json` has it.
fn default_files(vocabulary: &Vocabulary) -> FolderFiles {
    let added: Vec<Json> = (0..)
        .zip(vocabulary.tokens())
        .filter(|(_, (_, kind))| *kind == TokenKind::Control)
        .map(|(id, (token, _))| json!({"id": id, "content": token, "special": true}))
        .collect();
    let tokens: Map<String, Json> =
        (0..).zip(vocabulary.tokens()).map(|(id, (token, _))| (token.to_owned(), Json::from(id))).collect();
    let merges: Vec<Json> = vocabulary.merges().iter().map(|(left, right)| json!([left, right])).collect();
    let steps = json!([
        {"type": "Digits", "individual_digits": true},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
    ]);
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "model": {"type": "BPE", "ignore_merges": false, "vocab": tokens, "merges": merges},
    });
    let config = json!({
        "bos_token": vocabulary.spelling(vocabulary.bos()),
        "eos_token": vocabulary.spelling(vocabulary.eos()),
        "chat_template": vocabulary.chat_template(),
    });
    FolderFiles { tokenizer: object(&tokenizer), tokenizer_config: object(&config), ..FolderFiles::default() }
}

#[test]
fn the_default_models_vocabulary_has_the_same_tokens_as_a_folders() {
    let file = ModelFile::open(&common::model_path()).unwrap();
    let of_gguf = Vocabulary::from_metadata(&file.vocabulary_metadata().unwrap()).unwrap();
    let metadata = default_files(&of_gguf).metadata(of_gguf.len()).unwrap();
    let of_folder = Vocabulary::from_metadata(&metadata).unwrap();
    assert_eq!(of_folder.tokens().collect::<Vec<_>>(), of_gguf.tokens().collect::<Vec<_>>());
    assert_eq!(of_folder.pre(), of_gguf.pre());
    assert_eq!((of_folder.bos(), of_folder.eos(), of_folder.stops()), (of_gguf.bos(), of_gguf.eos(), of_gguf.stops()));
    assert_eq!(of_folder.chat_template(), of_gguf.chat_template());
    let [of_folder, of_gguf] = [&of_folder, &of_gguf].map(|vocabulary| Tokenizer::new(vocabulary).unwrap());
    let golden: Json = serde_json::from_str(include_str!("data/smollm2_tokens.json")).unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let ids = of_folder.encode(text, Special::Plain).unwrap();
        assert_eq!(ids, of_gguf.encode(text, Special::Plain).unwrap(), "{text:?}");
        assert_eq!(Json::from(ids), case["ids"], "{text:?}");
    }
}

/// A folder with the weights of a golden model and a vocabulary of as many tokens: the bytes, then words.
fn servable(name: &str) -> (tempfile::TempDir, PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join(name);
    std::fs::create_dir(&folder).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(golden(name).join(file), folder.join(file)).unwrap();
    }
    let byte = |byte: u8| if byte.is_ascii_graphic() { char::from(byte).to_string() } else { format!("<{byte}>") };
    let mut tokens: Map<String, Json> = (0..=255).map(|number| (byte(number), Json::from(number))).collect();
    (256..512).for_each(|id| drop(tokens.insert(format!("word{id}"), id.into())));
    let tokenizer = json!({
        "added_tokens": [{"id": 511, "content": "word511", "special": true}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
        "model": {"type": "BPE", "vocab": tokens, "merges": []},
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(folder.join("tokenizer_config.json"), json!({"eos_token": "word511"}).to_string()).unwrap();
    (scratch, folder)
}

#[test]
fn a_cluster_serves_a_folder_and_gives_the_tokens_of_transformers() {
    let name = "qwen3";
    let (_scratch, folder) = servable(name);
    let expected: Json = serde_json::from_slice(&std::fs::read(golden(name).join("golden.json")).unwrap()).unwrap();
    let ids = |key: &str| common::golden::numbers(&expected[key]);
    let cluster = Cluster::of_model(&folder, 2, &["--kv-tokens", "1024"], &[]);
    let found = cluster.complete(&ids("input_ids"), 16).0;
    assert_eq!(found, ids("greedy_16"));
    let models = common::http::request(cluster.http, "GET", "/v1/models", "").unwrap().body;
    assert!(models.contains("\"qwen3\""), "the folder's name is the model's: {models}");
}
