//! The samples of `/metrics` after known requests through real stages, read by a strict parser of Prometheus' text
//! format.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use common::cluster::Cluster;
use serde_json::{Value, json};

/// Sample values by name and labels, as written on the page.
type Samples = HashMap<String, f64>;

/// Parses a page. The test fails on any deviation from the format.
fn parse(page: &str) -> Samples {
    let mut samples = Samples::new();
    let (mut helped, mut kinds) = (String::new(), BTreeMap::new());
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split(' ').next().unwrap().to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, helped, "a type without help");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} comes twice");
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
            let name = sample.split('{').next().unwrap();
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let family =
                family.filter(|family| kinds.get(*family).is_some_and(|kind| kind == "histogram")).unwrap_or(name);
            assert_eq!(family, helped, "{line} does not stand below its help");
            assert!(name.starts_with("baton_") && (kinds[family] != "counter" || name.ends_with("_total")), "{line}");
            assert!(!sample.contains('{') || sample.ends_with('}'), "{line}");
            let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            assert!(samples.insert(sample.to_owned(), value).is_none(), "{sample} comes twice");
        }
    }
    for (name, _) in kinds.iter().filter(|(_, kind)| *kind == "histogram") {
        let all = samples[&format!("{name}_bucket{{le=\"+Inf\"}}")];
        assert_eq!(all, samples[&format!("{name}_count")], "{name}");
    }
    samples
}

fn sum(answers: &[Value], pointer: &str) -> f64 {
    answers.iter().map(|answer| answer.pointer(pointer).and_then(Value::as_f64).expect("a number")).sum()
}

#[test]
fn requests_and_work_are_counted() {
    let cluster = Cluster::start(2, &["--speculation", "off"], &[]);
    let prompt: Vec<u32> = (0..100).map(|at| 1000 + 7 * at).collect();
    let ask = |tokens: u32| {
        let body = json!({"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": true});
        cluster.post("/v1/completions", &body).json()
    };
    let answers = [ask(9), ask(5), ask(1)];
    let long: Vec<u32> = vec![1000; 9000];
    for body in [json!({"prompt": long}), json!({"prompt": [[1, 2, 3], long]})] {
        assert_eq!(cluster.post("/v1/completions", &body).status, 400);
    }

    let started = Instant::now();
    // Gauges are updated ten times per second. Stages report every two seconds the work that they did and, once it was
    // sampled, the memory that they use.
    let samples = loop {
        let page = cluster.get("/metrics");
        assert_eq!(page.status, 200);
        let samples = parse(&page.body);
        let reported = ["baton_stage_process_rows", "baton_stage_weights_resident_bytes"];
        let is_reported = |name: &str| {
            samples.iter().filter(|(sample, value)| sample.starts_with(name) && **value > 0.0).count() == 2
        };
        if samples["baton_sequences_running"] == 0.0 && reported.into_iter().all(is_reported) {
            break samples;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{samples:?}");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(samples["baton_prompt_tokens_total"], 300.0);
    assert_eq!(samples["baton_cached_tokens_total"], sum(&answers, "/usage/prompt_tokens_details/cached_tokens"));
    assert_eq!(samples["baton_cached_tokens_total"], 2.0 * 96.0, "three whole blocks of a hundred tokens are cached");
    assert_eq!(samples["baton_generated_tokens_total"], 15.0);
    assert_eq!(samples["baton_sequences_ended_total{outcome=\"length\"}"], 3.0);
    assert_eq!(
        samples["baton_sequences_rejected_total{reason=\"too_long\"}"], 2.0,
        "the HTTP server counts its refusals"
    );
    assert_eq!(samples["baton_first_token_seconds_count"], 3.0);
    assert_eq!(samples["baton_inter_token_seconds_count"], 12.0);
    assert_eq!(samples["baton_queue_seconds_count"], 3.0);
    assert_eq!(samples["baton_batch_sequences_sum"], samples["baton_batch_seconds_count"], "each came back alone");
    for (slot, stage) in cluster.stages().iter().enumerate() {
        let (name, layers) = (stage["name"].as_str().unwrap(), &stage["layers"]);
        let key = format!("{{layers=\"{}..{}\",stage=\"{name}\"}}", layers[0], layers[1]);
        assert_eq!(
            samples[&format!("baton_stage_rows_total{key}")],
            sum(&answers, &format!("/timings/stages/{slot}/rows"))
        );
        assert!(samples[&format!("baton_stage_compute_seconds_total{key}")] > 0.0);
        assert!(samples[&format!("baton_stage_weights_resident_bytes{{stage=\"{name}\"}}")] > 1e6);
        let shares = ["busy", "idle_input", "idle_output"];
        let shares = shares.map(|share| samples[&format!("baton_stage_{share}_ratio{{stage=\"{name}\"}}")]);
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{shares:?}");
    }
    assert_eq!((samples["baton_kv_blocks_used"], samples["baton_batches_in_flight"]), (0.0, 0.0));
    assert_eq!((samples["baton_serving"], samples["baton_store_reachable"]), (1.0, 1.0));
}
