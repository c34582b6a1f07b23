//! Invalid input at the embedded store's port. The store must keep serving, and its memory must not grow.
//!
//! It is the only test in its process, so that the memory of the process is that of the store.

use std::time::Duration;

use bytes::Bytes;
use engine::store::{Committed, EmbeddedServer, EtcdStore, Revision, Store, StoreError, Txn, Write};
use http_body_util::Full;
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const WAIT_MAX: Duration = Duration::from_secs(60);

/// Most growth of memory over the rounds, in bytes: allocators keep some, and the history fills up to its bound once.
const GROWTH_MAX: u64 = 24 << 20;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An empty SETTINGS frame.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

#[tokio::test]
async fn a_storm_of_nonsense_leaves_the_store_serving_and_its_memory_flat() {
    let server = EmbeddedServer::bind(TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap();
    let store = EtcdStore::connect(&[server.url()]).await.unwrap();
    let mut random = StdRng::seed_from_u64(2);
    storm(&server, &store, &mut random).await;
    let before = resident_bytes();
    for _ in 0..4 {
        storm(&server, &store, &mut random).await;
    }
    let after = resident_bytes();
    eprintln!("resident: {} KiB after one round, {} KiB after five", before >> 10, after >> 10);
    assert!(after < before + GROWTH_MAX, "resident memory grew from {before} to {after} bytes");
}

async fn storm(server: &EmbeddedServer, store: &EtcdStore, random: &mut StdRng) {
    for _ in 0..100 {
        send_and_drain(server, &[&bytes(random, 4096)]).await;
    }
    // After a correct greeting come frames of all kinds with random contents.
    for _ in 0..100 {
        let mut frames = Vec::new();
        for _ in 0..random.random_range(1..20) {
            let body = bytes(random, 300);
            frames.extend(&u32::try_from(body.len()).unwrap().to_be_bytes()[1..]);
            frames.extend([random.random_range(0..11), random.random(), 0, 0, 0, random.random_range(0..9)]);
            frames.extend(body);
        }
        send_and_drain(server, &[PREFACE, SETTINGS, &frames]).await;
    }
    // The header of the largest frame that is possible, and the beginning of its body.
    send_and_drain(server, &[PREFACE, SETTINGS, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1], &[7; 70_000]]).await;
    for method in ["KV/Put", "KV/Txn", "Watch/Watch", "Lease/LeaseKeepAlive", "Maintenance/Status", "Nothing/AtAll"] {
        for _ in 0..10 {
            // A message of random bytes with correct framing, and one that declares four gigabytes.
            let body = bytes(random, 500);
            let mut framed = vec![0];
            framed.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
            framed.extend(body);
            call(server, method, framed).await;
            call(server, method, vec![0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]).await;
        }
    }
    forgotten_watch(server, store).await;
    let answer = store.commit(put("still", b"here".to_vec())).await.unwrap();
    assert!(matches!(answer, Committed::Applied { .. }));
}

/// A watch that is not read while sixty megabytes of changes are made.
async fn forgotten_watch(server: &EmbeddedServer, store: &EtcdStore) {
    let reader = EtcdStore::connect(&[server.url()]).await.unwrap();
    let start = store.read("big").await.unwrap().revision;
    let mut watch = reader.watch("big", Revision(start.0)).await.unwrap();
    for round in 0..60 {
        store.commit(put("big", vec![round; 1 << 20])).await.unwrap();
    }
    let end = loop {
        if let Err(end) = timeout(WAIT_MAX, watch.next()).await.unwrap() {
            break end;
        }
    };
    assert!(matches!(end, StoreError::Compacted { .. }), "{end}");
}

fn put(key: &str, value: Vec<u8>) -> Txn {
    Txn { compares: vec![], writes: vec![Write::Put { key: key.into(), value, lease: None }] }
}

fn bytes(random: &mut StdRng, most: usize) -> Vec<u8> {
    let len = random.random_range(1..most);
    (0..len).map(|_| random.random()).collect()
}

/// Sends bytes and waits until the other side closes the connection. It may close before it has read them all.
async fn send_and_drain(server: &EmbeddedServer, parts: &[&[u8]]) {
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    for part in parts {
        if stream.write_all(part).await.is_err() {
            return;
        }
    }
    let _ = stream.shutdown().await;
    let mut reply = Vec::new();
    let _ = timeout(WAIT_MAX, stream.read_to_end(&mut reply)).await.expect("the server closes the connection");
}

/// Calls a method with an arbitrary body. Any answer is fine, but one must come.
async fn call(server: &EmbeddedServer, method: &str, body: Vec<u8>) {
    let stream = TcpStream::connect(server.local_addr()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::post(format!("{}/etcdserverpb.{method}", server.url()))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let reply = timeout(WAIT_MAX, sender.send_request(request)).await.expect("an answer").unwrap();
    assert_eq!(reply.status(), 200, "{method}");
    drop((reply, sender));
    connection.abort();
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
