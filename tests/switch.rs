//! `baton switch`: a cluster that serves changes its model, beside the old one or after it, and what runs ends on the
//! old one. Real processes, and models with random weights whose answers differ.

#[path = "common/mod.rs"]
mod common;
#[path = "../stages/tests/runner_support/conversion/mod.rs"]
#[allow(dead_code, reason = "this test uses a part")]
mod conversion;
#[path = "../stages/tests/runner_support/golden.rs"]
#[allow(dead_code, reason = "this test uses a part")]
mod golden;
#[path = "common/user.rs"]
#[allow(dead_code, reason = "this test uses a part")]
mod user;

use std::path::Path;
use std::process::Output;

use common::cluster::{address, alive, signal};
use common::etcd::{Etcd, etcdctl, free_port};
use common::line_process::LineProcess;
use common::wait_for;
use serde_json::{Value, json};
use user::{END_WAIT_MAX, PROMPT, User, alone, local, names, stream, tokens};

/// Tokens of an answer that outlasts a change of the model.
const LONG: u32 = 1900;

fn switch(user: &User, store: &str, arguments: &[&str]) -> Output {
    let output = user.command(&[&["switch", "--etcd", store, "--kv-tokens", "2048"], arguments].concat()).output();
    output.unwrap()
}

fn switched(user: &User, store: &str, model: &Path, more: &[&str]) -> String {
    let output = switch(user, store, &[&[model.to_str().unwrap()], more].concat());
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}{errors}");
    text.into_owned()
}

/// The text of a streamed answer, and the reason of its end.
fn streamed(lines: &[String]) -> (String, Value) {
    let chunks = lines.iter().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    let choices = chunks.map(|chunk| serde_json::from_str::<Value>(chunk).unwrap()["choices"][0].clone());
    let mut outcome = (String::new(), Value::Null);
    for choice in choices {
        outcome.0 += choice["text"].as_str().unwrap_or_default();
        outcome.1 = choice["finish_reason"].clone();
    }
    outcome
}

fn long_request() -> Value {
    json!({"prompt": PROMPT, "max_tokens": LONG, "temperature": 0, "ignore_eos": true, "stream": true})
}

/// The keys of the cluster in the store, without those of leases.
fn keys(store: &str) -> Vec<String> {
    let listed = etcdctl(store, &["get", "--prefix", "/baton/v1/home/", "--keys-only"]).1;
    let lines = listed.lines().filter_map(|line| line.strip_prefix("/baton/v1/home/"));
    let permanent = |key: &&str| !["stages/", "gateways/", "claims/", "starts/"].iter().any(|part| key.contains(part));
    lines.filter(permanent).map(str::to_owned).collect()
}

#[test]
fn a_cluster_of_one_machine_changes_its_model_beside_the_old_one_on_which_a_stream_ends() {
    let user = User::new();
    let (alpha, beta) = (user.model("llama", "alpha"), user.model("qwen3", "beta"));
    let expected = [alone(&alpha), alone(&beta)];
    let port = free_port();
    let client = local(port);
    let mut up = user.up("home", port, &alpha, &[]);
    up.line("ready after");
    let store = format!("http://{}", address(&up.line("etcdctl --endpoints")));
    let undisturbed = streamed(&stream(client, &long_request(), || ()));
    assert_eq!(undisturbed.1, "length");
    let old_stages = client.stage_pids();
    assert_eq!(old_stages.len(), 2);

    let during = stream(client, &long_request(), || {
        let text = switched(&user, &store, &beta, &[]);
        assert!(text.contains("cluster home serves beta after"), "{text}");
        // Requests get the new model while the stream goes on.
        assert_eq!(tokens(client, None), expected[1]);
        assert_eq!(names(&client.get("/v1/models"), "data", "id"), ["beta"]);
    });
    assert_eq!(streamed(&during), undisturbed);
    up.line("cluster home serves beta; what still runs on alpha ends there");
    assert_eq!(client.post("/v1/completions", &json!({"model": "alpha", "prompt": "a"})).status, 404);
    assert_eq!(tokens(client, Some("beta")), expected[1]);
    wait_for("the old stages have ended", END_WAIT_MAX, || !old_stages.iter().any(|pid| alive(*pid)));
    assert_ne!(client.stage_pids(), old_stages);
    let status = user.command(&["status", "--etcd", &store]).output().unwrap();
    assert!(String::from_utf8_lossy(&status.stdout).contains("beta"), "{status:?}");

    // What is left in the store is about the new model alone once nobody serves the old one.
    switched(&user, &store, &alpha, &["--stop-first"]);
    assert_eq!(tokens(client, Some("alpha")), expected[0]);
    wait_for("the store is tidy", END_WAIT_MAX, || {
        keys(&store).iter().all(|key| key == "rollout" || key.starts_with("deployments/2/"))
    });
    let same = switch(&user, &store, &[alpha.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&same.stderr).contains("serves that very file already, as alpha"), "{same:?}");
    assert_eq!(same.status.code(), Some(1));
}

