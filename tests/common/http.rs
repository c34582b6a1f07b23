//! A blocking HTTP client with one request per connection over a plain socket, and the requests that tests send to a
//! gateway.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

/// A client of one gateway.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GatewayClient {
    /// Address at which the gateway answers.
    pub(crate) http: SocketAddr,
}

/// Status and body of an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The answer to `method path`, or the error of the connection.
pub(crate) fn request(address: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
    request_with(address, method, path, "", body)
}

/// The same with further headers, each of which ends with a line break.
pub(crate) fn request_with(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         {headers}content-length: {length}\r\n\r\n{body}"
    )?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body =
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_owned() };
    Ok(Answer { status, body })
}

// === impl GatewayClient ===

impl GatewayClient {
    /// The gateway's answer to a GET request.
    pub(crate) fn get(&self, path: &str) -> Answer {
        request(self.http, "GET", path, "").unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// The gateway's answer to a JSON body.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        request(self.http, "POST", path, &body.to_string()).unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// The stages that the gateway lists.
    pub(crate) fn stages(&self) -> Vec<Value> {
        self.get("/distributed/status").json()["stages"].as_array().cloned().unwrap_or_default()
    }

    /// The process ids of its stages in layer order.
    pub(crate) fn stage_pids(&self) -> Vec<u32> {
        let mut stages = self.stages();
        stages.sort_by_key(|stage| stage["slot"].as_u64());
        stages.iter().map(|stage| stage["pid"].as_u64().expect("a pid") as u32).collect()
    }

    /// A request for so many tokens, which nobody reads and which ends when the connection is dropped.
    pub(crate) fn ask_at_length(&self, tokens: u32) -> TcpStream {
        let body = format!(r#"{{"prompt":"Once","max_tokens":{tokens},"ignore_eos":true,"stream":true}}"#);
        let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json";
        let mut stream = TcpStream::connect(self.http).unwrap();
        write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        stream
    }

    /// The sum of a metric over its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics").body;
        let samples = page.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// The ids that greedily follow the token ids `prompt`, and the answer that contained them.
    pub(crate) fn complete(&self, prompt: &[u32], tokens: u32) -> (Vec<u32>, Value) {
        let body = json!({
            "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": true, "logprobs": 0,
        });
        let answer = self.post("/v1/completions", &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let answer = answer.json();
        let ids = answer["choices"][0]["logprobs"]["token_ids"].as_array().expect("token ids");
        (ids.iter().map(|id| id.as_u64().expect("an id") as u32).collect(), answer)
    }
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 || rest.len() < size {
            break;
        }
        whole.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}
