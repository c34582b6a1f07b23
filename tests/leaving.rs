//! Stages that get SIGTERM hand over their layers first, and standby stages are ready to take over. The tests use real
//! processes and a real etcd.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::cluster::{Cluster, signal};
use common::etcd::{Etcd, etcdctl};
use common::wait_for;
use serde_json::json;

const MODEL_TIME: Duration = Duration::from_secs(20);

/// One stage process. Dropping it kills the process.
struct Stage(Child);

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One more stage, in addition to those of `baton up`.
fn stage(cluster: &Cluster, etcd: &Etcd, name: &str) -> Stage {
    stage_with(cluster, etcd, name, &[])
}

/// The same with more arguments.
fn stage_with(cluster: &Cluster, etcd: &Etcd, name: &str, more: &[&str]) -> Stage {
    let child = Command::new(env!("CARGO_BIN_EXE_baton"))
        .args(["stage", "--etcd", &etcd.url, "--name", name, "--threads", "1", "--lease-ttl-s", "2"])
        .args(more)
        .arg(common::model_path())
        .env("XDG_RUNTIME_DIR", cluster.folder.path())
        .spawn()
        .unwrap();
    Stage(child)
}

/// A cluster of two stages. One of them joined later.
fn with_a_late_stage() -> (Etcd, Cluster, Stage) {
    let etcd = Etcd::start();
    // Without speculative tokens a request takes time in proportion to its tokens.
    let cluster = Cluster::start(1, &["--etcd", &etcd.url, "--lease-ttl-s", "2", "--speculation", "off"], &[]);
    let late = stage(&cluster, &etcd, "late");
    wait_for("both serve", MODEL_TIME, || {
        let stages = cluster.stages();
        stages.len() == 2 && stages.iter().all(|stage| stage["state"] == "serving")
    });
    (etcd, cluster, late)
}

fn state_of(cluster: &Cluster, name: &str) -> String {
    let stages = cluster.stages();
    let stage = stages.iter().find(|stage| stage["name"] == name);
    stage.and_then(|stage| stage["state"].as_str()).unwrap_or_default().to_owned()
}

#[test]
fn a_draining_stage_hands_over_first_and_no_token_changes() {
    let (etcd, cluster, mut late) = with_a_late_stage();
    let prompt: Vec<u32> = (100..140).collect();
    let (undisturbed, _) = cluster.complete(&prompt, 300);
    let running = std::thread::scope(|scope| {
        let running = scope.spawn(|| cluster.complete(&prompt, 300));
        std::thread::sleep(Duration::from_millis(300));
        signal(late.0.id(), "TERM");
        let status = late.0.wait().unwrap();
        assert!(status.success(), "{status}");
        running.join().unwrap()
    });
    assert_eq!(running.0, undisturbed);
    assert_eq!(running.1["timings"]["attempts"], 2, "one change of hands: {}", running.1["timings"]);
    let (_, keys) = etcdctl(&etcd.url, &["get", "--prefix", "--keys-only", "/baton/v1/home/"]);
    assert!(!keys.contains("/stages/late") && keys.matches("/claims/").count() == 1, "{keys}");
}

#[test]
fn the_last_stage_does_not_wait_and_a_second_signal_ends_at_once() {
    let (_etcd, cluster, mut late) = with_a_late_stage();
    let other = cluster.stages().iter().find(|stage| stage["name"] != "late").unwrap()["pid"].as_u64().unwrap() as u32;
    // The stage that should take over is frozen, so the late one waits, until it gets a second signal.
    signal(other, "STOP");
    signal(late.0.id(), "TERM");
    std::thread::sleep(Duration::from_millis(600));
    assert!(late.0.try_wait().unwrap().is_none(), "it left without a stage to take over");
    signal(late.0.id(), "TERM");
    let started = Instant::now();
    assert_eq!(late.0.wait().unwrap().code(), Some(143));
    assert!(started.elapsed() < Duration::from_secs(4));
    signal(other, "CONT");
    wait_for("the other one serves alone", MODEL_TIME, || cluster.get("/health").status == 200);
    // It is the last stage now, so there is none to wait for.
    let started = Instant::now();
    signal(other, "TERM");
    wait_for("the last one has left", Duration::from_secs(8), || cluster.get("/health").status == 503);
    println!("the last one left within {:?}", started.elapsed());
}

