//! `kill -9` of the first, a middle and the last stage, with real processes and a real etcd. Each is killed while it
//! loads, while it computes a prompt, while it decodes, and while it hands over its layers. Other requests run all the
//! time, and each of them has exactly the tokens that it has undisturbed.

#[path = "common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use common::etcd::{Etcd, etcdctl};
use common::fleet::{Fleet, STREAMS};
use common::wait_for;

const STAGES: usize = 3;
/// A prompt that takes about a second.
const LONG: u32 = 500;
/// Time between SIGTERM and the kill. In that time the other stages prepare to take over the layers.
const DRAIN_DELAY: Duration = Duration::from_millis(20);
/// Longest wait until a new stage is given layers.
const GIVEN_WAIT_MAX: Duration = Duration::from_secs(15);

#[test]
fn a_stage_killed_in_any_phase_changes_no_answer() {
    let etcd = Etcd::start();
    let mut fleet = Fleet::start(&etcd, STAGES, None, &["--lease-ttl-s", "2"]);
    let client = fleet.client();
    let long: Vec<u32> = (0..LONG).map(|at| 1000 + at * 13 % 9000).collect();
    let (expected, _) = client.complete(&long, 4);
    let mut interrupted = 0;
    let answers = fleet.under_load("kills in all phases", |fleet| {
        for slot in 0..STAGES {
            let victim = fleet.stage_at_slot(slot);
            println!("slot {slot}, decode: s{victim}");
            fleet.kill(victim);

            println!("slot {slot}, loading: s{victim}");
            fleet.start_stage(victim);
            let seen = until_given_layers(fleet, victim);
            println!("  it was {seen:?}");
            fleet.kill(victim);
            fleet.start_stage(victim);
            wait_until_healed(fleet, &etcd);

            let victim = fleet.stage_at_slot(slot);
            println!("slot {slot}, prefill: s{victim}");
            std::thread::scope(|scope| {
                // A prompt with another first token each time is not in the prefix cache.
                let own: Vec<u32> = [2000 + slot as u32].into_iter().chain(long.iter().copied()).collect();
                let asked = own.clone();
                let answer = scope.spawn(move || client.complete(&asked, 4));
                wait_for("the long prompt is begun", GIVEN_WAIT_MAX, || {
                    fleet.metric("baton_sequences_running") > f64::from(STREAMS)
                });
                fleet.kill(victim);
                let (tokens, answer) = answer.join().expect("the long prompt is answered");
                interrupted += u64::from(answer["timings"]["attempts"].as_u64() > Some(1));
                fleet.start_stage(victim);
                wait_until_healed(fleet, &etcd);
                assert_eq!(tokens, client.complete(&own, 4).0, "the long prompt");
            });

            let victim = fleet.stage_at_slot(slot);
            println!("slot {slot}, draining: s{victim}");
            fleet.signal(victim, "TERM");
            std::thread::sleep(DRAIN_DELAY);
            fleet.kill(victim);
            fleet.start_stage(victim);
            wait_until_healed(fleet, &etcd);
        }
    });
    println!("{answers} answers meanwhile");
    assert!(interrupted > 1, "{interrupted} of {STAGES} long prompts were interrupted: the faults came too late");
    assert_eq!(client.complete(&long, 4).0, expected);
    fleet.wait_until_released(&etcd);
    assert!(fleet.metric("baton_epochs_total") >= 12.0, "every fault begins an epoch");
}

/// Waits until a new stage has a claim, preferably until it works on it. Returns the state in which it was seen.
fn until_given_layers(fleet: &Fleet, stage: usize) -> Option<String> {
    let started = Instant::now();
    loop {
        let state = fleet.state_of(stage);
        if matches!(state.as_deref(), Some("loading" | "ready" | "serving")) {
            return state;
        }
        assert!(started.elapsed() < GIVEN_WAIT_MAX, "no layers for s{stage}, which is {state:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until every stage holds layers. The counts of starts are deleted first, so that no stage waits because of
/// earlier crashes.
fn wait_until_healed(fleet: &Fleet, etcd: &Etcd) {
    etcdctl(&etcd.url, &["del", "--prefix", "/baton/v1/home/starts/"]);
    fleet.all_hold_layers();
}
