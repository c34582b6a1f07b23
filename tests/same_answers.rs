//! An answer must not depend on other requests in the batch, the division of the prompt into micro-batches,
//! prefix-cache hits, lost blocks, or speculative tokens. The tests run the real model in real processes. They compare
//! tokens, and their log-probabilities to the last bit.

mod common;

use common::cluster::Cluster;
use common::golden::golden;
use serde_json::{Value, json};

/// Tokens of an answer.
const TOKENS: usize = 48;
/// Most rounds of concurrent requests. At least one of them must lose blocks.
const ROUNDS_MAX: u32 = 5;

/// Sixteen requests, every other one seeded instead of greedy. Their prompts have 40 to 600 tokens.
fn requests() -> Vec<Value> {
    let golden = golden();
    let prompt = |index: usize| -> Vec<u32> {
        let texts = golden.iter().cycle().skip(index).take(1 + index % 5);
        texts.flat_map(|case| [&case.prompt[..], &case.tokens[..24]].concat()).collect()
    };
    let request = |index: usize| {
        json!({
            "prompt": prompt(index), "max_tokens": TOKENS, "ignore_eos": true, "logprobs": 0,
            "temperature": if index.is_multiple_of(2) { 0.0 } else { 0.9 }, "seed": index,
        })
    };
    (0..16).map(request).collect()
}

/// The part of an answer that must be the same: tokens and log-probabilities.
fn logprobs(answer: &Value) -> &Value {
    &answer["choices"][0]["logprobs"]
}

fn ask(cluster: &Cluster, request: &Value) -> Value {
    let answer = cluster.post("/v1/completions", request);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json();
    assert_eq!(logprobs(&answer)["token_logprobs"].as_array().unwrap().len(), TOKENS);
    answer
}

/// Sends the requests one after the other.
fn alone(cluster: &Cluster, requests: &[Value]) -> Vec<Value> {
    requests.iter().map(|request| ask(cluster, request)).collect()
}

/// Sends all requests at once.
fn together(cluster: &Cluster, requests: &[Value]) -> Vec<Value> {
    std::thread::scope(|scope| {
        let running: Vec<_> = requests.iter().map(|request| scope.spawn(move || ask(cluster, request))).collect();
        running.into_iter().map(|answer| answer.join().unwrap()).collect()
    })
}

fn assert_same(these: &[Value], those: &[Value], how: &str) {
    for (index, (these, those)) in these.iter().zip(those).enumerate() {
        assert_eq!(logprobs(these), logprobs(those), "request {index} {how}");
    }
}

fn sum(answers: &[Value], pointer: &str) -> u64 {
    answers.iter().map(|answer| answer.pointer(pointer).and_then(Value::as_u64).expect("a number")).sum()
}

const CACHED: &str = "/usage/prompt_tokens_details/cached_tokens";
const ATTEMPTS: &str = "/timings/attempts";
const ROWS: &str = "/timings/stages/0/rows";

#[test]
fn an_answer_does_not_depend_on_batch_prefix_cache_or_eviction() {
    let requests = requests();
    let plain = ["--speculation", "off", "--kv-tokens", "16384"];
    let reference = alone(&Cluster::start(1, &plain, &[]), &requests);
    assert_eq!(sum(&reference, ATTEMPTS), 16, "the reference was disturbed");

    let cluster = Cluster::start(2, &plain, &[]);
    let batched = together(&cluster, &requests);
    assert_same(&batched, &reference, "in a batch of sixteen");
    let again = together(&cluster, &requests);
    assert!(sum(&again, CACHED) > sum(&batched, CACHED) + 500, "there were no prefix-cache hits the second time");
    assert_same(&again, &reference, "after prefix-cache hits");
    drop(cluster);

    // There is room for two of the longest requests. The others lose their blocks again and again, or wait.
    let cluster = Cluster::start(2, &["--speculation", "off", "--kv-tokens", "1024"], &[]);
    // The order in which sixteen clients arrive is random, and in some orders all find room in turn.
    let loses_blocks = |_| {
        let contended = together(&cluster, &requests);
        assert_same(&contended, &reference, "after losing its blocks");
        sum(&contended, ATTEMPTS) > 16
    };
    assert!((0..ROUNDS_MAX).any(loses_blocks), "no sequence lost blocks");
}

