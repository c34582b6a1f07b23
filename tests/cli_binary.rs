//! The binary from outside: exit statuses, output, and the precedence of settings.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// `baton` with an empty home and no variables of its own in the environment.
fn baton(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command.env_clear().env("HOME", home).env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn home() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// An address of this machine at which no process listens.
fn closed_endpoint() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn help_and_version_are_answers() {
    let home = home();
    let (code, stdout, stderr) = run(baton(home.path()).arg("--help"));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for word in [
        "up",
        "stage",
        "gateway",
        "status",
        "doctor",
        "bench",
        "pull",
        "models",
        "cache",
        "probe",
        "key",
        "Exit status:",
        "64",
    ] {
        assert!(stdout.contains(word), "{word} is missing in {stdout}");
    }
    let (code, stdout, _) = run(baton(home.path()).arg("--version"));
    assert_eq!((code, stdout), (Some(0), format!("baton {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn an_unusable_command_line_has_its_own_exit_status() {
    let home = home();
    for arguments in
        [&["nonsense"][..], &["status", "--colour"], &[], &["up", "--listen", "8100"], &["stage", "--memory", "6gb"]]
    {
        let (code, stdout, stderr) = run(baton(home.path()).args(arguments));
        assert_eq!((code, stdout.as_str()), (Some(64), ""), "{arguments:?}: {stderr}");
        assert!(!stderr.is_empty());
    }
    let (code, _, stderr) = run(baton(home.path()).args(["up", "--stages", "0"]));
    assert_eq!(code, Some(64));
    assert_eq!(stderr, "error: cannot start: stages is 0: expected 1 to 64\n");
}

#[test]
fn a_key_is_new_each_time_and_never_taken_from_the_command_line() {
    let home = home();
    let keys: Vec<_> = (0..2).map(|_| run(baton(home.path()).arg("key"))).collect();
    assert_ne!(keys[0].1, keys[1].1);
    for (code, key, stderr) in keys {
        assert_eq!((code, key.len(), stderr.as_str()), (Some(0), 65, ""));
        assert!(key.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
    }
    let (code, ..) = run(baton(home.path()).args(["stage", "--cluster-key", &"a".repeat(64)]));
    assert_eq!(code, Some(64));
}

#[test]
fn the_cache_is_listed_checked_and_pruned_only_on_request() {
    let home = home();
    let models = home.path().join("cache/models");
    std::fs::create_dir_all(&models).unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("stages/tests/data/tiny-llama");
    let snapshot = home.path().join("cache/hub/models--o--tiny/snapshots/c0ffee");
    std::fs::create_dir_all(&snapshot).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(model.join(file), snapshot.join(file)).unwrap();
    }
    std::fs::write(models.join("broken.gguf"), b"GGUF").unwrap();
    std::fs::write(models.join("broken.gguf.sha256"), format!("{}  broken.gguf\n", "0".repeat(64))).unwrap();
    let cache = |arguments: &[&str]| {
        run(baton(home.path()).env("BATON_CACHE", home.path().join("cache")).arg("cache").args(arguments))
    };
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();

    let (code, stdout, stderr) = cache(&["list"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("NAME") && stdout.contains("broken") && stdout.contains("tiny"), "{stdout}");
    let listed = json(&cache(&["list", "--json"]).1);
    assert_eq!((listed[0]["name"].as_str(), listed[0]["bytes"].as_u64()), (Some("broken"), Some(4)));
    assert_eq!((listed[1]["kind"].as_str(), listed[1]["in_use"].as_bool()), (Some("whole"), Some(false)));

    let (code, stdout, _) = cache(&["verify"]);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("broken: wrong") && stdout.contains("tiny: unknown"), "{stdout}");
    let (code, stdout, _) = cache(&["verify", "tiny", "--json"]);
    assert_eq!((code, json(&stdout)[0]["state"].as_str()), (Some(0), Some("unknown")));
    let (code, _, stderr) = cache(&["verify", "absent"]);
    assert_eq!(code, Some(64));
    assert!(stderr.contains("expected broken, tiny"), "{stderr}");

    let (code, _, stderr) = cache(&["prune"]);
    assert_eq!(code, Some(64));
    assert!(stderr.contains("expected --yes, or --dry-run"), "{stderr}");
    let (_, stdout, _) = cache(&["prune", "--dry-run", "--json"]);
    assert_eq!(json(&stdout)["removed"].as_array().unwrap().len(), 2);
    assert!(models.join("broken.gguf").exists(), "a dry run removes nothing");
    let used = std::fs::File::open(snapshot.join("model.safetensors")).unwrap();
    used.lock_shared().unwrap();
    let (code, stdout, _) = cache(&["prune", "--yes"]);
    assert_eq!(code, Some(0));
    assert!(
        stdout.contains("removed broken") && stdout.contains("in use: tiny") && stdout.contains("freed "),
        "{stdout}"
    );
    assert!(!models.join("broken.gguf").exists() && !models.join("broken.gguf.sha256").exists());
    drop(used);
    let (_, stdout, _) = cache(&["prune", "tiny", "--yes"]);
    assert!(stdout.contains("removed tiny"), "{stdout}");
    assert_eq!(cache(&["list"]).1, "no model is on this machine; `baton pull` fetches one\n");
}

#[test]
fn beyond_this_machine_a_server_needs_a_key_or_insecure() {
    let home = home();
    let serve = |arguments: &[&str], key: &str| {
        let mut command = baton(home.path());
        command.args(["gateway", "--listen", "0.0.0.0:0", "--etcd", &closed_endpoint()]).args(arguments);
        run(command.env("BATON_API_KEY", key))
    };
    let (code, _, stderr) = serve(&[], "");
    assert_eq!(code, Some(64), "{stderr}");
    for expected in ["error: cannot start: the HTTP server is to listen on 0.0.0.0:0", "--api-key-file", "--insecure"] {
        assert!(stderr.contains(expected), "{expected} is missing in {stderr}");
    }
    // With either, the next thing that is missing is the store.
    for (arguments, key) in [(&["--insecure"][..], ""), (&[], "alice:0123456789abcdef")] {
        let (code, _, stderr) = serve(arguments, key);
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
    }
    let (code, _, stderr) = serve(&["--api-key", "s3cr3t"], "");
    assert!(code == Some(64) && stderr.contains("--api-key says") && !stderr.contains("s3cr3t"), "{stderr}");
}

#[test]
fn help_shows_no_key_of_the_environment() {
    let home = home();
    for verb in ["gateway", "up", "bench", "doctor"] {
        let (code, stdout, _) =
            run(baton(home.path()).args([verb, "--help"]).env("BATON_API_KEY", "s3cr3ts3cr3ts3cr3t"));
        assert!(code == Some(0) && !stdout.contains("s3cr3t"), "{stdout}");
    }
}

#[test]
fn flag_comes_before_variable_before_file_before_default() {
    let home = home();
    let config = home.path().join(".config/baton/baton.toml");
    std::fs::create_dir_all(config.parent().unwrap()).unwrap();
    let [flag, variable, file] = [closed_endpoint(), closed_endpoint(), closed_endpoint()];
    std::fs::write(&config, format!("[cluster]\netcd = \"{file}\"\n")).unwrap();
    let asked = |command: &mut Command| {
        let (code, _, stderr) = run(command);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.starts_with("error: cannot read the cluster: cannot reach the store at "), "{stderr}");
        stderr
    };
    let all = asked(baton(home.path()).args(["status", "--etcd", &flag]).env("BATON_ETCD", &variable));
    assert!(all.contains(&flag) && !all.contains(&variable) && !all.contains(&file), "{all}");
    let two = asked(baton(home.path()).arg("status").env("BATON_ETCD", &variable));
    assert!(two.contains(&variable) && !two.contains(&file), "{two}");
    let one = asked(baton(home.path()).arg("status"));
    assert!(one.contains(&file), "{one}");
    // The other file is read instead of the default one, not in addition.
    let other = home.path().join("other.toml");
    let elsewhere = closed_endpoint();
    std::fs::write(&other, format!("[cluster]\netcd = [\"{elsewhere}\"]\n")).unwrap();
    let named = asked(baton(home.path()).arg("status").arg("--config").arg(&other));
    assert!(named.contains(&elsewhere), "{named}");
    let named = asked(baton(home.path()).arg("status").env("BATON_CONFIG", &other));
    assert!(named.contains(&elsewhere), "{named}");
}

#[test]
fn a_doctor_without_a_store_reports_it() {
    let home = home();
    let (code, stdout, stderr) = run(baton(home.path()).args(["doctor", "--etcd", &closed_endpoint()]));
    assert_eq!((code, stderr.as_str()), (Some(2), ""));
    assert!(stdout.starts_with("WRONG  cannot reach the store at http://127.0.0.1:"), "{stdout}");
    let (code, stdout, _) = run(baton(home.path()).args(["doctor", "--json", "--etcd", &closed_endpoint()]));
    let value: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &value["result"]), (Some(2), &"store_unreachable".into()));
}

#[test]
fn an_unknown_key_in_the_settings_file_is_refused_with_the_known_ones() {
    let home = home();
    let path = home.path().join("b.toml");
    std::fs::write(&path, "[up]\nstage = 3\n").unwrap();
    let (code, _, stderr) = run(baton(home.path()).args(["models", "--config"]).arg(&path));
    assert_eq!(code, Some(64));
    assert!(stderr.contains("b.toml") && stderr.contains("`stage`") && stderr.contains("`stages`"), "{stderr}");
    let (code, _, stderr) = run(baton(home.path()).args(["models", "--config", "/nowhere/baton.toml"]));
    assert_eq!(code, Some(64));
    assert!(stderr.contains("cannot read the settings in /nowhere/baton.toml: No such file"), "{stderr}");
}

#[test]
fn a_misspelt_variable_is_reported() {
    let home = home();
    let (code, _, stderr) = run(baton(home.path()).arg("models").env("BATON_LISTNE", "x"));
    assert_eq!(code, Some(0));
    assert!(stderr.contains("BATON_LISTNE") && stderr.contains("BATON_LISTEN"), "{stderr}");
    let (_, _, stderr) = run(baton(home.path()).arg("models").env("BATON_LISTEN", "127.0.0.1:1"));
    assert_eq!(stderr, "");
}

#[test]
fn models_are_listed_from_the_cache_that_was_chosen() {
    let home = home();
    let models = home.path().join("elsewhere/models");
    std::fs::create_dir_all(&models).unwrap();
    std::fs::write(models.join("own.gguf"), b"GGUF").unwrap();
    let (_, stdout, _) = run(baton(home.path()).arg("models"));
    assert!(stdout.contains("smollm2 (default)") && stdout.contains("not here") && !stdout.contains("own"), "{stdout}");
    let (code, stdout, _) =
        run(baton(home.path()).args(["models", "--json", "--cache"]).arg(home.path().join("elsewhere")));
    let listed: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(code, Some(0));
    let own = listed.as_array().unwrap().last().unwrap();
    assert_eq!((&own["model"], &own["bytes"], &own["machine"]), (&"own".into(), &4.into(), &serde_json::Value::Null));
    assert_eq!((&listed[0]["model"], &listed[0]["machine"]["state"]), (&"smollm2".into(), &"fits".into()));
}

#[test]
fn a_model_of_the_catalogue_is_planned_before_it_is_fetched() {
    let home = home();
    let etcd = closed_endpoint();
    let hub = format!("http://{}", closed_endpoint());
    let offline = || {
        let mut command = baton(home.path());
        command.env("HF_ENDPOINT", &hub);
        command
    };
    let (code, stdout, stderr) = run(offline().args(["plan", "qwen3-0.6b", "--etcd", &etcd]));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for part in ["qwen3-0.6b: qwen3, 600M parameters", "\n0..28 ", "the catalogue's", "this machine alone: no cluster"]
    {
        assert!(stdout.contains(part), "{part} is missing in {stdout}");
    }
    assert!(stdout.lines().all(|line| line.chars().count() <= 100), "{stdout}");
    let (_, stdout, _) = run(offline().args(["plan", "qwen3-0.6b", "--json", "--etcd", &etcd]));
    let plan: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&plan["layers"][27]["kv_per_token"], &plan["cluster"]), (&4096.into(), &false.into()));
    assert_eq!((&plan["stages"][0]["layers"][0], &plan["reason"]), (&0.into(), &serde_json::Value::Null));
    assert!(plan["expected"]["one_stream"].as_f64() > Some(0.1), "{stdout}");
    let (code, _, stderr) = run(offline().args(["plan", "hf:a/b/c.gguf", "--etcd", &etcd]));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("hf:a/b/c.gguf is not on this machine: fetch it with `baton pull"), "{stderr}");
    assert!(stderr.contains(&format!("cannot fetch hf:a/b/c.gguf from {hub}")), "{stderr}");
}

