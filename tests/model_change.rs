//! A cluster that is given another model: with nobody alive it takes it, otherwise it says who is.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::cluster::Cluster;
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
