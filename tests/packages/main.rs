//! The packages of `etc/package`: their sums, contents and bill of materials; the .deb in a fresh Debian, where it is
//! installed, started, upgraded and removed; and the program of the OCI image, started from its layer alone.
//!
//! A fresh Debian needs root, mmdebstrap and systemd-nspawn, the formula Ruby (`etc/prepare debian`).

#[path = "../common/mod.rs"]
mod common;
mod services;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::debian::{fresh_debian, is_root, run};
use common::http::GatewayClient;
use common::{model_path, wait_for};
use serde_json::{Value, json};

/// Longest time until a started program answers, on a machine that does other things, too.
const START_TIME_MAX: Duration = Duration::from_secs(60);
/// The bound for a new user: from the installation to the first token, without the model's download.
const FIRST_TOKEN_TIME_MAX: Duration = Duration::from_secs(60);

/// Begins a command of the package's user.
const AS_BATON: &[&str] = &["setpriv", "--reuid=baton", "--regid=baton", "--clear-groups"];

/// Builds the packages of a revision around the tested program.
fn build(folder: &Path, revision: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/package");
    run(Command::new(script)
        .args(["--binary", env!("CARGO_BIN_EXE_baton"), "--revision", revision])
        .args(["--url", "https://downloads.example.org/baton", "--out"])
        .arg(folder));
}

/// The packages of revision 1, built once.
fn packages() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        build(folder.path(), "1");
        folder
    });
    folder.path()
}

fn package(ending: &str) -> PathBuf {
    let entries = fs::read_dir(packages()).unwrap().map(|entry| entry.unwrap().path());
    let mut found = entries.filter(|path| path.to_string_lossy().ends_with(ending));
    found.next().unwrap_or_else(|| panic!("no package ends with {ending}"))
}

fn is_linux(what: &str) -> bool {
    if !cfg!(target_os = "linux") {
        eprintln!("left out: {what} is for Linux");
    }
    cfg!(target_os = "linux")
}

#[test]
fn the_sums_are_those_of_the_packages_and_the_bill_names_every_crate_in_the_program() {
    let sums = fs::read_to_string(packages().join("SHA256SUMS")).unwrap();
    assert!(sums.lines().count() >= 3, "{sums}");
    run(Command::new("sh")
        .args(["-c", "sha256sum --check SHA256SUMS || shasum -a 256 --check SHA256SUMS"])
        .current_dir(packages()));
    let bill: Value = serde_json::from_slice(&fs::read(package(".cdx.json")).unwrap()).unwrap();
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    let components = bill["components"].as_array().unwrap();
    let named = |name: &str| components.iter().find(|component| component["name"] == name);
    for name in ["tokio", "warp", "candle-core", "zeromq", "flatbuffers", "baton-stages"] {
        let component = named(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert!(component["licenses"][0]["expression"].is_string(), "{component}");
        let is_own = name.starts_with("baton-");
        assert_eq!(component["hashes"][0]["content"].as_str().map(str::len), (!is_own).then_some(64), "{component}");
    }
    assert!(named("criterion").is_none(), "what only tests need is in no program");
}

#[test]
fn the_archive_has_a_stripped_program_with_its_pages_and_completions() {
    let listed = run(Command::new("tar").arg("tf").arg(package(".tar.gz")));
    for part in
        ["/bin/baton", "/share/man/man1/baton-up.1", "/completions/baton.zsh", "/etc/baton.toml", "/LICENSE-MIT"]
    {
        assert!(listed.lines().any(|line| line.ends_with(part)), "{part} is missing in {listed}");
    }
    let formula = fs::read_to_string(packages().join("homebrew/baton.rb")).unwrap();
    let archive = package(".tar.gz");
    let url = format!("url \"https://downloads.example.org/baton/{}\"", archive.file_name().unwrap().to_str().unwrap());
    let sums = fs::read_to_string(packages().join("SHA256SUMS")).unwrap();
    assert!(formula.contains(&url) && formula.contains(&format!("sha256 \"{}\"", &sums[..64])), "{formula}");
    let folder = tempfile::tempdir().unwrap();
    run(Command::new("tar").arg("xf").arg(&archive).args(["--strip-components=1", "-C"]).arg(folder.path()));
    let program = folder.path().join("bin/baton");
    assert_eq!(run(Command::new(&program).arg("--version")), format!("baton {}\n", env!("CARGO_PKG_VERSION")));
    let built = fs::metadata(env!("CARGO_BIN_EXE_baton")).unwrap().len();
    assert!(fs::metadata(&program).unwrap().len() < built, "it is stripped");
}

/// Homebrew runs on no machine of these tests: Ruby reads the formula with a stand-in for its class.
#[test]
fn the_formula_installs_the_archive_and_passes_its_own_test() {
    if Command::new("ruby").arg("--version").output().is_err() {
        return eprintln!("left out: the formula needs Ruby (etc/prepare debian)");
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/check-formula");
    let printed = run(Command::new(script).arg(packages().join("homebrew/baton.rb")));
    assert!(printed.contains("its test passes"), "{printed}");
}

#[test]
fn systemd_accepts_the_units_and_those_of_a_person() {
    if !is_linux("systemd") {
        return;
    }
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return eprintln!("left out: systemd-analyze is not on this machine");
    }
    let folder = tempfile::tempdir().unwrap();
    run(Command::new("dpkg-deb").arg("-x").arg(package(".deb")).arg(folder.path()));
    let units = folder.path().join("lib/systemd/system");
    let verify = |unit: &Path| run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(unit));
    for name in ["baton-stage.service", "baton-gateway.service"] {
        // The program is where the unit says once the package is installed.
        let text = fs::read_to_string(units.join(name)).unwrap();
        assert!(text.contains("ExecStart=/usr/bin/baton --config /etc/baton/baton.toml"), "{text}");
        let unit = folder.path().join(name);
        fs::write(&unit, text.replace("/usr/bin/baton", env!("CARGO_BIN_EXE_baton"))).unwrap();
        verify(&unit);
    }
    let home = tempfile::tempdir().unwrap();
    let shown = run(Command::new(env!("CARGO_BIN_EXE_baton"))
        .args(["service", "install", "up", "--dry-run", "--", "--stages", "3", "a 5% \"b\""])
        .env("HOME", home.path()));
    let unit = folder.path().join("baton-up.service");
    let text = shown.split_once(":\n").unwrap().1.split("\n$ ").next().unwrap();
    fs::write(&unit, text).unwrap();
    verify(&unit);
}

