//! Undoes a fault when it is asked to, when it is dropped, and when this process dies.
//!
//! A small shell waits for the end of its standard input, whose other end is held here, and then runs the command. The
//! system closes that end however this process ends.

use std::io;
use std::process::Stdio;

use tokio::process::{Child, Command};

use super::error::DrillError;
use super::limits::PROGRAM_TIMEOUT;

/// A command that will be run.
#[must_use]
#[derive(Debug)]
pub struct Undo(Child);

// === impl Undo ===

impl Undo {
    /// Arranges for `script` to be run by `sh` with `argument` as `$1`.
    pub(super) fn arm(script: &str, argument: &str) -> Result<Self, DrillError> {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("cat > /dev/null; {script}"), "sh", argument]);
        // In a process group of its own, so that Ctrl-C in a terminal does not reach it.
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        shell.spawn().map(Self).map_err(|cause| DrillError::Io { doing: "start sh, which undoes the fault", cause })
    }

    /// Runs the command now and waits for its end.
    ///
    /// # Errors
    /// [`DrillError::Undo`] if it fails.
    pub(super) async fn undo(mut self) -> Result<(), DrillError> {
        drop(self.0.stdin.take());
        let failed = |reason: String| DrillError::Undo { reason };
        let ended = tokio::time::timeout(PROGRAM_TIMEOUT, self.0.wait()).await;
        let status = ended.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(failed(format!("its command ended with {status}"))),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::*;

    fn wait_for(path: &Path) {
        let started = Instant::now();
        while !path.exists() {
            assert!(started.elapsed() < Duration::from_secs(10), "{} was not made", path.display());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[tokio::test]
    async fn the_command_runs_when_it_is_asked_for_and_when_it_is_dropped_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let [asked, dropped] = ["asked", "dropped"].map(|name| folder.path().join(name));
        let arm = |path: &Path| Undo::arm("touch \"$1\"", path.to_str().unwrap()).unwrap();
        let (first, second) = (arm(&asked), arm(&dropped));
        assert!(!asked.exists() && !dropped.exists());
        first.undo().await.unwrap();
        assert!(asked.exists() && !dropped.exists());
        drop(second);
        wait_for(&dropped);
        let error = Undo::arm("exit 3", "").unwrap().undo().await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3"), "{error}");
    }
}
