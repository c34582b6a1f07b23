//! Services under a real systemd: a fresh Debian boots in a container, where the .deb is installed. A person's `baton
//! up`, and the machine's stage and gateway with a real etcd, start with the machine, come back when they are killed,
//! and are gone when they are removed.
//!
//! A container needs root, mmdebstrap and systemd-nspawn (`etc/prepare debian`). launchd runs on no machine of these
//! tests: its property lists are only read, by another parser.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::debian::{fresh_debian, run};
use crate::common::model_path;
use crate::package;

/// Longest time of one boot, in seconds. Each step inside has shorter ones.
const BOOT_SECONDS_MAX: &str = "120";
/// Runs a script as the last thing of a boot.
const UNIT: &str = "[Unit]\nAfter=network.target systemd-logind.service\n\
    [Service]\nType=oneshot\nExecStart=/root/steps.sh\n[Install]\nWantedBy=multi-user.target\n";

/// Without names of hosts, as the machine has no network that could resolve them.
const ETCD: &str = "[Service]\nType=notify\nExecStart=/usr/local/bin/etcd --data-dir /var/lib/etcd \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster default=http://127.0.0.1:2380\n";

/// A Debian with the .deb, a model and a real etcd.
struct BootedDebian {
    root: tempfile::TempDir,
}

// === impl BootedDebian ===

impl BootedDebian {
    fn new() -> Option<Self> {
        let root = fresh_debian()?;
        if Command::new("systemd-nspawn").arg("--version").output().is_err() {
            eprintln!("left out: a machine that boots needs systemd-nspawn (etc/prepare debian)");
            return None;
        }
        let machine = Self { root };
        let tried = machine.container().arg("true").output().unwrap();
        if !tried.status.success() {
            eprintln!("left out: this machine runs no containers: {tried:?}");
            return None;
        }
        fs::create_dir(machine.path("model")).unwrap();
        fs::copy(package(".deb"), machine.path("root/baton.deb")).unwrap();
        fs::copy(model_path(), machine.path("model/model.gguf")).unwrap();
        let etcd = run(Command::new("sh").args(["-c", "command -v etcd"]));
        fs::copy(etcd.trim(), machine.path("usr/local/bin/etcd")).unwrap();
        run(machine.container().arg("dpkg").args(["--install", "/root/baton.deb"]));
        fs::write(machine.path("etc/systemd/system/steps.service"), UNIT).unwrap();
        fs::write(machine.path("etc/systemd/system/etcd.service"), ETCD).unwrap();
        run(machine.container().args(["systemctl", "enable", "-q", "steps.service"]));
        Some(machine)
    }

    fn path(&self, place: &str) -> std::path::PathBuf {
        self.root.path().join(place)
    }

    /// A container with this root and a network of its own.
    fn container(&self) -> Command {
        let mut command = Command::new("timeout");
        command.args([
            "--kill-after=30",
            BOOT_SECONDS_MAX,
            "systemd-nspawn",
            "--quiet",
            "--register=no",
            "--keep-unit",
        ]);
        command.args(["--private-network", "--console=pipe", "-D"]).arg(self.root.path()).stdin(Stdio::null());
        command
    }

    /// Boots, lets the machine take `steps` and power itself off, and checks that they said each of `expected`.
    fn boot(&self, steps: &str, expected: &[&str]) {
        let script = self.path("root/steps.sh");
        let log = self.path("root/steps.log");
        let _ = fs::remove_file(&log);
        fs::write(&script, format!("{}\n{steps}\nsystemctl poweroff\n", include_str!("steps.sh"))).unwrap();
        run(Command::new("chmod").arg("+x").arg(&script));
        let booted = self.container().arg("--boot").output().unwrap();
        let printed = fs::read_to_string(&log).unwrap_or_default();
        assert!(booted.status.success(), "{booted:?}\n{printed}");
        for step in expected {
            assert!(printed.contains(&format!("step: {step}\n")), "no {step} in:\n{printed}");
        }
    }
}

#[test]
fn a_service_starts_with_the_machine_comes_back_when_killed_and_goes_when_removed() {
    let Some(machine) = BootedDebian::new() else { return };
    machine.boot(
        "useradd -m me && loginctl enable-linger me && wait_for test -S /run/user/1000/systemd/private\n\
         as_me baton service install up -- --stages 2 /model/model.gguf && say installed\n\
         healthy && say serves\n\
         comes_back baton-up as_me systemctl --user && say came back\n",
        &["installed", "serves", "came back"],
    );
    machine.boot(
        "healthy && say serves\n\
         as_me baton service uninstall up && say removed\n\
         ! running && ! test -e /home/me/.config/systemd/user/baton-up.service && say gone\n\
         as_me baton up /model/model.gguf & healthy && as_me baton stop && wait && ! running && say stopped\n\
         systemctl start etcd && say etcd runs\n\
         printf '[cluster]\\netcd = [\"http://127.0.0.1:2379\"]\\n[model]\\nmodel = \"/model/model.gguf\"\\n' \
             > /etc/baton/baton.toml\n\
         (umask 077 && baton key > /etc/baton/cluster.key)\n\
         baton service install --system stage && baton service install --system gateway && say machine installed\n\
         healthy && say machine serves\n\
         comes_back baton-stage systemctl && say machine came back\n",
        &[
            "serves",
            "removed",
            "gone",
            "stopped",
            "etcd runs",
            "machine installed",
            "machine serves",
            "machine came back",
        ],
    );
    machine.boot(
        "systemctl start etcd && healthy && say serves\n\
         baton service uninstall --system gateway && baton service uninstall --system stage && say removed\n\
         ! running && say gone\n",
        &["serves", "removed", "gone"],
    );
}

/// Python's parser of property lists, which knows nothing of baton.
#[test]
fn another_parser_reads_the_property_lists_of_launchd() {
    let read = "import json, plistlib, sys; print(json.dumps(plistlib.load(open(sys.argv[1], 'rb'))))";
    for part in ["stage", "gateway"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("etc/launchd/dev.baton.{part}.plist"));
        let list: serde_json::Value =
            serde_json::from_str(&run(Command::new("python3").args(["-c", read]).arg(file))).unwrap();
        assert_eq!(list["Label"], format!("dev.baton.{part}"));
        let words: Vec<_> = list["ProgramArguments"].as_array().unwrap().iter().filter_map(|w| w.as_str()).collect();
        assert!(words[0].ends_with("/baton") && words.last() == Some(&part), "{words:?}");
        assert_eq!((&list["KeepAlive"], &list["RunAtLoad"]), (&true.into(), &true.into()));
    }
}
