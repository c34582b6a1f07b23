//! A real etcd for tests. It starts on a free port with a directory of its own and is killed when the test ends, even
//! by a panic.

#![allow(dead_code, reason = "every test binary uses its part of this module")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longest wait for etcd's first answer. It takes a quarter of a second on an idle machine.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Number of ports that are tried. Another process may take a port that was free.
const PORT_TRIES: usize = 5;

/// A running etcd.
pub(crate) struct Etcd {
    child: Child,
    directory: TempDir,
    port: u16,
}

impl Etcd {
    /// Starts etcd and waits until it serves.
    pub(crate) async fn start() -> Self {
        for _ in 0..PORT_TRIES {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let port = free_port();
            let child = spawn(directory.path(), port);
            let mut etcd = Self { child, directory, port };
            if etcd.serves().await {
                return etcd;
            }
        }
        panic!("etcd did not start on any of {PORT_TRIES} ports");
    }

    /// Address at which clients reach it.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Kills it, as a crash does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("etcd was running");
        self.child.wait().expect("etcd can be waited for");
    }

    /// Starts it again on the same port with the same data.
    pub(crate) async fn restart(&mut self) {
        self.child = spawn(self.directory.path(), self.port);
        assert!(self.serves().await, "etcd did not come back: {}", self.log());
    }

    /// Stops the process without ending it: connections stay open and no request is answered.
    pub(crate) fn freeze(&self) {
        let pid = self.child.id().to_string();
        signal(self.child.id(), "STOP");
        // On a busy machine its threads run on for a moment.
        let stopped = || {
            let state = Command::new("ps").args(["-o", "stat=", "-p", &pid]).output().expect("ps runs").stdout;
            state.trim_ascii().starts_with(b"T")
        };
        let signalled = Instant::now();
        while !stopped() {
            assert!(signalled.elapsed() < START_TIMEOUT, "process {pid} does not stop");
        }
    }

    /// Ends a freeze.
    pub(crate) fn thaw(&self) {
        signal(self.child.id(), "CONT");
    }

    /// True once it answers. False if it exited, as it does when its port is taken.
    async fn serves(&mut self) -> bool {
        let started = Instant::now();
        while started.elapsed() < START_TIMEOUT {
            if self.child.try_wait().expect("etcd can be waited for").is_some() {
                return false;
            }
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok()
                && engine::store::EtcdStore::connect(&[self.url()]).await.is_ok()
            {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("etcd did not answer within {START_TIMEOUT:?}: {}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(directory: &Path, port: u16) -> Child {
    let url = format!("http://127.0.0.1:{port}");
    let log = std::fs::File::create(directory.join("log")).expect("a log file");
    Command::new("etcd")
        .args(["--name=test", "--data-dir=data", "--log-level=error", "--logger=zap"])
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
        // The peer URL is a socket file in etcd's own directory, so that no second port is needed.
        .args(["--listen-peer-urls=unix://peer:0", "--initial-advertise-peer-urls=unix://peer:0"])
        .arg("--initial-cluster=test=unix://peer:0")
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| {
            panic!("cannot start etcd: {error}; these tests need the real one (Debian: apt-get install etcd-server)")
        })
}

fn signal(process: u32, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), process.to_string()]).status().expect("kill runs");
    assert!(status.success(), "etcd could not be sent {name}");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}
