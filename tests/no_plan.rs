//! A model that does not fit: the terminal, `/health`, `baton status` and `baton doctor` report how much memory is
//! missing and name a remedy. The remedy works.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use common::cluster::signal;
use common::etcd::free_port;
use common::http::{Answer, request};
use common::{model_path, wait_for};

/// Longest wait until processes have started and found each other, on a busy machine.
const START_TIME: Duration = Duration::from_secs(30);
/// Longest time from the state to the line about it: a second, plus the delay of a busy machine.
const LINE_TIME: Duration = Duration::from_secs(3);

/// A process. Dropping it interrupts the process and waits for its end.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            signal(self.0.id(), "INT");
            let _ = self.0.wait();
        }
    }
}

fn baton() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command.stdin(Stdio::null());
    command
}

/// The lines that `source` prints.
fn lines(source: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = sync_channel(1000);
    let lines = BufReader::new(source).lines();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    receiver
}

/// The next line that contains all of `words`, and the time until it came.
fn line_with(lines: &Receiver<String>, words: &[&str], most: Duration) -> (String, Duration) {
    let started = Instant::now();
    let mut before = Vec::new();
    loop {
        match lines.recv_timeout(most.saturating_sub(started.elapsed())) {
            Ok(line) if words.iter().all(|word| line.contains(word)) => return (line, started.elapsed()),
            Ok(line) => before.push(line),
            Err(_) => panic!("no line with {words:?} within {most:?}, only {before:#?}"),
        }
    }
}

/// Runs a verb that reads the cluster. Returns its exit status and standard output.
fn ask(verb: &str, store: &str) -> (Option<i32>, String) {
    let output = baton().args([verb, "--etcd", store]).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_model_that_does_not_fit_is_reported_everywhere_and_the_remedy_works() {
    const MISSING: &[&str] =
        &["the model needs ", "the stages offer 64.0 MiB", " are missing", "one more stage that may use"];
    let folder = tempfile::Builder::new().prefix("bt").tempdir_in("/tmp").unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let store = format!("127.0.0.1:{}", free_port());
    let mut up = baton();
    up.args(["up", "--stages", "2", "--memory", "32MiB", "--threads", "1"]);
    up.args(["--listen", &address.to_string(), "--store-listen", &store]).arg(model_path());
    up.env("XDG_RUNTIME_DIR", folder.path()).env("TMPDIR", folder.path());
    let mut up = Process(up.stdout(Stdio::piped()).spawn().expect("baton starts"));
    let terminal = lines(up.0.stdout.take().unwrap());

    let health = || request(address, "GET", "/health", "").unwrap_or(Answer { status: 0, body: String::new() });
    let mut answer = health();
    wait_for("/health names the missing memory", START_TIME, || {
        answer = health();
        MISSING.iter().all(|words| answer.body.contains(words))
    });
    assert_eq!((answer.status, &answer.json()["missing_layers"]), (503, &serde_json::json!([[0, 30]])));
    let (line, took) = line_with(&terminal, &[&["not serving: "], MISSING].concat(), LINE_TIME);
    println!("{took:?} after /health, the terminal shows: {line}");
    let reason = line.trim_start_matches("not serving: ");
    assert!(answer.body.contains(reason), "/health gives another reason: {}", answer.body);

    let cluster = request(address, "GET", "/distributed/status", "").unwrap().json();
    assert_eq!((&cluster["reason"], &cluster["stages"][0]["state"]), (&reason.into(), &"standby".into()));
    let (code, status) = ask("status", &store);
    assert!(code == Some(0) && status.contains(&line), "{status}");
    let (code, doctor) = ask("doctor", &store);
    assert!(code == Some(3) && doctor.contains(reason), "{code:?}: {doctor}");

    // A further stage that is too small reports the same, and the remedy then names another amount.
    let stage = |name: &str, memory: &str| {
        let mut stage = baton();
        stage.args(["stage", "--etcd", &store, "--name", name, "--memory", memory, "--threads", "1"]).arg(model_path());
        stage.env("XDG_RUNTIME_DIR", folder.path()).env("TMPDIR", folder.path());
        Process(stage.stderr(Stdio::piped()).spawn().expect("baton starts"))
    };
    let mut small = stage("small", "16MiB");
    let logged = lines(small.0.stderr.take().unwrap());
    line_with(&logged, &["waiting: no placement can be made", "the stages offer 80.0 MiB", "are missing"], START_TIME);
    let (line, _) = line_with(&terminal, &["not serving: ", "the stages offer 80.0 MiB"], LINE_TIME);

    let (_, remedy) = line.split_once("one more stage that may use ").expect("a remedy");
    let remedy: String = remedy.split_whitespace().take(2).collect();
    let _large = stage("large", &remedy);
    wait_for("the remedy helps", START_TIME, || health().status == 200);
    line_with(&terminal, &["ready after"], LINE_TIME);
    assert_eq!(ask("doctor", &store).0, Some(0));
}
