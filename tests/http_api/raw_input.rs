//! Input that is hardly HTTP: slow, endless, broken and foreign bytes. After each of them the server still answers.

use std::time::Duration;

use gateway::http::Settings;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::{answer, ask, connect, get, plain, post, read_to_end};
use crate::double::{RunningServer, start_default_server, start_server};

const BODY: &str = r#"{"prompt":"ab","max_tokens":2,"ignore_eos":true,"temperature":0}"#;

async fn healthy(server: &RunningServer) {
    assert_eq!(get(server.address, "/health").await.status, 200);
}

/// Sends `bytes` and reads the answer to its end.
async fn send_raw_and_read(server: &RunningServer, bytes: &[u8]) -> String {
    let mut stream = connect(server.address).await;
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    read_to_end(&mut stream).await
}

#[tokio::test]
async fn a_chunked_body_without_a_length_is_accepted() {
    let server = start_default_server().await;
    let (one, two) = BODY.split_at(10);
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n",
        one.len(),
        two.len()
    );
    let found = ask(server.address, request.as_bytes()).await;
    assert_eq!(found.status, 200, "{}", found.text());
    assert_eq!(found.json()["usage"]["completion_tokens"], 2);
}

#[tokio::test]
async fn expect_100_continue_is_answered_with_100_or_a_refusal() {
    let server = start_server(Settings { body_bytes_max: 1000, ..Settings::default() }, 100).await;
    let head = |length| {
        format!(
            "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n\
             Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let mut stream = connect(server.address).await;
    stream.write_all(head(BODY.len()).as_bytes()).await.unwrap();
    assert_eq!(answer(&mut stream, true).await.status, 100);
    stream.write_all(BODY.as_bytes()).await.unwrap();
    assert_eq!(answer(&mut stream, false).await.status, 200);
    assert_eq!(ask(server.address, head(1001).as_bytes()).await.status, 413);
}

#[tokio::test]
async fn a_body_over_the_cap_is_refused_with_and_without_a_length() {
    let server = start_server(Settings { body_bytes_max: 10_000, ..Settings::default() }, 100).await;
    let big = vec![b' '; 3_000_000];
    let found = ask(server.address, &post("/v1/completions", &big)).await;
    assert_eq!((found.status, &found.json()["error"]["code"]), (413, &json!("request_too_large")));
    let head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let chunks = [b"4e20\r\n".to_vec(), vec![b' '; 20_000], b"\r\n".to_vec()].concat().repeat(20);
    let found = ask(server.address, &[head, chunks, b"0\r\n\r\n".to_vec()].concat()).await;
    assert_eq!(found.status, 413);
    let most = [BODY.as_bytes(), &vec![b' '; 10_000 - BODY.len()]].concat();
    assert_eq!(ask(server.address, &post("/v1/completions", &most)).await.status, 200);
    healthy(&server).await;
}

#[tokio::test]
async fn a_slow_head_and_an_idle_connection_are_closed() {
    let server = start_server(Settings { head_time: Duration::from_millis(100), ..Settings::default() }, 100).await;
    for sent in ["", "POST /v1/compl", "GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: "] {
        let mut stream = connect(server.address).await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        assert_eq!(read_to_end(&mut stream).await, "", "{sent:?}");
    }
    let mut idle = connect(server.address).await;
    idle.write_all(&plain("GET", "/health")).await.unwrap();
    assert_eq!(answer(&mut idle, false).await.status, 200);
    assert_eq!(read_to_end(&mut idle).await, "");
    healthy(&server).await;
}

#[tokio::test]
async fn a_slow_body_is_answered_408() {
    let server = start_server(Settings { body_time: Duration::from_millis(100), ..Settings::default() }, 100).await;
    let request = post("/v1/completions", BODY.as_bytes());
    let found = ask(server.address, &request[..request.len() - 1]).await;
    assert_eq!((found.status, &found.json()["error"]["code"]), (408, &json!("request_timeout")));
    assert_eq!(found.header("connection"), Some("close"));
    healthy(&server).await;
}

#[tokio::test]
async fn bytes_that_are_not_http_get_a_bare_400_or_nothing() {
    let server = start_default_server().await;
    let noise: Vec<u8> = (0..4096u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let tls = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(), &[7; 500]].concat();
    let long = vec![b'A'; 1 << 20];
    let cases: &[(&str, &[u8])] = &[
        ("noise", &noise),
        ("a TLS hello", &tls),
        ("the HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04\x00\x00\x00\x00\x00"),
        ("a line without an end", &long),
        ("HTTP/0.9", b"GET /\r\n\r\n"),
        ("HTTP/9.9", b"GET / HTTP/9.9\r\n\r\n"),
        ("no method", b" / HTTP/1.1\r\n\r\n"),
        ("a header without a name", b"GET / HTTP/1.1\r\n: x\r\n\r\n"),
        ("a zero in a header", b"GET / HTTP/1.1\r\nHost: x\0y\r\n\r\n"),
        ("two lengths", b"POST /v1/completions HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        ("a negative length", b"POST /v1/completions HTTP/1.1\r\nContent-Length: -1\r\n\r\n"),
        ("an endless length", b"POST /v1/completions HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n"),
        ("ZeroMQ's greeting", b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x00NULL"),
    ];
    for (name, bytes) in cases {
        let received = send_raw_and_read(&server, bytes).await;
        assert!(received.is_empty() || received.starts_with("HTTP/1.1 4"), "{name}: {received}");
        healthy(&server).await;
    }
}

#[tokio::test]
async fn a_broken_chunk_ends_the_request() {
    let server = start_default_server().await;
    for chunk in ["zz\r\nab\r\n", "ffffffffffffffff\r\nab", "2\r\nabcd\r\n"] {
        let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        let received = send_raw_and_read(&server, format!("{head}{chunk}").as_bytes()).await;
        assert!(received.is_empty() || received.starts_with("HTTP/1.1 400"), "{chunk:?}: {received}");
    }
    assert_eq!(server.pipeline.counts.borrow().started, 0);
    healthy(&server).await;
}

#[tokio::test]
async fn too_many_and_too_large_headers_are_refused() {
    let server = start_default_server().await;
    let many = format!("GET /health HTTP/1.1\r\n{}\r\n", "X-A: b\r\n".repeat(101));
    let large = format!("GET /health HTTP/1.1\r\nX-A: {}\r\n\r\n", "b".repeat(40_000));
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(70_000));
    for bomb in [many, large, long] {
        let found = ask(server.address, bomb.as_bytes()).await;
        assert!([414, 431].contains(&found.status), "{}", found.head);
        healthy(&server).await;
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_invalid_bytes_end_the_connection() {
    let server = start_default_server().await;
    let good = post("/v1/completions", BODY.as_bytes());
    let mut stream = connect(server.address).await;
    let bad = post("/v1/completions", b"{");
    stream.write_all(&[good.clone(), bad, good, b"\x01garbage\r\n\r\n".to_vec()].concat()).await.unwrap();
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(next_status(&mut stream).await);
    }
    assert_eq!(statuses, [200, 400, 200, 400]);
    healthy(&server).await;
}

/// The status of the next of several answers. The answer is read byte by byte, so that nothing of the next one is
/// consumed.
async fn next_status(stream: &mut TcpStream) -> u16 {
    use tokio::io::AsyncReadExt;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    head[9..12].parse().unwrap()
}
