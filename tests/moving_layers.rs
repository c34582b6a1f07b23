//! Layers move between two machines of which each has only its own on disk, while the machine that shares the cluster
//! gives no layers to anybody: they come from the one that held them, before they are handed over, and a running stream
//! goes on with the same tokens. Three machines on a network of namespaces, and a relay that tells what is asked of the
//! first. Needs root, etcdctl and `etc/prepare netns`; the test reports that it is skipped if they are missing.
#![cfg(all(target_os = "linux", feature = "tls"))]

mod common;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::home::Home;
use common::http::GatewayClient;
use common::line_process::LineProcess;
use common::network::{Network, Rule, report_skipped};
use common::relay::Relay;
use common::{model_path, wait_for};
use schema::LayerRange;
use serde_json::{Value, json};
use stages::weights::ModelFile;

const WAIT_MAX: Duration = Duration::from_secs(60);
/// Time for which the fetch is held. The stream goes on meanwhile.
const HELD: Duration = Duration::from_secs(3);
/// Tokens that come meanwhile at least: a few a second.
const TOKENS_WHILE_HELD: f64 = 10.0;
/// The stages of the machines, and the layers of the model.
const STAGES: [&str; 3] = ["first", "second", "third"];
const LAYERS: u32 = 30;
/// Bytes that are checked together. A machine gives them if it has all of them.
const CHUNK_BYTES: u64 = 1 << 20;
/// The state of a stage that has taken its layers over.
const SERVING: &str = "serving";
const TOKENS: u32 = 1800;
const PROMPT: [u32; 6] = [504, 4149, 282, 3575, 314, 3030];
/// The store of the first machine, on its loopback.
const STORE: &str = "127.0.0.1:2390";

/// Machines, each with a home.
struct Machines {
    network: Network,
    homes: [Home; 3],
}

/// The layers that two machines have after a move from one to the other.
struct Move {
    giver: usize,
    keeps: LayerRange,
    taker: usize,
    takes: LayerRange,
}

// === impl Machines ===

impl Machines {
    fn command(&self, at: usize, program: &str, words: &[&str]) -> Command {
        let mut command = self.network.command(at, program);
        self.homes[at].settle(&mut command).args(words);
        command
    }

    fn baton(&self, at: usize, words: &[&str]) -> LineProcess {
        LineProcess::spawn(self.command(at, env!("CARGO_BIN_EXE_baton"), words))
    }

