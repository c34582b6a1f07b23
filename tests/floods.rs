//! Floods at every port of a shared cluster at once: connections that say nothing, that send a byte at a time, that
//! stop in the middle of a handshake, and that come and go without a pause. Whoever belongs to the cluster is served
//! within named bounds meanwhile, and memory and file descriptors stay bounded.
#![cfg(all(target_os = "linux", feature = "tls"))]

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::etcd::{etcdctl, free_port};
use common::http::GatewayClient;
use common::line_process::LineProcess;
use common::{model_path, wait_for};
use engine::link::{ClusterKey, Outbound};
use gateway::share::{ClusterFolder, JoinToken, join};
use schema::frame::{Frame, Hop, Slice};
use schema::{Epoch, Generation, SequenceId, Step};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Connections of each kind that the flood holds at each port. More than any port lets strangers have.
const IDLE: usize = 150;
const SLOW: usize = 30;
const HALF: usize = 30;
/// Time between two bytes of a slow connection, and pause before one that was closed is opened again.
const BYTE_EVERY: Duration = Duration::from_millis(200);
const AGAIN: Duration = Duration::from_millis(100);
/// The flood's address, and that of clients of the store's plain port, which has all of its clients at one address.
const FLOOD: [u8; 4] = [127, 0, 0, 2];
const SAME: [u8; 4] = [127, 0, 0, 1];

/// Longest time for a request over HTTP, for `etcdctl`, for joining and for a link, while the flood lasts and the
/// machine's processors are shared with it.
const SERVED_WITHIN: Duration = Duration::from_secs(3);
/// Growth of a process's memory.
const GROWTH_BYTES_MAX: u64 = 96 << 20;
/// Connections that all ports of a process may have at once, by their bounds: the store's and the shared port's members
/// (128 each), strangers there (32), links and their handshakes (128 and 64), and HTTP.
const FDS_MAX: usize = 1100;
/// Descriptors that a process may have more after the flood than before.
const LEFT_FDS_MAX: usize = 24;
const RELEASED_WITHIN: Duration = Duration::from_secs(20);
/// Times that each client comes.
const ROUNDS: usize = 3;
const PROMPT: [u32; 6] = [504, 4149, 282, 3575, 314, 3030];
const TOKENS: u32 = 120;

/// A port, and the first bytes that are right there.
#[derive(Clone)]
struct Port {
    address: SocketAddr,
    from: [u8; 4],
    opening: &'static [u8],
}

/// The connections that the flood has opened.
static OPENED: AtomicU64 = AtomicU64::new(0);

/// Opens a connection, sends `opening` at once or byte by byte, and waits until the port closes it; again and again.
async fn hold(port: Port, opening: &'static [u8], pause: Duration) {
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((port.from, 0).into()).unwrap();
        if let Ok(mut stream) = socket.connect(port.address).await {
            OPENED.fetch_add(1, Relaxed);
            let (mut read, mut write) = stream.split();
            let said = async {
                for byte in opening {
                    if write.write_all(&[*byte]).await.is_err() {
                        break;
                    }
                    sleep(pause).await;
                }
                std::future::pending::<()>().await;
            };
            let closed = async { while read.read(&mut [0; 256]).await.is_ok_and(|count| count > 0) {} };
            tokio::select! {
                () = said => {}
                () = closed => {}
            }
        }
        sleep(AGAIN).await;
    }
}

