//! Two machines with several cables between them: one that is dead, by which the store knows them, one that is slow
//! (a tunnel), and one that is fast. Frames take the fast one, go on over the slow one when the fast one is cut in the
//! middle of a stream, and come back. Needs root, python3 and `etc/prepare netns`. The test reports that it is skipped
//! if they are missing.
#![cfg(target_os = "linux")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::etcd::{Etcd, etcdctl};
use common::http::GatewayClient;
use common::network::{Network, report_skipped};
use common::{model_path, wait_for};
use serde_json::{Value, json};

/// Longest pause of a stream whose cable is cut.
const PAUSE_MAX: Duration = Duration::from_millis(1500);
/// Longest wait for the table to show something: stages write what they find every 2 s.
const SHOWN_MAX: Duration = Duration::from_secs(30);
/// The addresses of the two machines on each cable.
const FAST: [&str; 2] = ["10.77.1.1", "10.77.1.2"];
const SLOW: [&str; 2] = ["10.77.2.1", "10.77.2.2"];
/// The tokens of a stream.
const TOKENS: u32 = 160;
/// The token after which a cable is cut.
const CUT_AT: usize = 50;

/// A tunnel between two network namespaces that delays each packet, as a slow network does. It ends with its input.
const TUNNEL: &str = r#"
import ctypes, fcntl, os, struct, sys, threading, time, queue
libc = ctypes.CDLL(None, use_errno=True)
def tun(space):
    if libc.setns(os.open("/run/netns/" + space, os.O_RDONLY), 0): sys.exit("setns")
    end = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(end, 0x400454ca, struct.pack("16sH22x", b"slow0", 0x1001))
    return end
ends = [tun(space) for space in sys.argv[1:3]]
def carry(source, sink):
    late = queue.Queue(1000)
    def deliver():
        while True:
            at, packet = late.get()
            time.sleep(max(0, at - time.monotonic()))
            try: os.write(sink, packet)
            except OSError: pass
    threading.Thread(target=deliver, daemon=True).start()
    while True:
        packet = os.read(source, 2000)
        late.put((time.monotonic() + 0.004, packet))
for pair in (ends, ends[::-1]): threading.Thread(target=carry, args=pair, daemon=True).start()
print("open", flush=True)
sys.stdin.read()
"#;

/// The machines with their processes. Dropping it kills them.
struct Cables {
    network: Network,
    etcd: Etcd,
    folder: tempfile::TempDir,
    processes: Vec<Child>,
    client: GatewayClient,
}

/// A stream of tokens as it came.
struct Stream {
    text: String,
    longest_pause: Duration,
    attempts: u64,
}

// === impl Cables ===

