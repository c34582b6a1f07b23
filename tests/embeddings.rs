//! An embedding must not depend on the cut of the model, on other requests in the batch, on the division of the prompt
//! into micro-batches, or on prefix-cache hits. The tests run the real model in real processes, pooled by its last
//! token and, by a file that says so, by the mean, and compare vectors to the last bit.

mod common;

use std::path::{Path, PathBuf};

use common::cluster::Cluster;
use common::golden::golden;
use common::model_path;
use serde_json::{Value, json};
use stages::gguf::{GgufHeader, GgufWriter};

/// llama.cpp's number for the mean.
const MEAN: u32 = 1;
/// The model's hidden dimensions.
const DIMENSIONS: usize = 576;

/// Twelve prompts of 20 to 2,600 tokens, some of which begin alike.
fn inputs() -> Vec<Vec<u32>> {
    let golden = golden();
    let input = |index: usize| {
        let texts = golden.iter().cycle().skip(index / 2).take([1, 3, 6][index % 3]);
        let mut input: Vec<u32> = texts.flat_map(|case| case.prompt.clone()).collect();
        input.push(1000 + index as u32);
        input
    };
    let long = golden.iter().flat_map(|case| case.prompt.clone()).cycle().take(2600).collect();
    (0..11).map(input).chain([long]).collect()
}

/// The vectors of one request, as the bytes of their base64.
fn embed(cluster: &Cluster, inputs: &[Vec<u32>]) -> Vec<String> {
    let answer = cluster.post("/v1/embeddings", &json!({"input": inputs, "encoding_format": "base64"}));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json();
    let tokens: usize = inputs.iter().map(Vec::len).sum();
    assert_eq!(answer["usage"]["prompt_tokens"], tokens);
    let vector = |entry: &Value| entry["embedding"].as_str().expect("base64").to_owned();
    answer["data"].as_array().expect("a list").iter().map(vector).collect()
}

/// The model at `model_path` with a pooling type of its own.
fn pooled(folder: &Path, pooling_type: u32) -> PathBuf {
    let bytes = std::fs::read(model_path()).unwrap();
    let header = GgufHeader::parse(&bytes).unwrap();
    let mut file =
        header.metadata.iter().fold(GgufWriter::new(), |file, (key, value)| file.metadata(key, value.clone()));
    file = file.metadata("llama.pooling_type", pooling_type);
    for tensor in &header.tensors {
        let start = tensor.offset as usize;
        let own = bytes[start..start + tensor.bytes as usize].to_vec();
        file = file.tensor(&tensor.name, &tensor.dims, tensor.format, own).unwrap();
    }
    let path = folder.join(format!("pooled-{pooling_type}.gguf"));
    file.write_file(&path).unwrap();
    path
}

/// Checks that one stage and two, alone and in a batch beside a chat, with and without prefix-cache hits, give the same
/// vectors. Returns them.
fn check(model: &Path) -> Vec<String> {
    let inputs = inputs();
    let flags = ["--kv-tokens", "16384"];
    let one = Cluster::of_model(model, 1, &flags, &[]);
    let alone: Vec<String> = inputs.iter().flat_map(|input| embed(&one, std::slice::from_ref(input))).collect();
    assert_eq!(embed(&one, &inputs), alone, "in one request, after prefix-cache hits");
    drop(one);
    let two = Cluster::of_model(model, 2, &flags, &[]);
    let chat = json!({"messages": [{"role": "user", "content": "Count to fifty."}], "max_tokens": 60});
    let (these, those) = inputs.split_at(inputs.len() / 2);
    std::thread::scope(|scope| {
        let chat = scope.spawn(|| assert_eq!(two.post("/v1/chat/completions", &chat).status, 200));
        let first = scope.spawn(|| embed(&two, these));
        assert_eq!(embed(&two, those), alone[these.len()..], "on two stages beside other requests");
        assert_eq!(first.join().unwrap(), alone[..these.len()], "on two stages beside other requests");
        chat.join().unwrap();
    });
    assert_eq!(embed(&two, &inputs), alone, "on two stages after prefix-cache hits");
    alone
}

#[test]
fn embeddings_have_the_same_bits_for_every_cut_batch_and_chunk() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let by_last = check(&model_path());
    let by_mean = check(&pooled(folder.path(), MEAN));
    assert!(by_last.iter().zip(&by_mean).all(|(last, mean)| last != mean), "the mean is that of one token");
}

#[test]
fn vectors_have_the_length_1_and_ranking_and_other_poolings_are_refused() {
    let cluster = Cluster::start(1, &[], &[]);
    let ask = |body: Value| cluster.post("/v1/embeddings", &body);
    let answer =
        ask(json!({"input": ["The cat sat on the mat.", "A cat was sitting on a mat.", "Tax law of 1974"]})).json();
    let vectors: Vec<Vec<f64>> = answer["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| serde_json::from_value(entry["embedding"].clone()).unwrap())
        .collect();
    let dot = |one: &[f64], other: &[f64]| -> f64 { one.iter().zip(other).map(|(one, other)| one * other).sum() };
    for vector in &vectors {
        assert_eq!(vector.len(), DIMENSIONS);
        assert!((dot(vector, vector) - 1.0).abs() < 1e-5);
    }
    let (alike, unlike) = (dot(&vectors[0], &vectors[1]), dot(&vectors[0], &vectors[2]));
    assert!(alike > unlike, "texts of one meaning are at {alike}, others at {unlike}");
    let cut = ask(json!({"input": "The cat sat on the mat.", "dimensions": 64})).json();
    let cut: Vec<f64> = serde_json::from_value(cut["data"][0]["embedding"].clone()).unwrap();
    assert_eq!(cut.len(), 64);
    assert!((dot(&cut, &cut) - 1.0).abs() < 1e-5);
    assert!((dot(&cut, &vectors[0][..64]) / dot(&vectors[0][..64], &vectors[0][..64]).sqrt() - 1.0).abs() < 1e-5);
    assert_eq!(ask(json!({"input": "x", "dimensions": DIMENSIONS + 1})).status, 400);
    let answer = cluster.post("/v1/rerank", &json!({"query": "cats", "documents": ["a cat"]}));
    assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!("model")));
    let ended = cluster.get("/metrics").body;
    assert!(ended.contains("baton_sequences_ended_total{outcome=\"embedded\"} 4"), "{ended}");
    drop(cluster);

    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let cluster = Cluster::of_model(&pooled(folder.path(), 4), 1, &[], &[]);
    let answer = cluster.post("/v1/embeddings", &json!({"input": "x"}));
    assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!("model")), "{}", answer.body);
}
