//! More connections than the server holds: those that wait make room for those that send requests.

use std::time::Duration;

use gateway::http::Settings;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::client::{answer, connect, get, plain, post, read_to_end, read_until};
use crate::double::{RunningServer, start_default_server, start_server};

/// The default cap.
const CONNECTIONS_MAX: usize = 1024;
/// Longest time of an answer that comes at once: a tenth of the time that a person would notice, on a machine that runs
/// other tests.
const AT_ONCE: Duration = Duration::from_millis(500);

fn small(connections_max: usize) -> Settings {
    Settings { connections_max, ..Settings::default() }
}

/// A connection from another address of this machine.
#[cfg(target_os = "linux")]
async fn connect_from(address: &str, server: &RunningServer) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
    socket.connect(server.address).await.unwrap()
}

async fn is_answered_at_once(server: &RunningServer) {
    let began = Instant::now();
    assert_eq!(get(server.address, "/health").await.status, 200);
    let took = began.elapsed();
    assert!(took < AT_ONCE, "the answer took {took:?}");
}

/// A stream that has begun. Its connection stays busy until the pipeline gets permits for more tokens.
async fn begin_stream(server: &RunningServer) -> TcpStream {
    let message = json!([{"role": "user", "content": "go"}]);
    let body = json!({"messages": message, "stream": true, "ignore_eos": true, "max_tokens": 20});
    let mut stream = connect(server.address).await;
    stream.write_all(&post("/v1/chat/completions", body.to_string().as_bytes())).await.unwrap();
    read_until(&mut stream, "data: ").await;
    stream
}

async fn finishes(server: &RunningServer, stream: &mut TcpStream) {
    server.pipeline.permits.add_permits(100);
    read_until(stream, "data: [DONE]").await;
}

#[tokio::test]
async fn half_open_connections_up_to_the_cap_do_not_block_others() {
    let server = start_default_server().await;
    let mut connections = Vec::new();
    for number in 0..CONNECTIONS_MAX + 50 {
        let mut stream = connect(server.address).await;
        let sent: &[u8] = [b"".as_slice(), b"GET /health HTTP/1.1\r\nHost: loc"][number % 2];
        stream.write_all(sent).await.unwrap();
        connections.push(stream);
    }
    is_answered_at_once(&server).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn half_open_connections_of_several_addresses_do_not_block_others() {
    let server = start_default_server().await;
    let mut connections = Vec::new();
    for number in 0..CONNECTIONS_MAX {
        connections.push(connect_from(&format!("127.0.1.{}", 1 + number % 4), &server).await);
    }
    is_answered_at_once(&server).await;
    // The connection that came first is closed first.
    assert_eq!(read_to_end(&mut connections[0]).await, "");
    let mut last = connections.pop().unwrap();
    last.write_all(&plain("GET", "/health")).await.unwrap();
    assert_eq!(answer(&mut last, false).await.status, 200);
}

#[tokio::test]
async fn missing_bodies_do_not_block_others() {
    let server = start_server(small(20), 1000).await;
    let mut connections = Vec::new();
    for _ in 0..20 {
        let mut stream = connect(server.address).await;
        let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{";
        stream.write_all(head.as_bytes()).await.unwrap();
        connections.push(stream);
    }
    is_answered_at_once(&server).await;
}

#[tokio::test]
async fn at_the_cap_a_new_connection_replaces_an_idle_one_and_never_a_busy_one() {
    let server = start_server(small(3), 0).await;
    let mut busy = begin_stream(&server).await;
    let mut idle = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(server.address).await;
        stream.write_all(&plain("GET", "/health")).await.unwrap();
        assert_eq!(answer(&mut stream, false).await.status, 200);
        idle.push(stream);
    }
    for _ in 0..5 {
        is_answered_at_once(&server).await;
    }
    assert_eq!(read_to_end(&mut idle[0]).await, "", "the longest idle is closed");
    finishes(&server, &mut busy).await;
}

#[tokio::test]
async fn if_all_are_busy_a_new_connection_gets_503_until_one_is_free() {
    let server = start_server(small(2), 0).await;
    let mut first = begin_stream(&server).await;
    let second = begin_stream(&server).await;
    let rejected = get(server.address, "/health").await;
    assert_eq!((rejected.status, &rejected.json()["error"]["code"]), (503, &json!("too_many_connections")));
    assert!(rejected.header("retry-after").is_some());
    assert_eq!(rejected.header("connection"), Some("close"));
    drop(second);
    // The place is free as soon as the server has noticed that the other connection closed.
    while get(server.address, "/health").await.status != 200 {}
    finishes(&server, &mut first).await;
}

#[tokio::test]
async fn a_connection_that_was_busy_is_idle_once_its_answer_is_written() {
    let server = start_server(small(1), 0).await;
    let mut first = begin_stream(&server).await;
    finishes(&server, &mut first).await;
    is_answered_at_once(&server).await;
    assert_eq!(read_to_end(&mut first).await.trim_end_matches(['\r', '\n', '0']), "");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_address_over_its_bound_loses_its_own_connections() {
    let settings = Settings { waiting_per_address_max: 4, ..Settings::default() };
    let server = start_server(settings, 100).await;
    let mut other = connect_from("127.0.2.1", &server).await;
    other.write_all(b"GET /health HTTP/1.1\r\n").await.unwrap();
    let mut connections = Vec::new();
    for _ in 0..6 {
        connections.push(connect_from("127.0.2.2", &server).await);
    }
    for stream in &mut connections[..2] {
        assert_eq!(read_to_end(stream).await, "");
    }
    other.write_all(b"Host: localhost\r\n\r\n").await.unwrap();
    assert_eq!(answer(&mut other, false).await.status, 200);
}

#[tokio::test]
async fn a_head_sent_byte_by_byte_has_the_same_timeout() {
    let server = start_server(Settings { head_time: Duration::from_millis(300), ..Settings::default() }, 100).await;
    let mut slow = connect(server.address).await;
    let began = Instant::now();
    let mut closed = false;
    for byte in "GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".bytes().chain(std::iter::repeat_n(b'a', 1000)) {
        closed |= slow.write_all(&[byte]).await.is_err();
        if closed {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(closed && began.elapsed() < Duration::from_secs(5), "it was served for {:?}", began.elapsed());
    is_answered_at_once(&server).await;
}