/// Opens connections and closes them.
async fn churn(port: Port) {
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_zero_linger().unwrap();
        socket.bind((port.from, 0).into()).unwrap();
        if socket.connect(port.address).await.is_ok() {
            OPENED.fetch_add(1, Relaxed);
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// Begins the flood. Dropping it ends it.
fn flood(runtime: &Runtime, ports: &[Port]) -> JoinSet<()> {
    let mut flood = JoinSet::new();
    for port in ports {
        for _ in 0..IDLE {
            flood.spawn_on(hold(port.clone(), &[], Duration::ZERO), runtime.handle());
        }
        for _ in 0..SLOW {
            flood.spawn_on(hold(port.clone(), port.opening, BYTE_EVERY), runtime.handle());
        }
        for _ in 0..HALF {
            flood.spawn_on(hold(port.clone(), port.opening, Duration::ZERO), runtime.handle());
        }
        flood.spawn_on(churn(port.clone()), runtime.handle());
    }
    flood
}

/// The file descriptors of a process, and its memory in bytes.
fn resources(pid: u32) -> (usize, u64) {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a size");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    (fds, kib << 10)
}

/// The value of a flag of a running process.
fn flag(pid: u32, name: &str) -> String {
    let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    let mut words = words.split('\0').skip_while(|word| *word != name);
    words.nth(1).unwrap_or_else(|| panic!("no {name} in {words:?}")).to_owned()
}

/// Runs `work` and says how long it took, which must be at most [`SERVED_WITHIN`].
fn served<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    let took = started.elapsed();
    println!("{what}: {took:?}");
    assert!(took <= SERVED_WITHIN, "{what}: {took:?}, expected at most {SERVED_WITHIN:?}");
    result
}

fn up(state: &Path, shared: u16) -> LineProcess {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command.args(["up", "--stages", "2", "--listen", "127.0.0.1:0", "--store-listen", "127.0.0.1:0", "--threads", "1"]);
    command.arg(format!("--share=127.0.0.1:{shared}")).args(["--discovery", "off"]).arg(model_path());
    command.env("XDG_STATE_HOME", state).env("XDG_RUNTIME_DIR", state).env("TMPDIR", state);
    LineProcess::spawn(command)
}

#[test]
fn floods_at_every_port_keep_nobody_out_who_belongs_there() {
    let state = tempfile::Builder::new().prefix("bf").tempdir_in("/tmp").unwrap();
    let shared = free_port();
    let mut up = up(state.path(), shared);
    up.line("ready ");
    let found =
        |part: &str| up.seen.iter().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{:#?}", up.seen));
    let client = GatewayClient { http: common::cluster::address(found("ready ")) };
    let token: JoinToken = found("baton join").split_whitespace().last().unwrap().parse().unwrap();
    let line = found("etcdctl ").clone();
    let members: Vec<_> = line.split_whitespace().skip(1).collect();
    let stages = client.stage_pids();
    let plain = flag(stages[0], "--etcd");
    let claims = etcdctl(&plain, &["get", "--prefix", "/baton/v1/home/claims/"]).1;
    // The last of them, which takes rows of activations.
    let claim: Vec<_> = claims.lines().rev().take(2).collect();
    let link = json(claim[0])["endpoint"].as_str().unwrap().to_owned();
    let generation = claim[1].rsplit('/').nth(1).unwrap().parse().unwrap();
    let folder = ClusterFolder::new(&state.path().join("baton"), &"home".parse().unwrap());
    let key: ClusterKey = std::fs::read_to_string(folder.path("cluster.key")).unwrap().parse().unwrap();
    let key = key.of_cluster(&token.cluster);
    let of = |url: &str| url.split("://").last().unwrap().parse::<SocketAddr>().unwrap();
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let ports = [
        Port { address: ([127, 0, 0, 1], shared).into(), from: FLOOD, opening: hello },
        Port { address: of(&link), from: FLOOD, opening: b"BTN\x04\x00\x30half a handshake" },
        Port { address: client.http, from: FLOOD, opening: b"POST /v1/completions HTTP/1.1\r\nhost: loc" },
        Port { address: of(&plain), from: SAME, opening: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0" },
    ];

    let processes: Vec<u32> = [up.child.id()].into_iter().chain(stages.iter().copied()).collect();
    let (expected, _) = client.complete(&PROMPT, TOKENS);
    let before: Vec<_> = processes.iter().map(|pid| resources(*pid)).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let clients = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let flood = flood(&runtime, &ports);
    let wanted = (ports.len() * (IDLE + SLOW + HALF)) as u64;
    wait_for("the flood is there", Duration::from_secs(10), || OPENED.load(Relaxed) >= wanted);
    let (mut most, at_shared) = (before.clone(), format!("127.0.0.1:{shared}"));
    std::thread::scope(|scope| {
        let stream = scope.spawn(|| client.complete(&PROMPT, TOKENS));
        for round in 0..ROUNDS {
            assert_eq!(served("a page over HTTP", || client.get("/health").status), 200);
            served("etcdctl at the shared port", || {
                let got = Command::new("etcdctl").env("ETCDCTL_API", "3").args(&members).output().unwrap();
                let text = String::from_utf8_lossy(&got.stdout).into_owned();
                assert!(got.status.success() && text.contains("/baton/v1/home/model"), "{got:?}");
            });
            let (got, text) = served("etcdctl at the store's port", || {
                etcdctl(&plain, &["get", "--prefix", "--keys-only", "/baton/v1/home/stages/"])
            });
            assert!(got && text.matches("/stages/").count() == 2, "{text}");
            served("a machine joins", || {
                let folder = ClusterFolder::new(&state.path().join(format!("second-{round}")), &token.cluster);
                let joining = join(&at_shared, &token, "mini-2", &folder);
                clients.block_on(async { timeout(SERVED_WITHIN, joining).await }).expect("in time").expect("it joins");
            });
            served("a peer with the key links", || {
                let connecting = Outbound::connect(&link, Some(&key));
                clients
                    .block_on(async { timeout(SERVED_WITHIN, connecting).await })
                    .expect("in time")
                    .expect("it links");
            });
            for (pid, (fds, memory)) in processes.iter().zip(&mut most) {
                let now = resources(*pid);
                (*fds, *memory) = (now.0.max(*fds), now.1.max(*memory));
            }
        }
        let (tokens, answer) = stream.join().expect("the stream goes on");
        assert_eq!(tokens, expected, "{answer}");
        assert_eq!(answer["timings"]["attempts"], 1, "{answer}");
    });
    println!("{} connections of the flood; before {before:?}, at most {most:?}", OPENED.load(Relaxed));
    for ((fds, memory), (_, memory_before)) in most.iter().zip(&before) {
        assert!(*fds <= FDS_MAX, "{fds} descriptors: {most:?}");
        assert!(*memory <= memory_before + GROWTH_BYTES_MAX, "memory grew: {before:?}, {most:?}");
    }
    drop(flood);
    wait_for("the connections are closed", RELEASED_WITHIN, || {
        let now = processes.iter().map(|pid| resources(*pid).0);
        now.zip(&before).all(|(now, (before, _))| now <= before + LEFT_FDS_MAX)
    });

    // A peer with the key that lies is refused, named by its address with the reason, and disturbs nobody.
    let model = json(etcdctl(&plain, &["get", "--print-value-only", "/baton/v1/home/model"]).1.trim());
    let hidden = model["hidden"].as_u64().expect("the width of a row") as u32;
    // On the runtime with a thread, which goes on sending.
    let mut liar = runtime.block_on(Outbound::connect(&link, Some(&key))).expect("it has the key");
    for (hidden, value, reason) in [(hidden, f32::NAN, "not finite"), (hidden / 2, 1.0, "values: expected")] {
        let rows: Vec<u8> = (0..hidden).flat_map(|_| value.to_le_bytes()).collect();
        runtime.block_on(liar.send(&lie(generation, hidden), rows)).expect("it is sent");
        wait_for("the lie is named", Duration::from_secs(8), || {
            let status = client.get("/distributed/status").json();
            let stages = status["stages"].as_array().cloned().unwrap_or_default();
            stages.iter().any(|stage| {
                let said = |field: &str| stage["frame_refused"][field].as_str().unwrap_or_default().to_owned();
                said("from").starts_with("127.0.0.1:") && said("reason").contains(reason)
            })
        });
    }
    let (tokens, answer) = client.complete(&PROMPT, TOKENS);
    assert_eq!((tokens, &answer["timings"]["attempts"]), (expected, &1.into()), "{answer}");
    assert_eq!(client.stage_pids(), stages, "a stage ended");
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// One row for the stage in the second slot.
fn lie(generation: u64, hidden: u32) -> Frame {
    let slice = Slice { count: 1, blocks: vec![0], logits: vec![0], ..Slice::empty(SequenceId(1)) };
    Frame::Hop(Hop {
        generation: Generation(generation),
        gateway: 0,
        epoch: Epoch(u64::MAX),
        step: Step(0),
        slot: 1,
        rows: 1,
        hidden,
        slices: vec![slice],
        spent: Vec::new(),
    })
}
