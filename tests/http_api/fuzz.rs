//! Damaged bodies to every page that takes one: whatever a client sends, the server answers, refuses by name, and keeps
//! nothing of it.
//!
//! `FUZZ_BODIES=150000` sends as many (a few thousand unless said), `FUZZ_FIRST` begins with another number, and
//! `FUZZ_ADDRESS=127.0.0.1:8100` sends them to a server that runs there.

pub mod bodies;
mod mutator;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use gateway::http::Settings;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use self::mutator::Mutator;
use crate::client::{answer, connect, get, post};
use crate::double::{RunningServer, start_server};

/// Bodies unless the environment says otherwise.
const BODIES: u64 = 3000;
/// Clients that send at the same time.
const CLIENTS: u64 = 4;
/// Bodies between two looks at the memory.
const ROUND: u64 = 500;
/// Memory that may come and go: the allocator keeps some of what was freed.
const MEMORY_SLACK_BYTES: u64 = 48 << 20;

/// The value of a variable of the environment.
#[expect(clippy::disallowed_methods, reason = "these are settings of a test, not of baton")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    variable(name).map(|text| text.parse().unwrap_or_else(|error| panic!("{name}: {error}")))
}

/// Bytes of memory that this process uses. `None` where `/proc` does not say so.
fn memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// One client: a connection that stays open as long as the server lets it.
struct Client {
    address: SocketAddr,
    connection: Option<TcpStream>,
}

impl Client {
    /// Sends the body with this number, and checks its answer.
    async fn send(&mut self, number: u64, pages: &[(&'static str, Value)], keys: &[String]) {
        let mut mutator = Mutator::new(number);
        let (path, body) = pages[mutator.below(pages.len())].clone();
        let body = mutator.damaged(body, keys);
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(self.address).await,
        };
        let described = || format!("body {number} to {path}: {}", String::from_utf8_lossy(&body));
        // The answer may come, and the connection close, before all of a refused body is sent.
        let _ = connection.write_all(&post(path, &body)).await;
        let answer = answer(&mut connection, false).await;
        assert!(answer.status < 500 || answer.status == 503, "{} for {}", answer.text(), described());
        let is_json = answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
        assert!(answer.status == 200 || is_json, "{} for {}", answer.head, described());
        if is_json {
            assert!(serde_json::from_slice::<Value>(&answer.body).is_ok(), "{} for {}", answer.text(), described());
        }
        if answer.header("connection") != Some("close") {
            self.connection = Some(connection);
        }
    }
}

/// Sends the bodies with the numbers `first..end`, several at a time.
async fn send(address: SocketAddr, first: u64, end: u64) {
    let pages: Arc<[_]> = bodies::all().into();
    let keys: Arc<[String]> =
        pages.iter().flat_map(|(_, body)| mutator::keys(body)).collect::<BTreeSet<_>>().into_iter().collect();
    let next = Arc::new(AtomicU64::new(first));
    let clients = (0..CLIENTS).map(|_| {
        let (pages, keys, next) = (Arc::clone(&pages), Arc::clone(&keys), Arc::clone(&next));
        tokio::spawn(async move {
            let mut client = Client { address, connection: None };
            loop {
                let number = next.fetch_add(1, Relaxed);
                if number >= end {
                    return;
                }
                client.send(number, &pages, &keys).await;
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("a client failed");
    }
}

/// Forgets what the doubles remember of requests.
fn forget(server: &RunningServer) {
    server.pipeline.requests.lock().unwrap().clear();
    server.text.chats.lock().unwrap().clear();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_bodies_are_answered_or_refused_and_leave_nothing_behind() {
    let (first, count) = (number("FUZZ_FIRST").unwrap_or(0), number("FUZZ_BODIES").unwrap_or(BODIES));
    if let Some(address) = variable("FUZZ_ADDRESS") {
        return send(address.parse().expect("an address"), first, first + count).await;
    }
    let settings = Settings { stored_responses_max: 16, ..Settings::default() };
    let server = start_server(settings, Semaphore::MAX_PERMITS).await;
    let mut memory = Vec::new();
    for round in 0..count.div_ceil(ROUND) {
        let begin = first + round * ROUND;
        send(server.address, begin, (begin + ROUND).min(first + count)).await;
        forget(&server);
        memory.extend(memory_bytes());
    }
    server.until(|counts| counts.started == counts.finished + counts.cancelled).await;
    // The first third fills pools and caches.
    if let (Some(before), Some(after)) = (memory.iter().take(memory.len() / 3 + 1).max(), memory.last()) {
        assert!(*after <= before + MEMORY_SLACK_BYTES, "memory grew: {memory:?}");
        println!("{count} bodies; memory after each round of {ROUND}, in bytes: {memory:?}");
    }
}

#[tokio::test]
async fn every_page_that_takes_a_body_is_tried() {
    let server = start_server(Settings::default(), 1000).await;
    let tried: BTreeSet<_> = bodies::all().into_iter().map(|(path, _)| path.replace("resp_1", "{id}")).collect();
    let index = get(server.address, "/").await.text();
    let listed = index.lines().filter_map(|line| line.split_once(" /"));
    let listed = listed.filter(|(methods, _)| methods.contains("POST"));
    let listed: BTreeSet<_> =
        listed.filter_map(|(_, page)| Some(format!("/{}", page.split_whitespace().next()?))).collect();
    assert_eq!(tried, listed);
}
