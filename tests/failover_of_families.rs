//! `kill -9` of a stage in the middle of a streamed answer, with a mixture of experts, with latent attention and with
//! windows. The stream ends with the bytes that it has undisturbed.
//!
//! The models are the golden ones of `stages/tests/data`, with random weights, and a vocabulary of single bytes.

#[path = "common/mod.rs"]
mod common;
#[path = "../stages/tests/runner_support/conversion/mod.rs"]
#[allow(dead_code, reason = "this test uses a part")]
mod conversion;
#[path = "../stages/tests/runner_support/golden.rs"]
#[allow(dead_code, reason = "this test uses a part")]
mod golden;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::byte_vocabulary::byte_vocabulary;
use common::cluster::{Cluster, signal};
use common::wait_for;
use golden::Golden;
use serde_json::{Value, json};

const STAGES: u32 = 3;
/// Tokens of an answer, so many that the kill comes before its end.
const TOKENS: u32 = 400;
/// The same on the simulator, where a token takes tens of milliseconds.
const SIMULATED_TOKENS: u32 = 80;
/// Events of a stream before the kill.
const BEFORE_THE_KILL: usize = 20;
/// Longest wait until the cluster is complete again.
const RECOVERY_WAIT_MAX: Duration = Duration::from_secs(30);

/// An answer's text and tokens.
type Answer = (String, Vec<Value>);

/// The streamed answer of `tokens` tokens to the token ids `prompt`: its text, its tokens with their logarithms of
/// probabilities, however events divide them, and the number of attempts. `at_event` is called with each event's number
/// before the next one is read.
fn ask(http: SocketAddr, prompt: &[u32], tokens: u32, at_event: impl FnMut(usize)) -> (Answer, u64) {
    let (answer, attempts) = answer(&stream(http, prompt, tokens, at_event));
    assert_eq!(answer.1.len(), tokens as usize);
    (answer, attempts)
}

/// The data of the events of a streamed answer.
fn stream(http: SocketAddr, prompt: &[u32], tokens: u32, mut at_event: impl FnMut(usize)) -> Vec<Value> {
    let body = json!({
        "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": true, "logprobs": 0, "stream": true,
    })
    .to_string();
    let mut socket = TcpStream::connect(http).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let length = body.len();
    write!(
        socket,
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut events = Vec::new();
    for line in BufReader::new(socket).lines() {
        let line = line.unwrap();
        let Some(data) = line.strip_prefix("data: ") else { continue };
        if data == "[DONE]" {
            return events;
        }
        events.push(serde_json::from_str(data).unwrap());
        at_event(events.len());
    }
    panic!("the stream ends without its end: {:?}", events.last());
}

fn answer(events: &[Value]) -> (Answer, u64) {
    let choices = || events.iter().filter_map(|event| event["choices"].get(0));
    let text = choices().filter_map(|choice| choice["text"].as_str()).collect();
    let list = |key: &str| {
        let lists = choices().filter_map(|choice| choice["logprobs"][key].as_array());
        lists.flatten().cloned().collect::<Vec<_>>()
    };
    let (ids, logprobs) = (list("token_ids"), list("token_logprobs"));
    assert_eq!(ids.len(), logprobs.len());
    let tokens = ids.into_iter().zip(logprobs).map(|(id, logprob)| json!([id, logprob])).collect();
    let attempts = events.iter().filter_map(|event| event["timings"]["attempts"].as_u64()).max();
    ((text, tokens), attempts.expect("the last event has timings"))
}

/// The process of one of the stages that hold layers, once all that are left after `round` kills are at rest: those
/// that a small model has no layers for stand by.
fn stage_with_layers(cluster: &Cluster, round: usize) -> u32 {
    // A stage that was killed is listed for a while, without a process.
    let alive = || cluster.stages().into_iter().filter(|stage| stage["pid"].is_u64()).collect::<Vec<_>>();
    let at_rest = |stage: &Value| stage["state"] == "serving" || stage["state"] == "standby";
    let mut seen = Vec::new();
    let started = Instant::now();
    while seen.len() != STAGES as usize - round || !seen.iter().all(at_rest) {
        assert!(started.elapsed() < RECOVERY_WAIT_MAX, "stages after {round} kills: {seen:?}");
        std::thread::sleep(Duration::from_millis(20));
        seen = alive();
    }
    seen.retain(|stage| stage["state"] == "serving");
    seen.sort_by_key(|stage| stage["slot"].as_u64());
    seen[round % seen.len()]["pid"].as_u64().expect("a pid") as u32
}

/// A cluster that serves the golden model `name`, with room for `kv_tokens` tokens.
fn cluster_of(name: &str, folder: &Path, kv_tokens: &str) -> (Cluster, Golden) {
    cluster_on("cpu", STAGES, name, folder, kv_tokens)
}

/// The same in so many stages on `device`.
fn cluster_on(device: &str, stages: u32, name: &str, folder: &Path, kv_tokens: &str) -> (Cluster, Golden) {
    let golden = Golden::read(name);
    let path = folder.join("model.gguf");
    let size = golden.number("vocab_size") as usize;
    golden.write_gguf_with(&path, |file| byte_vocabulary(file, size));
    let mut arguments =
        vec!["--speculation", "off", "--kv-tokens", kv_tokens, "--lease-ttl-s", "2", "--restart", "off"];
    arguments.extend(["--device", device]);
    (Cluster::of_model(&path, stages, &arguments, &[]), golden)
}

/// Kills stages in the middle of streams.
fn check(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, golden) = cluster_of(name, folder.path(), "2048");
    let prompt = &golden.input_ids[..20];
    let (expected, attempts) = ask(cluster.http, prompt, TOKENS, |_| {});
    assert_eq!(attempts, 1, "{name}: the first answer is undisturbed");
    kill_stages(&cluster, name, prompt, &expected);
}

