//! A cluster of processes that a test starts, disturbs and stops one by one, and the requests that run meanwhile.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::cluster::signal;
use super::etcd::{Etcd, etcdctl, free_port};
use super::http::GatewayClient;
use super::network::Network;
use super::{model_path, wait_for};

/// Requests that run during a fault.
pub(crate) const STREAMS: u32 = 3;
/// Tokens that each request asks for. They take a few seconds.
const TOKENS: u32 = 80;
/// Time from the start of the requests to the fault. All requests have begun by then.
const FAULT_DELAY: Duration = Duration::from_millis(400);
/// Longest wait until all resources are released.
const RELEASE_WAIT_MAX: Duration = Duration::from_secs(30);
/// Longest wait until a cluster is complete again.
const RECOVERY_WAIT_MAX: Duration = Duration::from_secs(30);
/// Growth of anonymous memory that is not counted as a leak: buffers of connections, and memory that an allocator
/// keeps.
const GROWTH_BYTES_MAX: u64 = 32 << 20;
/// Growth of the number of file descriptors that is not counted as a leak. A stage in another place than before has
/// other connections, each of about four descriptors at either end.
const GROWTH_FDS_MAX: usize = 16;

/// A gateway and stages. Dropping it kills them.
pub(crate) struct Fleet {
    client: GatewayClient,
    gateway: Child,
    stages: BTreeMap<String, Child>,
    arguments: Vec<String>,
    network: Option<Network>,
    folder: tempfile::TempDir,
    /// The resources that the processes hold before the first fault.
    baseline: ResourceBaseline,
}

/// The resources that the processes hold while there are no requests.
#[derive(Debug, Default, Clone)]
pub(crate) struct ResourceBaseline {
    memory: BTreeMap<String, u64>,
    fds: BTreeMap<String, usize>,
}

/// The result of the requests that ran during a fault.
#[derive(Debug)]
pub(crate) struct FaultOutcome {
    /// The largest number of attempts of a request.
    pub(crate) attempts: u64,
    /// Time from the fault to the last answer.
    pub(crate) took: Duration,
}

fn prompt(stream: u32) -> Vec<u32> {
    (0..40).map(|at| 1000 + (at * 7 + stream * 131) % 9000).collect()
}

// === impl Fleet ===