/// Another root of the file system, with what is mounted in it.
struct Root {
    path: tempfile::TempDir,
    mounted: Vec<PathBuf>,
}

// === impl Root ===

impl Root {
    /// A command inside the root.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg(self.path.path()).arg(program).env_clear();
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command.stdin(Stdio::null());
        command
    }

    fn mount(&mut self, arguments: &[&str], place: &str) {
        let place = self.path.path().join(place);
        run(Command::new("mount").args(arguments).arg(&place));
        self.mounted.push(place);
    }

    fn has(&self, path: &str) -> bool {
        self.path.path().join(path).exists()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        for place in self.mounted.iter().rev() {
            let _ = Command::new("umount").arg("-l").arg(place).status();
        }
    }
}

/// A started `baton up`, killed when it is dropped.
struct Up(Child);

impl Drop for Up {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

/// A free port of this machine.
fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Starts the model with `up` in `root` as the user `baton`, and returns the time until the first token.
fn first_token(root: &Root, user: &[&str]) -> Duration {
    let address = free_port();
    let started = Instant::now();
    let listen = address.to_string();
    let up = [
        user,
        &[
            "/usr/bin/baton",
            "up",
            "--stages",
            "2",
            "--listen",
            &listen,
            "--store-listen",
            "127.0.0.1:0",
            "/model/model.gguf",
        ],
    ]
    .concat();
    let mut command = root.command(up[0]);
    let output = root.path.path().join("up.log");
    let command = command.args(&up[1..]).env("HOME", "/tmp").stdout(Stdio::null());
    let up = Up(command.stderr(fs::File::create(&output).unwrap()).spawn().unwrap());
    let client = GatewayClient { http: address };
    let is_up = || std::net::TcpStream::connect(address).is_ok() && client.get("/health").status == 200;
    wait_for("baton up serves", START_TIME_MAX, is_up);
    let question = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1});
    let answer = client.post("/v1/chat/completions", &question);
    assert_eq!(answer.status, 200, "{}", answer.body);
    drop(up);
    started.elapsed()
}

