//! A real etcd on a free port, and `etcdctl`.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A real etcd of one or more members in a folder of its own. Dropping it kills all members.
pub(crate) struct Etcd {
    /// Addresses at which its members answer, separated by commas.
    pub(crate) url: String,
    members: Vec<Member>,
    folder: tempfile::TempDir,
}

struct Member {
    client: String,
    arguments: Vec<String>,
    process: Option<Child>,
}

fn program(name: &str) -> String {
    let installed = format!("/usr/bin/{name}");
    if Path::new(&installed).exists() { installed } else { name.to_owned() }
}

/// A port that is free now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Etcd {
    /// Starts one member on this machine.
    pub(crate) fn start() -> Self {
        Self::start_with(1, "127.0.0.1", &[])
    }

    /// Starts `members` members that clients reach at `host`, with `more` arguments.
    pub(crate) fn start_with(members: usize, host: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let peers: Vec<_> =
            (0..members).map(|at| (format!("m{at}"), format!("http://127.0.0.1:{}", free_port()))).collect();
        let all: Vec<_> = peers.iter().map(|(name, peer)| format!("{name}={peer}")).collect();
        let member = |(name, peer): &(String, String)| {
            let client = format!("http://{host}:{}", free_port());
            let data = folder.path().join(name).display().to_string();
            let words = [
                ["--name", name],
                ["--data-dir", &data],
                ["--listen-client-urls", &client],
                ["--advertise-client-urls", &client],
                ["--listen-peer-urls", peer],
                ["--initial-advertise-peer-urls", peer],
                ["--initial-cluster", &all.join(",")],
                ["--log-level", "error"],
            ];
            let arguments = words.as_flattened().iter().chain(more).map(|word| (*word).to_owned()).collect();
            Member { client, arguments, process: None }
        };
        let members: Vec<_> = peers.iter().map(member).collect();
        let url = members.iter().map(|member| member.client.as_str()).collect::<Vec<_>>().join(",");
        let mut etcd = Self { url, members, folder };
        etcd.restart();
        etcd
    }

    /// Starts the members that are not running and waits until all are healthy.
    pub(crate) fn restart(&mut self) {
        for member in self.members.iter_mut().filter(|member| member.process.is_none()) {
            let process = Command::new(program("etcd"))
                .args(&member.arguments)
                .current_dir(self.folder.path())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            member.process = Some(process.unwrap_or_else(|error| {
                panic!("cannot start etcd: {error}: install Debian's etcd-server (etc/prepare etcd)")
            }));
        }
        let started = Instant::now();
        while !etcdctl(&self.url, &["endpoint", "health"]).0 {
            assert!(started.elapsed() < Duration::from_secs(20), "etcd does not get healthy");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills all members, as a power failure does.
    pub(crate) fn kill(&mut self) {
        self.members.iter_mut().for_each(Member::kill);
    }

    /// Kills all members and deletes their data.
    pub(crate) fn wipe(&mut self) {
        self.kill();
        for entry in std::fs::read_dir(self.folder.path()).unwrap().flatten() {
            std::fs::remove_dir_all(entry.path()).unwrap();
        }
    }

    /// Writes a snapshot of the data of a single member to `file`.
    pub(crate) fn save(&self, file: &Path) {
        assert!(etcdctl(&self.url, &["snapshot", "save", &file.display().to_string()]).0);
    }

    /// Kills the single member and replaces its data with the snapshot that [`Etcd::save`] wrote. The next start uses
    /// that data.
    pub(crate) fn restore(&mut self, file: &Path) {
        self.wipe();
        let kept = ["--name", "--data-dir", "--initial-advertise-peer-urls", "--initial-cluster"];
        let flags = self.members[0].arguments.chunks(2).filter(|flag| kept.contains(&flag[0].as_str())).flatten();
        let flags: Vec<_> = flags.map(String::as_str).collect();
        let file = file.display().to_string();
        assert!(etcdctl(&self.url, &[&["snapshot", "restore", &file], &flags[..]].concat()).0);
    }

    /// Kills the leader.
    pub(crate) fn kill_leader(&mut self) {
        let leads = |member: &Member| {
            let (_, status) = etcdctl(&member.client, &["endpoint", "status", "-w", "json"]);
            let status: Value = serde_json::from_str(&status).unwrap();
            let status = &status[0]["Status"];
            status["leader"] == status["header"]["member_id"]
        };
        self.members.iter_mut().find(|member| leads(member)).expect("a leader").kill();
    }
}

impl Member {
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs etcdctl. Returns true if it succeeded, and its standard output.
pub(crate) fn etcdctl(url: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program("etcdctl"))
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", url])
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("cannot run etcdctl: {error}: install Debian's etcd-client (etc/prepare etcd)"));
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}
