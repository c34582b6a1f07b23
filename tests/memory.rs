//! The memory of each stage process, as the operating system counts it. Linux only, because it reads /proc.
#![cfg(target_os = "linux")]

mod common;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use common::cluster::Cluster;
use common::golden::{Golden, answers, golden, numbers};
use common::wait_for;
use schema::LayerRange;
use schema::record::{KvRoom, KvType};
use stages::weights::ModelFile;

/// The sum of `field` in the `smaps` of a process over the mappings whose path `of` accepts, in bytes.
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

/// Bytes of anonymous memory, which no file backs: keys and values, scratch, and everything else of a process.
fn anonymous(pid: u32) -> u64 {
    smaps(pid, "Anonymous", |_| true)
}

/// The memory of some processes of one program, in bytes. Proportional sets would depend on whoever else maps the file.
#[derive(Default)]
struct Taken {
    /// Pages of the model file: those of each process, as no two stages have the same layers.
    model: u64,
    anonymous: u64,
    /// Pages of the program and its libraries, which all share: those of the process with most of them.
    program: u64,
}

// === impl Taken ===

impl Taken {
    /// Adds the process `pid`, which maps the model file `name`.
    fn add(&mut self, pid: u32, name: &str) {
        self.model += smaps(pid, "Rss", |path| path.ends_with(name));
        self.anonymous += anonymous(pid);
        self.program = self.program.max(smaps(pid, "Rss", |path| path.starts_with('/') && !path.ends_with(name)));
    }

    fn sum(&self) -> u64 {
        self.model + self.anonymous + self.program
    }
}

/// Waits until each stage has measured its speed for all formats of the model, so that no stage computes any more.
fn wait_for_rest(cluster: &Cluster) {
    let started = Instant::now();
    let measured = |stage: &serde_json::Value| ["Q4_1", "Q8_0"].iter().all(|format| stage["speed"][format].is_object());
    while !cluster.stages().iter().all(measured) {
        assert!(started.elapsed() < Duration::from_secs(60), "no speeds: {:?}", cluster.stages());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The memory of the stages of one cluster.
struct Seen {
    taken: Taken,
    /// The bound that each stage announces, in bytes, by its layers.
    bounds: HashMap<LayerRange, u64>,
}

/// Starts three stages that store keys and values as `kv_type`, and checks that each has its own layers and the memory
/// that they need in memory, and nothing else.
fn look(file: &ModelFile, golden: &[Golden], kv_type: KvType) -> Seen {
    const SLACK_BYTES: u64 = 2 << 20;
    /// Most memory of a process in addition to weights, keys and values, and scratch: the heap and stacks of the
    /// program.
    const OTHER_BYTES_MAX: u64 = 16 << 20;
    let record = file.record(KvRoom { tokens: 8192, kv_type }, 1).unwrap();
    let name = file.path().file_name().unwrap().to_string_lossy().into_owned();
    let cluster = Cluster::start(3, &["--kv-tokens", "8192", "--kv-type", kv_type.word()], &[]);
    wait_for_rest(&cluster);
    let fresh: Vec<u64> = cluster.stage_pids().into_iter().map(anonymous).collect();
    answers(&cluster, golden);
    // Each sequence has blocks of its own, because there are enough for all. A block that was never used takes no
    // memory.
    let used: u64 = golden.iter().map(|case| (case.prompt.len() as u64 + 64).next_multiple_of(32)).sum();
    assert!(used <= u64::from(record.kv_tokens), "{used} tokens do not fit at the same time");
    let mut seen = Seen { taken: Taken::default(), bounds: HashMap::new() };
    for stage in cluster.stages() {
        let pid = stage["pid"].as_u64().unwrap() as u32;
        let layers = numbers(&stage["layers"]);
        let range = LayerRange::new(layers[0], layers[1]).unwrap();
        let own = record.shard_bytes(range).weights;
        let resident = smaps(pid, "Rss", |path| path.ends_with(&name));
        println!("{kv_type}, layers {range}: own tensors {own}, resident of the model file {resident}");
        let slot = stage["slot"].as_u64().unwrap() as usize;
        let kv = |tokens: u64| record.kv_bytes_per_token_layer * u64::from(range.count()) * tokens;
        let announced = |field: &str| stage["memory"][field].as_u64().expect("a number");
        let scratch = announced("bound_bytes") - announced("weights_bytes") - kv(record.kv_tokens.into());
        let touched = anonymous(pid);
        let beyond = touched.saturating_sub(kv(used) + scratch);
        println!(
            "  anonymous {touched}, of it keys and values at most {}, scratch at most {scratch}, other at least \
             {beyond}; {} before any request",
            kv(used),
            fresh[slot]
        );
        assert!(beyond <= OTHER_BYTES_MAX, "layers {range}: {beyond} bytes are neither keys and values nor scratch");
        // Before the first request there are no keys and values to subtract.
        let fresh = fresh[slot].saturating_sub(scratch);
        assert!(fresh <= OTHER_BYTES_MAX, "layers {range}: {fresh} bytes before any request");
        assert!(resident > own / 2, "layers {range} are not even mapped: is the file another one?");
        assert!(resident <= own + SLACK_BYTES, "layers {range}: {resident} bytes of the model file, its own are {own}");
        // A stage measures itself now and then, the last time perhaps before it had mapped its layers.
        wait_for(&format!("{own} bytes reported as resident, layers {range}"), Duration::from_secs(20), || {
            let stages = cluster.stages();
            let stage = stages.iter().find(|stage| stage["pid"] == pid).expect("the same process");
            let reported = stage["memory"]["used"]["weights_resident_bytes"].as_u64().expect("a number");
            (own..=own + SLACK_BYTES).contains(&reported)
        });
        seen.taken.add(pid, &name);
        seen.bounds.insert(range, announced("bound_bytes"));
    }
    seen
}

#[test]
fn each_stage_has_only_its_own_layers_in_memory() {
    let golden = golden();
    let path = common::model_path();
    let file = ModelFile::open(&path).unwrap();
    let one = {
        let cluster = Cluster::start(1, &[], &[]);
        wait_for_rest(&cluster);
        answers(&cluster, &golden);
        let mut taken = Taken::default();
        taken.add(cluster.stage_pids()[0], &path.file_name().unwrap().to_string_lossy());
        taken.sum()
    };
    let half = look(&file, &golden, KvType::F16);
    let three = half.taken.sum();
    println!("three stages {three}, one stage {one}: {:.3}", three as f64 / one as f64);
    assert!(three as f64 <= 1.15 * one as f64, "three stages take {three} bytes together, one takes {one}");

    let eight = look(&file, &golden, KvType::Q8);
    let record = file.record(KvRoom { tokens: 8192, kv_type: KvType::F16 }, 1).unwrap();
    for (layers, bound) in &half.bounds {
        let saved = record.shard_bytes(*layers).kv * (64 - 34) / 64;
        assert_eq!(eight.bounds.get(layers), Some(&(bound - saved)), "layers {layers}: 34 bytes in the place of 64");
    }
}
