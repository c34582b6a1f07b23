//! The main job with the real model, real processes and real sockets: the answers of any number of stages against one
//! another and against llama.cpp's, what each process has in its memory, and how it all ends.

mod common;

use std::time::{Duration, Instant};

use common::cluster::{Cluster, alive};
use gateway::text::{Tokenizer, Vocabulary};
use serde_json::Value;
use stages::weights::ModelFile;

/// llama.cpp's greedy continuation of one prompt.
struct Golden {
    name: String,
    prompt: Vec<u32>,
    tokens: Vec<u32>,
    /// By how much each token's logit was above the runner-up's.
    gaps: Vec<f64>,
    runners_up: Vec<u32>,
}

/// Where the two likeliest tokens are closer than this in llama.cpp's own logits, rounding decides between them: both
/// sides quantise activations to 8 bits, in blocks of different lengths and scales of different precision.
const ROUNDING: f64 = 0.25;

fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as u32).collect()
}

fn golden() -> Vec<Golden> {
    let file: Value = serde_json::from_str(include_str!("data/smollm2_greedy.json")).unwrap();
    let case = |case: &Value| Golden {
        name: case["name"].as_str().unwrap().to_owned(),
        prompt: numbers(&case["ids"]),
        tokens: numbers(&case["tokens"]),
        gaps: case["gaps"].as_array().unwrap().iter().map(|gap| gap.as_f64().unwrap()).collect(),
        runners_up: numbers(&case["runners_up"]),
    };
    file["cases"].as_array().unwrap().iter().map(case).collect()
}

fn tokenizer() -> Tokenizer {
    let file = ModelFile::open(&common::model_path()).unwrap();
    Tokenizer::new(&Vocabulary::from_metadata(&file.vocabulary_header().unwrap().metadata).unwrap()).unwrap()
}

/// The ids that follow each prompt, all prompts at once.
fn answers(cluster: &Cluster, golden: &[Golden]) -> Vec<Vec<u32>> {
    std::thread::scope(|scope| {
        let ask = |case| scope.spawn(move || cluster.complete(case, 64).0);
        let running: Vec<_> = golden.iter().map(|case| ask(&case.prompt)).collect();
        running.into_iter().map(|answer| answer.join().unwrap()).collect()
    })
}

#[test]
fn any_number_of_stages_answers_as_one_does_and_as_llama_cpp_does() {
    let golden = golden();
    assert_eq!(golden.len(), 20);
    let one = answers(&Cluster::start(1, &[], &[]), &golden);
    for stages in [2, 3, 5, 7, 30] {
        let cluster = Cluster::start(stages, &[], &[]);
        assert_eq!(cluster.stages().len(), stages as usize);
        let these = answers(&cluster, &golden);
        for (case, (these, one)) in golden.iter().zip(these.iter().zip(&one)) {
            assert_eq!(these, one, "{} with {stages} stages", case.name);
        }
    }
    let tokenizer = tokenizer();
    let piece = |id: u32| String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned();
    let mut same = 0;
    for (case, ours) in golden.iter().zip(&one) {
        assert_eq!(ours.len(), 64, "{}", case.name);
        let Some(at) = (0..64).find(|at| ours[*at] != case.tokens[*at]) else {
            same += 1;
            continue;
        };
        let (ours, theirs, gap) = (ours[at], case.tokens[at], case.gaps[at]);
        println!("{}: token {at} is {:?}, llama.cpp's {:?}, gap {gap}", case.name, piece(ours), piece(theirs));
        assert!(gap < ROUNDING, "{}: token {at} differs where llama.cpp is sure by {gap}", case.name);
        assert_eq!(ours, case.runners_up[at], "{}: token {at} is not even the runner-up", case.name);
    }
    println!("{same} of 20 continuations are llama.cpp's for all 64 tokens");
}

/// The `smaps` of a process, summed over the mappings `of` accepts (by path), field by field, in bytes.
fn smaps(pid: u32, field: &str, of: impl Fn(&str) -> bool) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut counted = false;
    let mut sum = 0;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if first.contains('-') && !first.ends_with(':') {
            counted = of(line.split_whitespace().nth(5).unwrap_or_default());
        } else if counted && first.strip_suffix(':') == Some(field) {
            sum += words.next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024;
        }
    }
    sum
}

fn pss(pid: u32) -> u64 {
    smaps(pid, "Pss", |_| true)
}

#[test]
fn each_stage_has_only_its_own_layers_in_memory() {
    const SLACK_BYTES: u64 = 2 << 20;
    let golden = golden();
    let model = common::model_path();
    let file = ModelFile::open(&model).unwrap();
    let record = file.record(8192, 1).unwrap();
    let name = model.file_name().unwrap().to_string_lossy().into_owned();
    let one = {
        let cluster = Cluster::start(1, &[], &[]);
        answers(&cluster, &golden);
        pss(cluster.stage_pids()[0])
    };
    let cluster = Cluster::start(3, &[], &[]);
    answers(&cluster, &golden);
    let mut sum = 0;
    for stage in cluster.stages() {
        let pid = stage["pid"].as_u64().unwrap() as u32;
        let layers = numbers(&stage["layers"]);
        let range = schema::LayerRange::new(layers[0], layers[1]).unwrap();
        let own = record.shard_bytes(range).weights;
        let resident = smaps(pid, "Rss", |path| path.ends_with(&name));
        let files = smaps(pid, "Pss", |path| path.starts_with('/'));
        let all = pss(pid);
        println!(
            "layers {range}: own tensors {own}, resident of the model file {resident}, proportional set {all}: \
             files {files}, anonymous {}",
            all - files
        );
        assert!(resident > own / 2, "layers {range} are not even mapped: is the file another one?");
        assert!(resident <= own + SLACK_BYTES, "layers {range}: {resident} bytes of the model file, its own are {own}");
        sum += all;
    }
    println!("three stages {sum}, one stage {one}: {:.3}", sum as f64 / one as f64);
    assert!(sum as f64 <= 1.15 * one as f64, "three stages take {sum} bytes together, one takes {one}");
}

#[test]
fn an_interrupt_ends_everything_in_two_seconds_and_leaves_nothing() {
    let mut cluster = Cluster::start(3, &[], &[]);
    let stages = cluster.stage_pids();
    assert!(stages.iter().all(|pid| alive(*pid)));
    let http = cluster.http;
    let running = std::thread::spawn(move || {
        let body = r#"{"prompt": "Once upon a time", "max_tokens": 4000, "ignore_eos": true}"#;
        common::http::request(http, "POST", "/v1/completions", body)
    });
    std::thread::sleep(Duration::from_millis(300));
    let took = cluster.interrupt();
    assert!(took < Duration::from_secs(2), "it took {took:?}");
    assert!(!stages.iter().any(|pid| alive(*pid)), "a stage outlived its parent");
    assert!(cluster.leftovers().is_empty(), "left behind: {:?}", cluster.leftovers());
    // The request that ran got a definite end: an answer that says so, or a closed connection.
    if let Ok(answer) = running.join().unwrap() {
        assert!(answer.status != 200 || answer.body.contains("finish_reason"), "{answer:?}");
    }
}

#[test]
fn stages_whose_parent_is_killed_end_by_themselves() {
    let cluster = Cluster::start(2, &[], &[]);
    let stages = cluster.stage_pids();
    common::cluster::signal(cluster.pid(), "KILL");
    let killed = Instant::now();
    while stages.iter().any(|pid| alive(*pid)) {
        assert!(killed.elapsed() < Duration::from_secs(10), "a stage outlived its parent");
        std::thread::sleep(Duration::from_millis(20));
    }
}
