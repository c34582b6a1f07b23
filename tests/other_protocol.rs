//! A process that speaks another protocol than the members of its cluster: it is refused with both versions named, and
//! the cluster takes it once they are gone.

mod common;

use std::process::Command;

use common::cluster::Cluster;
use common::etcd::{Etcd, etcdctl};
use common::model_path;

#[test]
fn a_process_of_another_protocol_is_refused_by_both_versions_until_the_others_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let etcd = Etcd::start();
    let (_, granted) = etcdctl(&etcd.url, &["lease", "grant", "600"]);
    let lease = granted.split_whitespace().nth(1).expect("lease ID granted with TTL(600s)").to_owned();
    // A stage of an earlier baton, as it would stand there.
    let record = r#"{"endpoint":"tcp://mini-9:7000","host":"mini-9","pid":42,"version":"0.0.9","protocol":3,
        "device":"cpu","chip":"","threads":4,"memory_total_bytes":16000000000,"memory_budget_bytes":12000000000}"#;
    let put = ["put", "/baton/v1/home/stages/old", record, "--lease", lease.as_str()];
    assert!(etcdctl(&etcd.url, &put).0);

    for verb in ["stage", "gateway", "up"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
        command.args([verb, "--etcd", &etcd.url]).env("XDG_RUNTIME_DIR", folder.path());
        let listen = ["--listen", "127.0.0.1:0"];
        let refused = command.args(listen.iter().filter(|_| verb != "stage")).arg(model_path()).output().unwrap();
        let stderr = String::from_utf8_lossy(&refused.stderr);
        println!("{verb}: {stderr}");
        let own = concat!("this is baton ", env!("CARGO_PKG_VERSION"), ", which speaks protocol 4");
        for expected in ["stage old on mini-9 is of baton 0.0.9 and speaks protocol 3", own, "--cluster NAME"] {
            assert!(stderr.contains(expected), "{verb}: {expected:?} is missing in {stderr}");
        }
        assert_eq!(refused.status.code(), Some(1), "{verb}");
    }

    assert!(etcdctl(&etcd.url, &["lease", "revoke", &lease]).0);
    let cluster = Cluster::start(1, &["--etcd", &etcd.url], &[]);
    let (ids, _) = cluster.complete(&[100, 101, 102], 4);
    assert_eq!(ids.len(), 4);
}