#[test]
fn speculative_tokens_change_no_answer() {
    let phrase: Vec<u32> = golden()[3].prompt.iter().copied().take(20).collect();
    let repeated = |index: u32| [&phrase[..], &[1000 + index], &phrase, &[1000 + index], &phrase].concat();
    let request = |index: u32| {
        json!({
            "prompt": repeated(index), "max_tokens": TOKENS, "ignore_eos": true, "logprobs": 0,
            "temperature": if index.is_multiple_of(2) { 0.0 } else { 0.7 }, "seed": index,
        })
    };
    let requests: Vec<_> = (0..8).map(request).collect();
    let without = alone(&Cluster::start(2, &["--speculation", "off"], &[]), &requests);
    let with = alone(&Cluster::start(2, &["--speculation", "on"], &[]), &requests);
    assert_same(&with, &without, "with speculative tokens");
    // Each speculative token is a row in addition to those that the tokens need. Both clusters compute the first block
    // of a fresh prompt.
    assert!(sum(&with, ROWS) > sum(&without, ROWS), "no speculative tokens were sent");
}

/// Twelve requests whose tokens depend on their rules: penalties, biases, forbidden words, scored prompts, filters.
fn requests_with_rules() -> Vec<Value> {
    let golden = golden();
    let request = |index: usize| {
        let prompt: Vec<u32> = [&golden[index % golden.len()].prompt[..], &golden[3].prompt].concat();
        let mut request = json!({
            "prompt": prompt, "max_tokens": TOKENS, "ignore_eos": true, "logprobs": 5, "seed": index,
            "temperature": if index.is_multiple_of(2) { 0.0 } else { 0.9 },
        });
        let rules = match index % 4 {
            0 => json!({"presence_penalty": 0.5, "frequency_penalty": 0.25, "repetition_penalty": 1.1}),
            1 => json!({"echo": true, "repeat_penalty": 1.2, "repeat_last_n": 20, "top_n_sigma": 2.0}),
            2 => json!({"dry_multiplier": 0.8, "logit_bias": {"198": -100, " the": -3}, "min_tokens": 10}),
            _ => json!({"typical_p": 0.9, "xtc_probability": 0.5, "bad_words": ["is", "of the"], "top_k": 50}),
        };
        let rules = rules.as_object().expect("an object").clone();
        request.as_object_mut().expect("an object").extend(rules);
        request
    };
    (0..12).map(request).collect()
}

#[test]
fn rules_and_scores_are_the_same_for_every_cut_and_batch_and_with_speculative_tokens() {
    let requests = requests_with_rules();
    let ask_all = |cluster: &Cluster| -> Vec<Value> {
        std::thread::scope(|scope| {
            let ask = |request| move || cluster.post("/v1/completions", request).json();
            let running: Vec<_> = requests.iter().map(|request| scope.spawn(ask(request))).collect();
            running.into_iter().map(|answer| answer.join().unwrap()).collect()
        })
    };
    let one = Cluster::start(1, &["--speculation", "off"], &[]);
    let reference: Vec<_> = requests.iter().map(|request| one.post("/v1/completions", request).json()).collect();
    drop(one);
    for (request, answer) in requests.iter().zip(&reference) {
        let echoed = if request["echo"] == true { request["prompt"].as_array().unwrap().len() } else { 0 };
        let found = logprobs(answer)["top_logprobs"].as_array().unwrap_or_else(|| panic!("{answer}")).len();
        assert_eq!(found, TOKENS + echoed, "{answer}");
    }
    let plain = json!({"prompt": requests[0]["prompt"], "max_tokens": TOKENS, "ignore_eos": true, "temperature": 0});
    let cluster = Cluster::start(2, &["--speculation", "on"], &[]);
    let plain = cluster.post("/v1/completions", &plain).json();
    assert_ne!(plain["choices"][0]["text"], reference[0]["choices"][0]["text"], "the penalties changed nothing");
    assert_same(&ask_all(&cluster), &reference, "on two stages, in a batch, with speculative tokens");
    assert_same(&ask_all(&cluster), &reference, "after prefix-cache hits");
    drop(cluster);
    let cluster = Cluster::start(2, &["--speculation", "on"], &[]);
    let alone: Vec<_> = requests.iter().map(|request| cluster.post("/v1/completions", request).json()).collect();
    assert_same(&alone, &reference, "one after the other");
}
