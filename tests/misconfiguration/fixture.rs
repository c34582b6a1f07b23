//! Shared by all rows: a real etcd, a cluster with a key that serves (on separate machines if there can be some), and
//! commands for processes that join it. These are right in everything that a row does not change.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::case::Mistake;
use super::common::etcd::{Etcd, etcdctl, free_port};
use super::common::fleet::Fleet;
use super::common::http::{GatewayClient, request};
use super::common::model_path;
use super::common::network::Network;
use super::process::Process;

/// The key of the shared cluster.
pub(crate) const KEY: &str = "abababababababababababababababababababababababababababababababab";
/// The machine of the wrong processes. The other machine is for a process that loses its addresses.
pub(crate) const WRONG: usize = 2;
pub(crate) const OTHER: usize = 3;
/// Number of stages in the shared cluster.
const STAGES: usize = 2;
/// Number of tokens that are requested after each row.
const TOKENS: u32 = 6;
const PROMPT: [u32; 6] = [504, 4149, 282, 3575, 314, 3030];

/// The etcd, the shared cluster, and a folder for files of the rows.
pub(crate) struct Fixture {
    pub(crate) fleet: Fleet,
    pub(crate) etcd: Etcd,
    pub(crate) folder: tempfile::TempDir,
    expected: Vec<u32>,
    /// The reason, if there are no machines.
    no_network: Option<String>,
    processes: usize,
}

/// A cluster that tools can ask.
#[derive(Debug, Clone)]
pub(crate) struct ClusterRef {
    pub(crate) client: GatewayClient,
    pub(crate) etcd: String,
    pub(crate) cluster: String,
}

// === impl Fixture ===