#[test]
fn stages_and_gateways_on_their_own_follow_and_one_that_was_killed_finds_the_new_model() {
    let user = User::new();
    let (alpha, beta) = (user.model("llama", "alpha"), user.model("qwen3", "beta"));
    let expected = [alone(&alpha), alone(&beta)];
    let etcd = Etcd::start();
    let store = etcd.url.as_str();
    let ports = [free_port(), free_port()];
    let gateway = |port: u16, model: &[&str]| {
        let listen = format!("127.0.0.1:{port}");
        let arguments = ["gateway", "--listen", &listen, "--lease-ttl-s", "2", "--etcd", store];
        LineProcess::spawn(user.command(&[&arguments[..], model].concat()))
    };
    let stage = |name: &str, model: &[&str]| {
        let arguments = ["stage", "--name", name, "--lease-ttl-s", "2", "--etcd", store, "--threads", "1"];
        LineProcess::spawn(user.command(&[&arguments[..], model].concat()))
    };
    let named = [alpha.to_str().unwrap(), "--kv-tokens", "2048", "--stages-min", "2"];
    let mut stages = [stage("a", &named), stage("b", &named)];
    let gateways = [gateway(ports[0], &named), gateway(ports[1], &named)];
    let clients = ports.map(local);
    let serves = |client: common::http::GatewayClient| {
        wait_for("it serves", END_WAIT_MAX, || {
            common::http::request(client.http, "GET", "/health", "").is_ok_and(|answer| answer.status == 200)
        });
    };
    clients.iter().for_each(|client| serves(*client));
    assert_eq!(clients.map(|client| tokens(client, None)), [expected[0].clone(), expected[0].clone()]);

    // Both gateways and both stages follow, and the processes stay.
    let during = stream(clients[0], &long_request(), || {
        switched(&user, store, &beta, &[]);
        for client in clients {
            wait_for("it follows", END_WAIT_MAX, || names(&client.get("/v1/models"), "data", "id") == ["beta"]);
            assert_eq!(tokens(client, None), expected[1]);
        }
    });
    assert_eq!(streamed(&during).1, "length");
    let pids = stages.each_ref().map(|stage| stage.child.id());
    assert!(clients[0].stage_pids().iter().all(|pid| pids.contains(pid)));

    // A stage that dies and one that is started anew without naming a model serve the new one.
    signal(pids[1], "KILL");
    let _ = stages[1].child.wait();
    stages[1] = stage("b", &[]);
    wait_for("both stages serve", END_WAIT_MAX, || {
        let shards = clients[1].get("/distributed/status").json()["placement"]["shards"].clone();
        serves(clients[1]);
        shards.as_array().is_some_and(|shards| shards.len() == 2)
    });
    assert_eq!(tokens(clients[1], Some("beta")), expected[1]);

    // Where both do not fit, the old one ends first. What runs on it ends there all the same.
    let during = stream(clients[0], &long_request(), || {
        switched(&user, store, &alpha, &["--stop-first"]);
        clients.iter().for_each(|client| serves(*client));
        assert_eq!(clients.map(|client| tokens(client, Some("alpha"))), [expected[0].clone(), expected[0].clone()]);
    });
    assert_eq!(streamed(&during).1, "length");
    drop(gateways);
}

#[test]
fn a_change_that_cannot_come_about_leaves_the_old_model_and_is_given_up() {
    let user = User::new();
    let (alpha, beta) = (user.model("llama", "alpha"), user.model("qwen3", "beta"));
    let port = free_port();
    let client = local(port);
    let mut up = user.up("home", port, &alpha, &["--memory", "200MB"]);
    up.line("ready after");
    let store = format!("http://{}", address(&up.line("etcdctl --endpoints")));
    let expected = tokens(client, None);
    let nothing = switch(&user, &store, &["--cancel"]);
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("cluster home is not changing its model"), "{nothing:?}");
    // More room for keys and values than the stages' memory.
    let arguments = ["switch", "--etcd", &store, beta.to_str().unwrap(), "--kv-tokens", "16777216"];
    let mut switching = LineProcess::spawn(user.command(&arguments));
    switching.line("not serving yet");
    up.line("beta is to take the place of alpha in cluster home");
    assert_eq!(tokens(client, Some("alpha")), expected);
    let again = switch(&user, &store, &[beta.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("is changing its model already"), "{again:?}");
    let cancelled = switch(&user, &store, &["--cancel"]);
    assert!(cancelled.status.success(), "{cancelled:?}");
    switching.line("another process changed the rollout of cluster home meanwhile");
    assert_eq!(switching.child.wait().unwrap().code(), Some(1));
    assert_eq!(tokens(client, None), expected);
    wait_for("nothing of it is left", END_WAIT_MAX, || !keys(&store).iter().any(|key| key.starts_with("deployments/")));
}

#[test]
fn a_further_cluster_of_a_gateway_changes_its_model_too() {
    let user = User::new();
    let (alpha, beta, gamma) = (user.model("llama", "alpha"), user.model("qwen3", "beta"), user.model("phi3", "gamma"));
    let expected = [alone(&alpha), alone(&gamma)];
    let port = free_port();
    let client = local(port);
    let mut first = user.up("home", port, &alpha, &[]);
    first.line("ready after");
    let store = format!("http://{}", address(&first.line("etcdctl --endpoints")));
    let mut second = user.up("second", port, &beta, &[]);
    second.line("ready after");
    switched(&user, &store, &gamma, &["--cluster", "second"]);
    first.line("cluster second serves gamma; what still runs on beta ends there");
    assert_eq!(names(&client.get("/v1/models"), "data", "id"), ["alpha", "gamma"]);
    assert_eq!([tokens(client, None), tokens(client, Some("gamma"))], expected);
    // It can still be stopped alone.
    assert!(user.stop(&["second"]).status.success());
    first.line("cluster second is served here no more");
    assert_eq!(tokens(client, None), expected[0]);
}
