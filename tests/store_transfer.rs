//! A cluster moves from the embedded store to a real etcd and keeps its model, placement and pins; what living members
//! hold is never copied.

mod common;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::Duration;

use common::cluster::Cluster;
use common::etcd::{Etcd, etcdctl};
use common::wait_for;
use engine::store::{Committed, EmbeddedServer, EtcdStore, MemoryStore, Store, Txn, Write};
use serde_json::{Value, json};

const MOVE_WAIT_MAX: Duration = Duration::from_secs(20);
const PROMPT: [u32; 6] = [504, 4149, 282, 3575, 314, 3030];

fn baton(url: &str, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_baton")).args(["store"]).args(words).args(["--etcd", url]).output().unwrap()
}

/// Runs it to a refusal. Returns what it says.
fn refused(url: &str, words: &[&str]) -> String {
    let output = baton(url, words);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Runs it to a good end. Returns what it prints.
fn done(url: &str, words: &[&str]) -> String {
    let output = baton(url, words);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Keys and values under the prefix of a cluster.
fn keys(url: &str, cluster: &str) -> BTreeMap<String, String> {
    let found = etcdctl(url, &["get", "--prefix", &format!("/baton/v1/{cluster}/")]).1;
    let lines: Vec<_> = found.lines().collect();
    lines.chunks(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect()
}

fn list<'a>(document: &'a Value, name: &str) -> BTreeMap<&'a str, &'a Value> {
    let keys = document[name].as_array().unwrap();
    keys.iter().map(|key| (key["key"].as_str().unwrap(), key)).collect()
}

/// The stage in slot 0 and its layers.
fn first_stage(cluster: &Cluster) -> (String, Value) {
    let stages = cluster.stages();
    let stage = stages.iter().find(|stage| stage["slot"] == 0).expect("a stage in the slot");
    (stage["name"].as_str().unwrap().to_owned(), stage["layers"].clone())
}

#[test]
fn a_cluster_moves_from_the_embedded_store_to_a_real_etcd_and_keeps_its_pins() {
    let (etcd, folder) = (Etcd::start(), tempfile::tempdir().unwrap());
    let file = folder.path().join("home.json").display().to_string();
    let mut old = Cluster::start(2, &["--lease-ttl-s", "2"], &[]);
    let tokens = old.complete(&PROMPT, 8).0;
    let (stage, _) = first_stage(&old);
    assert!(etcdctl(&old.store, &["put", &format!("/baton/v1/home/pins/{stage}"), r#"{"layers": [0, 5]}"#]).0);
    assert!(etcdctl(&old.store, &["put", "/baton/v1/home/shopping", "milk"]).0);
    assert!(etcdctl(&old.store, &["put", "/baton/v1/office/pins/x", r#"{"cordon":true}"#]).0);
    wait_for("layers move", MOVE_WAIT_MAX, || first_stage(&old) == (stage.clone(), json!([0, 5])));

    // While it serves.
    let said = done(&old.store, &["export", &file]);
    assert!(said.contains("3 keys to import") && said.contains("left out: /baton/v1/home/shopping"), "{said}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = refused(&old.store, &["export", &file]);
    assert!(again.contains("expected a new file"), "{again}");
    let text = std::fs::read_to_string(&file).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let permanent = list(&document, "permanent");
    let pin = format!("/baton/v1/home/pins/{stage}");
    let expected = ["/baton/v1/home/model", pin.as_str(), "/baton/v1/home/placement"];
    assert_eq!(permanent.keys().copied().collect::<Vec<_>>(), expected);
    let members = list(&document, "members");
    for folder in ["/baton/v1/home/stages/", "/baton/v1/home/claims/", "/baton/v1/home/gateways/"] {
        assert!(members.iter().any(|(key, kept)| key.starts_with(folder) && kept["lease"].is_string()), "{text}");
    }
    assert!(!text.contains("office"));

    let before = keys(&old.store, "home");
    let said = done(&etcd.url, &["import", &file]);
    assert!(said.contains("cluster home is in the store") && said.contains("3 keys written, 0 deleted"), "{said}");
    let imported = keys(&etcd.url, "home");
    assert_eq!(imported.keys().map(String::as_str).collect::<Vec<_>>(), expected);
    for name in ["/baton/v1/home/model", "/baton/v1/home/placement"] {
        assert_eq!(imported[name], before[name]);
    }
    let leases = etcdctl(&etcd.url, &["get", "--prefix", "/baton/", "-w", "json"]).1;
    assert!(!leases.contains("lease"), "{leases}");
    let taken = refused(&etcd.url, &["import", &file]);
    assert!(taken.contains("already has 3 keys of cluster home") && taken.contains("--replace"), "{taken}");

    old.interrupt();
    let new = Cluster::start(2, &["--etcd", &etcd.url, "--lease-ttl-s", "2"], &[]);
    assert_eq!(first_stage(&new), (stage, json!([0, 5])), "the pin was lost");
    assert_eq!(new.complete(&PROMPT, 8).0, tokens);
    let alive = refused(&etcd.url, &["import", &file, "--replace"]);
    assert!(alive.contains("members of cluster home live in the store") && alive.contains("stages/"), "{alive}");
    drop(new);
    let said = done(&etcd.url, &["import", &file, "--replace", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["written"], &said["deleted"]), (&json!(3), &json!(1)), "{said}");
    let replaced = keys(&etcd.url, "home");
    assert!(expected.iter().all(|key| replaced[*key] == imported[*key]), "{replaced:?}");
}

#[test]
fn a_file_of_another_cluster_or_of_less_than_a_whole_one_is_refused_before_the_store_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file").display().to_string();
    for (text, expected) in [
        ("", "no whole export of a cluster"),
        (r#"{"format":"baton-cluster","version":1,"cluster":"home"}"#, "no whole export of a cluster"),
        (r#"{"format":"baton-cluster","version":9}"#, "has version 9: expected 1"),
        (r#"{"format":"tar","version":1}"#, r#"format is "tar": expected "baton-cluster""#),
    ] {
        std::fs::write(&path, text).unwrap();
        let found = refused("http://127.0.0.1:1", &["import", &path]);
        assert!(found.contains(expected), "{text}: {found}");
    }
    assert!(refused("http://127.0.0.1:1", &["import", "/nonexistent/file"]).contains("cannot read /nonexistent/file"));
    let unreachable = baton("http://127.0.0.1:1", &["export"]);
    assert_eq!(unreachable.status.code(), Some(2), "{unreachable:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_keys_than_one_level_of_a_transaction_takes_are_imported_whole_or_not_at_all() {
    const TOKENS: usize = 1000;
    let (etcd, folder) = (Etcd::start(), tempfile::tempdir().unwrap());
    let token = |at: usize| Write::Put {
        key: format!("/baton/v1/home/tokens/{at:08x}"),
        value: br#"{"secret_hash":"7e","created_s":1}"#.to_vec(),
        lease: None,
    };
    let store = EtcdStore::connect(std::slice::from_ref(&etcd.url)).await.unwrap();
    let none = refused(&etcd.url, &["export"]);
    assert!(none.contains("the store has no cluster home"), "{none}");
    let made = store.commit(Txn { compares: Vec::new(), writes: (0..TOKENS).map(token).collect() }).await.unwrap();
    assert!(matches!(made, Committed::Applied { .. }));
    let before = keys(&etcd.url, "home");
    assert_eq!(before.len(), TOKENS);
    let file = folder.path().join("home.json").display().to_string();
    done(&etcd.url, &["export", &file]);

    assert!(etcdctl(&etcd.url, &["del", "--prefix", "/baton/v1/home/"]).0);
    done(&etcd.url, &["import", &file]);
    assert_eq!(keys(&etcd.url, "home"), before);
    // All of them by one transaction.
    let found = store.read("/baton/v1/home/").await.unwrap();
    assert!(found.entries.iter().all(|entry| entry.mod_revision == found.revision));

    // The embedded store takes fewer at once, and says so.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let embedded = EmbeddedServer::serve(listener, MemoryStore::new()).unwrap();
    let few = refused(&embedded.url(), &["import", &file]);
    assert!(few.contains("no more than 128 writes at once"), "{few}");
    assert!(keys(&embedded.url(), "home").is_empty());
}