impl Fixture {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("bm").tempdir_in("/tmp").unwrap();
        // Processes of other users need access, too.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let key = folder.path().join("key");
        std::fs::write(&key, KEY).unwrap();
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
        let (network, no_network) = match Network::of(OTHER + 1) {
            Ok(network) => (Some(network), None),
            Err(why) => (None, Some(why)),
        };
        let host = network.as_ref().map_or("127.0.0.1".to_owned(), Network::hub);
        let etcd = Etcd::start_with(1, &host, &[]);
        let key = key.display().to_string();
        let fleet = Fleet::start(&etcd, STAGES, network, &["--lease-ttl-s", "2", "--cluster-key-file", &key]);
        let expected = fleet.complete(&PROMPT, TOKENS).0;
        Self { fleet, etcd, folder, expected, no_network, processes: 0 }
    }

    /// The shared cluster.
    pub(crate) fn cluster_ref(&self) -> ClusterRef {
        ClusterRef { client: self.fleet.client(), etcd: self.etcd.url.clone(), cluster: "home".to_owned() }
    }

    /// The machines. The error is the reason, if there are none.
    pub(crate) fn network(&self) -> Result<&Network, String> {
        self.no_network.clone().map_or_else(|| Ok(self.fleet.network()), Err)
    }

    /// `baton` with a verb on this machine. The environment makes it a right member, and flags of a row override that.
    pub(crate) fn baton(&self, verb: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
        command.arg(verb);
        self.right(command)
    }

    /// The same on another machine. The process advertises that machine's address.
    pub(crate) fn baton_at(&self, machine: usize, verb: &str) -> Result<Command, String> {
        let network = self.network()?;
        let mut command = network.command(machine, env!("CARGO_BIN_EXE_baton"));
        command.arg(verb).env("BATON_ADVERTISE", network.address(machine));
        Ok(self.right(command))
    }

    fn right(&self, mut command: Command) -> Command {
        // The memory is too small for a layer, so the process joins and changes nothing for the others.
        let defaults =
            [("NAME", "wrong"), ("THREADS", "1"), ("MEMORY", "1MiB"), ("LEASE_TTL_S", "2"), ("LISTEN", "127.0.0.1:0")];
        command.envs(defaults.map(|(name, value)| (format!("BATON_{name}"), value)));
        command.env("BATON_ETCD", &self.etcd.url).env("BATON_MODEL", model_path()).env("BATON_CLUSTER_KEY", KEY);
        command.env("XDG_RUNTIME_DIR", self.folder.path()).env("TMPDIR", self.folder.path()).env_remove("BATON_LOG");
        command
    }

    /// Starts a wrong process.
    pub(crate) fn start(&mut self, command: Command) -> Result<Mistake, String> {
        Ok(Mistake::of(self.process(command)))
    }

    pub(crate) fn process(&mut self, command: Command) -> Process {
        Process::start(command, self.log())
    }

    /// The log file of the next process.
    pub(crate) fn log(&mut self) -> PathBuf {
        self.processes += 1;
        self.folder.path().join(format!("{}.log", self.processes))
    }

    /// A path for a file or folder of one row.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a separate cluster called `name` in the same etcd: a gateway, and a stage for each item of `memory`.
    pub(crate) fn cluster(&mut self, name: &str, memory: &[&str]) -> (ClusterRef, Vec<Process>) {
        let etcd = self.etcd.url.clone();
        self.cluster_at(&etcd, name, memory)
    }

    /// The same in another etcd.
    pub(crate) fn cluster_at(&mut self, etcd: &str, name: &str, memory: &[&str]) -> (ClusterRef, Vec<Process>) {
        let client = GatewayClient { http: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())) };
        let mut gateway = self.baton("gateway");
        gateway.args(["--listen", &client.http.to_string(), "--cluster", name, "--etcd", etcd]);
        let mut processes = vec![self.process(gateway)];
        for (at, memory) in memory.iter().enumerate() {
            let mut stage = self.baton("stage");
            stage.args(["--name", &format!("{name}-{at}"), "--memory", memory, "--cluster", name, "--etcd", etcd]);
            processes.push(self.process(stage));
        }
        (ClusterRef { client, etcd: etcd.to_owned(), cluster: name.to_owned() }, processes)
    }

    pub(crate) fn etcdctl(&self, arguments: &[&str]) -> String {
        let (well, output) = etcdctl(&self.etcd.url, arguments);
        assert!(well, "etcdctl {arguments:?}");
        output
    }

    /// Exit status and output of a verb that reads a cluster.
    pub(crate) fn ask(&self, verb: &str, cluster_ref: &ClusterRef) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
        let output_of = command
            .args([verb, "--etcd", &cluster_ref.etcd, "--cluster", &cluster_ref.cluster])
            .env("BATON_CLUSTER_KEY", KEY)
            .output()
            .expect("baton runs");
        let output = [output_of.stdout, output_of.stderr].concat();
        (output_of.status.code().unwrap_or(-1), String::from_utf8_lossy(&output).into_owned())
    }

    /// The difference between the shared cluster's current answer and its first one, if there is any.
    pub(crate) fn answers_otherwise(&self) -> Option<String> {
        let body = serde_json::json!({
            "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": true, "logprobs": 0,
        });
        let answer = self.fleet.post("/v1/completions", &body);
        if answer.status != 200 {
            return Some(format!("the others answer {}: {}", answer.status, answer.body));
        }
        let ids = answer.json()["choices"][0]["logprobs"]["token_ids"].clone();
        (ids != serde_json::json!(self.expected)).then(|| format!("the others answer other tokens: {ids}"))
    }
}

// === impl ClusterRef ===

impl ClusterRef {
    /// Status and body of `/health`. The status is 0 while the gateway does not answer.
    pub(crate) fn health(&self) -> (u16, String) {
        let answer = request(self.client.http, "GET", "/health", "");
        answer.map_or_else(|error| (0, error.to_string()), |answer| (answer.status, answer.body))
    }
}

/// A tiny file system. Dropping it unmounts it.
pub(crate) struct TinyDisk {
    folder: PathBuf,
}

impl TinyDisk {
    /// Mounts a file system with `options` (`size=64k`) at `folder`. The error is the reason for which there can be
    /// none.
    pub(crate) fn mount(folder: &Path, options: &str) -> Result<Self, String> {
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder).output();
        let mounted = mounted.map_err(|error| format!("`mount` cannot be used ({error})"))?;
        if !mounted.status.success() {
            let output = String::from_utf8_lossy(&mounted.stderr).trim().to_owned();
            return Err(format!("no file system can be mounted, root has to ({output})"));
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// Fills the file system to the last byte.
    pub(crate) fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.folder.join("filling")).unwrap();
        while file.write(&[b'x'; 512]).is_ok_and(|written| written > 0) {}
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}
