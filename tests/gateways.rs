//! Several gateways of one cluster, with real processes and a real etcd.

mod common;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::cluster::Cluster;
use common::etcd::{Etcd, etcdctl};
use common::http::request;
use serde_json::{Value, json};

/// Lease TTL of the cluster: the least that etcd grants.
const LEASE_TTL: Duration = Duration::from_secs(2);
/// Tokens of each stream: enough for it to run while gateways start and end.
const TOKENS: u32 = 300;
/// Most growth of a stage's memory. Blocks take memory when they are first used, and other gateways use other blocks.
/// Room for six sequences, 24 KiB per token and stage.
const GROWTH_BYTES_MAX: u64 = 6 * 340 * (24 << 10);

/// A `baton gateway`. Dropping it kills the process.
struct Gateway(Child);

impl Gateway {
    fn start(etcd: &Etcd, cluster: &Cluster) -> Self {
        let process = Command::new(env!("CARGO_BIN_EXE_baton"))
            .args([
                "gateway",
                "--etcd",
                &etcd.url,
                "--lease-ttl-s",
                "2",
                "--listen",
                "127.0.0.1:0",
                "--speculation",
                "off",
            ])
            .arg(common::model_path())
            .env("XDG_RUNTIME_DIR", cluster.folder.path())
            .stdout(Stdio::null())
            .spawn();
        Self(process.expect("baton starts"))
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

fn wait_for<T>(what: &str, most: Duration, mut holds: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = holds() {
            println!("{what}: after {:?}", started.elapsed());
            return found;
        }
        assert!(started.elapsed() < most, "{what}: not within {most:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The gateways in the store, by slot.
fn gateways(etcd: &Etcd) -> Vec<(String, Value)> {
    let (_, listing) = etcdctl(&etcd.url, &["get", "--prefix", "/baton/v1/home/gateways/"]);
    let lines: Vec<_> = listing.lines().collect();
    lines.chunks_exact(2).map(|pair| (pair[0].to_owned(), serde_json::from_str(pair[1]).unwrap())).collect()
}

/// The HTTP address of the gateway in `slot`, if the share in its record has `parts` parts.
fn sharing(etcd: &Etcd, slot: u32, parts: u64) -> Option<SocketAddr> {
    let (_, record) = gateways(etcd).into_iter().find(|(key, _)| key.ends_with(&format!("/{slot}")))?;
    let ranges = record["share"].as_array()?.iter();
    let has: u64 = ranges.map(|range| range[1].as_u64().unwrap() - range[0].as_u64().unwrap()).sum();
    (has == parts).then(|| record["url"].as_str().unwrap().trim_start_matches("http://").parse().unwrap())
}

fn complete(gateway: SocketAddr, prompt: &[u32], tokens: u32) -> std::io::Result<Value> {
    let body = json!({
        "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": true, "logprobs": 0,
    });
    let answer = request(gateway, "POST", "/v1/completions", &body.to_string())?;
    if answer.status == 0 {
        return Err(std::io::Error::other("the connection ended"));
    }
    assert_eq!(answer.status, 200, "{}", answer.body);
    Ok(answer.json())
}

fn ids(answer: &Value) -> Vec<u64> {
    let ids = answer["choices"][0]["logprobs"]["token_ids"].as_array().expect("token ids");
    ids.iter().map(|id| id.as_u64().unwrap()).collect()
}

/// Anonymous memory of the stages, from their records in the store.
fn memory(cluster: &Cluster) -> Vec<u64> {
    let used = |stage: &Value| stage["memory"]["used"]["pss_anonymous_bytes"].as_u64().unwrap();
    cluster.stages().iter().map(used).collect()
}

#[test]
fn gateways_share_a_cluster_and_the_death_of_one_does_not_affect_the_others() {
    let etcd = Etcd::start();
    // Without speculative tokens a request takes time in proportion to its tokens.
    let cluster = Cluster::start(2, &["--etcd", &etcd.url, "--lease-ttl-s", "2", "--speculation", "off"], &[]);
    let first = sharing(&etcd, 0, 64).expect("the only gateway has everything");
    let prompts: [Vec<u32>; 2] = [(100..140).collect(), (200..240).collect()];
    let undisturbed = prompts.each_ref().map(|prompt| ids(&complete(first, prompt, TOKENS).unwrap()));
    // Stages report their memory every 2 s.
    std::thread::sleep(Duration::from_millis(2200));
    let base = memory(&cluster);
    std::thread::scope(|scope| {
        let whole = scope.spawn(|| complete(first, &prompts[0], TOKENS).unwrap());
        let mut second = Gateway::start(&etcd, &cluster);
        let port = wait_for("the second has half", Duration::from_secs(5), || sharing(&etcd, 1, 32));
        assert!(sharing(&etcd, 0, 32).is_some(), "{:?}", gateways(&etcd));
        assert_eq!(ids(&complete(port, &prompts[1], 20).unwrap()), undisturbed[1][..20]);
        let status = cluster.get("/distributed/status").json();
        assert_eq!(status["gateways"].as_array().unwrap().len(), 2, "{}", status["gateways"]);
        assert_eq!(status["gateways"][1]["share"].as_array().unwrap().len(), 1, "{}", status["gateways"]);
        let answer = whole.join().unwrap();
        assert_eq!((ids(&answer), answer["timings"]["attempts"].as_u64()), (undisturbed[0].clone(), Some(1)));

        let left = scope.spawn(|| complete(first, &prompts[0], TOKENS).unwrap());
        let lost = scope.spawn(move || complete(port, &(300..340).collect::<Vec<_>>(), TOKENS));
        std::thread::sleep(Duration::from_millis(300));
        second.kill();
        // A third gateway need not wait until the lease of the dead one expires.
        let _third = Gateway::start(&etcd, &cluster);
        let third = wait_for("the third has half", LEASE_TTL * 3, || sharing(&etcd, 2, 32));
        assert!(lost.join().unwrap().is_err(), "the dead gateway answered");
        let again = complete(third, &prompts[1], TOKENS).unwrap();
        assert_eq!((ids(&again), again["timings"]["attempts"].as_u64()), (undisturbed[1].clone(), Some(1)));
        let answer = left.join().unwrap();
        assert_eq!((ids(&answer), answer["timings"]["attempts"].as_u64()), (undisturbed[0].clone(), Some(1)));
        assert_eq!(gateways(&etcd).len(), 2, "{:?}", gateways(&etcd));
        let _fourth = Gateway::start(&etcd, &cluster);
        wait_for("the fourth takes the free slot", Duration::from_secs(5), || sharing(&etcd, 1, 21));
    });
    wait_for("the first has everything again", LEASE_TTL * 3, || sharing(&etcd, 0, 64));
    assert_eq!(ids(&complete(first, &prompts[1], TOKENS).unwrap()), undisturbed[1]);
    std::thread::sleep(Duration::from_millis(2200));
    for (base, after) in base.into_iter().zip(memory(&cluster)) {
        assert!(after < base + GROWTH_BYTES_MAX, "a stage grew from {base} to {after} bytes");
    }
}
