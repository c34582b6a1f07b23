//! A client of the HTTP server that sends anything in the place of a request: in its line, its fields, the ends of its
//! lines and the framing of its body.

use std::time::Duration;

use gateway::http::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::damage::Piece;
use crate::double::{MODEL, start_server};
use crate::targets::Target;

/// Longest wait for an answer, and for the end of a connection that a client has ended.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(20);
/// Wait for the answer to a damaged request.
const DAMAGED_WAIT: Duration = Duration::from_millis(10);
/// Tokens that the pipeline may generate, far more than all inputs ask for.
const TOKENS: usize = usize::MAX >> 4;

/// Sends bytes and, once an answer begins or `wait` is over, ends its side. Returns all that the server says.
async fn converse(address: std::net::SocketAddr, bytes: &[u8], wait: Duration) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut heard = Vec::new();
    let talk = async {
        // The server may break off at any byte.
        let _ = stream.write_all(bytes).await;
        let _ = timeout(wait, stream.read_buf(&mut heard)).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut heard).await;
    };
    timeout(ANSWER_WAIT_MAX, talk).await.expect("a connection ends with its client");
    heard
}

/// The status of the first answer in `heard`. 0 if there is none.
fn status(heard: &[u8]) -> u16 {
    let line = heard.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).expect("a status line is text");
    assert!(line.is_empty() || line.starts_with("HTTP/1."), "{line}");
    line.split(' ').nth(1).map_or(0, |status| status.parse().expect("a status"))
}

/// Requests as bytes.
pub(crate) fn http_head() -> Target {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let settings = Settings { stored_responses_max: 4, ..Settings::default() };
    let server = runtime.block_on(start_server(settings, TOKENS));
    let body = format!(r#"{{"model":"{MODEL}","prompt":"ab","max_tokens":2}}"#);
    let fields = "host: localhost\r\naccept: */*\r\nuser-agent: openai-python/1.0\r\n";
    let post = format!("POST /v1/completions HTTP/1.1\r\n{fields}content-type: application/json\r\n");
    let seeds = [
        (format!("GET /health HTTP/1.1\r\n{fields}\r\n"), String::new()),
        (format!("GET /v1/models?limit=3 HTTP/1.0\r\n{fields}authorization: Bearer sk-none\r\n\r\n"), String::new()),
        (format!("HEAD /metrics HTTP/1.1\r\n{fields}connection: close\r\n\r\n"), String::new()),
        (format!("{post}content-length: {}\r\n\r\n", body.len()), body.clone()),
        (
            format!("{post}transfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n"),
            format!("{:x};a=b\r\n{body}\r\n0\r\n\r\n", body.len()),
        ),
        (
            format!("GET / HTTP/1.1\r\n{fields}accept-encoding: gzip\r\nconnection: keep-alive\r\n\r\n"),
            format!("GET /health HTTP/1.1\r\n{fields}\r\n"),
        ),
    ];
    let other = seeds[0].0.clone();
    let seeds = seeds.map(|(head, rest)| {
        // A head is damaged by its words, and all of it by its bytes.
        let mask = vec![0; head.len()];
        vec![Piece::text(&head), Piece::binary(rest.into_bytes()), Piece::binary(mask)]
    });
    let good = seeds.clone();
    let run = move |input: &[Piece]| {
        let _serving = &server;
        let wait = if good.iter().any(|seed| seed == input) { ANSWER_WAIT_MAX / 2 } else { DAMAGED_WAIT };
        let mut bytes = input[0].bytes.clone();
        bytes.iter_mut().zip(&input[2].bytes).for_each(|(byte, mask)| *byte ^= mask);
        bytes.extend(&input[1].bytes);
        runtime.block_on(async {
            let heard = converse(server.address, &bytes, wait).await;
            let status = status(&heard);
            assert!(status < 500 || status == 503, "{}", String::from_utf8_lossy(&heard));
            // Another client is served as before.
            let other = converse(server.address, other.as_bytes(), ANSWER_WAIT_MAX / 2).await;
            assert_eq!(self::status(&other), 200);
            server.pipeline.requests.lock().unwrap().clear();
            // The digits of an outcome do not count, so a status is spelled.
            let name: String = status.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect();
            if (100..400).contains(&status) { Ok(name) } else { Err(name) }
        })
    };
    Target { name: "http_head", seeds: seeds.to_vec(), run: Box::new(run), memory: (2 << 20, 64) }
}