#[test]
fn a_probe_measures_every_format_in_half_a_second() {
    let (home, formats) = (home(), stages::format::Format::ALL.len());
    let started = std::time::Instant::now();
    let (code, stdout, stderr) = run(baton(home.path()).args(["probe", "--json", "--threads", "2"]));
    let took = started.elapsed();
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let found: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&found["threads"], found["speed"].as_object().unwrap().len()), (&2.into(), formats), "{stdout}");
    for (format, speed) in found["speed"].as_object().unwrap() {
        assert!(speed["bytes_per_second"].as_u64() > Some(0), "{format}: {speed}");
        assert!(speed["multiplications_per_second"].as_u64() > Some(0), "{format}: {speed}");
    }
    // Half a second plus the start of a process, and several times as much for a busy machine.
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
    let (code, stdout, _) = run(baton(home.path()).args(["probe", "--threads", "1"]));
    // Three lines stand above the formats.
    assert_eq!((code, stdout.lines().count()), (Some(0), 3 + formats), "{stdout}");
    assert!(stdout.contains(", 1 thread, ") && stdout.contains("Q4_1") && stdout.contains(" GMAC/s"), "{stdout}");
    let (code, _, stderr) = run(baton(home.path()).args(["probe", "--threads", "0"]));
    assert_eq!((code, stderr.as_str()), (Some(64), "error: cannot start: threads is 0: expected 1 to 1024\n"));
}

