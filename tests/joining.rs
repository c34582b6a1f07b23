//! Two machines become a cluster by two lines: `baton up --share` on one and the printed `baton join` on the other,
//! each with a home and a cache of its own. They find each other by multicast DNS, and a third one lies. Needs root and
//! `etc/prepare netns`; the test reports that it is skipped if they are missing.
#![cfg(all(target_os = "linux", feature = "tls"))]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::http::GatewayClient;
use common::line_process::LineProcess;
use common::network::{Network, report_skipped};
use common::{model_path, wait_for};
use engine::store::EmbeddedServer;
use gateway::share::{
    Announcement, Announcer, Authority, ClusterFolder, JoinToken, ShareListener, SharedPort, Sharing,
    ensure_cluster_key,
};
use schema::Keyspace;
use tokio::runtime::Runtime;

/// Longest wait for what another process is to do.
const WAIT_MAX: Duration = Duration::from_secs(60);
const PROMPT: [u32; 6] = [504, 4149, 282, 3575, 314, 3030];
/// The flags of the first machine's stage.
const STAGES: [&str; 6] = ["--stages", "1", "--stages-min", "2", "--threads", "1"];
/// The state of a socket that listens, in /proc/net/tcp.
const LISTENS: &str = "0A";
/// The packets of a flood, and the records in each.
const FLOOD_PACKETS: u32 = 400;
const FLOOD_RECORDS: u8 = 30;
/// Most floods, 300 ms apart.
const FLOODS_MAX: u32 = 60;
/// The end of an address with the port of multicast DNS, in /proc/net/udp.
const DNS_PORT: &str = ":14E9";

/// Two machines, each with a home.
struct Machines {
    network: Network,
    homes: [tempfile::TempDir; 2],
}

impl Machines {
    fn command(&self, at: usize, program: &str) -> Command {
        let home = self.homes[at].path();
        // Each machine has a name of its own.
        let mut command = self.network.command(at, "unshare");
        let named = format!("echo machine-{at} > /proc/sys/kernel/hostname; exec \"$0\" \"$@\"");
        command.args(["--uts", "sh", "-c", &named, program]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", home).env("TMPDIR", home);
        command.env("XDG_RUNTIME_DIR", home);
        command
    }

    fn baton(&self, at: usize, words: &[&str]) -> LineProcess {
        let mut command = self.command(at, env!("CARGO_BIN_EXE_baton"));
        command.args(words);
        LineProcess::spawn(command)
    }

    /// Runs to its end and returns its status and all that it printed.
    fn ran(&self, at: usize, words: &[&str]) -> (bool, String) {
        let output = self.command(at, env!("CARGO_BIN_EXE_baton")).args(words).output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), text)
    }

    /// The folder of the cluster's files on a machine.
    fn folder(&self, at: usize) -> PathBuf {
        self.homes[at].path().join(".local/state/baton/clusters/home")
    }

    /// The clusters that announce themselves to a machine.
    fn announced(&self, at: usize) -> Vec<serde_json::Value> {
        let (listed, text) = self.ran(at, &["join", "--json"]);
        assert!(listed, "{text}");
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("no list: {text}"))
    }

    /// True if a socket for multicast DNS is open on a machine.
    fn hears_multicast(&self, at: usize) -> bool {
        let tables = self.command(at, "cat").args(["/proc/net/udp", "/proc/net/udp6"]).output().unwrap().stdout;
        let tables = String::from_utf8(tables).unwrap();
        tables.lines().any(|line| line.split_whitespace().nth(1).is_some_and(|own| own.ends_with(DNS_PORT)))
    }

    /// The addresses on a machine at which something listens, as /proc has them.
    fn listening(&self, at: usize) -> Vec<String> {
        let tables = self.command(at, "cat").args(["/proc/net/tcp", "/proc/net/tcp6"]).output().unwrap().stdout;
        let tables = String::from_utf8(tables).unwrap();
        let rows = tables.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.filter(|row| row.get(3) == Some(&LISTENS)).map(|row| row[1].to_owned()).collect()
    }
}

/// A shared port of another cluster, which announces itself as the cluster of a token.
struct Forger {
    _state: tempfile::TempDir,
    _server: EmbeddedServer,
    _port: SharedPort,
    announcers: [Announcer; 2],
    address: String,
    runtime: Runtime,
}

