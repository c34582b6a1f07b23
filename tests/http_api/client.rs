//! A client that sends exactly the bytes that a test wants and reads the answer.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than any answer takes. A test that waits this long fails.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// One answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The payloads of a stream's events, in order.
    pub fn events(&self) -> Vec<String> {
        let text = self.text();
        text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).map(str::to_owned).collect()
    }

    /// The JSON of a stream's events. The last event must be `[DONE]`.
    pub fn chunks(&self) -> Vec<Value> {
        let mut events = self.events();
        assert_eq!(events.pop().as_deref(), Some("[DONE]"), "{}", self.text());
        events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }
}

/// A request with a body of known length.
pub fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// `request` with further headers, each of which ends with a line break.
pub fn with_headers(request: &[u8], headers: &str) -> Vec<u8> {
    let end = request.windows(2).position(|two| two == b"\r\n").expect("a line") + 2;
    [&request[..end], headers.as_bytes(), &request[end..]].concat()
}

/// A request without a body.
pub fn plain(method: &str, path: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

pub async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// Sends `request` on a new connection and reads the one answer.
pub async fn ask(address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = connect(address).await;
    // The answer may come, and the connection close, before all of a refused request is sent.
    let _ = stream.write_all(request).await;
    answer(&mut stream, request.starts_with(b"HEAD")).await
}

pub async fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, &plain("GET", path)).await
}

pub async fn chat(address: SocketAddr, body: &Value) -> Answer {
    ask(address, &post("/v1/chat/completions", body.to_string().as_bytes())).await
}

pub async fn complete(address: SocketAddr, body: &Value) -> Answer {
    ask(address, &post("/v1/completions", body.to_string().as_bytes())).await
}

/// Reads one answer to its end. If `bare` is set, the answer has no body, even if its head announces one.
pub async fn answer(stream: &mut (impl AsyncRead + Unpin), bare: bool) -> Answer {
    tokio::time::timeout(WAIT_MAX, read_answer(stream, bare)).await.expect("no answer came")
}

async fn read_answer(stream: &mut (impl AsyncRead + Unpin), bare: bool) -> Answer {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        assert!(
            more(stream, &mut bytes).await,
            "the connection closed without an answer: {:?}",
            String::from_utf8_lossy(&bytes)
        );
    };
    let rest = bytes.split_off(head_end);
    let head = String::from_utf8(bytes).unwrap();
    let status = head[9..12].parse().unwrap();
    let mut found = Answer { status, head, body: rest };
    if bare || status == 204 {
        assert!(found.body.is_empty(), "a body came: {}", found.text());
    } else if found.header("transfer-encoding") == Some("chunked") {
        found.body = read_chunks(stream, found.body).await;
    } else {
        let length = found.header("content-length").expect("no length").parse().unwrap();
        while found.body.len() < length {
            assert!(more(stream, &mut found.body).await, "the body broke off");
        }
    }
    found
}

async fn read_chunks(stream: &mut (impl AsyncRead + Unpin), mut bytes: Vec<u8>) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        while let Some(line) = bytes.windows(2).position(|two| two == b"\r\n") {
            let size = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).unwrap(), 16).unwrap();
            if bytes.len() < line + 2 + size + 2 {
                break;
            }
            if size == 0 {
                return body;
            }
            body.extend_from_slice(&bytes[line + 2..line + 2 + size]);
            bytes.drain(..line + 2 + size + 2);
        }
        assert!(more(stream, &mut bytes).await, "the stream broke off after {:?}", String::from_utf8_lossy(&body));
    }
}

/// Reads until the received text contains `wanted`.
pub async fn read_until(stream: &mut (impl AsyncRead + Unpin), wanted: &str) -> String {
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).contains(wanted) {
        let came = tokio::time::timeout(WAIT_MAX, more(stream, &mut bytes)).await.expect("it does not come");
        assert!(came, "closed before {wanted:?}: {:?}", String::from_utf8_lossy(&bytes));
    }
    String::from_utf8(bytes).unwrap()
}

/// Reads until the other side closes or resets the connection.
pub async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    tokio::time::timeout(WAIT_MAX, async { while more(stream, &mut bytes).await {} }).await.expect("it stays open");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn more(stream: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> bool {
    stream.read_buf(bytes).await.is_ok_and(|count| count > 0)
}
