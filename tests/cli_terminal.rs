//! The verbs for a person at a terminal against a running cluster: `baton chat` in a pipe and in a terminal of its own,
//! `baton logs`, completions and manual pages.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::cluster::Cluster;
use serde_json::Value;

/// Longest time for an answer, on a machine that does other things, too.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// Letters of a screen that a failed test shows.
const SHOWN_CHARS_MAX: usize = 3000;
const QUESTION: &str = "What is the capital of France? Answer in one word.";

fn baton(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command.env_clear().env("HOME", home).env("PATH", "/usr/bin:/bin").env("TERM", "xterm").stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A `baton` in a terminal of its own, by `script` of util-linux.
struct Terminal {
    process: Child,
    screen: Arc<Mutex<String>>,
}

// === impl Terminal ===

impl Terminal {
    fn start(home: &Path, command: &str) -> Self {
        let mut process = Command::new("script");
        let process = process.args(["-q", "-e", "-c", command, "/dev/null"]).env_clear().env("HOME", home);
        let process = process.env("PATH", "/usr/bin:/bin").env("TERM", "xterm").env("SHELL", "/bin/sh");
        let mut process = process.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script runs");
        let (screen, mut output) = (Arc::new(Mutex::new(String::new())), process.stdout.take().unwrap());
        let written = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                written.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Self { process, screen }
    }

    fn type_keys(&mut self, keys: &str) {
        self.process.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen shows `text` once more, and returns everything before and including it.
    fn expect(&self, text: &str) -> String {
        let started = Instant::now();
        loop {
            let mut screen = self.screen.lock().unwrap();
            if let Some(at) = screen.find(text) {
                let rest = screen.split_off(at + text.len());
                return std::mem::replace(&mut screen, rest);
            }
            let end: String = screen.chars().skip(screen.chars().count().saturating_sub(SHOWN_CHARS_MAX)).collect();
            assert!(started.elapsed() < ANSWER_TIME_MAX, "no {text:?} in what ends with {end:?}");
            drop(screen);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_pipe_gets_the_answer_alone() {
    let (home, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let cluster = Cluster::start(2, &[], &[("XDG_STATE_HOME", state.path().to_str().unwrap())]);
    let url = format!("http://{}", cluster.http);
    let chat = |arguments: &[&str]| {
        let mut command = baton(home.path());
        command.args(["chat", "--url", &url, "--temperature", "0"]).args(arguments);
        command
    };
    let (code, stdout, stderr) = run(&mut chat(&[QUESTION]));
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    assert!(stdout.contains("Paris") && stdout.ends_with('\n') && !stdout.contains('\x1b'), "{stdout:?}");
    let mut piped = chat(&["Answer", "the", "question."]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    piped.stdin.take().unwrap().write_all(QUESTION.as_bytes()).unwrap();
    let output = piped.wait_with_output().unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("Paris"), "{output:?}");
    let (code, _, stderr) = run(&mut chat(&[]));
    assert_eq!(code, Some(64));
    assert!(stderr.contains("standard input has no message"), "{stderr}");
    let (code, _, stderr) = run(&mut chat(&["--model", "nobody", "Hi"]));
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains("nobody") && stderr.contains("`baton doctor`"), "{stderr}");

    // The lines of `up` and of its stages are in files, though nothing of level info is on stderr.
    let logs =
        |arguments: &[&str]| run(baton(home.path()).env("XDG_STATE_HOME", state.path()).arg("logs").args(arguments));
    let (code, stdout, stderr) = logs(&[]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let times: Vec<_> = stdout.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert!(times.is_sorted() && times.len() > 3, "{stdout}");
    assert!(stdout.contains("INFO  up: ready after"), "{stdout}");
    let stage = cluster.stages()[0]["name"].as_str().unwrap().to_owned();
    let (_, stdout, _) = logs(&["--json", "-n", "1", &stage]);
    let line: Value = serde_json::from_str(&stdout).unwrap();
    assert!(line["timestamp"].is_string() && line["fields"]["message"].is_string(), "{stdout}");
    assert!(logs(&[&stage]).1.lines().all(|line| line.contains(&format!(" {stage}: "))));
    let (code, _, stderr) = logs(&["nobody"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("has no lines of nobody") && stderr.contains("journalctl"), "{stderr}");

    if cfg!(target_os = "linux") {
        talk_in_a_terminal(&url, home.path());
    }
}

/// A conversation with all commands. `script` is util-linux's, whose arguments are others on macOS.
fn talk_in_a_terminal(url: &str, home: &Path) {
    let program = env!("CARGO_BIN_EXE_baton");
    let mut terminal = Terminal::start(home, &format!("exec {program} chat --url {url} --temperature 0"));
    terminal.expect("/help shows the commands");
    terminal.expect(">>> ");
    terminal.type_keys("/hepl\r");
    terminal.expect("/hepl is not known: expected one of /help");
    terminal.type_keys("/system Answer in one word.\r");
    terminal.expect("the system prompt is set");
    // Two letters too many, taken back by the editor.
    terminal.type_keys("What is the capital of Francexx\x7f\x7f?\r");
    terminal.expect("Paris");
    let remark = terminal.expect("layers of ");
    assert!(remark.contains("\x1b[2m(") && remark.contains("tokens/s"), "{remark:?}");
    terminal.type_keys("/system\r");
    terminal.expect("no system prompt");
    terminal.type_keys("Write a long story of a fox and a crow.\r");
    // The end of the line as it was typed, and then of the story.
    terminal.expect("crow.\x1b[K");
    terminal.expect(" fox");
    terminal.type_keys("\x03");
    terminal.expect("(stopped)");
    // A prompt that takes seconds is read with a bar. The editor takes it whole once it shows its own prompt.
    terminal.expect(">>> ");
    terminal.type_keys(&format!("Repeat:{}\r", " the fox and the crow".repeat(500)));
    terminal.expect("reading the prompt █");
    terminal.expect(" tokens, ");
    terminal.type_keys("\x03");
    terminal.expect("(stopped)");
    let saved = home.join("talk.json");
    terminal.type_keys(&format!("/save {}\r", saved.display()));
    terminal.expect("saved to");
    let talk: Value = serde_json::from_slice(&std::fs::read(&saved).unwrap()).unwrap();
    let roles: Vec<_> = talk["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant"], "{talk}");
    assert_eq!(talk["messages"][0]["content"], "What is the capital of France?");
    terminal.type_keys(&format!("/clear\r/load {}\r", saved.display()));
    terminal.expect("4 messages from");
    // Keys mean this to the editor, which reads them from the moment that it shows the prompt.
    terminal.expect(">>> ");
    // The arrow up brings back the line before.
    terminal.type_keys("\x1b[A\r");
    terminal.expect("4 messages from");
    terminal.expect(">>> ");
    terminal.type_keys("\x04");
    let started = Instant::now();
    let status = loop {
        if let Some(status) = terminal.process.try_wait().unwrap() {
            break status;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "Ctrl-D does not end it");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "{status}");
    let history = std::fs::read_to_string(home.join(".local/state/baton/chat_history")).unwrap();
    assert!(history.contains("What is the capital of France?"), "{history}");
}

/// The page follows the cluster: it serves, answers a request, loses a stage and gets it back.
#[cfg(target_os = "linux")]
#[test]
fn a_watched_status_follows_the_cluster() {
    let home = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(2, &[], &[]);
    let program = env!("CARGO_BIN_EXE_baton");
    let watch = format!("{program} status --watch --etcd {}", cluster.store);
    let mut terminal = Terminal::start(home.path(), &format!("stty rows 40 cols 200; exec {watch}"));
    terminal.expect("● serving");
    terminal.expect(&format!("live from http://{}", cluster.http));
    terminal.expect("no request runs or waits");

    let asked = cluster.ask_at_length(1500);
    terminal.expect("decode");
    terminal.expect("COMPUTED BY");
    let stage = cluster.stages()[1].clone();
    let name = stage["name"].as_str().unwrap();
    common::cluster::signal(u32::try_from(stage["pid"].as_u64().unwrap()).unwrap(), "KILL");
    // It may be back before its loss is drawn: the cluster itself says that it is another process.
    common::wait_for("the stage is back", ANSWER_TIME_MAX, || {
        cluster.stages().iter().any(|now| now["name"] == name && now["pid"] != stage["pid"])
    });
    terminal.expect(&format!("Stage {name} joined"));
    drop(asked);
    terminal.expect("no request runs or waits");
    terminal.type_keys("\x03");
    assert!(terminal.process.wait().unwrap().success());

    // A pipe gets whole pages.
    let mut piped = Command::new("timeout");
    piped.args(["60", program]).env_clear().env("HOME", home.path()).env("PATH", "/usr/bin:/bin");
    let mut piped = piped.args(["status", "--watch", "--etcd", &cluster.store]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(piped.stdout.take().unwrap()).lines().map(Result::unwrap);
    let page: Vec<_> = lines.skip_while(|line| !line.starts_with("● serving")).take(30).collect();
    piped.kill().unwrap();
    piped.wait().unwrap();
    let page = page.join("\n");
    assert!(page.contains("LINK FULL") && page.contains("DEVICE") && !page.contains('\x1b'), "{page}");
}

#[test]
fn an_endpoint_that_is_not_there_ends_a_chat_with_advice() {
    let home = tempfile::tempdir().unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, stdout, stderr) = run(baton(home.path()).args(["chat", "--url", &closed.to_string(), "Hi"]));
    assert_eq!((code, stdout.as_str()), (Some(4), ""));
    assert!(stderr.starts_with(&format!("error: cannot talk to http://{closed}: cannot connect")), "{stderr}");
    assert!(stderr.contains("`baton up` starts one"), "{stderr}");
    let (code, _, stderr) = run(baton(home.path()).args(["chat", "--load", "/nowhere.json", "Hi"]));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("cannot read /nowhere.json"), "{stderr}");
}

#[test]
fn shells_complete_verbs_and_flags() {
    let home = tempfile::tempdir().unwrap();
    let script = |shell: &str| run(baton(home.path()).args(["completions", shell])).1;
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(script(shell).contains("kv-tokens"), "{shell}");
    }
    // Bash itself completes, as it would after a press of the tab key.
    let ask = "COMP_WORDS=(baton chat --ur) COMP_CWORD=2; _baton baton --ur chat; echo \"${COMPREPLY[@]}\"";
    let (code, stdout, stderr) =
        run(Command::new("bash").args(["-c", &format!("{}\n{ask}", script("bash"))]).stdin(Stdio::null()));
    assert_eq!((code, stdout.trim()), (Some(0), "--url"), "{stderr}");
    let (code, _, stderr) = run(baton(home.path()).args(["completions", "tcsh"]));
    assert!(code == Some(64) && stderr.contains("bash"), "{stderr}");
}

#[test]
fn every_verb_has_a_manual_page_with_the_exit_statuses() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("man/man1");
    let (code, _, stderr) = run(baton(home.path()).arg("man").arg(&folder));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for verb in ["", "-up", "-stage", "-gateway", "-status", "-chat", "-logs", "-doctor", "-service", "-completions"] {
        let page = std::fs::read_to_string(folder.join(format!("baton{verb}.1"))).unwrap();
        assert!(page.contains(".TH baton"), "baton{verb}");
        assert!(page.contains("Exit status:") && page.contains("130"), "baton{verb} has no exit statuses");
    }
    let page = std::fs::read_to_string(folder.join("baton-up.1")).unwrap();
    assert!(page.contains("kv\\-tokens") && page.contains("Examples:"), "{page}");
}

#[test]
fn log_lines_are_json_objects_on_demand() {
    let home = tempfile::tempdir().unwrap();
    let mut command = baton(home.path());
    let command = command.args(["models", "--log-format", "json"]).env("BATON_LISTNE", "x");
    let (code, _, stderr) = run(command);
    assert_eq!(code, Some(0));
    let line: Value = serde_json::from_str(stderr.trim()).unwrap();
    assert_eq!((&line["level"], &line["fields"]["name"]), (&"WARN".into(), &"BATON_LISTNE".into()), "{stderr}");
    assert!(line["timestamp"].as_str().unwrap().ends_with('Z') && line["target"].is_string(), "{stderr}");
}

#[test]
fn a_service_is_shown_before_it_is_installed() {
    let home = tempfile::tempdir().unwrap();
    let service = |arguments: &[&str]| run(baton(home.path()).arg("service").args(arguments));
    let (code, stdout, stderr) = service(&["install", "up", "--dry-run", "--", "--stages", "3"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let program = env!("CARGO_BIN_EXE_baton");
    assert!(stdout.contains(program) && stdout.contains("--stages"), "{stdout}");
    let (code, _, stderr) = service(&["uninstall", "up"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("it is not installed: expected "), "{stderr}");
    let (code, _, stderr) = service(&["install", "up", "--system"]);
    assert!(code == Some(64) && stderr.contains("leave --system away"), "{stderr}");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "nothing was written");
}
