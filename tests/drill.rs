//! `baton drill` as a real process: on a cluster of its own, and on one that runs.
#![cfg(target_os = "linux")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::cluster::{Cluster, alive, signal};
use common::{model_path, wait_for};
use serde_json::Value;

/// Longest time until a frozen process goes on after the drill was killed.
const THAW_TIME_MAX: Duration = Duration::from_secs(5);
/// Tokens of a request that is still running when the drill begins.
const LONG: u32 = 2000;

fn drill(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command.arg("drill").args(arguments).stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (status.code(), text(&stdout), text(&stderr))
}

/// The letter of the process's state: T if it is stopped.
fn state(pid: u32) -> String {
    let state = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap().stdout;
    String::from_utf8_lossy(&state).trim().to_owned()
}

#[test]
fn a_cluster_of_its_own_loses_a_stage_and_no_token() {
    let (code, stdout, stderr) = run(drill(&["--json", "--tokens", "96"]).arg(model_path()));
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    println!("{stdout}");
    assert_eq!((&report["verdict"], &report["fault"]), (&"equal".into(), &"kill".into()));
    let (undisturbed, disturbed) = (&report["undisturbed"], &report["disturbed"]);
    assert_eq!((&undisturbed["tokens"], &undisturbed["attempts"]), (&96.into(), &1.into()));
    assert_eq!((&disturbed["tokens"], &disturbed["hash"]), (&96.into(), &undisturbed["hash"]));
    assert!(disturbed["attempts"].as_u64().unwrap() > 1 && report["whole_again_ms"].is_u64(), "{report}");
}

#[test]
fn a_running_cluster_is_frozen_refused_and_never_left_disturbed() {
    let cluster = Cluster::start(3, &["--lease-ttl-s", "2", "--speculation", "off"], &[]);
    let url = format!("http://{}", cluster.http);
    let before = cluster.stages();

    // A stage is frozen. The line about the pause comes between the fault and the end.
    let (code, stdout, stderr) = run(&mut drill(&["--url", &url, "--fault", "freeze"]));
    println!("{stdout}");
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let position = |text: &str| stdout.find(text).unwrap_or_else(|| panic!("no {text:?} in {stdout}"));
    let order = ["undisturbed: 128 tokens", " is frozen", "goes on after", "whole again", "EQUAL: all 128 tokens"];
    assert!(order.windows(2).all(|pair| position(pair[0]) < position(pair[1])), "{stdout}");

    // The drill itself is killed while a stage is frozen: the stage goes on.
    let victim = cluster.stages().iter().find(|stage| stage["slot"] == 0).expect("a first stage").clone();
    let (name, pid) = (victim["name"].as_str().unwrap(), victim["pid"].as_u64().unwrap() as u32);
    let mut arguments = drill(&["--url", &url, "--fault", "freeze", "--stage", name, "--tokens", "200"]);
    let mut killed = arguments.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(killed.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with("is frozen")));
    // The signal is sent when the line is printed; a busy system stops the threads a moment later.
    wait_for("the stage is frozen", Duration::from_secs(1), || state(pid).starts_with('T'));
    killed.kill().unwrap();
    killed.wait().unwrap();
    let thawed = wait_for("the stage goes on", THAW_TIME_MAX, || !state(pid).starts_with('T') && alive(pid));
    println!("the frozen stage goes on {thawed:?} after the drill was killed");

    let running = || cluster.get("/distributed/status").json()["running"].clone();
    wait_for("its stream ends with it", Duration::from_secs(10), || running() == 0);

    // The drill refuses with the reason what cannot be done here, and what others would suffer from.
    for (arguments, expected) in [
        (&["--fault", "store"][..], "kills only an etcd that it has started itself"),
        (&["--fault", "cut"], "which no packet filter sees"),
        (&["--stage", "nobody"], "stage nobody holds no layers: expected one of"),
    ] {
        wait_for("all serve", Duration::from_secs(30), || cluster.get("/health").status == 200);
        let (code, stdout, stderr) = run(drill(&["--url", &url]).args(arguments));
        assert!(code == Some(1) && stderr.contains(expected), "{code:?} {stdout}{stderr}");
    }
    let other = cluster.ask_at_length(LONG);
    wait_for("the request runs", Duration::from_secs(10), || running() == 1);
    let (code, stdout, stderr) = run(&mut drill(&["--url", &url]));
    assert!(code == Some(1) && stderr.contains("a request of another client runs"), "{stdout}{stderr}");
    drop(other);
    wait_for("the request ends with its client", Duration::from_secs(10), || running() == 0);

    // A stage that a drill kills is started again.
    let (code, stdout, stderr) = run(&mut drill(&["--url", &url, "--tokens", "64"]));
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let names = |stages: &[Value]| stages.iter().map(|stage| stage["name"].to_string()).collect::<Vec<_>>();
    let after = cluster.stages();
    assert_eq!(names(&after), names(&before));
    assert!(after.iter().all(|stage| alive(stage["pid"].as_u64().unwrap() as u32)), "{after:?}");
    signal(cluster.pid(), "INT");
}