impl Cables {
    /// Makes the machines and their cables. The error is the reason for which there can be none here.
    fn make() -> Result<Self, String> {
        let network = Network::of(2)?;
        let spaces = [network.space(0), network.space(1)];
        ip(&["link", "add", "fast0", "netns", &spaces[0], "type", "veth", "peer", "fast0", "netns", &spaces[1]])?;
        let mut tunnel = Command::new("python3");
        tunnel.args(["-c", TUNNEL, &spaces[0], &spaces[1]]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut tunnel = tunnel.stderr(Stdio::null()).spawn().map_err(|error| format!("python3: {error}"))?;
        let mut opened = String::new();
        let _ = BufReader::new(tunnel.stdout.take().unwrap()).read_line(&mut opened);
        if opened.trim() != "open" {
            let _ = tunnel.wait();
            return Err("python3 cannot make a tunnel (/dev/net/tun)".to_owned());
        }
        for (at, space) in spaces.iter().enumerate() {
            for (cable, addresses) in [("fast0", FAST), ("slow0", SLOW)] {
                ip(&["-n", space, "addr", "add", &format!("{}/24", addresses[at]), "dev", cable])?;
                ip(&["-n", space, "link", "set", cable, "up"])?;
            }
        }
        let etcd = Etcd::start_with(1, &network.hub(), &[]);
        let folder = tempfile::Builder::new().prefix("bc").tempdir_in("/tmp").unwrap();
        let client = GatewayClient { http: format!("{}:8100", network.address(0)).parse().unwrap() };
        Ok(Self { network, etcd, folder, processes: vec![tunnel], client })
    }

    /// Lets nothing pass between the machines over eth0, and over the fast cable if `is_cut`. Neither end is told.
    fn cut(&self, is_cut: bool) {
        for (at, other) in [(0, 1), (1, 0)] {
            let other = self.network.address(other);
            let [mut input, mut output] = ["saddr", "daddr"].map(|end| format!("ip {end} {other} drop\n"));
            if is_cut {
                input.push_str("iifname fast0 drop\n");
                output.push_str("oifname fast0 drop\n");
            }
            let chain =
                |hook: &str, rules: &str| format!("chain {hook} {{ type filter hook {hook} priority 0\n{rules}}}\n");
            let table = format!("table inet t {{\n{}{}}}\n", chain("input", &input), chain("output", &output));
            self.network.nft(at, &format!("flush ruleset\n{table}"));
        }
    }

    fn start(&mut self, at: usize, verb: &str, words: &[&str]) {
        let mut command = self.network.command(at, env!("CARGO_BIN_EXE_baton"));
        command.arg(verb).args(["--etcd", &self.etcd.url, "--stages-min", "2", "--kv-tokens", "2048"]);
        command.args(["--advertise", &self.network.address(at), "--interfaces", "all"]).args(words).arg(model_path());
        let log = self.folder.path().join(format!("{}.log", self.processes.len()));
        command.env("BATON_CLUSTER_KEY", "ab".repeat(32)).env("BATON_LOG", "info");
        command.env("XDG_RUNTIME_DIR", self.folder.path()).env("TMPDIR", self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(log).unwrap());
        self.processes.push(command.spawn().expect("baton starts"));
    }

    /// The document of `baton status`, and its text.
    fn status(&self) -> (Value, String) {
        let run = |more: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
            let output = command.args(["status", "--etcd", &self.etcd.url]).args(more).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        (serde_json::from_str(&run(&["--json"])).unwrap_or_default(), run(&[]))
    }

    /// Plugs one more cable into the gateway's machine, and waits until its record has the address, and until it has it
    /// no more.
    fn gateway_tells_a_late_cable(&self) {
        let spaces = [self.network.space(0), self.network.space(1)];
        ip(&["link", "add", "late0", "netns", &spaces[0], "type", "veth", "peer", "late0", "netns", &spaces[1]])
            .unwrap();
        ip(&["-n", &spaces[0], "addr", "add", "10.77.3.1/24", "dev", "late0"]).unwrap();
        for space in &spaces {
            ip(&["-n", space, "link", "set", "late0", "up"]).unwrap();
        }
        let is_told = || {
            let (_, record) = etcdctl(&self.etcd.url, &["get", "--print-value-only", "/baton/v1/home/gateways/0"]);
            record.contains("10.77.3.1:")
        };
        let took = wait_for("the gateway tells its new address", SHOWN_MAX, is_told);
        ip(&["-n", &spaces[0], "link", "del", "late0"]).unwrap();
        let gone = wait_for("the gateway tells that it is gone", SHOWN_MAX, || !is_told());
        println!("a new cable was told after {took:?}, and that it is gone after {gone:?}");
        let status = self.client.get("/distributed/status").json();
        let is_shown = |link: &Value| link["mtu"].is_u64() && link["interface"] == "fast0";
        assert!(status["links"].as_array().is_some_and(|links| links.iter().any(is_shown)), "{}", status["links"]);
    }

    /// Waits until the links between the machines are shown with these uses, and prints the table.
    fn shows(&self, what: &str, fast: &str, slow: &str) {
        let mut text = String::new();
        let uses_are_right = || {
            let (status, shown) = self.status();
            text = shown;
            let links = status["links"].as_array().cloned().unwrap_or_default();
            let is_shown = |address: &str, state: &str| {
                links.iter().any(|link| link["address"].as_str().unwrap().contains(address) && link["state"] == state)
            };
            // The gateway is on the first machine, so something is sent to each of them.
            let are_shown = |at: usize| is_shown(FAST[at], fast) && is_shown(SLOW[at], slow);
            are_shown(0) && are_shown(1) && is_shown(&self.network.address(0), "dead")
        };
        let took = wait_for(what, SHOWN_MAX, uses_are_right);
        let from_table = text.lines().skip_while(|line| !line.starts_with("LINK FROM"));
        let table: Vec<_> = from_table.take_while(|line| !line.is_empty()).collect();
        println!("{what} (shown after {took:?}):\n{}", table.join("\n"));
    }

    /// Waits until the throughput of both cables is shown. It is that of the interface for none of them.
    fn measures(&self) {
        let mut shown = Vec::new();
        let measured = || {
            let (status, _) = self.status();
            let links = status["links"].as_array().cloned().unwrap_or_default();
            let least = |addresses: [&str; 2]| {
                let is_of = |link: &&Value| addresses.iter().any(|end| link["address"].as_str().unwrap().contains(end));
                let found = links.iter().filter(is_of);
                found.map(|link| link["measured_megabits_per_second"].as_u64()).min().flatten()
            };
            shown = vec![least(FAST), least(SLOW)];
            shown.iter().all(Option::is_some)
        };
        wait_for("throughputs are measured", SHOWN_MAX, measured);
        println!("Mbit/s of the fast and of the slow cable: {shown:?}");
        assert!(shown[0] > shown[1], "{shown:?}");
    }

    /// A seeded stream. `at_token` is called when token [`CUT_AT`] has come.
    fn stream(&self, at_token: impl FnOnce()) -> Stream {
        let body = json!({
            "prompt": [504, 4149, 282, 3575, 314, 3030], "max_tokens": TOKENS, "temperature": 0.8, "seed": 7,
            "ignore_eos": true, "stream": true, "stream_options": { "include_usage": true },
        });
        let body = body.to_string();
        let mut connection = TcpStream::connect(self.client.http).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let head =
            "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json";
        write!(connection, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        let (mut at_token, mut tokens, mut last) = (Some(at_token), 0, None::<Instant>);
        let mut stream = Stream { text: String::new(), longest_pause: Duration::ZERO, attempts: 0 };
        for line in BufReader::new(connection).lines() {
            let line = line.expect("the stream goes on");
            let Some(event) = line.strip_prefix("data: ").filter(|event| event.starts_with('{')) else { continue };
            let event: Value = serde_json::from_str(event).unwrap();
            assert!(event["error"].is_null(), "{event}");
            stream.text.push_str(event["choices"][0]["text"].as_str().unwrap_or_default());
            stream.attempts = stream.attempts.max(event["timings"]["attempts"].as_u64().unwrap_or(0));
            let now = Instant::now();
            stream.longest_pause = stream.longest_pause.max(last.map_or(Duration::ZERO, |last| now - last));
            last = Some(now);
            tokens += 1;
            if tokens == CUT_AT
                && let Some(at_token) = at_token.take()
            {
                at_token();
            }
        }
        assert!(at_token.is_none(), "only {tokens} events came: {}", stream.text);
        stream
    }
}

impl Drop for Cables {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            for at in 1..self.processes.len() {
                let log = std::fs::read_to_string(self.folder.path().join(format!("{at}.log"))).unwrap_or_default();
                println!("--- process {at}:\n{log}");
            }
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| error.to_string())?;
    let refused = || format!("ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    if output.status.success() { Ok(()) } else { Err(refused()) }
}

#[test]
fn frames_take_the_fast_cable_and_lose_nothing_when_it_is_cut_and_comes_back() {
    let mut cables = match Cables::make() {
        Ok(cables) => cables,
        Err(why) => return report_skipped("frames_take_the_fast_cable", &why),
    };
    cables.cut(false);
    let http = cables.client.http.to_string();
    cables.start(0, "gateway", &["--listen", &http, "--insecure", "--speculation", "off"]);
    cables.start(0, "stage", &["--name", "s0", "--threads", "1"]);
    cables.start(1, "stage", &["--name", "s1", "--threads", "1"]);
    let serves = || {
        TcpStream::connect(cables.client.http).is_ok()
            && cables.client.get("/distributed/status").json()["serving"] == true
    };
    let took = wait_for("the cluster serves", SHOWN_MAX, serves);
    println!("serving after {took:?}, though the addresses in the records are dead");

    let undisturbed = cables.stream(|| {});
    cables.measures();
    cables.shows("undisturbed", "used", "spare");

    let cut = cables.stream(|| cables.cut(true));
    println!("cut in the middle: the longest pause was {:?}, attempts {}", cut.longest_pause, cut.attempts);
    assert_eq!(cut.text, undisturbed.text, "cut in the middle");
    assert!(cut.longest_pause <= PAUSE_MAX, "{:?}", cut.longest_pause);
    cables.shows("cut", "dead", "used");

    // It comes back while streams run, which do not notice it.
    let epochs = cables.client.metric("baton_epochs_total");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let streams = scope.spawn(|| {
            let (mut count, mut longest_pause) = (0, Duration::ZERO);
            while !is_over.load(Ordering::Relaxed) {
                let back = cables.stream(|| {});
                assert_eq!(back.text, undisturbed.text, "back");
                (count, longest_pause) = (count + 1, longest_pause.max(back.longest_pause));
            }
            (count, longest_pause)
        });
        cables.cut(false);
        let shown = catch_unwind(AssertUnwindSafe(|| cables.shows("back", "used", "spare")));
        is_over.store(true, Ordering::Relaxed);
        let (count, longest_pause) = streams.join().unwrap();
        println!("back: the longest pause of {count} streams was {longest_pause:?}");
        shown.unwrap_or_else(|panic| resume_unwind(panic));
    });
    assert_eq!(cables.client.metric("baton_epochs_total"), epochs, "something was lost on the way back");
    cables.gateway_tells_a_late_cable();
}
