//! Answers to requests whose bodies the server does not read. The client gets the answer, and learns from it if it may
//! use the connection again.

use std::time::Duration;

use gateway::http::Settings;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::client::{Answer, answer, ask, connect, get, plain, read_to_end};
use crate::double::{RunningServer, start_default_server, start_server};

/// Longest time to a refusal. A refusal does not wait for the body.
const AT_ONCE: Duration = Duration::from_millis(500);

fn head(path: &str, bytes: u64, more: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{more}Content-Length: {bytes}\r\n\r\n")
}

/// Sends a whole request with a body of `bytes` bytes before it reads, as most clients do. Fails if the server does not
/// take them.
async fn send_all(server: &RunningServer, path: &str, bytes: usize) -> (TcpStream, Answer) {
    let mut stream = connect(server.address).await;
    stream.write_all(head(path, bytes as u64, "").as_bytes()).await.unwrap();
    let piece = vec![b' '; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let count = left.min(piece.len());
        stream.write_all(&piece[..count]).await.expect("the connection was reset under its sender");
        left -= count;
    }
    let found = answer(&mut stream, false).await;
    (stream, found)
}

/// Sends another request, as a pooled client would, unless the answer says that the connection closes. Returns true if
/// it sent one.
async fn is_kept(stream: &mut TcpStream, found: &Answer) -> bool {
    if found.header("connection") == Some("close") {
        assert_eq!(read_to_end(stream).await, "");
        return false;
    }
    stream.write_all(&plain("GET", "/health")).await.unwrap();
    assert_eq!(answer(stream, false).await.status, 200);
    true
}

#[tokio::test]
async fn a_pooled_client_reads_a_refusal_and_reuses_a_kept_connection() {
    let server = start_default_server().await;
    for (bytes, kept) in [(0, true), (10, true), (200_000, true), (1 << 20, false), (100_000_000, false)] {
        let (mut stream, found) = send_all(&server, "/nowhere", bytes).await;
        assert_eq!((found.status, &found.json()["error"]["code"]), (404, &json!("not_found")), "{bytes}");
        assert_eq!(is_kept(&mut stream, &found).await, kept, "{bytes}");
        let (mut stream, found) = send_all(&server, "/health", bytes).await;
        assert_eq!(found.status, 405);
        assert_eq!(is_kept(&mut stream, &found).await, kept, "{bytes}");
    }
}

#[tokio::test]
async fn a_refusal_does_not_wait_for_the_body() {
    let server = start_default_server().await;
    for (bytes, kept) in [(10, true), (1 << 20, false), (100_000_000, false)] {
        let mut stream = connect(server.address).await;
        let began = Instant::now();
        stream.write_all(head("/nowhere", bytes, "").as_bytes()).await.unwrap();
        let found = answer(&mut stream, false).await;
        assert_eq!(found.status, 404);
        assert!(began.elapsed() < AT_ONCE, "{bytes}: {:?}", began.elapsed());
        // The server still takes a body that is sent after the answer.
        stream.write_all(&vec![b' '; bytes.min(1 << 20) as usize]).await.unwrap();
        assert_eq!(is_kept(&mut stream, &found).await, kept, "{bytes}");
    }
}

#[tokio::test]
async fn a_declared_length_over_the_limit_is_refused_at_once_with_and_without_expect() {
    let server = start_default_server().await;
    for expect in ["", "Expect: 100-continue\r\n"] {
        for bytes in [(4 << 20) + 1, 100_000_000_000] {
            let mut stream = connect(server.address).await;
            let began = Instant::now();
            stream.write_all(head("/v1/chat/completions", bytes, expect).as_bytes()).await.unwrap();
            let found = answer(&mut stream, false).await;
            assert_eq!((found.status, &found.json()["error"]["code"]), (413, &json!("request_too_large")));
            assert_eq!(found.header("connection"), Some("close"));
            assert_eq!(read_to_end(&mut stream).await, "", "this side is closed");
            assert!(began.elapsed() < AT_ONCE, "{bytes} {expect:?}: {:?}", began.elapsed());
        }
    }
    let (mut stream, found) = send_all(&server, "/v1/completions", 100_000_000).await;
    assert_eq!(found.status, 413);
    assert!(!is_kept(&mut stream, &found).await);
    assert_eq!(server.pipeline.counts.borrow().started, 0);
}

#[tokio::test]
async fn a_client_that_expects_100_continue_and_is_refused_need_not_send() {
    let server = start_default_server().await;
    let mut stream = connect(server.address).await;
    stream.write_all(head("/nowhere", 10, "Expect: 100-continue\r\n").as_bytes()).await.unwrap();
    let found = answer(&mut stream, false).await;
    assert_eq!((found.status, found.header("connection")), (404, Some("close")));
    assert_eq!(read_to_end(&mut stream).await, "");
}

#[tokio::test]
async fn an_unread_chunked_body_gets_an_answer_that_closes() {
    let server = start_server(Settings { body_bytes_max: 100_000, ..Settings::default() }, 100).await;
    for (path, status) in [("/nowhere", 404), ("/v1/completions", 413)] {
        let mut stream = connect(server.address).await;
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let chunk = [b"100000\r\n".to_vec(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
        for _ in 0..20 {
            stream.write_all(&chunk).await.expect("the connection was reset under its sender");
        }
        let found = answer(&mut stream, false).await;
        assert_eq!((found.status, found.header("connection")), (status, Some("close")));
        assert_eq!(read_to_end(&mut stream).await, "");
    }
}

#[tokio::test]
async fn a_refused_head_is_answered_before_the_connection_closes() {
    let server = start_default_server().await;
    let mut stream = connect(server.address).await;
    let bomb = format!("GET /health HTTP/1.1\r\nX-A: {}", "b".repeat(5_000_000));
    stream.write_all(bomb.as_bytes()).await.expect("the connection was reset under its sender");
    let received = read_to_end(&mut stream).await;
    assert!(received.starts_with("HTTP/1.1 431"), "{received}");
}

#[tokio::test]
async fn an_endless_body_is_read_up_to_a_limit() {
    let server = start_default_server().await;
    let mut stream = connect(server.address).await;
    stream.write_all(head("/nowhere", u64::MAX / 4, "").as_bytes()).await.unwrap();
    assert_eq!(answer(&mut stream, false).await.status, 404);
    let piece = vec![b' '; 1 << 20];
    let mut sent = 0;
    while sent < 1000 && stream.write_all(&piece).await.is_ok() {
        sent += 1;
    }
    assert!((200..400).contains(&sent), "{sent} MiB were taken");
}

#[tokio::test]
async fn a_server_that_stops_does_not_wait_for_idle_clients() {
    let server = start_server(Settings { drain_time: Duration::from_secs(10), ..Settings::default() }, 100).await;
    let (stream, found) = send_all(&server, "/nowhere", 10).await;
    assert_eq!(found.status, 404);
    assert_eq!(ask(server.address, &plain("GET", "/health")).await.status, 200);
    assert_eq!(get(server.address, "/health").await.status, 200);
    let began = Instant::now();
    server.stop.send(()).unwrap();
    server.serving.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    drop(stream);
}
