//! A machine's user whose clusters serve models with random weights, and requests to them.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::byte_vocabulary::byte_vocabulary;
use crate::common::cluster::Cluster;
use crate::common::http::{Answer, GatewayClient};
use crate::common::line_process::LineProcess;
use crate::golden::Golden;

/// Tokens of an answer.
pub(crate) const TOKENS: u32 = 24;
/// Longest wait until the gateway has left a cluster without stages, and for processes to end.
pub(crate) const END_WAIT_MAX: Duration = Duration::from_secs(20);
pub(crate) const PROMPT: [u32; 8] = [72, 101, 108, 108, 111, 44, 32, 119];

/// A machine's user: its folders, and the models in them.
pub(crate) struct User {
    pub(crate) folder: tempfile::TempDir,
}

impl User {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("bt").tempdir_in("/tmp").unwrap() }
    }

    /// The golden model `family` as the file `name`.
    pub(crate) fn model(&self, family: &str, name: &str) -> PathBuf {
        let golden = Golden::read(family);
        let path = self.folder.path().join(format!("{name}.gguf"));
        let size = golden.number("vocab_size") as usize;
        golden.write_gguf_with(&path, |file| byte_vocabulary(file, size));
        path
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
        let folder = self.folder.path();
        command.args(arguments);
        command.env("XDG_STATE_HOME", folder).env("XDG_RUNTIME_DIR", folder).env("TMPDIR", folder);
        command.env("XDG_CACHE_HOME", folder);
        command
    }

    /// `baton up` of `cluster` with HTTP at `port`.
    pub(crate) fn up(&self, cluster: &str, port: u16, model: &Path, more: &[&str]) -> LineProcess {
        let listen = format!("127.0.0.1:{port}");
        let mut command = self.command(&["up", "--cluster", cluster, "--listen", &listen]);
        command.args(["--stages", "2", "--store-listen", "127.0.0.1:0", "--lease-ttl-s", "2", "--kv-tokens", "2048"]);
        command.args(["--speculation", "off", "--threads", "1"]).args(more).arg(model);
        LineProcess::spawn(command)
    }

    pub(crate) fn stop(&self, arguments: &[&str]) -> Output {
        self.command(&[&["stop"], arguments].concat()).output().unwrap()
    }
}

/// The tokens of the answer of `model`, which may be left out.
pub(crate) fn tokens(client: GatewayClient, model: Option<&str>) -> Vec<u64> {
    let answer = client.post(
        "/v1/completions",
        &json!({
            "model": model, "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": true, "logprobs": 0,
        }),
    );
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json();
    let ids = answer["choices"][0]["logprobs"]["token_ids"].as_array().expect("token ids");
    ids.iter().map(|id| id.as_u64().unwrap()).collect()
}

/// The answer of the model at `path` with a cluster of its own.
pub(crate) fn alone(path: &Path) -> Vec<u64> {
    tokens(*Cluster::of_model(path, 2, &["--kv-tokens", "2048", "--speculation", "off", "--threads", "1"], &[]), None)
}

pub(crate) fn names(answer: &Answer, list: &str, key: &str) -> Vec<String> {
    let answer = answer.json();
    answer[list].as_array().unwrap().iter().map(|entry| entry[key].as_str().unwrap().to_owned()).collect()
}

pub(crate) fn local(port: u16) -> GatewayClient {
    GatewayClient { http: SocketAddr::from(([127, 0, 0, 1], port)) }
}

/// The lines of a streamed answer. `begun` is called after its first tokens.
pub(crate) fn stream(client: GatewayClient, body: &Value, begun: impl FnOnce()) -> Vec<String> {
    use std::io::Write as _;
    let body = body.to_string();
    let mut socket = std::net::TcpStream::connect(client.http).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(
        socket,
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut lines = BufReader::new(socket).lines().map_while(Result::ok);
    let mut seen: Vec<String> = lines.by_ref().take(20).collect();
    begun();
    seen.extend(lines);
    seen
}
