//! Computing never starves the renewal of leases. It is the only test in its file, because it uses the whole machine.

mod common;

use std::time::{Duration, Instant};

use common::cluster::Cluster;
use common::etcd::{Etcd, etcdctl};
use serde_json::Value;

/// Lease TTL of the cluster: the least that etcd grants.
const LEASE_TTL: Duration = Duration::from_secs(2);
/// Clients that send requests without a pause: as many as a pipeline of two stages has room for, and more.
const CLIENTS: u32 = 4;
/// Tokens of each prompt: more than one micro-batch holds.
const PROMPT_TOKENS: u32 = 300;

/// The keys of a prefix with the revisions at which they were created.
fn created(etcd: &Etcd, prefix: &str) -> Vec<(String, u64)> {
    let (_, listing) = etcdctl(&etcd.url, &["get", "--prefix", prefix, "-w", "json"]);
    let listing: Value = serde_json::from_str(&listing).unwrap();
    let entries = listing["kvs"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|kv| (kv["key"].to_string(), kv["create_revision"].as_u64().unwrap())).collect()
}

#[test]
fn busy_stages_with_more_threads_than_cores_keep_their_leases() {
    let etcd = Etcd::start();
    let cluster = Cluster::start(2, &["--etcd", &etcd.url, "--lease-ttl-s", "2", "--threads", "4"], &[]);
    let before = (created(&etcd, "/baton/v1/home/stages/"), created(&etcd, "/baton/v1/home/claims/"));
    let started = Instant::now();
    let busy_until = started + 3 * LEASE_TTL;
    let rows: u64 = std::thread::scope(|scope| {
        let client = |client: u32| {
            let cluster = &cluster;
            scope.spawn(move || {
                let mut rows = 0;
                for round in 0.. {
                    // Each prompt is different, so that the prefix cache is of no use.
                    let prompt: Vec<u32> =
                        (0..PROMPT_TOKENS).map(|index| 1000 + (index * 7 + round * 131 + client) % 9000).collect();
                    let (_, answer) = cluster.complete(&prompt, 1);
                    assert_eq!(answer["timings"]["attempts"], 1, "{}", answer["timings"]);
                    rows += prompt.len() as u64;
                    if Instant::now() > busy_until {
                        break;
                    }
                }
                rows
            })
        };
        let clients: Vec<_> = (0..CLIENTS).map(client).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    let took = started.elapsed();
    // The stages' own load of the last two seconds is in the store.
    let busy: Vec<f64> = cluster.stages().iter().map(|stage| stage["busy"].as_f64().unwrap()).collect();
    println!("{rows} prompt tokens in {took:?}, stages busy {busy:?}");
    assert!(took > 3 * LEASE_TTL);
    assert!(busy.iter().sum::<f64>() > 0.8, "the stages had time to rest: {busy:?}");
    let after = (created(&etcd, "/baton/v1/home/stages/"), created(&etcd, "/baton/v1/home/claims/"));
    assert_eq!(before, after, "a key was lost and made again");
    assert_eq!((before.0.len(), before.1.len()), (2, 2));
    assert_eq!(cluster.get("/distributed/status").json()["generation"], 1);
}
