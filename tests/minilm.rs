//! A real embedding model whose tokens attend to the whole text: all-MiniLM-L6-v2, as a Hugging Face folder and as a
//! GGUF file, in one process and in several, against what transformers computes (`etc/golden/minilm.py`).

mod common;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::cluster::Cluster;
use gateway::text::FolderFiles;
use serde::Deserialize;
use serde_json::{Value, json};
use stages::gguf::GgufWriter;
use stages::weights::ModelFile;

/// Largest distance of a vector of length 1 from transformers', where keys and values are rounded to half precision.
const DISTANCE_MAX: f64 = 1e-3;
/// The model's hidden dimensions.
const DIMENSIONS: usize = 384;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    vector: Vec<f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("data/minilm_embeddings.json")).unwrap()
}

/// The model's folder, which `etc/minilm` fetches once.
fn folder() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("all-MiniLM-L6-v2");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/minilm");
    let run = Command::new("python3").arg(script).arg(&folder).output().expect("python3 runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    folder
}

/// Writes the model in `folder` as a GGUF file, with the vocabulary's metadata in it.
fn write_gguf(folder: &Path, path: &Path) {
    let model = ModelFile::open(folder).unwrap();
    let header = model.header();
    let tokens = header.tensor("token_embd.weight").unwrap().rows() as usize;
    let vocabulary = FolderFiles::read(folder).unwrap().metadata(tokens).unwrap();
    let weights = std::fs::File::open(folder.join("model.safetensors")).unwrap();
    let metadata = header.metadata.iter().chain(vocabulary.iter());
    let mut file = metadata.fold(GgufWriter::new(), |file, (key, value)| file.metadata(key, value.clone()));
    for tensor in &header.tensors {
        let [piece] = tensor.pieces() else { panic!("{} lies in one piece", tensor.name) };
        let mut bytes = vec![0; piece.bytes as usize];
        weights.read_exact_at(&mut bytes, piece.offset).unwrap();
        file = file.tensor(&tensor.name, &tensor.dims, tensor.format, bytes).unwrap();
    }
    file.write_file(path).unwrap();
}

/// The vectors of `inputs`, and the number of all tokens.
fn embed(cluster: &Cluster, inputs: &[&str]) -> (Vec<Vec<f64>>, u64) {
    let answer = cluster.post("/v1/embeddings", &json!({"input": inputs}));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json();
    let vector = |entry: &Value| serde_json::from_value(entry["embedding"].clone()).expect("numbers");
    let vectors = answer["data"].as_array().expect("a list").iter().map(vector).collect();
    (vectors, answer["usage"]["prompt_tokens"].as_u64().expect("a count"))
}

fn distance(one: &[f64], other: &[f64]) -> f64 {
    assert_eq!((one.len(), other.len()), (DIMENSIONS, DIMENSIONS));
    one.iter().zip(other).map(|(one, other)| (one - other).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn texts_have_the_vectors_of_transformers_however_the_model_lies_and_is_cut() {
    let Golden { cases } = golden();
    let texts: Vec<&str> = cases.iter().map(|case| case.text.as_str()).collect();
    let folder = folder();
    let whole = Cluster::of_model(&folder, 1, &[], &[]);
    let mut alone = Vec::new();
    for Case { text, ids, vector } in &cases {
        let (mut vectors, tokens) = embed(&whole, &[text]);
        assert_eq!(tokens, ids.len() as u64, "{text:?}");
        let off = distance(&vectors[0], vector);
        println!("{} tokens: {off:.2e} from transformers'", ids.len());
        assert!(off < DISTANCE_MAX, "{text:?} is {off} away from transformers' vector");
        alone.append(&mut vectors);
    }
    assert_eq!(embed(&whole, &texts).0, alone, "together");
    let ollama = whole.post("/api/embed", &json!({"model": "all-MiniLM-L6-v2", "input": texts[0]})).json();
    assert_eq!(ollama["embeddings"][0].as_array().map(Vec::len), Some(DIMENSIONS), "{ollama}");
    let llama_server = whole.post("/embedding", &json!({"content": texts[0]})).json();
    assert_eq!(llama_server[0]["embedding"][0].as_array().map(Vec::len), Some(DIMENSIONS), "{llama_server}");
    let shown = whole.post("/api/show", &json!({"model": "all-MiniLM-L6-v2"})).json();
    assert_eq!(shown["capabilities"], json!(["embedding"]));

    // Requests for text are refused by name, in every dialect.
    let chat = json!({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3});
    for (page, body) in [
        ("/v1/chat/completions", chat.clone()),
        ("/v1/completions", json!({"prompt": "Hello"})),
        ("/v1/responses", json!({"input": "Hello"})),
        ("/v1/messages", chat.clone()),
        ("/api/chat", chat),
        ("/api/generate", json!({"prompt": "Hello"})),
    ] {
        let mut body = body;
        body["model"] = "all-MiniLM-L6-v2".into();
        let answer = whole.post(page, &body);
        assert_eq!(answer.status, 400, "{page}: {}", answer.body);
        assert!(answer.body.contains("embeddings only"), "{page}: {}", answer.body);
    }
    let long = whole.post("/v1/embeddings", &json!({"input": "word ".repeat(511)}));
    assert_eq!(long.status, 400, "{}", long.body);
    assert!(long.body.contains("512 tokens"), "{}", long.body);
    drop(whole);

    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = scratch.path().join("all-minilm.gguf");
    write_gguf(&folder, &path);
    let cut = Cluster::of_model(&path, 3, &["--kv-tokens", "1024"], &[]);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| embed(&cut, &texts).0);
        assert_eq!(embed(&cut, &texts).0, alone, "in three processes, beside another request");
        assert_eq!(other.join().unwrap(), alone, "in three processes, beside another request");
    });
}
