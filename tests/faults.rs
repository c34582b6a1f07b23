//! Faults of stages and of the store, with a real etcd and real processes.

mod common;

#[cfg(target_os = "linux")]
use std::io::{Read, Write};
#[cfg(target_os = "linux")]
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use common::cluster::{Cluster, alive, signal};
use common::etcd::{Etcd, etcdctl};
use common::wait_for;
use serde_json::{Value, json};

/// Lease TTL of these clusters: the least that etcd grants.
const LEASE_TTL: Duration = Duration::from_secs(2);
/// etcd looks for expired leases twice a second and revokes them through its log.
const STORE_SLACK: Duration = Duration::from_millis(1500);

fn answer(cluster: &Cluster) -> String {
    let body = json!({
        "messages": [{"role": "user", "content": "What is the capital of France? Answer in one word."}],
        "temperature": 0,
    });
    let answer = cluster.post("/v1/chat/completions", &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

#[test]
fn a_killed_stage_is_reported_within_its_lease_and_the_others_take_over_with_the_same_tokens() {
    let etcd = Etcd::start();
    // Without speculative tokens. With them, the answer, which repeats itself, would be complete before the fault.
    let arguments = ["--etcd", &etcd.url, "--lease-ttl-s", "2", "--speculation", "off", "--restart", "off"];
    let cluster = Cluster::start(3, &arguments, &[]);
    let (_, keys) = etcdctl(&etcd.url, &["get", "--prefix", "/baton/"]);
    for expected in ["/baton/v1/home/placement", "/baton/v1/home/claims/1/2", "\"state\":\"serving\"", "\"layers\":[0,"]
    {
        assert!(keys.contains(expected), "{expected} is missing in\n{keys}");
    }
    let prompt: Vec<u32> = (100..140).collect();
    let (undisturbed, _) = cluster.complete(&prompt, 400);
    let stages = cluster.stages();
    let middle = stages.iter().find(|stage| stage["slot"] == 1).expect("a middle stage");
    let (victim, layers) = (middle["pid"].as_u64().unwrap() as u32, middle["layers"].clone());
    std::thread::scope(|scope| {
        let running = scope.spawn(|| cluster.complete(&prompt, 400));
        std::thread::sleep(Duration::from_millis(700));
        signal(victim, "KILL");
        let mut seen = Value::Null;
        let missed = wait_for("health names the layers", LEASE_TTL + STORE_SLACK, || {
            let health = cluster.get("/health");
            seen = health.json();
            health.status == 503 && seen.to_string().contains("gone")
        });
        println!("after {missed:?}: {seen}");
        assert!(seen.to_string().contains(&format!("layers {}..{}", layers[0], layers[1])), "{seen}");
        let healed = wait_for("the others take over", Duration::from_secs(20), || cluster.get("/health").status == 200);
        println!("healthy again {healed:?} later");
        let (disturbed, answer) = running.join().unwrap();
        assert_eq!(disturbed, undisturbed);
        assert!(answer["timings"]["attempts"].as_u64().unwrap() > 1, "the fault came too late: {}", answer["timings"]);
    });
    assert_eq!(cluster.stages().iter().filter(|stage| stage["state"] == "serving").count(), 2);
}

#[test]
fn a_cluster_too_small_without_a_stage_stays_unhealthy_until_it_is_back() {
    let etcd = Etcd::start();
    let arguments = ["--etcd", &etcd.url, "--lease-ttl-s", "2", "--memory", "230MB", "--restart", "off"];
    let cluster = Cluster::start(2, &arguments, &[]);
    let before = answer(&cluster);
    let victim = cluster.stage_pids()[1];
    signal(victim, "KILL");
    wait_for("health turns", LEASE_TTL + STORE_SLACK, || cluster.get("/health").status == 503);
    std::thread::sleep(Duration::from_secs(2));
    let health = cluster.get("/health");
    assert_eq!(health.status, 503, "{}", health.body);
    let refused = cluster.post("/v1/completions", &json!({"prompt": "x"}));
    assert_eq!(refused.status, 503, "{}", refused.body);
    let mut late = std::process::Command::new(env!("CARGO_BIN_EXE_baton"))
        .args(["stage", "--etcd", &etcd.url, "--name", "late", "--memory", "230MB", "--threads", "1"])
        .arg(common::model_path())
        .env("XDG_RUNTIME_DIR", cluster.folder.path())
        .spawn()
        .unwrap();
    wait_for("a new stage helps", Duration::from_secs(20), || cluster.get("/health").status == 200);
    assert_eq!(answer(&cluster), before);
    signal(late.id(), "TERM");
    assert!(late.wait().unwrap().success(), "SIGTERM is a good end");
}

#[test]
fn without_the_store_serving_goes_on() {
    let etcd = Etcd::start();
    let cluster = Cluster::start(2, &["--etcd", &etcd.url, "--lease-ttl-s", "2"], &[]);
    let before = answer(&cluster);
    let pids = cluster.stage_pids();
    drop(etcd);
    let started = Instant::now();
    while started.elapsed() < 3 * LEASE_TTL {
        assert_eq!(answer(&cluster), before);
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(cluster.get("/health").status, 200);
    assert_eq!(cluster.get("/distributed/status").json()["store"]["reachable"], false);
    assert!(pids.into_iter().all(alive));
}

#[test]
fn foreign_keys_and_broken_json_in_the_store_are_named_and_do_no_harm() {
    let etcd = Etcd::start();
    let cluster = Cluster::start(2, &["--etcd", &etcd.url], &[]);
    let before = answer(&cluster);
    for (key, value) in [
        ("/baton/v1/home/nonsense", "x"),
        ("/baton/v1/home/stages/evil", "{not json"),
        ("/baton/v1/home/pins/x", "[1,2]"),
        ("/baton/v1/home/claims/9/9", "null"),
        ("/baton/v1/home/gateways/7", "{}"),
        ("/baton/v1/other/placement", "{}"),
    ] {
        assert!(etcdctl(&etcd.url, &["put", key, value]).0, "put {key}");
    }
    let complaints = || cluster.get("/distributed/status").json()["complaints"].as_array().map_or(0, Vec::len);
    wait_for("complaints", Duration::from_secs(5), || complaints() == 5);
    assert_eq!(answer(&cluster), before);
    // Members that know the placement replace a broken one and write a deleted one again. Requests are not affected.
    assert!(etcdctl(&etcd.url, &["put", "/baton/v1/home/placement", "{broken"]).0);
    let is_placed = || etcdctl(&etcd.url, &["get", "/baton/v1/home/placement"]).1.contains("\"shards\"");
    wait_for("the broken placement is replaced", Duration::from_secs(5), is_placed);
    assert!(etcdctl(&etcd.url, &["del", "/baton/v1/home/placement"]).0);
    wait_for("the placement is written again", Duration::from_secs(5), is_placed);
    assert_eq!(cluster.get("/health").status, 200);
    assert_eq!(answer(&cluster), before);
    assert!(cluster.stage_pids().into_iter().all(alive));
}

#[test]
fn a_stage_whose_file_is_written_reports_it_and_ends_at_once() {
    let etcd = Etcd::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    std::fs::copy(common::model_path(), &file).unwrap();
    // The lease outlives this test, so the stage must revoke it.
    let stage = std::process::Command::new(env!("CARGO_BIN_EXE_baton"))
        .args(["stage", "--etcd", &etcd.url, "--name", "a", "--kv-tokens", "512", "--lease-ttl-s", "60"])
        .arg(&file)
        .env("XDG_RUNTIME_DIR", folder.path())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let keys = || etcdctl(&etcd.url, &["get", "--prefix", "/baton/v1/home/"]).1;
    wait_for("the stage serves", Duration::from_secs(20), || keys().contains("\"state\":\"serving\""));
    // The write changes a byte of the last tensor: the file has the same length but is another model.
    let writable = std::fs::File::options().write(true).open(&file).unwrap();
    let length = writable.metadata().unwrap().len();
    std::os::unix::fs::FileExt::write_all_at(&writable, &[1], length - 1).unwrap();
    let ended = std::thread::spawn(move || stage.wait_with_output().unwrap());
    let most = Duration::from_secs(5);
    let took = wait_for("the stage ends", most, || ended.is_finished());
    println!("ended {took:?} after the write");
    let output = ended.join().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let last = stderr.lines().last().unwrap_or_default();
    assert!(
        last.contains("model.gguf changed while its weights were in use") && last.contains("start again"),
        "{stderr}"
    );
    assert!(!keys().contains("/stages/a") && !keys().contains("/claims/"), "{}", keys());
}

/// Addresses on which a process listens, according to /proc.
#[cfg(target_os = "linux")]
fn listening(pid: u32) -> Vec<SocketAddr> {
    let inodes: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned()))
        .collect();
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    let open = rows.filter(|row| row[3] == "0A" && inodes.iter().any(|inode| inode == row[9]));
    open.map(|row| {
        let port = u16::from_str_radix(row[1].rsplit(':').next().unwrap(), 16).unwrap();
        SocketAddr::from(([127, 0, 0, 1], port))
    })
    .collect()
}

#[cfg(target_os = "linux")]
fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with("Anonymous:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// First bytes on a connection that no baton peer sends.
#[cfg(target_os = "linux")]
fn hostile() -> Vec<Vec<u8>> {
    let mut greeting = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0];
    greeting.extend(b"NULL");
    greeting.resize(64, 0);
    let with = |frame: &[u8]| greeting.iter().chain(frame).copied().collect::<Vec<u8>>();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let noise = (0..100_000).map(|_| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as u8
    });
    vec![
        noise.collect(),
        vec![0; 70_000],
        vec![0xff; 70_000],
        greeting.clone(),
        // A ZMTP frame that declares 2^36 bytes, and one that declares the largest length.
        with(&[2, 0, 0, 0, 0x10, 0, 0, 0, 0]),
        with(&[6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        with(b"\x04\x26\x05READY\x0bSocket-Type\0\0\0\x04PUSH\x08Identity\0\0\0\0"),
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x7f\xff\xff\x04\0\0\0\0\0".to_vec(),
        b"POST /v1/completions HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n".to_vec(),
    ]
}

#[cfg(target_os = "linux")]
#[test]
fn hostile_bytes_at_every_listening_port_do_no_harm() {
    const GROWTH_BYTES_MAX: u64 = 16 << 20;
    let key = "ab".repeat(32);
    let cluster = Cluster::start(2, &["--advertise", "127.0.0.1"], &[("BATON_CLUSTER_KEY", &key)]);
    let before = answer(&cluster);
    let processes: Vec<u32> = cluster.stage_pids().into_iter().chain([cluster.pid()]).collect();
    let ports: Vec<(u32, SocketAddr)> =
        processes.iter().flat_map(|pid| listening(*pid).into_iter().map(|port| (*pid, port))).collect();
    // The link listener of each of the three processes, the HTTP server and the store.
    assert_eq!(ports.len(), 5, "{ports:?}");
    let memory: Vec<u64> = processes.iter().map(|pid| resident(*pid)).collect();
    for (_, port) in &ports {
        for bytes in hostile() {
            for _ in 0..5 {
                let Ok(mut stream) = TcpStream::connect(port) else { panic!("{port} does not answer any more") };
                stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                let _ = stream.write_all(&bytes);
                let _ = stream.read(&mut [0; 1024]);
            }
        }
    }
    assert_eq!(answer(&cluster), before);
    assert!(processes.iter().all(|pid| alive(*pid)));
    for (pid, before) in processes.iter().zip(memory) {
        let after = resident(*pid);
        println!("process {pid}: {before} bytes anonymous before, {after} after");
        assert!(after < before + GROWTH_BYTES_MAX, "process {pid} grew from {before} to {after} bytes");
    }
}

#[test]
fn another_model_file_than_the_clusters_is_refused() {
    let etcd = Etcd::start();
    let _cluster = Cluster::start(1, &["--etcd", &etcd.url], &[]);
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.gguf");
    let mut bytes = std::fs::read(common::model_path()).unwrap();
    let last = bytes.len() - 1;
    bytes.truncate(last);
    bytes.push(1);
    // The loop changes every thousandth byte, and so some of the first 4,096 bytes of tensors, which the fingerprint
    // samples.
    let mut changed = bytes;
    for byte in changed.iter_mut().skip(3_000_000).step_by(1000) {
        *byte ^= 1;
    }
    std::fs::write(&other, changed).unwrap();
    let stage = std::process::Command::new(env!("CARGO_BIN_EXE_baton"))
        .args(["stage", "--etcd", &etcd.url, "--name", "odd"])
        .arg(&other)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&stage.stderr);
    assert!(!stage.status.success() && stderr.contains("fingerprint"), "{stderr}");
}
