//! `baton run`: the environment of a program that it starts, by which the program reaches the cluster. The programs are
//! stand-ins that use their variables as the real ones do; no real coding agent is installed here.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::cluster::Cluster;
use gateway::launchers::LAUNCHERS;
use serde_json::Value;

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    (status.code(), String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}

fn baton(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command.env_clear().env("HOME", home).env("PATH", "/usr/bin:/bin");
    command
}

/// A program of this name that prints its variables and its arguments as JSON, and asks the endpoint for its models.
fn program(folder: &Path, name: &str) -> String {
    let path = folder.join(name);
    let script = "#!/usr/bin/env python3\nimport json, os, sys, urllib.request\n\
        base = os.environ.get('OPENAI_BASE_URL') or os.environ.get('OPENAI_API_BASE') or \
        os.environ.get('ANTHROPIC_BASE_URL', '') + '/v1'\n\
        models = json.load(urllib.request.urlopen(base + '/models')) if '://' in base else None\n\
        print(json.dumps({'variables': dict(os.environ), 'arguments': sys.argv[1:], 'models': models}))\n\
        sys.exit(7)\n";
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_program_finds_the_cluster_in_its_environment() {
    let home = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(2, &[], &[]);
    let url = format!("http://{}", cluster.http);
    let model = cluster.get("/v1/models").json()["data"][0]["id"].as_str().unwrap().to_owned();
    let start = |name: &str, arguments: &[&str]| -> Value {
        let path = program(home.path(), name);
        let mut command = baton(home.path());
        let command = command.args(["run", "--url", &url, "--", &path]).args(arguments).env("BATON_API_KEY", "s3cr3t");
        let (code, stdout, stderr) = run(command);
        // The status is the program's own.
        assert_eq!((code, stderr.as_str()), (Some(7), ""), "{stdout}");
        serde_json::from_str(&stdout).unwrap()
    };
    let other = start("anything", &["--url", "of its own", "-x"]);
    assert_eq!(other["arguments"], serde_json::json!(["--url", "of its own", "-x"]));
    assert_eq!(other["models"]["data"][0]["id"], model.as_str(), "the address in the environment is the cluster's");
    assert_eq!(other["variables"]["OPENAI_API_KEY"], "s3cr3t");
    let claude = start("claude", &["-p", "hi"]);
    assert_eq!(claude["variables"]["ANTHROPIC_BASE_URL"], url.as_str());
    assert_eq!(claude["variables"]["ANTHROPIC_DEFAULT_HAIKU_MODEL"], model.as_str());
    assert_eq!(claude["arguments"], serde_json::json!(["-p", "hi"]));
    let aider = start("aider", &[]);
    assert_eq!(aider["variables"]["AIDER_MODEL"], format!("openai/{model}"));
    assert_eq!(aider["models"]["data"][0]["id"], model.as_str());
    let codex = start("codex", &["exec", "hi"]);
    let arguments: Vec<_> = codex["arguments"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(arguments.ends_with(&["exec", "hi"]), "{arguments:?}");
    assert!(arguments.contains(&format!("model_providers.baton.base_url=\"{url}/v1\"").as_str()), "{arguments:?}");

    // The variables alone, as a shell takes them.
    let printed = run(baton(home.path()).args(["run", "--url", &url, "--print", "opencode"])).1;
    let ask = format!("{printed}\nprintf %s \"$OPENCODE_CONFIG_CONTENT\"");
    let config: Value = serde_json::from_str(&run(Command::new("sh").args(["-c", &ask])).1).unwrap();
    assert_eq!(config["model"], format!("baton/{model}"));

    let (code, _, stderr) = run(baton(home.path()).args(["run", "--url", &url, "--", "no-such-program"]));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("cannot start no-such-program: is it installed?"), "{stderr}");
}

/// The pages of etc/clients say what the table sets, variable by variable and argument by argument.
#[test]
fn every_known_program_has_a_page_that_says_what_is_set() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/clients");
    let list = fs::read_to_string(folder.join("README.md")).unwrap();
    for launcher in LAUNCHERS.iter().filter(|launcher| launcher.name != "*") {
        assert!(list.contains(&format!("| `{}` |", launcher.name)), "{} is not in the list", launcher.name);
        // Ollama's command needs no page for its one variable.
        let page = fs::read_to_string(folder.join(format!("{}.md", launcher.name))).unwrap_or_else(|_| list.clone());
        for setting in launcher.variables {
            let line = format!("{}={}", setting.name, setting.value);
            let says = if setting.quotes || page == list { page.contains(setting.name) } else { page.contains(&line) };
            assert!(says, "{}.md does not say {line}", launcher.name);
        }
        for argument in launcher.arguments {
            assert!(page.contains(argument.value), "{}.md does not say {}", launcher.name, argument.value);
        }
    }
    let pages = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let strays = pages.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()));
    let strays: Vec<_> = strays.filter(|name| name != "README" && !LAUNCHERS.iter().any(|l| l.name == *name)).collect();
    assert_eq!(strays, [""; 0], "pages of no program");
}

#[test]
fn without_an_endpoint_nothing_is_started() {
    let home = tempfile::tempdir().unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let path = program(home.path(), "claude");
    let (code, stdout, stderr) = run(baton(home.path()).args(["run", "--url", &closed.to_string(), "--", &path]));
    assert_eq!((code, stdout.as_str()), (Some(4), ""));
    assert!(stderr.contains("`baton up` starts one"), "{stderr}");
    let (code, ..) = run(baton(home.path()).arg("run"));
    assert_eq!(code, Some(64));
}
