//! A real etcd on a free port, and `etcdctl`.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A real etcd in a folder of its own; killed when dropped.
pub(crate) struct Etcd {
    pub(crate) url: String,
    process: Child,
    _folder: tempfile::TempDir,
}

fn program(name: &str) -> String {
    let installed = format!("/usr/bin/{name}");
    if Path::new(&installed).exists() { installed } else { name.to_owned() }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Etcd {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (client, peer) = (free_port(), free_port());
        let url = format!("http://127.0.0.1:{client}");
        let peer = format!("http://127.0.0.1:{peer}");
        let process = Command::new(program("etcd"))
            .arg("--data-dir")
            .arg(folder.path())
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--log-level", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start etcd: {error}: install Debian's etcd-server (etc/prepare etcd)")
            });
        let etcd = Self { url, process, _folder: folder };
        let started = Instant::now();
        while !etcdctl(&etcd.url, &["endpoint", "health"]).0 {
            assert!(started.elapsed() < Duration::from_secs(20), "etcd does not get healthy");
            std::thread::sleep(Duration::from_millis(50));
        }
        etcd
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs etcdctl; whether it succeeded, and what it printed.
pub(crate) fn etcdctl(url: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program("etcdctl"))
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", url])
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("cannot run etcdctl: {error}: install Debian's etcd-client (etc/prepare etcd)"));
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}
