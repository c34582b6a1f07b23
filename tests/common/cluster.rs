//! `baton up` as a real process with real child processes.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::http::GatewayClient;
use super::model_path;

/// A running `baton up`. Dropping it interrupts the process and waits for its end.
pub(crate) struct Cluster {
    process: Child,
    client: GatewayClient,
    /// Address at which its store answers.
    pub(crate) store: String,
    /// The folder of its sockets and scratch files.
    pub(crate) folder: tempfile::TempDir,
    /// The folder of what it notes for this user, which is its own, so that the clusters of other tests do not count.
    _state: tempfile::TempDir,
}

impl Cluster {
    /// Starts the default model in this number of stages and waits until the cluster serves. `arguments` and
    /// `variables` are passed on to `baton up`.
    pub(crate) fn start(stages: u32, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::of_model(&model_path(), stages, arguments, variables)
    }

    /// The same with the model at `model`.
    pub(crate) fn of_model(model: &Path, stages: u32, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("bt").tempdir_in("/tmp").unwrap();
        let state = tempfile::tempdir().unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_baton"))
            .args(["up", "--stages", &stages.to_string(), "--listen", "127.0.0.1:0", "--store-listen", "127.0.0.1:0"])
            .args(arguments)
            .arg(model)
            .env("XDG_STATE_HOME", state.path())
            .envs(variables.iter().copied())
            .env("XDG_RUNTIME_DIR", folder.path())
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("baton starts");
        let lines = BufReader::new(process.stdout.take().unwrap());
        let (sender, receiver) = mpsc::sync_channel(1000);
        std::thread::spawn(move || lines.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let client = GatewayClient { http: SocketAddr::from(([127, 0, 0, 1], 1)) };
        let mut cluster = Self { process, client, store: String::new(), folder, _state: state };
        let deadline = Instant::now() + Duration::from_secs(60);
        while cluster.store.is_empty() {
            let line = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|_| panic!("baton up does not get ready: {:?}", cluster.process.try_wait()));
            let words: Vec<_> = line.split_whitespace().collect();
            match words[..] {
                ["ready", ..] => cluster.client.http = address(&line),
                ["etcdctl", "--endpoints", store, ..] => cluster.store = store.to_owned(),
                _ => {}
            }
        }
        cluster
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Interrupts the process as Ctrl-C does, waits for its end and returns the time that it took.
    pub(crate) fn interrupt(&mut self) -> Duration {
        let started = Instant::now();
        signal(self.process.id(), "INT");
        while self.process.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < Duration::from_secs(10), "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        started.elapsed()
    }

    /// The files that are left in its folder.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

impl Deref for Cluster {
    type Target = GatewayClient;

    fn deref(&self) -> &GatewayClient {
        &self.client
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.interrupt();
        }
    }
}

/// The address in a line with a URL.
pub(crate) fn address(line: &str) -> SocketAddr {
    let from = line.split("://").nth(1).expect("an address");
    from.split([',', ' ']).next().and_then(|address| address.parse().ok()).expect("an address")
}

/// Sends a signal.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(sent.success(), "kill -{name} {pid}");
}

/// True if the process exists and is not a zombie.
pub(crate) fn alive(pid: u32) -> bool {
    let state = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().expect("ps runs").stdout;
    let state = String::from_utf8_lossy(&state);
    !state.trim().is_empty() && !state.trim().starts_with('Z')
}
