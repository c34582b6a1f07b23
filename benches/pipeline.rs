//! Decode and prefill speed of the default model in 1, 2 and 3 stage processes, through HTTP, one request at a time.
//!
//! `cargo bench --bench pipeline`. All configurations do the same work in one run, so the rows can be compared. Each
//! figure is the median of several requests. There are two threads in total for one and two stages, and three for
//! three.

#[path = "../tests/common/mod.rs"]
mod common;

use common::cluster::Cluster;
use serde_json::{Value, json};

const ROUNDS: usize = 7;
const PROMPT_TOKENS: u32 = 512;
const DECODED_TOKENS: u32 = 128;

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn run(cluster: &Cluster, prompt: &[u32], tokens: u32) -> Value {
    let body = json!({"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": true});
    let answer = cluster.post("/v1/completions", &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

fn main() {
    println!("stages  threads  prefill {PROMPT_TOKENS} tok/s  decode {DECODED_TOKENS} tok/s  outside compute");
    for (stages, threads) in [(1, 2), (2, 1), (3, 1)] {
        let threads_text = u32::to_string(&threads);
        let cluster = Cluster::start(stages, &["--threads", &threads_text], &[]);
        let prompt =
            |round: usize| (0..PROMPT_TOKENS).map(|at| 1000 + (at * 7 + round as u32) % 4000).collect::<Vec<u32>>();
        run(&cluster, &prompt(0), 8); // Warms up.
        let prefills =
            (0..ROUNDS).map(|round| run(&cluster, &prompt(round), 1)["timings"]["prompt_per_second"].as_f64());
        let prefill = median(prefills.map(Option::unwrap_or_default).collect());
        let (mut decodes, mut outside) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let timings = run(&cluster, &prompt(round)[..16], DECODED_TOKENS)["timings"].clone();
            decodes.push(timings["predicted_per_second"].as_f64().unwrap_or_default());
            let all = timings["prompt_ms"].as_f64().unwrap_or_default()
                + timings["predicted_ms"].as_f64().unwrap_or_default();
            let stages = timings["stages"].as_array().cloned().unwrap_or_default();
            let compute: f64 = stages.iter().filter_map(|stage| stage["compute_ms"].as_f64()).sum();
            outside.push(1.0 - compute / all);
        }
        let (decode, outside) = (median(decodes), 100.0 * median(outside));
        println!("{stages:6}  {threads:7}  {prefill:17.1}  {decode:16.1}  {outside:13.1} %");
    }
}