impl Forger {
    fn start(host: &str, token: &JoinToken) -> Self {
        let runtime = Runtime::new().unwrap();
        let state = tempfile::tempdir().unwrap();
        let entered = runtime.enter();
        let folder = ClusterFolder::new(state.path(), &token.cluster);
        let loopback = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let server = EmbeddedServer::bind(loopback).unwrap();
        let sharing = Sharing {
            authority: Authority::ensure(&folder, &token.cluster).unwrap(),
            cluster_key: ensure_cluster_key(&folder).unwrap(),
            store: Arc::new(server.store()),
            keyspace: Keyspace::new(&token.cluster),
            service: gateway::share::StoreService::Embedded(server.service()),
            layers: Arc::default(),
        };
        let port = runtime.block_on(ShareListener::bind(host, 0, false)).unwrap().serve(sharing, &[]).unwrap();
        let address = port.address();
        let announced = |model| Announcement::new(token.cluster.clone(), model, "liar", token.pin, address).unwrap();
        // A name that no record may have comes from a field that is written past the constructor.
        let hostile = Announcement { model: "\u{1b}[2J".to_owned(), machine: "hostile".to_owned(), ..announced("m") };
        let announcers = [hostile, announced("m")].map(Announcer::start);
        drop(entered);
        let address = address.to_string();
        Self { _state: state, _server: server, _port: port, announcers, address, runtime }
    }

    /// Says goodbye.
    fn stop(self) {
        self.runtime.block_on(futures::future::join_all(self.announcers.map(Announcer::withdraw)));
    }
}

/// Serves one file to whoever asks, by ranges.
fn serve(file: &Path, host: &str) -> String {
    let listener = TcpListener::bind((host, 0)).unwrap();
    let url = format!("http://{}/small.gguf", listener.local_addr().unwrap());
    let bytes = std::sync::Arc::new(std::fs::read(file).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let bytes = bytes.clone();
            std::thread::spawn(move || answer(stream, &bytes));
        }
    });
    url
}

fn answer(mut stream: std::net::TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let mut range = None;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?.to_ascii_lowercase();
        if let Some((from, to)) = line.strip_prefix("range: bytes=").and_then(|range| range.split_once('-')) {
            range = from.parse::<usize>().ok().zip(to.parse::<usize>().ok());
        }
        if line.is_empty() {
            break;
        }
    }
    let (from, to) = range.expect("a range");
    let to = (to + 1).min(bytes.len());
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\netag: \"1\"\r\ncontent-length: {}\r\ncontent-range: bytes {from}-{}/{}\r\n\
         connection: close\r\n\r\n",
        to - from,
        to - 1,
        bytes.len()
    )?;
    stream.write_all(&bytes[from..to])
}

