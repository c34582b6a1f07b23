//! A cluster that is given another model: with nobody alive it takes it, otherwise it says who is. And a second cluster
//! with a model of its own on the same machine: they share its memory.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::cluster::{Cluster, signal};
use common::etcd::{Etcd, etcdctl};
use common::{model_path, wait_for};
use serde_json::Value;

/// A copy of the default model with another letter in its metadata: still valid, but another file.
fn other_model(folder: &Path) -> PathBuf {
    let mut bytes = std::fs::read(model_path()).unwrap();
    let at = bytes.windows(5).position(|window| window == b"SmolL" || window == b"smoll").expect("a name");
    bytes[at + 1] = b'n';
    let path = folder.join("other.gguf");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_cluster_without_a_member_takes_another_model_and_one_with_members_names_them() {
    let folder = tempfile::tempdir().unwrap();
    let other = other_model(folder.path());
    let etcd = Etcd::start();
    let arguments = ["--etcd", etcd.url.as_str(), "--lease-ttl-s", "2"];
    let model = || etcdctl(&etcd.url, &["get", "/baton/v1/home/model", "--print-value-only"]).1;
    let fingerprint = |record: String| serde_json::from_str::<Value>(&record).unwrap()["fingerprint"].clone();
    let stages = || etcdctl(&etcd.url, &["get", "--prefix", "/baton/v1/home/stages/", "--keys-only"]).1;

    let mut first = Cluster::start(2, &arguments, &[]);
    let before = fingerprint(model());
    // With members, another model is refused, and nothing changes.
    let refused = Command::new(env!("CARGO_BIN_EXE_baton"))
        .args(["stage", "--etcd", &etcd.url, "--name", "late"])
        .arg(&other)
        .env("XDG_RUNTIME_DIR", folder.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&refused.stderr);
    println!("{stderr}");
    let name = first.stages()[0]["name"].as_str().unwrap().to_owned();
    for expected in ["cluster home serves ", &format!("stage {name} (process "), "--cluster NAME"] {
        assert!(stderr.contains(expected), "{expected:?} is missing in {stderr}");
    }
    assert_eq!((refused.status.code(), fingerprint(model())), (Some(1), before.clone()));

    // Without, the cluster takes it, though the old record is still there.
    first.interrupt();
    drop(first);
    wait_for("the members are gone", Duration::from_secs(10), || stages().trim().is_empty());
    assert_eq!(fingerprint(model()), before);
    let second = Cluster::of_model(&other, 2, &arguments, &[]);
    assert_ne!(fingerprint(model()), before);
    let (ids, _) = second.complete(&[100, 101, 102], 4);
    assert_eq!(ids.len(), 4);
}

/// The memory that each `baton up` with this folder for state may come to take, by cluster.
fn promises(state: &Path) -> BTreeMap<String, u64> {
    let records = std::fs::read_dir(state.join("baton/running")).unwrap().map(|entry| entry.unwrap().path());
    let records = records.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
    let promise = |path: PathBuf| {
        let record: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        (record["cluster"].as_str().unwrap().to_owned(), record["memory_promised_bytes"].as_u64().unwrap())
    };
    records.map(promise).collect()
}

#[test]
fn a_second_cluster_of_a_machine_gets_the_memory_that_the_first_leaves() {
    let state = tempfile::tempdir().unwrap();
    let variables = [("XDG_STATE_HOME", state.path().to_str().unwrap())];
    let first = Cluster::start(1, &[], &variables);
    let promised = promises(state.path())["home"];
    // The weights, four contexts of keys and values, and what the stage leaves free beside them.
    assert!((800 << 20..2 << 30).contains(&promised), "{promised}");
    // Nothing of its keys and values is in use, and still they are not free for others.
    let most = "16777216";
    let refused = Command::new(env!("CARGO_BIN_EXE_baton"))
        .args(["up", "--cluster", "large", "--kv-tokens", most, "--listen", "127.0.0.1:0"])
        .args(["--store-listen", "127.0.0.1:0"])
        .arg(model_path())
        .envs(variables)
        .env("XDG_RUNTIME_DIR", state.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&refused.stderr);
    println!("{stderr}");
    for expected in
        [&format!("cluster home (process {}) may come to use", first.pid()), "baton stop home", "are needed"]
    {
        assert!(stderr.contains(expected), "{expected:?} is missing in {stderr}");
    }
    assert_eq!(refused.status.code(), Some(1));
    let second = Cluster::start(1, &["--cluster", "second"], &variables);
    assert_eq!(second.complete(&[100, 101, 102], 4).0, first.complete(&[100, 101, 102], 4).0);
    assert_eq!(promises(state.path()).into_keys().collect::<Vec<_>>(), ["home", "second"]);
    // What a killed process promised is free at once, and its record goes with the next look.
    signal(first.pid(), "KILL");
    let _third = Cluster::start(1, &["--cluster", "third"], &variables);
    assert_eq!(promises(state.path()).into_keys().collect::<Vec<_>>(), ["second", "third"]);
}