#[test]
fn the_deb_is_installed_started_upgraded_and_removed_in_a_fresh_debian() {
    let Some(path) = fresh_debian() else { return };
    let mut root = Root { path, mounted: Vec::new() };
    root.mount(&["-t", "proc", "proc"], "proc");
    root.mount(&["--bind", "/dev"], "dev");
    fs::create_dir(root.path.path().join("model")).unwrap();
    fs::copy(model_path(), root.path.path().join("model/model.gguf")).unwrap();

    let second = tempfile::tempdir().unwrap();
    fs::copy(package(".deb"), root.path.path().join("root/1.deb")).unwrap();
    run(Command::new("dpkg-deb").arg("-R").arg(package(".deb")).arg(second.path()));
    let control = second.path().join("DEBIAN/control");
    let text = fs::read_to_string(&control).unwrap();
    let next = text.replace(&format!("Version: {}-1", env!("CARGO_PKG_VERSION")), "Version: 99.0-1");
    assert_ne!(text, next);
    fs::write(&control, next).unwrap();
    let upgrade = root.path.path().join("root/2.deb");
    run(Command::new("dpkg-deb").args(["--root-owner-group", "-Znone", "--build"]).arg(second.path()).arg(&upgrade));

    let installing = Instant::now();
    let apt = |words: &[&str]| {
        let quiet = ["-y", "-qq", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0"];
        run(root.command("apt-get").args(quiet).args(words))
    };
    apt(&["install", "/root/1.deb"]);
    assert_eq!(run(root.command("baton").arg("--version")), format!("baton {}\n", env!("CARGO_PKG_VERSION")));
    assert!(run(root.command("getent").args(["passwd", "baton"])).contains(":/var/lib/baton:"));
    for path in ["usr/share/man/man1/baton-up.1.gz", "lib/systemd/system/baton-stage.service", "etc/baton/baton.toml"] {
        assert!(root.has(path), "{path} is missing");
    }
    let installed = installing.elapsed();
    let served = first_token(&root, AS_BATON);
    println!("installed in {installed:?}; first token {served:?} after `baton up`");
    assert!(installed + served < FIRST_TOKEN_TIME_MAX, "{installed:?} and {served:?}");

    // A fresh Debian has neither `ps` nor `kill`.
    assert!(!root.has("usr/bin/ps") && !root.has("bin/ps"));
    let drill = run(root.command("baton").args(["drill", "--tokens", "32", "/model/model.gguf"]));
    assert!(drill.contains("EQUAL: all 32 tokens"), "{drill}");

    // An upgrade keeps what the operator wrote.
    let settings = root.path.path().join("etc/baton/baton.toml");
    fs::write(&settings, "[cluster]\ncluster = \"mine\"\n").unwrap();
    apt(&["install", "-o", "Dpkg::Options::=--force-confold", "/root/2.deb"]);
    assert!(run(root.command("dpkg-query").args(["-W", "baton"])).contains("99.0-1"));
    assert!(fs::read_to_string(&settings).unwrap().contains("mine"), "the settings file was replaced");
    first_token(&root, AS_BATON);

    apt(&["remove", "baton"]);
    assert!(!root.has("usr/bin/baton") && root.has("etc/baton/baton.toml"), "a removal keeps the settings");
    apt(&["purge", "baton"]);
    assert!(!root.has("etc/baton") && !root.has("var/lib/baton") && !root.has("usr/share/doc/baton"));
}

#[test]
fn the_image_s_layer_is_all_that_its_program_needs() {
    if !is_linux("the OCI image") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    run(Command::new("tar").arg("xf").arg(package("-oci.tar")).arg("-C").arg(folder.path()));
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let path = folder.path().join("blobs/sha256").join(digest);
        assert_eq!(descriptor["size"], fs::metadata(&path).unwrap().len());
        assert!(run(Command::new("sha256sum").arg(&path)).starts_with(digest), "{digest}");
        path
    };
    let read = |path: PathBuf| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    assert_eq!(read(folder.path().join("oci-layout")), json!({"imageLayoutVersion": "1.0.0"}));
    let manifest = read(blob(&read(folder.path().join("index.json"))["manifests"][0]));
    let config = read(blob(&manifest["config"]));
    assert_eq!(config["config"]["Entrypoint"], json!(["/usr/bin/baton"]));
    let layer = blob(&manifest["layers"][0]);
    let unpacked = run(Command::new("sh").args(["-c", &format!("gzip -dc '{}' | sha256sum", layer.display())]));
    let diff_id = config["rootfs"]["diff_ids"][0].as_str().unwrap();
    assert!(diff_id.ends_with(unpacked.split_whitespace().next().unwrap()), "{diff_id} is not of {unpacked}");
    if !is_root() {
        return eprintln!("left out: to start the image's program needs root");
    }
    let mut root = Root { path: tempfile::tempdir().unwrap(), mounted: Vec::new() };
    run(Command::new("tar").arg("xzf").arg(&layer).arg("-C").arg(root.path.path()));
    for place in ["proc", "dev", "model"] {
        fs::create_dir(root.path.path().join(place)).unwrap();
    }
    root.mount(&["-t", "proc", "proc"], "proc");
    root.mount(&["--bind", "/dev"], "dev");
    fs::copy(model_path(), root.path.path().join("model/model.gguf")).unwrap();
    first_token(&root, &[]);
}
