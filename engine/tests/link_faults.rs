//! Peers that are killed, stall or restart.
#![expect(clippy::disallowed_methods, reason = "child processes of a test learn by their environment what to do")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use engine::link::{ClusterKey, Inbound, LinkError, Listen, Outbound, UnreachableKind, limits};
use tokio::time::timeout;

use link_help::{WAIT_MAX, gate, hop, is_empty, step};

mod link_help;

const RECEIVER_DIR: &str = "BATON_TEST_RECEIVER_DIR";
const RECEIVER_KEY: &str = "BATON_TEST_RECEIVER_KEY";

/// The other process: prints the endpoint at which it listens and receives until it is killed.
#[tokio::test]
#[ignore = "run by the tests below as a process of its own"]
async fn receiver() {
    let Some(dir) = std::env::var_os(RECEIVER_DIR) else { return };
    let key = std::env::var(RECEIVER_KEY).ok().map(|key| key.parse::<ClusterKey>().unwrap());
    let listen = key.as_ref().map_or(Listen::Ipc, gate);
    let mut inbound = Inbound::bind_in(dir.as_ref(), listen).await.unwrap();
    println!("\nendpoint {}", inbound.endpoint());
    loop {
        println!("received {}", step(&inbound.receive().await.unwrap().frame));
    }
}

/// A receiver in another process. Dropping it kills the process.
struct Receiver {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Receiver {
    fn start(dir: &std::path::Path, key: Option<&ClusterKey>) -> (Self, String) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "receiver", "--ignored", "--nocapture"]).env(RECEIVER_DIR, dir).stdout(Stdio::piped());
        if let Some(key) = key {
            command.env(RECEIVER_KEY, key.to_hex());
        }
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut receiver = Self { child, lines };
        let endpoint = receiver.line_after("endpoint ");
        (receiver, endpoint)
    }

    /// The rest of the next line that begins with `word`.
    fn line_after(&mut self, word: &str) -> String {
        let mut lines = self.lines.by_ref().map(Result::unwrap);
        lines.find_map(|line| line.strip_prefix(word).map(str::to_owned)).expect("the receiver ended")
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn a_killed_peer_is_noticed_and_its_successor_reached(key: Option<ClusterKey>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut receiver, endpoint) = Receiver::start(dir.path(), key.as_ref());
    let mut outbound = Outbound::connect_in(dir.path(), &endpoint, key.as_ref()).await.unwrap();
    outbound.send(&hop(1, 1, 8), vec![0; 32]).await.unwrap();
    outbound.flush().await.unwrap();
    // Blocking reads run on another thread, because the relay needs this one.
    let (received, mut receiver) =
        tokio::task::spawn_blocking(move || (receiver.line_after("received "), receiver)).await.unwrap();
    assert_eq!(received, "1");
    receiver.kill();
    let lost = timeout(WAIT_MAX, outbound.lost()).await.expect("its death was not noticed");
    assert!(matches!(lost, LinkError::Lost { .. }), "{lost:?}");
    let refused = outbound.send(&hop(2, 1, 8), vec![0; 32]).await.unwrap_err();
    assert!(matches!(refused, LinkError::Lost { .. }), "{refused:?}");
    let refused_again = Outbound::connect_in(dir.path(), &endpoint, key.as_ref()).await.err().unwrap();
    assert!(matches!(refused_again, LinkError::Connect { .. }), "{refused_again:?}");

    let (mut successor, endpoint) = Receiver::start(dir.path(), key.as_ref());
    let mut outbound = Outbound::connect_in(dir.path(), &endpoint, key.as_ref()).await.unwrap();
    outbound.send(&hop(3, 1, 8), vec![0; 32]).await.unwrap();
    assert_eq!(tokio::task::spawn_blocking(move || successor.line_after("received ")).await.unwrap(), "3");
    // Both receivers were killed. The next `Inbound` in the directory removes their files.
    drop(Inbound::bind_in(dir.path(), Listen::Ipc).await.unwrap());
    assert!(is_empty(dir.path()), "files were left behind");
}

#[tokio::test]
async fn a_killed_peer_on_this_machine_is_noticed_and_its_successor_reached() {
    a_killed_peer_is_noticed_and_its_successor_reached(None).await;
}

#[tokio::test]
async fn a_killed_peer_behind_a_gate_is_noticed_and_its_successor_reached() {
    a_killed_peer_is_noticed_and_its_successor_reached(Some(ClusterKey::generate().unwrap())).await;
}

async fn a_stalled_peer_is_reported(listen: Listen, key: Option<ClusterKey>) {
    let dir = tempfile::tempdir().unwrap();
    let mut inbound = Inbound::bind_in(dir.path(), listen).await.unwrap();
    let mut outbound = Outbound::connect_in(dir.path(), inbound.endpoint(), key.as_ref()).await.unwrap();
    let payload = Bytes::from(vec![0; 1 << 20]);
    let mut accepted = 0;
    let stalled = loop {
        match outbound.send(&hop(accepted, 512, 512), payload.clone()).await {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(stalled, LinkError::Stalled { .. }), "{stalled:?}");
    // The bytes in flight, plus the capacity of the sockets and pipes on the way.
    let most = limits::IN_FLIGHT_BYTES_MAX as u64 + (32 << 20);
    assert!(accepted << 20 <= most, "{accepted} MiB were accepted");
    // No accepted message is lost while the connection is open.
    for number in 0..accepted {
        assert_eq!(step(&inbound.receive().await.unwrap().frame), number);
    }
    outbound.send(&hop(accepted, 512, 512), payload).await.unwrap();
    assert_eq!(step(&inbound.receive().await.unwrap().frame), accepted);
}

#[tokio::test]
async fn a_stalled_peer_on_this_machine_is_reported() {
    a_stalled_peer_is_reported(Listen::Ipc, None).await;
}

#[tokio::test]
async fn a_stalled_peer_behind_a_gate_is_reported() {
    let key = ClusterKey::generate().unwrap();
    a_stalled_peer_is_reported(gate(&key), Some(key)).await;
}

#[tokio::test]
async fn a_receiver_outlives_its_senders() {
    let dir = tempfile::tempdir().unwrap();
    let mut inbound = Inbound::bind_in(dir.path(), Listen::Ipc).await.unwrap();
    for number in 0..300 {
        let mut outbound = Outbound::connect_in(dir.path(), inbound.endpoint(), None).await.unwrap();
        outbound.send(&hop(number, 1, 0), Bytes::new()).await.unwrap();
        outbound.flush().await.unwrap();
        assert_eq!(step(&inbound.receive().await.unwrap().frame), number);
    }
}

#[tokio::test]
async fn an_endpoint_without_a_listener_is_reported_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let key = ClusterKey::generate().unwrap();
    let gone = Inbound::bind_in(dir.path(), gate(&key)).await.unwrap();
    let (tcp, ipc) = (gone.endpoint().to_owned(), format!("ipc://{}/in.sock", dir.path().display()));
    drop(gone);
    for endpoint in [tcp, ipc] {
        let closed = async {
            // The port closes when the runtime next runs the acceptor's task.
            loop {
                match Outbound::connect_in(dir.path(), &endpoint, Some(&key)).await {
                    Err(error @ LinkError::Connect { .. })
                        if error.unreachable_kind() == Some(UnreachableKind::Refused) =>
                    {
                        return error;
                    }
                    _ => tokio::task::yield_now().await,
                }
            }
        };
        let error = timeout(WAIT_MAX, closed).await.unwrap().to_string();
        assert!(error.contains(&endpoint), "{error}");
    }
}
