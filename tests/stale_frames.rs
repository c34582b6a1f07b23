//! Frames that a stale process would send. The test makes them and sends them to real stages over real links while
//! requests run: none is computed, each is counted, and no request is disturbed.

mod common;

use std::time::Duration;

use common::etcd::{Etcd, etcdctl};
use common::fleet::Fleet;
use common::wait_for;
use engine::link::Outbound;
use schema::frame::{Frame, Hop, Slice};
use schema::{Epoch, Generation, SequenceId, Step};
use serde_json::Value;

const REFUSED: &str = "baton_stage_process_frames_refused_total";
/// Number of frames of each kind that are sent to each stage.
const TIMES: usize = 25;
/// Longest wait until all refusals are reported. A stage reports every two seconds.
const REPORT_WAIT_MAX: Duration = Duration::from_secs(8);
/// A slot that no gateway has.
const NOBODY: u32 = 7;

/// A frame of one token with this generation, gateway, epoch and slot.
fn frame(generation: u64, gateway: u32, epoch: u64, slot: u32) -> Frame {
    let slice = Slice {
        position: 0,
        count: 1,
        tokens: vec![5],
        blocks: vec![0],
        logits: vec![0],
        ..Slice::empty(SequenceId(1))
    };
    Frame::Hop(Hop {
        generation: Generation(generation),
        gateway,
        epoch: Epoch(epoch),
        step: Step(0),
        slot,
        rows: 1,
        hidden: 0,
        slices: vec![slice],
        spent: Vec::new(),
    })
}

/// The claims of the placement: generation, slot, and endpoint at which the stage takes frames.
fn endpoints(etcd: &Etcd) -> Vec<(u64, u32, String)> {
    let (_, listing) = etcdctl(&etcd.url, &["get", "--prefix", "/baton/v1/home/claims/"]);
    let lines: Vec<_> = listing.lines().collect();
    let claims = lines.chunks_exact(2).map(|pair| {
        let mut key = pair[0].rsplit('/').map(|part| part.parse::<u64>().expect("a number"));
        let (slot, generation) = (key.next().unwrap() as u32, key.next().unwrap());
        let record: Value = serde_json::from_str(pair[1]).expect("a claim");
        (generation, slot, record["endpoint"].as_str().expect("an endpoint").to_owned())
    });
    claims.collect()
}

#[test]
fn stale_frames_are_counted_and_never_computed() {
    let etcd = Etcd::start();
    let mut fleet = Fleet::start(&etcd, 2, None, &["--lease-ttl-s", "2"]);
    let claims = endpoints(&etcd);
    assert_eq!(claims.len(), 2, "{claims:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // The request makes every stage compute, so every stage has seen the gateway's epoch.
    fleet.answers_as_before();
    let epochs = fleet.metric("baton_epochs_total");
    let refused = fleet.metric(REFUSED);
    let mut sent = 0;
    let outcome = fleet.with_fault("stale frames are sent", |_| {
        runtime.block_on(async {
            for (generation, slot, endpoint) in &claims {
                let mut stale_sender = Outbound::connect(endpoint, None).await.expect("the stage takes connections");
                for _ in 0..TIMES {
                    for frame in [
                        frame(generation - 1, 0, u64::MAX, *slot),
                        frame(generation + 1, 0, u64::MAX, *slot),
                        frame(*generation, 0, 1, *slot),
                        frame(*generation, 0, u64::MAX, slot + 1),
                        frame(*generation, NOBODY, u64::MAX, *slot),
                    ] {
                        stale_sender.send(&frame, Vec::new()).await.expect("it is sent");
                        sent += 1;
                    }
                }
                stale_sender.flush().await.expect("it is sent");
            }
        });
    });
    assert_eq!(outcome.attempts, 1, "a request was disturbed");
    let counted = || fleet.metric(REFUSED) - refused;
    wait_for("every stale frame is counted", REPORT_WAIT_MAX, || counted() >= f64::from(sent));
    assert_eq!((counted(), fleet.metric("baton_epochs_total")), (f64::from(sent), epochs));
    println!("{sent} stale frames: {sent} refused, none computed");
}