#[test]
fn a_selftest_checks_the_processor_and_measures_it_and_names_what_it_lacks() {
    let home = home();
    let (code, stdout, stderr) = run(baton(home.path()).args(["selftest", "--device", "cpu", "--json"]));
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let found: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&found["device"], &found["passed"]), (&"cpu".into(), &true.into()), "{stdout}");
    let checks = found["checks"].as_array().unwrap();
    let of_files = stages::format::Format::ALL.iter().filter(|format| format.ggml().is_some()).count();
    assert_eq!(checks.len(), 5 + of_files, "{stdout}");
    assert!(checks.iter().all(|check| check["outcome"] == "passed"), "{stdout}");
    let speed = found["speed"].as_array().unwrap();
    assert!(speed.len() == 6 && found["read_bytes_per_second"].as_u64() > Some(1_000_000), "{stdout}");
    let (code, _, stderr) = run(baton(home.path()).args(["selftest", "--device", "sim"]));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("expected BATON_SIM_KERNELS with the library that etc/check-msl builds"), "{stderr}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let home = home();
    let models = home.path().join("c/models");
    std::fs::create_dir_all(&models).unwrap();
    for index in 0..2000 {
        std::fs::write(models.join(format!("model-with-a-long-name-{index:06}.gguf")), b"").unwrap();
    }
    let mut child = baton(home.path())
        .args(["models", "--cache"])
        .arg(home.path().join("c"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The program writes more than a pipe holds, and nothing reads it.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
}

/// Puts a `python3` in front of the installed one.
fn python(home: &Path, script: &str) -> String {
    let bin = home.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let mut file = std::fs::File::create(bin.join("python3")).unwrap();
    file.write_all(script.as_bytes()).unwrap();
    drop(file);
    std::fs::set_permissions(bin.join("python3"), std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:/usr/bin:/bin", bin.display())
}

#[test]
fn a_pull_that_fails_gives_the_reason_once_and_leaves_no_model() {
    let home = home();
    let path =
        python(home.path(), "#!/bin/sh\n[ \"$3\" = --version ] && exit 0\necho 'no route to the index' >&2\nexit 9\n");
    let (code, stdout, stderr) = run(baton(home.path()).arg("pull").env("PATH", path));
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    let last = stderr.lines().last().unwrap();
    assert_eq!(last, "error: cannot get the model: python3 ended with exit status: 9: no route to the index");
    let (_, stdout, _) = run(baton(home.path()).arg("models"));
    assert!(stdout.contains("not here"), "{stdout}");
}

#[test]
fn an_unknown_model_is_refused_with_the_known_ones() {
    let home = home();
    let (code, _, stderr) = run(baton(home.path()).args(["pull", "gpt5"]));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("\"gpt5\" is not known: expected one of smollm2"), "{stderr}");
}