#[test]
fn two_lines_make_two_machines_a_cluster_and_without_share_nothing_listens_to_others() {
    let network = match Network::of(2) {
        Ok(network) => network,
        Err(why) => return report_skipped("two_lines_make_two_machines_a_cluster", &why),
    };
    let home = || tempfile::Builder::new().prefix("bj").tempdir_in("/tmp").unwrap();
    let machines = Machines { network, homes: [home(), home()] };
    let url = serve(&model_path(), &machines.network.hub());
    let (first, second) = (machines.network.address(0), machines.network.address(1));

    // --- Without --share, nothing listens beyond loopback.
    let mut alone = machines.baton(0, &["up", &url, "--stages", "1", "--threads", "1"]);
    alone.line("ready after");
    let listening = machines.listening(0);
    assert!(listening.len() >= 2 && listening.iter().all(|address| address.starts_with("0100007F:")), "{listening:?}");
    assert!(!machines.hears_multicast(0), "a socket for multicast DNS is open without --share");
    alone.interrupt();

    // --- The two lines. The first placement waits for both machines.
    let http = format!("{first}:8100");
    let share = format!("--share={first}");
    let mut up = machines.baton(0, &[&["up", &url, &share, "--listen", &http, "--insecure"], &STAGES[..]].concat());
    let line = up.line("baton join");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert!(words[2] == format!("{first}:7946") && words[3].starts_with("bt1-"), "{line}");

    // --- The other machine sees the cluster, unless it does not look.
    let announced = wait_for_announcement(&machines);
    assert_eq!((&announced["cluster"], &announced["model"]), (&"home".into(), &"small".into()), "{announced}");
    assert_eq!(announced["addresses"], serde_json::json!([words[2]]), "{announced}");
    let (listed, text) = machines.ran(1, &["join"]);
    assert!(listed && text.contains(&format!("  baton join {} TOKEN\n", words[2])), "{text}");
    let (listed, text) = machines.ran(1, &["join", "--discovery", "off"]);
    assert!(!listed && text.contains("this machine has not joined cluster home before"), "{text}");

    let started = Instant::now();
    let mut stage = machines.baton(1, &["join", words[2], words[3], "--threads", "1", "--name", "second"]);
    up.line("ready after");
    println!("from the second line to a cluster that serves: {:?}", started.elapsed());
    let client = GatewayClient { http: http.parse().unwrap() };
    let (tokens, _) = client.complete(&PROMPT, 4);
    assert_eq!(tokens.len(), 4);
    let status = client.get("/distributed/status").json();
    let held: Vec<_> = status["placement"]["shards"].as_array().unwrap().iter().map(|shard| &shard["stage"]).collect();
    assert!(held.len() == 2 && held.iter().any(|stage| *stage == "second"), "{status}");
    let of_second = status["stages"].as_array().unwrap().iter().find(|stage| stage["name"] == "second").unwrap();
    assert!(of_second.to_string().contains(&second), "its links are not at its own address: {of_second}");

    // --- Though the whole model has an address, it has its own layers only.
    let cache = machines.homes[1].path().join(".cache/baton");
    assert!(cache.join("layers").is_dir() && !cache.join("models").exists(), "it fetched the whole model");

    // --- What it got is for its user alone, and opens the store for etcdctl.
    let folder = machines.folder(1);
    for entry in std::fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
    let path = |name: &str| folder.join(name).display().to_string();
    let etcdctl = |files: &[&str]| {
        let mut command = machines.command(1, "etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &format!("https://{first}:7946")]).args(files);
        let output = command.args(["--command-timeout=3s", "get", "--prefix", "--keys-only", "/baton/v1/home/stages/"]);
        let output = output.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (authority, cert, key) = (path("authority.pem"), path("client.pem"), path("client.key"));
    let (worked, stages) = etcdctl(&["--cacert", &authority, "--cert", &cert, "--key", &key]);
    assert!(worked && stages.contains("stages/second"), "{stages}");
    assert!(!etcdctl(&["--cacert", &authority]).0, "it let a client without a certificate in");

    // --- Tokens are made, listed and revoked where the cluster is shared.
    let (made, line) = machines.ran(0, &["token", "create", "--ttl", "30m"]);
    assert!(made, "{line}");
    let token = line.split_whitespace().last().unwrap().to_owned();
    // --- A token alone finds its cluster, past a machine that claims to be it and is another cluster.
    let parsed: JoinToken = token.parse().unwrap();
    let forger = Forger::start(&machines.network.hub(), &parsed);
    let lies = || machines.announced(1).iter().any(|cluster| cluster["machine"] == "liar");
    wait_for("the false announcement", WAIT_MAX, lies);
    let mut third = machines.baton(1, &["join", &token, "--name", "third", "--threads", "1"]);
    third.line("the cluster was found by its announcement");
    assert!(third.seen.iter().any(|line| line.contains("and it is not there")), "{:#?}", third.seen);
    third.interrupt();

    let (_, listed) = machines.ran(0, &["token", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
    for id in listed.as_array().unwrap().iter().map(|token| token["id"].as_str().unwrap()) {
        assert!(machines.ran(0, &["token", "revoke", id]).0);
    }
    let (joined, text) = machines.ran(1, &["join", words[2], &token]);
    assert!(!joined && text.contains("the token was revoked"), "{text}");
    let mistyped = format!("{}{}", &token[..token.len() - 8], "00000000");
    let (joined, text) = machines.ran(1, &["join", words[2], &mistyped]);
    assert!(!joined && text.contains("was mistyped or is not whole"), "{text}");

    // --- A machine that has joined needs no token again, nor does it after its cluster was started again. A cluster
    // that does not announce itself is not listed, and whoever announces it falsely does not have its key.
    stage.interrupt();
    up.interrupt();
    let quiet = [&["up", &share, "--listen", &http, "--insecure", "--discovery", "off"], &STAGES[..]].concat();
    let mut up = machines.baton(0, &quiet);
    up.line("baton join");
    let mut stage = machines.baton(1, &["join", "--threads", "1", "--name", "second"]);
    up.line("ready after");
    assert_eq!(client.complete(&PROMPT, 4).0, tokens);
    assert!(!machines.hears_multicast(0), "a socket for multicast DNS is open with --discovery off");
    let announced = machines.announced(1);
    assert!(announced.iter().all(|cluster| cluster["machine"] == "liar"), "{announced:?}");
    let (joined, text) = machines.ran(1, &["join", &token]);
    assert!(!joined && text.contains(&forger.address) && text.contains("its authority is another one"), "{text}");
    forger.stop();
    let (joined, text) = machines.ran(1, &["join", &token]);
    assert!(!joined && text.contains("nobody on this network announces the cluster home of the token"), "{text}");

    // --- A machine that has joined finds its cluster at another address.
    stage.interrupt();
    up.interrupt();
    let share = format!("--share={first}:7950");
    let moved = [&["up", &share, "--listen", &http, "--insecure"], &STAGES[..]].concat();
    let mut up = machines.baton(0, &moved);
    up.line("baton join");
    let mut stage = machines.baton(1, &["join", "--threads", "1", "--name", "second"]);
    stage.line("the cluster announces itself elsewhere");
    up.line("ready after");
    assert_eq!(client.complete(&PROMPT, 4).0, tokens);

    // --- The doctor says if multicast passes. Records of strangers are kept within a bound.
    let (_, text) = machines.ran(0, &["doctor"]);
    assert!(text.contains(&format!("multicast passes on this machine at {first}")), "{text}");
    let (hub, is_over) = (machines.network.hub(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // A busy machine's kernel throws packets away: what is missing comes with a later flood.
        scope.spawn(|| {
            for _ in 0..FLOODS_MAX {
                if !is_over.load(Ordering::Relaxed) {
                    flood(&hub);
                    std::thread::sleep(Duration::from_millis(300));
                }
            }
        });
        up.line("the responder of multicast DNS is started anew");
        is_over.store(true, Ordering::Relaxed);
    });
    wait_for_announcement(&machines);

    // --- `baton stop` ends the cluster on its machine and names what is left on the other. The cluster says goodbye.
    let (stopped, text) = machines.ran(0, &["stop", "lab"]);
    assert!(!stopped && text.contains("runs cluster lab on this machine: expected one of home"), "{text}");
    let (stopped, text) = machines.ran(0, &["stop", "--json"]);
    let ended: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
    assert!(stopped && ended["processes"][0]["pid"] == up.child.id(), "{text}");
    assert!(ended["processes"][0]["ended_ms"].as_u64().is_some_and(|took| took < 5000), "{text}");
    assert_eq!(ended["elsewhere"], serde_json::json!([{"stage": "second", "host": "machine-1"}]));
    assert!(up.child.wait().unwrap().success());
    let (stopped, text) = machines.ran(0, &["stop"]);
    assert!(!stopped && text.contains("expected one that runs, and none does"), "{text}");
    stage.interrupt();
    assert_eq!(machines.announced(1), Vec::<serde_json::Value>::new());
}

/// Sends more records than a responder keeps, for the longest time to live, with bytes between that are none.
fn flood(hub: &str) {
    let socket = std::net::UdpSocket::bind((hub, 0)).unwrap();
    for packet in 0..FLOOD_PACKETS {
        let mut records = Vec::new();
        for record in 0..FLOOD_RECORDS {
            let name = format!("x{packet}-{record}");
            records.push(name.len() as u8);
            records.extend(name.bytes());
            records.extend(b"\x05local\0\0\x01\0\x01\x7f\xff\xff\xff\0\x04\x0a\0\0\x01");
        }
        let answers = [&[0, 0, 0x84, 0, 0, 0, 0, FLOOD_RECORDS, 0, 0, 0, 0], &records[..]].concat();
        for bytes in [&answers[..], &records[..], &answers[..40]] {
            socket.send_to(bytes, ("224.0.0.251", 5353)).unwrap();
        }
    }
}

/// Waits until a machine has probed its names and announces its cluster.
fn wait_for_announcement(machines: &Machines) -> serde_json::Value {
    let mut announced = Vec::new();
    wait_for("an announcement", WAIT_MAX, || {
        announced = machines.announced(1);
        !announced.is_empty()
    });
    assert_eq!(announced.len(), 1, "{announced:?}");
    announced.remove(0)
}
