//! A fresh Debian of its own: a root of the file system with systemd, made once and kept in the target folder.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;

/// Packages in it beside those of every Debian: packages and services of other programs rely on them, too.
const INCLUDED: &str = "adduser,dbus,libpam-systemd,systemd-sysv";

/// Runs a command and returns its output.
///
/// # Panics
/// If it fails.
pub(crate) fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&stdout).into_owned();
    assert!(status.success(), "{command:?}: {status}\n{text}{}", String::from_utf8_lossy(&stderr));
    text
}

/// True for root.
pub(crate) fn is_root() -> bool {
    run(Command::new("id").arg("-u")).trim() == "0"
}

/// The folder of a new one. `None` where none can be made, which is then said.
pub(crate) fn fresh_debian() -> Option<tempfile::TempDir> {
    if !cfg!(target_os = "linux") || !is_root() || Command::new("mmdebstrap").arg("--version").output().is_err() {
        eprintln!("left out: a fresh Debian needs Linux, root and mmdebstrap (etc/prepare debian)");
        return None;
    }
    static MAKING: Mutex<()> = Mutex::new(());
    let making = MAKING.lock().unwrap();
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian-bookworm-systemd.tar");
    if !kept.exists() {
        let half = kept.with_extension("half.tar");
        let include = format!("--include={INCLUDED}");
        run(Command::new("mmdebstrap").args(["--quiet", "--variant=apt", &include, "bookworm"]).arg(&half));
        fs::rename(half, &kept).unwrap();
    }
    drop(making);
    let root = tempfile::tempdir().unwrap();
    run(Command::new("tar").arg("xf").arg(&kept).arg("-C").arg(root.path()));
    Some(root)
}