#[test]
fn a_standby_stage_has_read_its_layers_and_takes_over() {
    let etcd = Etcd::start();
    // A lease of a stage that is gone would keep its place for longer than the take-over may take.
    let cluster = Cluster::start(2, &["--etcd", &etcd.url, "--lease-ttl-s", "10", "--restart", "off"], &[]);
    let stages = cluster.stages();
    let names: Vec<_> = stages.iter().map(|stage| stage["name"].as_str().unwrap().to_owned()).collect();
    for (name, layers) in names.iter().zip(["[0,10]", "[10,30]"]) {
        let key = format!("/baton/v1/home/pins/{name}");
        assert!(etcdctl(&etcd.url, &["put", &key, &format!(r#"{{"layers":{layers}}}"#)]).0);
    }
    wait_for("the pins move layers", MODEL_TIME, || {
        let stages = cluster.stages();
        stages[0]["layers"] == json!([0, 10]) && stages.iter().all(|stage| stage["state"] == "serving")
    });
    // The name sorts before those of the others. The stage still takes the place of the one that is lost.
    let mut spare = stage(&cluster, &etcd, "0-spare");
    let record = || etcdctl(&etcd.url, &["get", "--print-value-only", "/baton/v1/home/stages/0-spare"]).1;
    wait_for("the spare one has read ahead", MODEL_TIME, || record().contains(r#""standby":[[0,10],[10,30]]"#));
    assert_eq!(state_of(&cluster, "0-spare"), "standby");
    // The end of a link that was used is detected at once. Without such a link, only the expiry of the lease shows that
    // the stage is gone.
    cluster.complete(&[100, 101, 102], 2);
    let last = cluster.stages()[1]["pid"].as_u64().unwrap() as u32;
    signal(last, "KILL");
    wait_for("the spare one serves", Duration::from_secs(5), || state_of(&cluster, "0-spare") == "serving");
    let now = cluster.stages();
    assert_eq!(now[0]["layers"], json!([0, 10]), "the stage that stayed keeps its layers: {now:?}");
    signal(spare.0.id(), "TERM");
    assert!(spare.0.wait().unwrap().success());
}

/// Tokens of keys and values for which every stage has room, if all stages that are listed serve with that room.
fn room(cluster: &Cluster) -> Option<u64> {
    let status = cluster.get("/distributed/status").json();
    let room = status["model"]["kv_tokens"].as_u64()?;
    let serves = |stage: &serde_json::Value| stage["state"] == "serving" && stage["kv"]["blocks"] == room / 32;
    (status["serving"] == true && status["stages"].as_array()?.iter().all(serves)).then_some(room)
}

#[test]
fn a_small_machine_lowers_the_room_for_keys_and_values_while_it_is_there_and_no_request_is_dropped() {
    /// Four times the context of the model.
    const MOST: u64 = 32_768;
    const LEAST: u64 = 8192;
    let etcd = Etcd::start();
    let flags = ["--etcd", &etcd.url, "--lease-ttl-s", "2", "--speculation", "off", "--memory", "8GB"];
    let cluster = Cluster::start(1, &flags, &[]);
    assert_eq!(room(&cluster), Some(MOST));
    let prompt: Vec<u32> = (100..140).collect();
    let (undisturbed, _) = cluster.complete(&prompt, 120);
    let over = AtomicBool::new(false);
    let computed_again = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let asks = || {
            while !over.load(Ordering::Relaxed) {
                let (tokens, answer) = cluster.complete(&prompt, 120);
                assert_eq!(tokens, undisturbed);
                let attempts = answer["timings"]["attempts"].as_u64().unwrap();
                computed_again.fetch_add(attempts - 1, Ordering::Relaxed);
            }
        };
        let asking = [scope.spawn(asks), scope.spawn(asks)];
        let watched = catch_unwind(AssertUnwindSafe(|| {
            // A third of the layers takes 140 MB with the least room, and 340 MB with the most.
            let mut small = stage_with(&cluster, &etcd, "small", &["--memory", "250MB"]);
            let both = || cluster.stages().len() == 2 && room(&cluster).is_some_and(|room| room < MOST);
            wait_for("both serve with less room", MODEL_TIME, both);
            let lowered = room(&cluster);
            assert!(lowered.is_some_and(|room| room > LEAST), "{lowered:?}");
            let (_, placement) = etcdctl(&etcd.url, &["get", "--print-value-only", "/baton/v1/home/placement"]);
            let placement: serde_json::Value = serde_json::from_str(&placement).unwrap();
            assert_eq!(placement["kv_tokens"].as_u64(), lowered);
            signal(small.0.id(), "TERM");
            assert!(small.0.wait().unwrap().success());
            wait_for("the other one has all room again", MODEL_TIME, || room(&cluster) == Some(MOST));
        }));
        over.store(true, Ordering::Relaxed);
        watched.unwrap_or_else(|panic| resume_unwind(panic));
        asking.into_iter().for_each(|asking| asking.join().expect("every answer is as without a change"));
    });
    assert!(computed_again.into_inner() >= 2, "no request ran while the room changed");
}
