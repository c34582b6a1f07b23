//! Clusters of one store, each with a model of its own, behind one gateway: real processes, and models with random
//! weights whose answers differ.

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

use common::cluster::signal;
use common::etcd::{Etcd, free_port};
use common::line_process::LineProcess;
use common::wait_for;
use serde_json::{Value, json};
use user::{END_WAIT_MAX, PROMPT, TOKENS, User, alone, local, names, stream, tokens};

#[test]
fn a_second_cluster_is_served_by_the_gateway_of_the_first_and_ends_without_it() {
    let user = User::new();
    let (alpha, beta) = (user.model("llama", "alpha"), user.model("qwen3", "beta"));
    let expected = [alone(&alpha), alone(&beta)];
    assert_ne!(expected[0], expected[1]);
    let port = free_port();
    let client = local(port);
    let mut first = user.up("home", port, &alpha, &[]);
    first.line("ready after");
    assert_eq!(names(&client.get("/v1/models"), "data", "id"), ["alpha"]);

    // The second finds the first by the address of its HTTP server, and is behind it as soon as it is ready.
    let mut second = user.up("second", port, &beta, &[]);
    let ready = second.line("ready after");
    assert!(ready.contains(&format!("beta on http://127.0.0.1:{port}, the gateway of cluster home")), "{ready}");
    first.line("cluster second is served here, too: beta");
    assert_eq!(names(&client.get("/v1/models"), "data", "id"), ["alpha", "beta"]);
    assert_eq!(names(&client.get("/api/tags"), "models", "name"), ["alpha:latest", "beta:latest"]);
    wait_for("both are served", END_WAIT_MAX, || names(&client.get("/api/ps"), "models", "name").len() == 2);

    // Each answers as it does alone, by its name, in each dialect; nobody's name is the first's.
    assert_eq!(tokens(client, Some("alpha")), expected[0]);
    assert_eq!(tokens(client, Some("beta")), expected[1]);
    assert_eq!(tokens(client, None), expected[0]);
    let generate = |model: &str| {
        let options = json!({"temperature": 0, "num_predict": TOKENS});
        let body = json!({"model": model, "prompt": "Hello, w", "raw": true, "stream": false, "options": options});
        client.post("/api/generate", &body).json()["response"].clone()
    };
    assert_ne!(generate("alpha"), generate("beta:latest"));
    let unknown = client.post("/v1/completions", &json!({"model": "gamma", "prompt": "a"}));
    assert_eq!((unknown.status, &unknown.json()["error"]["code"]), (404, &json!("model_not_found")));
    assert!(unknown.body.contains("this server has `alpha` and `beta`"), "{}", unknown.body);
    let unknown = client.post("/v1/messages", &json!({"model": "gamma", "max_tokens": 1, "messages": []}));
    assert_eq!((unknown.status, &unknown.json()["error"]["type"]), (404, &json!("not_found_error")));

    // Pages about a cluster are the first's, unless another is named.
    let model = |query: &str| client.get(&format!("/distributed/status{query}")).json()["model"]["name"].clone();
    assert_eq!((model(""), model("?cluster=second")), (json!("alpha"), json!("beta")));
    assert_eq!(client.get("/health?cluster=second").status, 200);
    let unknown = client.get("/health?cluster=third");
    assert!(unknown.status == 404 && unknown.body.contains("expected `home` or `second`"), "{unknown:?}");

    // The first is not stopped from under the second.
    let refused = user.stop(&["home"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    let named = format!("of cluster second (process {})", second.child.id());
    assert!(refused.status.code() == Some(1) && text.contains(&named) && text.contains("--yes"), "{text}");
    assert_eq!(tokens(client, Some("beta")), expected[1]);

    // The second is stopped alone. A request that runs ends with a sentence, and the first goes on.
    let body = json!({
        "model": "beta", "prompt": PROMPT, "max_tokens": 1900, "temperature": 0, "ignore_eos": true, "stream": true,
    });
    let lines = std::thread::scope(|scope| {
        let streaming = scope.spawn(|| stream(client, &body, || assert!(user.stop(&["second"]).status.success())));
        streaming.join().unwrap()
    });
    let last = lines.iter().rfind(|line| line.starts_with("data: ")).unwrap();
    assert!(last.contains("\"error\"") || last.contains("[DONE]"), "{last}");
    assert!(second.child.wait().unwrap().success());
    first.line("cluster second is served here no more");
    assert_eq!(names(&client.get("/v1/models"), "data", "id"), ["alpha"]);
    assert_eq!(client.post("/v1/completions", &body).status, 404);
    assert_eq!(tokens(client, None), expected[0]);

    // Its name is free for another model at once, and `--yes` ends both.
    let mut second = user.up("second", port, &user.model("phi3", "gamma"), &[]);
    second.line("ready after");
    first.line("cluster second is served here, too: gamma");
    assert_eq!(names(&client.get("/v1/models"), "data", "id"), ["alpha", "gamma"]);
    let stopped = user.stop(&["home", "--yes", "--json"]);
    let document: Value = serde_json::from_slice(&stopped.stdout).unwrap();
    assert_eq!(names_of(&document), ["second", "home"]);
    assert!(first.child.wait().unwrap().success() && second.child.wait().unwrap().success());
}

fn names_of(document: &Value) -> Vec<&str> {
    document["processes"].as_array().unwrap().iter().map(|process| process["cluster"].as_str().unwrap()).collect()
}

#[test]
fn a_cluster_whose_gateway_was_killed_ends_and_says_why() {
    let user = User::new();
    let port = free_port();
    let mut first = user.up("home", port, &user.model("llama", "alpha"), &[]);
    first.line("ready after");
    // A file of the same name could not be told apart by requests: it is refused, and both processes say so.
    let folder = user.folder.path().join("other");
    std::fs::create_dir(&folder).unwrap();
    let other = folder.join("alpha.gguf");
    std::fs::copy(user.model("qwen3", "beta"), &other).unwrap();
    let mut same = user.up("same", port, &other, &[]);
    first.line("cluster same is not served here: cluster home serves a model alpha already");
    let mut second = user.up("second", port, &user.model("qwen3", "beta"), &[]);
    second.line("ready after");
    same.line("has not opened this cluster within");
    assert!(!same.child.wait().unwrap().success());
    signal(first.child.id(), "KILL");
    second.line("has ended, and with it the HTTP server of this cluster");
    assert!(!second.child.wait().unwrap().success());
    let _ = first.child.wait();
}

#[test]
fn a_gateway_serves_the_clusters_that_it_is_told_and_leaves_those_that_have_one() {
    let user = User::new();
    let etcd = Etcd::start();
    let (alpha, beta) = (user.model("llama", "alpha"), user.model("qwen3", "beta"));
    let store = ["--etcd", etcd.url.as_str()];
    let ports = [free_port(), free_port(), free_port()];
    let mut first = user.up("home", ports[0], &alpha, &store);
    let mut second = user.up("second", ports[1], &beta, &store);
    first.line("ready after");
    second.line("ready after");
    let expected = [tokens(local(ports[0]), None), tokens(local(ports[1]), None)];
    assert_ne!(expected[0], expected[1]);
    assert_eq!(names(&local(ports[0]).get("/v1/models"), "data", "id"), ["alpha"]);
    let listen = format!("127.0.0.1:{}", ports[2]);
    let gateway = |clusters: &str| {
        let mut command = user.command(&["gateway", "--listen", &listen, "--lease-ttl-s", "2", "--clusters", clusters]);
        command.args(store).arg(&alpha);
        LineProcess::spawn(command)
    };
    // Every cluster means those that have no gateway; a name means that cluster.
    let mut all = gateway("*");
    all.line("cluster second is not served here: the gateway at");
    assert_eq!(names(&local(ports[2]).get("/v1/models"), "data", "id"), ["alpha"]);
    drop(all);
    let mut named = gateway("second");
    named.line("cluster second is served here, too: beta");
    let client = local(ports[2]);
    assert_eq!([tokens(client, Some("alpha")), tokens(client, Some("beta"))], expected);
}
