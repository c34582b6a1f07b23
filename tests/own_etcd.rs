//! `baton up --store etcd`: a real etcd whose data outlives it, that is started again when it is killed, ends with
//! `up`, and is reached by other machines over the shared port.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::cluster::{Cluster, alive, signal};
use common::etcd::{etcdctl, free_port};
use common::{model_path, wait_for};

const WAIT_MAX: Duration = Duration::from_secs(20);
const PROMPT: [u32; 6] = [504, 4149, 282, 3575, 314, 3030];
const ARGUMENTS: [&str; 4] = ["--store", "etcd", "--lease-ttl-s", "2"];

#[cfg(target_os = "linux")]
/// The process that has its data in the state folder `state`.
fn etcd_of(state: &Path) -> Option<u32> {
    let folder = state.join("baton/clusters/home/etcd");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let works_there = |process: &std::fs::DirEntry| {
        let is = |name, expected: &Path| std::fs::read_link(process.path().join(name)).is_ok_and(|is| is == expected);
        is("cwd", &folder) && std::fs::read_link(process.path().join("exe")).is_ok_and(|exe| exe.ends_with("etcd"))
    };
    processes.filter(works_there).find_map(|process| process.file_name().to_str()?.parse().ok())
}

#[cfg(target_os = "linux")]
#[test]
fn an_etcd_of_up_keeps_its_data_is_started_again_and_ends_with_it() {
    let state = tempfile::tempdir().unwrap();
    let variables = [("XDG_STATE_HOME", state.path().to_str().unwrap())];
    let mut cluster = Cluster::start(2, &ARGUMENTS, &variables);
    let tokens = cluster.complete(&PROMPT, 8).0;
    let status = etcdctl(&cluster.store, &["endpoint", "status", "-w", "json"]).1;
    assert!(status.contains(r#""raftIndex""#), "no real etcd: {status}");
    assert!(etcdctl(&cluster.store, &["put", "/baton/v1/home/pins/spare", r#"{"cordon":true}"#]).0);

    let killed = etcd_of(state.path()).expect("etcd runs");
    signal(killed, "KILL");
    wait_for("another etcd answers", WAIT_MAX, || {
        etcd_of(state.path()).is_some_and(|now| now != killed) && etcdctl(&cluster.store, &["endpoint", "health"]).0
    });
    assert_eq!(cluster.complete(&PROMPT, 8).0, tokens);

    let running = etcd_of(state.path()).expect("etcd runs");
    let took = cluster.interrupt();
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(!alive(running), "etcd outlives `baton up`");
    let again = Cluster::start(2, &ARGUMENTS, &variables);
    let kept = etcdctl(&again.store, &["get", "--print-value-only", "/baton/v1/home/pins/spare"]).1;
    assert_eq!(kept.trim(), r#"{"cordon":true}"#);

    // It does not outlive a killed `baton up` either.
    let running = etcd_of(state.path()).expect("etcd runs");
    signal(again.pid(), "KILL");
    wait_for("etcd ends", WAIT_MAX, || !alive(running));
}

#[test]
fn a_shared_etcd_is_reached_with_the_cluster_s_certificates_only() {
    let state = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut up = Command::new(env!("CARGO_BIN_EXE_baton"))
        .args(["up", "--stages", "1", "--listen", "127.0.0.1:0", "--store-listen", "127.0.0.1:0"])
        .args(ARGUMENTS)
        .arg(format!("--share=127.0.0.1:{port}"))
        .arg(model_path())
        .env("XDG_STATE_HOME", state.path())
        .env("XDG_RUNTIME_DIR", state.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(up.stdout.take().unwrap()).lines().map_while(Result::ok);
    let ready = lines.take_while(|line| !line.starts_with("ready ")).collect::<Vec<_>>();
    let line = ready.iter().find(|line| line.trim_start().starts_with("etcdctl ")).expect("a line for etcdctl");
    let words: Vec<_> = line.split_whitespace().skip(1).collect();
    let etcdctl = |words: &[&str]| Command::new("etcdctl").env("ETCDCTL_API", "3").args(words).output().unwrap();
    let found = etcdctl(&words);
    let found = String::from_utf8_lossy(&found.stdout);
    assert!(found.contains("/baton/v1/home/model") && found.contains("/baton/v1/home/tokens/"), "{found}");
    let stranger = etcdctl(&[
        "--endpoints",
        words[1],
        "--insecure-skip-tls-verify",
        "--insecure-transport=false",
        "--dial-timeout=1s",
        "--command-timeout=1s",
        "get",
        "--prefix",
        "/baton",
    ]);
    assert!(!stranger.status.success() && stranger.stdout.is_empty(), "{stranger:?}");
    signal(up.id(), "INT");
    assert!(up.wait().unwrap().success());
}

#[test]
fn an_etcd_of_its_own_beside_another_or_without_the_program_is_refused() {
    let state = tempfile::tempdir().unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
        command.args(["up", "--store", "etcd"]).args(words).env("XDG_STATE_HOME", state.path());
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = run(&["--etcd", "127.0.0.1:1"]);
    assert!(code == Some(64) && text.contains("store is etcd beside the addresses of an etcd"), "{text}");
    // A folder that etcd cannot use.
    std::fs::create_dir_all(state.path().join("baton/clusters/home")).unwrap();
    std::fs::write(state.path().join("baton/clusters/home/etcd"), "a file").unwrap();
    let model = model_path();
    let (code, text) = run(&["--listen", "127.0.0.1:0", "--store-listen", "127.0.0.1:0", model.to_str().unwrap()]);
    assert!(code == Some(1) && text.contains("cannot make a folder for etcd"), "{text}");
}
