//! Helpers shared by the integration tests: the default model, clusters of real processes, and a small HTTP client.
#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod byte_vocabulary;
pub(crate) mod cluster;
pub(crate) mod debian;
pub(crate) mod etcd;
pub(crate) mod fleet;
pub(crate) mod golden;
pub(crate) mod home;
pub(crate) mod http;
pub(crate) mod line_process;
pub(crate) mod network;
pub(crate) mod relay;

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The file of the default model, as `baton pull` finds or fetches it. `TEST_MODEL` names another copy.
///
/// # Panics
/// If there is none and it cannot be fetched.
#[expect(clippy::disallowed_methods, reason = "a switch of a test, no setting of the program")]
pub(crate) fn model_path() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Some(path) = std::env::var_os("TEST_MODEL") {
            return path.into();
        }
        let pull = Command::new(env!("CARGO_BIN_EXE_baton")).arg("pull").output().expect("baton runs");
        assert!(pull.status.success(), "baton pull: {}", String::from_utf8_lossy(&pull.stderr));
        String::from_utf8(pull.stdout).expect("a path").trim().into()
    })
    .clone()
}

/// Waits until `holds` returns true. Returns the time that it took.
pub(crate) fn wait_for(what: &str, most: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < most, "{what}: not within {most:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    started.elapsed()
}
