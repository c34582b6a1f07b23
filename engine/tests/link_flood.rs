//! A flood of connections to the TCP listener. It is the only test in its file, because it measures the memory of the
//! whole process.

use engine::link::{ClusterKey, Inbound, Outbound, limits};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use link_help::{address, gate, hop, step};

mod link_help;

/// Resident bytes of this process. `None` if the system does not report them.
fn resident_bytes() -> Option<usize> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse::<usize>().ok()?;
    Some(pages * 4096)
}

/// Number of open files of this process. `None` if the system does not report it.
fn descriptors() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}

#[tokio::test]
async fn thousands_of_connections_block_no_peer_and_cost_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let key = ClusterKey::generate().unwrap();
    let mut inbound = Inbound::bind_in(dir.path(), gate(&key)).await.unwrap();
    let mut old = Outbound::connect_in(dir.path(), inbound.endpoint(), Some(&key)).await.unwrap();
    let (before, descriptors_before) = (resident_bytes(), descriptors());
    let mut open = std::collections::VecDeque::new();
    for round in 0..3000_u64 {
        let mut stream = TcpStream::connect(address(inbound.endpoint())).await.unwrap();
        if round % 3 == 0 {
            let _ = stream.write_all(b"\x00\x30 not a key").await;
        }
        open.push_back(stream);
        if open.len() > 200 {
            open.pop_front();
        }
        if round % 500 == 0 {
            old.send(&hop(round, 1, 8), vec![0; 32]).await.unwrap();
            assert_eq!(step(&inbound.receive().await.unwrap().frame), round);
        }
    }
    let mut new = Outbound::connect_in(dir.path(), inbound.endpoint(), Some(&key)).await.unwrap();
    new.send(&hop(9, 1, 8), vec![0; 32]).await.unwrap();
    assert_eq!(step(&inbound.receive().await.unwrap().frame), 9);
    if let (Some(before), Some(after)) = (descriptors_before, descriptors()) {
        // This test's own ends, the connections that may wait for their handshake, and those of the new peer.
        let most = before + open.len() + limits::HANDSHAKES_MAX + 16;
        assert!(after <= most, "open files went from {before} to {after}");
    }
    if let (Some(before), Some(after)) = (before, resident_bytes()) {
        assert!(after < before + (8 << 20), "resident memory went from {before} to {after} bytes");
    }
}