    /// Runs etcdctl on the first machine, with `input`, and returns what it prints.
    fn etcdctl(&self, words: &[&str], input: &str) -> String {
        let mut command = self.command(0, "etcdctl", &["--endpoints", STORE]);
        command.env("ETCDCTL_API", "3").args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success(), "etcdctl {words:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The port at which a stage serves its layers.
    fn layers_port(&self, stage: &str) -> u16 {
        let record = self.etcdctl(&["get", &format!("/baton/v1/home/stages/{stage}"), "--print-value-only"], "");
        let record: Value = serde_json::from_str(&record).unwrap();
        let endpoint = record["layers_endpoint"].as_str().unwrap_or_else(|| panic!("no port for layers: {record}"));
        endpoint.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// Pins the layers of two stages with one write.
    fn pin(&self, pins: [(&str, LayerRange); 2]) {
        let put = |(stage, layers): (&str, LayerRange)| {
            // etcdctl reads a word in quotes as Go does.
            format!("put /baton/v1/home/pins/{stage} {:?}\n", json!({ "layers": layers }).to_string())
        };
        // No compares, two writes, and none otherwise.
        self.etcdctl(&["txn"], &format!("\n{}\n\n", pins.map(put).concat()));
    }
}

// === impl Move ===

impl Move {
    /// From the one of two machines that holds the first or the last layers. It keeps those at the end, and the other
    /// takes as many beside them as come whole from there. The first machine takes the rest.
    fn between(file: &ModelFile, machines: [(usize, LayerRange); 2]) -> Self {
        let [(one, of_one), (other, of_other)] = machines;
        let is_at_an_end = |layers: LayerRange| layers.start() == 0 || layers.end() == LAYERS;
        let (giver, held, taker) = if is_at_an_end(of_one) { (one, of_one, other) } else { (other, of_other, one) };
        let cuts =
            (held.start() + 1..held.end()).flat_map(|start| (start + 1..held.end()).map(move |end| (start, end)));
        let ranges = cuts.filter_map(|(start, end)| LayerRange::new(start, end));
        let takes = ranges.filter(|takes| come_whole(file, *takes, held)).max_by_key(|takes| takes.count());
        let takes = takes.unwrap_or_else(|| panic!("of layers {held}, none come whole"));
        let keeps = if held.start() == 0 { (0, takes.start()) } else { (takes.end(), LAYERS) };
        Self { giver, keeps: LayerRange::new(keeps.0, keeps.1).unwrap(), taker, takes }
    }
}

/// True if a machine that has the layers `held` has all of each chunk in which those of `takes` lie.
fn come_whole(file: &ModelFile, takes: LayerRange, held: LayerRange) -> bool {
    let [takes, held] = [takes, held].map(|layers| file.bytes_of(layers).unwrap()[0].clone());
    takes.iter().all(|range| {
        let whole = range.start / CHUNK_BYTES * CHUNK_BYTES..range.end.div_ceil(CHUNK_BYTES) * CHUNK_BYTES;
        held.iter().any(|held| held.start <= whole.start && whole.end <= held.end)
    })
}

/// The layers that a stage has in the newest placement, and its state there.
fn layers_of(client: &GatewayClient, stage: &str) -> (LayerRange, String) {
    let stages = client.stages();
    let found = stages.iter().find(|found| found["name"] == stage).expect("the stage is there");
    (serde_json::from_value(found["layers"].clone()).unwrap(), found["state"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn layers_that_move_come_from_the_machine_that_held_them_before_the_hand_over() {
    let test = "layers_that_move_come_from_the_machine_that_held_them";
    if Command::new("etcdctl").arg("version").stdout(Stdio::null()).status().is_err() {
        return report_skipped(test, "there is no etcdctl: etc/prepare etcd");
    }
    let network = match Network::of(3) {
        Ok(network) => network,
        Err(why) => return report_skipped(test, &why),
    };
    let machines = Machines { network, homes: [Home::new(), Home::new(), Home::new()] };
    let model = machines.homes[0].0.path().join("own.gguf");
    std::fs::copy(model_path(), &model).unwrap();
    let file = ModelFile::open(&model).unwrap();
    let first = machines.network.address(0);
    let (share, http) = (format!("--share={first}:7946"), format!("{first}:8100"));
    let client = GatewayClient { http: http.parse().unwrap() };
    let up = ["up", model.to_str().unwrap(), &share, "--store-listen", STORE, "--listen", &http, "--insecure"];
    let stages = ["--stages=1", "--stages-min=3", "--threads=1", "--kv-tokens=4096", "--speculation=off"];
    let mut up = machines.baton(0, &[&up[..], &stages, &["--discovery=off"]].concat());
    let token = up.line("baton join").split_whitespace().last().unwrap().to_owned();
    let relay = Relay::start_at(&machines.network.hub(), format!("{first}:7946").parse().unwrap());
    let join = relay.address.to_string();
    let _joined = [1, 2].map(|at| machines.baton(at, &["join", &join, &token, "--threads=1", "--name", STAGES[at]]));
    up.line("ready after");
    let (undisturbed, _) = client.complete(&PROMPT, TOKENS);

    // --- One gives layers from the middle of its own to another, whose way to it is held. The first gives none.
    relay.cut_layers();
    let Move { giver, keeps, taker, takes } =
        Move::between(&file, [1, 2].map(|at| (at, layers_of(&client, STAGES[at]).0)));
    machines.network.set(taker, Rule::DropPort(machines.layers_port(STAGES[giver])));
    let (mapped, passed) = (machines.homes[taker].mapped(), relay.passed_layers());
    let is_at = |at: usize, layers: LayerRange| layers_of(&client, STAGES[at]).0 == layers;
    std::thread::scope(|scope| {
        let running = scope.spawn(|| client.complete(&PROMPT, TOKENS));
        let tokens = || client.metric("baton_generated_tokens_total");
        let begun = tokens();
        wait_for("a stream that runs", WAIT_MAX, || tokens() > begun);
        machines.pin([(STAGES[giver], keeps), (STAGES[taker], takes)]);
        wait_for("the new placement", WAIT_MAX, || is_at(taker, takes));

        // --- Nobody takes over before all is there, and the stream goes on.
        let at_hold = tokens();
        std::thread::sleep(HELD);
        let came = tokens() - at_hold;
        let states = [giver, taker].map(|at| layers_of(&client, STAGES[at]).1);
        assert!(came >= TOKENS_WHILE_HELD, "{came} tokens in {HELD:?} while layers were fetched: {states:?}");
        assert!(states.iter().all(|state| state != SERVING), "handed over too soon: {states:?}");
        assert_eq!(machines.homes[taker].mapped(), mapped, "something came in spite of the hold");
        machines.network.heal(taker);
        let serves = |at: usize| layers_of(&client, STAGES[at]).1 == SERVING;
        let took = wait_for("the hand-over", WAIT_MAX, || serves(giver) && serves(taker));

        let (tokens, answer) = running.join().unwrap();
        assert_eq!(tokens, undisturbed, "other tokens than without the move");
        assert!(answer["timings"]["attempts"].as_u64().unwrap() > 1, "too late: {}", answer["timings"]);
        let fetched = machines.homes[taker].mapped() - mapped;
        println!("layers {takes}: {fetched} bytes, handed over {took:?} after a hold of {HELD:?} with {came} tokens");
        assert!(fetched > 0);
    });
    assert_eq!(relay.passed_layers(), passed, "the first machine gave layers");
    assert_eq!(client.complete(&PROMPT, 8).0, undisturbed[..8]);
}
