//! Pins put with `etcdctl` while a request runs: layers move, tokens do not change, and the status of a bad pin names
//! the reason.

mod common;

use std::process::Command;
use std::time::Duration;

use common::cluster::Cluster;
use common::etcd::{Etcd, etcdctl};
use common::wait_for;
use serde_json::{Value, json};

const MOVE_WAIT_MAX: Duration = Duration::from_secs(20);
const TOKENS: u32 = 400;

fn put(etcd: &Etcd, stage: &str, value: &str) {
    assert!(etcdctl(&etcd.url, &["put", &format!("/baton/v1/home/pins/{stage}"), value]).0);
}

fn delete(etcd: &Etcd, stage: &str) {
    assert!(etcdctl(&etcd.url, &["del", &format!("/baton/v1/home/pins/{stage}")]).0);
}

fn status_of(etcd: &Etcd, stage: &str) -> Option<Value> {
    let key = format!("/baton/v1/home/pins-status/{stage}");
    serde_json::from_str(&etcdctl(&etcd.url, &["get", &key, "--print-value-only"]).1).ok()
}

fn generation(cluster: &Cluster) -> u64 {
    cluster.get("/distributed/status").json()["generation"].as_u64().unwrap()
}

/// The stage in `slot` and its layers.
fn holder(cluster: &Cluster, slot: u64) -> (String, Value) {
    let stages = cluster.stages();
    let stage = stages.iter().find(|stage| stage["slot"] == slot).expect("a stage in the slot");
    (stage["name"].as_str().unwrap().to_owned(), stage["layers"].clone())
}

/// The exit status and the standard output of a verb.
fn baton(etcd: &Etcd, arguments: &[&str]) -> (Option<i32>, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_baton")).args(arguments).args(["--etcd", &etcd.url]).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn pins_move_layers_under_a_running_request_and_bad_ones_change_nothing() {
    let etcd = Etcd::start();
    // Without speculative tokens a request takes time in proportion to its tokens.
    let cluster = Cluster::start(2, &["--etcd", &etcd.url, "--lease-ttl-s", "2", "--speculation", "off"], &[]);
    let prompt: Vec<u32> = (100..140).collect();
    let (undisturbed, _) = cluster.complete(&prompt, TOKENS);
    let (first, _) = holder(&cluster, 0);
    let pinned = json!([0, 5]);
    let (last, _) = holder(&cluster, 1);
    let before = generation(&cluster);

    let disturbed = |change: &(dyn Fn() + Sync)| {
        std::thread::scope(|scope| {
            let running = scope.spawn(|| cluster.complete(&prompt, TOKENS));
            std::thread::sleep(Duration::from_millis(700));
            change();
            let (tokens, answer) = running.join().unwrap();
            assert_eq!(tokens, undisturbed);
            assert!(answer["timings"]["attempts"].as_u64().unwrap() > 1, "too late: {}", answer["timings"]);
        });
    };
    disturbed(&|| {
        put(&etcd, &first, r#"{"layers":[0,5]}"#);
        wait_for("the layers move", MOVE_WAIT_MAX, || {
            holder(&cluster, 0).1 == pinned && cluster.get("/health").status == 200
        });
    });
    assert_eq!(generation(&cluster), before + 1);
    assert_eq!(status_of(&etcd, &first).unwrap()["honoured"], true);

    for (stage, bad, why) in [
        (last.as_str(), r#"{"layers":[3,30]}"#, "overlap layers 0..5"),
        (last.as_str(), r#"{"layers":[6,30]}"#, "layers 5..6 would be held by nobody"),
        (last.as_str(), r#"{"layers":[0,12"#, "unreadable value"),
        (last.as_str(), r#"{"memory":"900TiB"}"#, "more than stage"),
        ("nobody", r#"{"layers":[]}"#, "is not live"),
    ] {
        put(&etcd, stage, bad);
        let has_reason = || status_of(&etcd, stage).is_some_and(|status| status["reason"].to_string().contains(why));
        wait_for(why, MOVE_WAIT_MAX, has_reason);
        let shown = |pin: &Value| pin["stage"] == stage && pin["reason"].to_string().contains(why);
        wait_for("the gateway shows the reason", MOVE_WAIT_MAX, || {
            let pins = cluster.get("/distributed/status").json()["pins"].clone();
            pins.as_array().unwrap().iter().any(shown)
        });
        let output = baton(&etcd, &["status"]).1;
        assert!(output.contains(why), "{output}");
        delete(&etcd, stage);
        wait_for("its status is deleted", MOVE_WAIT_MAX, || status_of(&etcd, stage).is_none());
        assert_eq!(generation(&cluster), before + 1, "{bad}");
    }
    disturbed(&|| {
        delete(&etcd, &first);
        // This may differ from the first division, because the stages have measured their speeds by now.
        wait_for("the layers come back", MOVE_WAIT_MAX, || {
            holder(&cluster, 0).1 != pinned && cluster.get("/health").status == 200
        });
    });
    assert_eq!(generation(&cluster), before + 2);
    wait_for("nothing stays behind", MOVE_WAIT_MAX, || status_of(&etcd, &first).is_none());

    // The same through the command line, which checks a pin before it writes it.
    let preview = baton(&etcd, &["plan", &first, "0..7", "--json"]);
    let stages = serde_json::from_str::<Value>(&preview.1).unwrap()["stages"].clone();
    assert_eq!((&stages[0]["after"], &stages[1]["after"]), (&json!([0, 7]), &json!([7, 30])));
    assert_eq!(generation(&cluster), before + 2, "a preview changed something");
    assert_eq!(baton(&etcd, &["pin", &first, "0..31"]), (Some(1), String::new()));
    assert_eq!(baton(&etcd, &["pin", &first, "0..7"]).0, Some(0));
    wait_for("the layers move", MOVE_WAIT_MAX, || holder(&cluster, 0).1 == json!([0, 7]));
    assert_eq!(baton(&etcd, &["unpin", &first]).0, Some(0));
    wait_for("the layers come back", MOVE_WAIT_MAX, || holder(&cluster, 0).1 != json!([0, 7]));
    assert_eq!(baton(&etcd, &["unpin", &first]), (Some(1), String::new()));
}