/// Kills stages in the middle of streams that answer `prompt`.
fn kill_stages(cluster: &Cluster, name: &str, prompt: &[u32], expected: &Answer) {
    let mut interrupted = 0;
    // Those that are killed do not come back, and the last one has nobody to take its layers over.
    for round in 0..STAGES as usize - 1 {
        let pid = stage_with_layers(cluster, round);
        let tokens = expected.1.len() as u32;
        let (found, attempts) = ask(cluster.http, prompt, tokens, |event| {
            if event == BEFORE_THE_KILL {
                signal(pid, "KILL");
            }
        });
        assert_eq!(&found, expected, "{name}: after kill {round}");
        interrupted += u32::from(attempts > 1);
        println!("{name}, kill {round}: {attempts} attempts");
    }
    assert!(interrupted > 0, "{name}: no kill came before the end of its stream");
}

/// Answers are as long as with room for all of their tokens, and have the same bytes, in a room of `kv_tokens` tokens:
/// first ones, second turns that go on from them, and those that stages are killed in.
fn check_windows(name: &str, kv_tokens: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (roomy, golden) = cluster_of(name, folder.path(), "4096");
    let prompt = &golden.input_ids[..20];
    let (expected, _) = ask(roomy.http, prompt, TOKENS, |_| {});
    let ids = expected.1.iter().map(|token| token[0].as_u64().expect("an id") as u32);
    // It goes on from the middle of the first one, as the context has no room for more.
    let second: Vec<u32> = prompt.iter().copied().chain(ids.take(90)).collect();
    let (expected_second, _) = ask(roomy.http, &second, TOKENS, |_| {});
    drop(roomy);
    let (cluster, _) = cluster_of(name, folder.path(), kv_tokens);
    assert_eq!(ask(cluster.http, prompt, TOKENS, |_| {}).0, expected, "{name}: in {kv_tokens} tokens");
    assert_eq!(ask(cluster.http, &second, TOKENS, |_| {}).0, expected_second, "{name}: the second turn");
    kill_stages(&cluster, name, prompt, &expected);
}

#[test]
fn an_answer_in_windows_is_longer_than_the_room_and_has_the_same_bytes() {
    check_windows("mistral", "96");
}

#[test]
fn windows_beside_other_layers_have_less_room_and_the_same_bytes() {
    check_windows("gemma3", "2048");
}

#[test]
fn windows_beside_experts_have_less_room_and_the_same_bytes() {
    check_windows("gpt_oss", "2048");
}

#[test]
fn short_convolutions_beside_attention_have_less_room_and_the_same_bytes() {
    check_windows("lfm2", "2048");
}

#[test]
fn a_mixture_of_experts_goes_on_with_the_same_bytes() {
    check("qwen3_moe");
}

#[test]
fn latent_attention_with_experts_goes_on_with_the_same_bytes() {
    check("deepseek_v2");
}

#[test]
#[ignore = "needs the library that etc/check-msl builds"]
fn stages_on_a_simulated_gpu_go_on_with_the_same_bytes() {
    let (name, folder) = ("llama", tempfile::tempdir().unwrap());
    let (cluster, golden) = cluster_on("sim", STAGES, name, folder.path(), "2048");
    let prompt = &golden.input_ids[..20];
    let (expected, attempts) = ask(cluster.http, prompt, SIMULATED_TOKENS, |_| {});
    assert_eq!(attempts, 1, "the first answer is undisturbed");
    assert!(cluster.stages().iter().all(|stage| stage["device"] == "sim"), "{:?}", cluster.stages());
    kill_stages(&cluster, name, prompt, &expected);
}

#[test]
#[ignore = "needs the library that etc/check-msl builds"]
fn a_simulated_gpu_and_a_processor_serve_together_and_the_processor_goes_on_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, golden) = cluster_on("cpu", 1, "llama", folder.path(), "2048");
    let prompt = &golden.input_ids[..20];
    let (expected, _) = ask(cluster.http, prompt, SIMULATED_TOKENS, |_| {});
    let layers = golden.number("num_hidden_layers");
    let mut gpu = Command::new(env!("CARGO_BIN_EXE_baton"))
        .args(["stage", "--name", "gpu", "--device", "sim", "--etcd", &cluster.store, "--lease-ttl-s", "2"])
        .args(["--kv-tokens", "2048"])
        .arg(folder.path().join("model.gguf"))
        .env("XDG_RUNTIME_DIR", cluster.folder.path())
        .spawn()
        .unwrap();
    let stage = |name: &str| cluster.stages().into_iter().find(|stage| stage["name"] == name);
    wait_for("the GPU's stage is there", RECOVERY_WAIT_MAX, || stage("gpu").is_some());
    let half = format!("{}..{layers}", layers / 2);
    let pin = ["pin", "gpu", &half, "--etcd", &cluster.store];
    assert!(Command::new(env!("CARGO_BIN_EXE_baton")).args(pin).status().unwrap().success());
    wait_for("each holds a half", RECOVERY_WAIT_MAX, || {
        let layers = json!([layers / 2, layers]);
        stage("gpu").is_some_and(|stage| stage["layers"] == layers && stage["state"] == "serving")
    });
    let (together, _) = ask(cluster.http, prompt, SIMULATED_TOKENS, |_| {});
    assert_eq!(together.0, expected.0);
    let (interrupted, attempts) = ask(cluster.http, prompt, SIMULATED_TOKENS, |event| {
        if event == BEFORE_THE_KILL {
            gpu.kill().unwrap();
        }
    });
    gpu.wait().unwrap();
    assert_eq!(interrupted.0, expected.0);
    assert!(attempts > 1, "the kill came after the answer");
}