impl Fleet {
    /// Starts stages named s0 and so on, each on a machine of its own if there is a network.
    pub(crate) fn start(etcd: &Etcd, stages: usize, network: Option<Network>, more: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("bt").tempdir_in("/tmp").unwrap();
        let stages_min = stages.to_string();
        let common = ["--etcd", &etcd.url, "--stages-min", &stages_min, "--kv-tokens", "2048"];
        let arguments: Vec<_> = common.iter().chain(more).map(|word| (*word).to_owned()).collect();
        let client = GatewayClient { http: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())) };
        let mut gateway = Command::new(env!("CARGO_BIN_EXE_baton"));
        // Without speculative tokens a request takes time in proportion to its tokens, so that the fault comes before
        // its end.
        gateway.args(["gateway", "--listen", &client.http.to_string(), "--speculation", "off"]);
        let advertised = network.as_ref().map(Network::hub);
        let gateway = spawn(gateway, "gateway", advertised, &arguments, &folder);
        let mut fleet = Self {
            client,
            gateway,
            stages: BTreeMap::new(),
            arguments,
            network,
            folder,
            baseline: ResourceBaseline::default(),
        };
        for at in 0..stages {
            fleet.start_stage(at);
        }
        let is_open = || std::net::TcpStream::connect(client.http).is_ok();
        wait_for("the gateway opens", RECOVERY_WAIT_MAX, is_open);
        fleet.wait_until_complete();
        fleet.expected();
        fleet.baseline = fleet.resources();
        fleet
    }

    /// Starts a stage, for the first time or again.
    pub(crate) fn start_stage(&mut self, at: usize) {
        let (program, name) = (env!("CARGO_BIN_EXE_baton"), format!("s{at}"));
        let machine = self.network.as_ref();
        let mut command = machine.map_or_else(|| Command::new(program), |network| network.command(at, program));
        command.args(["stage", "--name", &name, "--threads", "1"]);
        let advertised = machine.map(|network| network.address(at));
        let stage = spawn(command, &name, advertised, &self.arguments, &self.folder);
        self.stages.insert(name, stage);
    }

    /// The command of one more stage, to which a test may add arguments. The fleet does not track its process.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
        command.args(["stage", "--name", name, "--threads", "1"]).args(&self.arguments).arg(model_path());
        command.env("XDG_RUNTIME_DIR", self.folder.path()).env("TMPDIR", self.folder.path());
        command
    }

    /// A copy of the fleet's client, for requests during a fault.
    pub(crate) fn client(&self) -> GatewayClient {
        self.client
    }

    pub(crate) fn network(&self) -> &Network {
        self.network.as_ref().expect("the fleet is on a network")
    }

    pub(crate) fn pid(&self, at: usize) -> u32 {
        self.stages[&format!("s{at}")].id()
    }

    /// The number of the stage that has `slot` now.
    pub(crate) fn stage_at_slot(&self, slot: usize) -> usize {
        let status = self.get("/distributed/status").json();
        let stage = &status["placement"]["shards"][slot]["stage"];
        stage.as_str().unwrap_or_else(|| panic!("slot {slot} in {status}"))[1..].parse().unwrap()
    }

    /// Number of stages that hold layers now.
    pub(crate) fn depth(&self) -> usize {
        self.get("/distributed/status").json()["placement"]["shards"].as_array().map_or(0, Vec::len)
    }

    /// The log of a stage so far.
    pub(crate) fn log(&self, at: usize) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("s{at}.log"))).unwrap_or_default()
    }

    /// Signals a stage.
    pub(crate) fn signal(&self, at: usize, name: &str) {
        signal(self.pid(at), name);
    }

    /// Kills a stage and starts nothing in its place.
    pub(crate) fn kill(&mut self, at: usize) -> ExitStatus {
        let mut stage = self.stages.remove(&format!("s{at}")).expect("it runs");
        stage.kill().unwrap();
        stage.wait().unwrap()
    }

    /// Waits until a stage ends by itself and returns its exit status.
    pub(crate) fn ended(&mut self, at: usize) -> ExitStatus {
        let name = format!("s{at}");
        let stage = self.stages.get_mut(&name).expect("it was started");
        let started = Instant::now();
        let status = loop {
            if let Some(status) = stage.try_wait().unwrap() {
                break status;
            }
            assert!(started.elapsed() < RECOVERY_WAIT_MAX, "{name} does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        self.stages.remove(&name);
        status
    }

    /// The tokens of each request when there is no fault.
    fn expected(&self) -> &'static [Vec<u32>] {
        static EXPECTED: OnceLock<Vec<Vec<u32>>> = OnceLock::new();
        EXPECTED.get_or_init(|| (0..STREAMS).map(|stream| self.complete(&prompt(stream), TOKENS).0).collect())
    }

    /// Runs requests, causes the fault while they run, and expects each to end with the tokens that it has undisturbed.
    pub(crate) fn with_fault(&mut self, what: &str, fault: impl FnOnce(&mut Self)) -> FaultOutcome {
        let (client, expected) = (self.client, self.expected());
        let outcome = std::thread::scope(|scope| {
            let ask = |stream: u32| scope.spawn(move || client.complete(&prompt(stream), TOKENS));
            let running: Vec<_> = (0..STREAMS).map(ask).collect();
            std::thread::sleep(FAULT_DELAY);
            let began = Instant::now();
            fault(self);
            let mut attempts = 1;
            for (stream, answer) in running.into_iter().enumerate() {
                let (tokens, answer) = answer.join().unwrap_or_else(|_| panic!("{what}: request {stream} failed"));
                assert_eq!(tokens, expected[stream], "{what}: request {stream}");
                attempts = attempts.max(answer["timings"]["attempts"].as_u64().unwrap());
            }
            FaultOutcome { attempts, took: began.elapsed() }
        });
        println!("{what}: {outcome:?}");
        self.none_ended(what);
        outcome
    }

    /// Sends requests without a pause for the duration of the faults and expects each answer to have the tokens that it
    /// has undisturbed. Returns the number of answers.
    pub(crate) fn under_load(&mut self, what: &str, faults: impl FnOnce(&mut Self)) -> usize {
        let (client, expected, over) = (self.client, self.expected(), AtomicBool::new(false));
        let answers = std::thread::scope(|scope| {
            let send_requests = |stream: u32| {
                let over = &over;
                scope.spawn(move || {
                    let mut answers = 0;
                    while !over.load(Ordering::Relaxed) {
                        let (tokens, _) = client.complete(&prompt(stream), TOKENS);
                        assert_eq!(tokens, expected[stream as usize], "{what}: request {stream}");
                        answers += 1;
                    }
                    answers
                })
            };
            let streams: Vec<_> = (0..STREAMS).map(send_requests).collect();
            // The streams end even if the faults panic.
            let outcome = catch_unwind(AssertUnwindSafe(|| faults(self)));
            over.store(true, Ordering::Relaxed);
            let answers = streams.into_iter().map(|stream| stream.join().unwrap_or_else(|_| panic!("{what}: failed")));
            let answers = answers.sum();
            outcome.unwrap_or_else(|panic| resume_unwind(panic));
            answers
        });
        self.none_ended(what);
        answers
    }

    /// The state of a stage according to the gateway, if the gateway lists it.
    pub(crate) fn state_of(&self, at: usize) -> Option<String> {
        let (status, pid) = (self.get("/distributed/status").json(), self.pid(at));
        let stage = status["stages"].as_array()?.iter().find(|stage| stage["pid"] == pid)?;
        stage["state"].as_str().map(str::to_owned)
    }

    /// Sends one more request, after the cluster has recovered from the fault, and expects the undisturbed tokens.
    pub(crate) fn answers_as_before(&self) {
        assert_eq!(self.complete(&prompt(0), TOKENS).0, self.expected()[0]);
    }

    fn none_ended(&mut self, what: &str) {
        let processes = self.stages.iter_mut().map(|(name, child)| (name.as_str(), child));
        for (name, process) in processes.chain([("gateway", &mut self.gateway)]) {
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none(), "{what}: {name} ended with {ended:?}, though the fault was elsewhere");
        }
    }

    /// Waits until the gateway lists every stage as serving or standby, and all layers are served. Returns the time
    /// that it took.
    pub(crate) fn wait_until_complete(&self) -> Duration {
        let mut seen = String::new();
        let most = RECOVERY_WAIT_MAX;
        let started = Instant::now();
        loop {
            let status = self.get("/distributed/status").json();
            let stages = status["stages"].as_array().cloned().unwrap_or_default();
            let at_rest = |name: &String| {
                let is_it = |stage: &&serde_json::Value| stage["name"] == name.as_str();
                let pid = self.stages[name].id();
                stages.iter().find(is_it).is_some_and(|stage| {
                    stage["pid"] == pid && ["serving", "standby"].iter().any(|state| stage["state"] == *state)
                })
            };
            if status["serving"] == true && stages.len() == self.stages.len() && self.stages.keys().all(at_rest) {
                return started.elapsed();
            }
            seen.clear();
            seen.push_str(&status.to_string());
            assert!(started.elapsed() < most, "not complete within {most:?}: {seen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until every stage holds layers.
    pub(crate) fn all_hold_layers(&self) {
        wait_for("every stage holds layers", RECOVERY_WAIT_MAX, || {
            self.wait_until_complete();
            self.depth() == self.stages.len()
        });
    }

    fn resources(&self) -> ResourceBaseline {
        let mut baseline = ResourceBaseline::default();
        let stages = self.stages.iter().map(|(name, stage)| (name.clone(), stage.id()));
        for (name, pid) in stages.chain([("gateway".to_owned(), self.gateway.id())]) {
            baseline.memory.insert(name.clone(), anonymous(pid));
            baseline.fds.insert(name, std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count));
        }
        baseline
    }

    /// Waits until all resources that the faults took are released.
    pub(crate) fn wait_until_released(&self, etcd: &Etcd) {
        self.wait_until_complete();
        let blocks = || {
            ["baton_kv_blocks_used", "baton_sequences_running", "baton_sequences_waiting"].map(|name| self.metric(name))
        };
        let started = Instant::now();
        loop {
            let (held, blocks) = (self.resources(), blocks());
            let (_, keys) = etcdctl(&etcd.url, &["get", "--prefix", "--keys-only", "/baton/v1/home/"]);
            // The model, the placement, the gateway, a record for each stage, and a claim for each stage that serves.
            // The keys of starts are not counted, because they expire after 20 s. The mark of a cluster key is not
            // counted either, because it stays.
            let stays = |key: &&str| !key.contains("/starts/") && !key.ends_with("/key-mark");
            let keys = keys.split_whitespace().filter(stays).count();
            let most = 3 + 2 * self.stages.len();
            let memory = held.memory.iter().all(|(name, bytes)| {
                self.baseline.memory.get(name).is_none_or(|baseline| *bytes <= baseline + GROWTH_BYTES_MAX)
            });
            let fds = held.fds.iter().all(|(name, fds)| {
                self.baseline.fds.get(name).is_none_or(|baseline| *fds <= baseline + GROWTH_FDS_MAX)
            });
            if memory && fds && blocks == [0.0; 3] && keys <= most {
                return;
            }
            assert!(
                started.elapsed() < RELEASE_WAIT_MAX,
                "held before: {:?}, and now: {held:?}, {blocks:?} blocks and sequences, {keys} keys of at most {most}",
                self.baseline
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Deref for Fleet {
    type Target = GatewayClient;

    fn deref(&self) -> &GatewayClient {
        &self.client
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for process in self.stages.values_mut().chain([&mut self.gateway]) {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            for entry in std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten() {
                if entry.path().extension().is_some_and(|end| end == "log") {
                    let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
                    let lines: Vec<_> = log.lines().filter(|line| !line.contains("edge: answered")).collect();
                    println!("--- {}:\n{}", entry.path().display(), lines[lines.len().saturating_sub(40)..].join("\n"));
                }
            }
        }
    }
}

fn spawn(
    mut command: Command,
    name: &str,
    advertised: Option<String>,
    arguments: &[String],
    folder: &tempfile::TempDir,
) -> Child {
    if let Some(address) = advertised {
        command.args(["--advertise", &address]).env("BATON_CLUSTER_KEY", "ab".repeat(32));
    }
    let log = File::options().create(true).append(true).open(folder.path().join(format!("{name}.log"))).unwrap();
    command.args(arguments).arg(model_path());
    command.env("XDG_RUNTIME_DIR", folder.path()).env("TMPDIR", folder.path()).env_remove("BATON_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("baton starts")
}

/// Bytes of anonymous memory of a process.
fn anonymous(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("Anonymous:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
