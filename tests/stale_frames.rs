//! Frames that a stale process would send, and connections of whoever has no key. The tests make them and send them to
//! real stages over real links: none is computed, each is counted or named, and no request is disturbed.

mod common;

use std::time::Duration;

use common::etcd::{Etcd, etcdctl};
use common::fleet::Fleet;
use common::wait_for;
use engine::link::{ClusterKey, Outbound};
use schema::frame::{Frame, Hop, Slice};
use schema::{Epoch, Generation, SequenceId, Step};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

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

/// Passes one connection on to `to`, and returns the bytes that its client sent once it is closed.
async fn recorded(listener: TcpListener, to: String) -> Vec<u8> {
    let (mut near, _) = listener.accept().await.unwrap();
    let mut far = TcpStream::connect(to).await.unwrap();
    let ((mut near_read, mut near_write), (mut far_read, mut far_write)) = (near.split(), far.split());
    let mut bytes = Vec::new();
    let forth = async {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = near_read.read(&mut buffer).await {
            bytes.extend(&buffer[..count]);
            far_write.write_all(&buffer[..count]).await.unwrap();
        }
    };
    tokio::select! {
        () = forth => {}
        _ = tokio::io::copy(&mut far_read, &mut near_write) => {}
    }
    bytes
}

/// Sends `bytes` over a new connection, waits until it is closed, and returns the sender's address.
async fn replay(bytes: &[u8], to: &str) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let from = stream.local_addr().unwrap().to_string();
    let _ = stream.write_all(bytes).await;
    while let Ok(1..) = stream.read(&mut [0; 4096]).await {}
    from
}

#[test]
fn forged_identities_and_recorded_bytes_are_refused_and_named() {
    let etcd = Etcd::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cluster.key");
    let secret = ClusterKey::generate().unwrap();
    std::fs::write(&file, secret.to_hex()).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let file = file.to_str().unwrap();
    let fleet = Fleet::start(&etcd, 1, None, &["--advertise", "127.0.0.1", "--cluster-key-file", file]);
    let (generation, slot, endpoint) = endpoints(&etcd).remove(0);
    let address = endpoint.strip_prefix("tcp://").expect("an address for machines").to_owned();
    let key = secret.of_cluster(&"home".parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let named = |cause: &str, attempt: &dyn Fn() -> String| {
        wait_for("the log names who was refused, and why", REPORT_WAIT_MAX, || {
            let from = attempt();
            fleet
                .log(0)
                .lines()
                .any(|line| line.contains("connection refused") && line.contains(cause) && line.contains(&from))
        });
    };

    // Another machine's key, and the same key for another cluster.
    for foreign in [ClusterKey::generate().unwrap(), secret.of_cluster(&"other".parse().unwrap())] {
        named("its cluster key is another one", &|| {
            let error = runtime.block_on(Outbound::connect(&endpoint, Some(&foreign))).err().expect("it is refused");
            let causes = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            assert!(causes.contains("its cluster key is another one"), "{error}: {causes}");
            "127.0.0.1:".to_owned()
        });
    }

    // What a member sent, recorded on its way and sent again.
    let refused = || fleet.metric(REFUSED);
    let before = refused();
    let bytes = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = format!("tcp://{}", listener.local_addr().unwrap());
        let recording = tokio::spawn(recorded(listener, address.clone()));
        let mut sender = Outbound::connect(&relay, Some(&key)).await.expect("it has the key");
        sender.send(&frame(generation + 1, 0, 1, slot), Vec::new()).await.unwrap();
        sender.flush().await.unwrap();
        wait_for("the frame arrives", REPORT_WAIT_MAX, || refused() >= before + 1.0);
        drop(sender);
        recording.await.unwrap()
    });
    assert!(bytes.len() > 200, "{} bytes: a handshake and a frame", bytes.len());
    named("sent the first message of another connection again", &|| runtime.block_on(replay(&bytes, &address)));
    // The frames of the record alone, without its handshake.
    named("it is no baton process", &|| runtime.block_on(replay(&bytes[100..], &address)));
    fleet.answers_as_before();
    assert_eq!(refused(), before + 1.0, "a frame of a recorded connection was taken in");
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
                        // Of the gateway's own slot, from beyond every epoch that the store shows.
                        frame(*generation, 0, u64::MAX, *slot),
                        frame(*generation, 0, u64::MAX / 2, *slot),
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
    let named = |slot: usize| {
        let status = fleet.get("/distributed/status").json();
        let name = status["placement"]["shards"][slot]["stage"].clone();
        let stage = status["stages"].as_array().unwrap().iter().find(|stage| stage["name"] == name).cloned();
        stage.unwrap_or_default()["frame_refused"]["reason"].as_str().unwrap_or_default().to_owned()
    };
    let (reason, wanted) = (named(0), format!("epoch {} came: expected ", u64::MAX / 2));
    assert!(reason.starts_with(&wanted) && reason.ends_with(" at most, by the store"), "{reason}");
    // The gateway's epochs have not moved there: it goes on, and so does one that comes after it.
    fleet.answers_as_before();
    println!("{sent} stale frames: {sent} refused, none computed");
}
