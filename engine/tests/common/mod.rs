//! A real etcd for tests. It starts on a free port with a directory of its own and is killed when the test ends, even
//! by a panic.

#![allow(dead_code, reason = "every test binary uses its part of this module")]

pub(crate) mod certificates;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use engine::store::{EtcdAccess, EtcdLogin};
use tempfile::TempDir;

use self::certificates::Certificates;

/// Longest wait for etcd's first answer. It takes a quarter of a second on an idle machine.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Number of ports that are tried. Another process may take a port that was free.
const PORT_TRIES: usize = 5;

/// A running etcd.
pub(crate) struct Etcd {
    child: Child,
    directory: TempDir,
    port: u16,
    /// Present if it asks for a client's certificate.
    certificates: Option<Certificates>,
    /// The user that it asks for, once there is one.
    root: Option<EtcdLogin>,
}

impl Etcd {
    /// Starts etcd and waits until it serves.
    pub(crate) async fn start() -> Self {
        Self::start_securely(|| None).await
    }

    /// The same with TLS, where clients have to show a certificate of the same authority.
    pub(crate) async fn start_with_tls() -> Self {
        Self::start_securely(|| Some(Certificates::new())).await
    }

    async fn start_securely(certificates: impl Fn() -> Option<Certificates>) -> Self {
        for _ in 0..PORT_TRIES {
            let (directory, certificates) = (tempfile::tempdir().expect("a temporary directory"), certificates());
            let port = free_port();
            let child = spawn(directory.path(), port, certificates.as_ref());
            let mut etcd = Self { child, directory, port, certificates, root: None };
            if etcd.serves().await {
                return etcd;
            }
        }
        panic!("etcd did not start on any of {PORT_TRIES} ports");
    }

    /// Address at which clients reach it.
    pub(crate) fn url(&self) -> String {
        url(self.port, self.certificates.is_some())
    }

    /// The way to it, as the user `login`.
    pub(crate) fn access(&self, login: Option<(&str, &str)>) -> EtcdAccess {
        let login = login.map(|(user, password)| EtcdLogin { user: user.to_owned(), password: password.to_owned() });
        let tls = self.certificates.as_ref().map(Certificates::tls).unwrap_or_default();
        EtcdAccess { endpoints: vec![self.url()], tls, login }
    }

    /// Runs etcdctl, as root where there is one, and fails if it does.
    pub(crate) fn etcdctl(&self, words: &[&str]) -> String {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.url()]);
        if let Some(certificates) = &self.certificates {
            for (flag, file) in [("--cacert", "ca.pem"), ("--cert", "client.pem"), ("--key", "client.key")] {
                command.arg(flag).arg(certificates.path(file));
            }
        }
        if let Some(EtcdLogin { user, password }) = &self.root {
            command.args(["--user", user, "--password", password]);
        }
        let output = command.args(words).output().expect("etcdctl runs (Debian: apt-get install etcd-client)");
        assert!(output.status.success(), "etcdctl {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Makes the user `root`, and asks every client for a user from now on.
    pub(crate) fn enable_auth(&mut self) {
        self.etcdctl(&["user", "add", "root:root-pw"]);
        self.etcdctl(&["user", "grant-role", "root", "root"]);
        self.etcdctl(&["auth", "enable"]);
        self.root = Some(EtcdLogin { user: "root".to_owned(), password: "root-pw".to_owned() });
    }

    /// Makes a user with a role of the same name that has `rights`, each a kind and a prefix.
    pub(crate) fn add_user(&self, name: &str, password: &str, rights: &[(&str, &str)]) {
        self.etcdctl(&["role", "add", name]);
        for (kind, prefix) in rights {
            self.etcdctl(&["role", "grant-permission", name, kind, "--prefix=true", prefix]);
        }
        self.etcdctl(&["user", "add", &format!("{name}:{password}")]);
        self.etcdctl(&["user", "grant-role", name, name]);
    }

    /// Kills it, as a crash does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("etcd was running");
        self.child.wait().expect("etcd can be waited for");
    }

    /// Starts it again on the same port with the same data.
    pub(crate) async fn restart(&mut self) {
        self.child = spawn(self.directory.path(), self.port, self.certificates.as_ref());
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
                && engine::store::EtcdStore::open(&self.root_access()).await.is_ok()
            {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("etcd did not answer within {START_TIMEOUT:?}: {}", self.log());
    }

    fn root_access(&self) -> EtcdAccess {
        EtcdAccess { login: self.root.clone(), ..self.access(None) }
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

fn url(port: u16, tls: bool) -> String {
    format!("http{}://127.0.0.1:{port}", if tls { "s" } else { "" })
}

fn spawn(directory: &Path, port: u16, certificates: Option<&Certificates>) -> Child {
    let url = url(port, certificates.is_some());
    let log = std::fs::File::create(directory.join("log")).expect("a log file");
    let mut command = Command::new("etcd");
    if let Some(certificates) = certificates {
        command.arg("--client-cert-auth");
        for (flag, file) in
            [("--trusted-ca-file", "ca.pem"), ("--cert-file", "server.pem"), ("--key-file", "server.key")]
        {
            command.arg(flag).arg(certificates.path(file));
        }
    }
    command
        // Cheap passwords and tokens that are soon over: tests make users, and wait for a token's end.
        .args(["--bcrypt-cost=4", "--auth-token-ttl=2"])
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
