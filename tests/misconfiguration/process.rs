//! A process that a row starts, with its log file, its exit status and its last line. Dropping it kills the process.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running `baton` and its log.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

// === impl Process ===

impl Process {
    /// Starts `command` with its standard error in the file `log`.
    pub(crate) fn start(mut command: Command, log: PathBuf) -> Self {
        let stderr = File::create(&log).expect("a log can be made");
        Self::start_into(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr), log)
    }

    /// The same for a command whose standard streams are already set.
    pub(crate) fn start_into(command: &mut Command, log: PathBuf) -> Self {
        Self { child: command.spawn().expect("the program starts"), log }
    }

    /// The exit status, if the process ends within `most`. If a signal ended it, this is 128 plus the signal's number.
    pub(crate) fn ended_within(&mut self, most: Duration) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return Some(status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(-1));
            }
            if started.elapsed() >= most {
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The last line of its log so far.
    pub(crate) fn last_line(&self) -> String {
        let text = self.text();
        let mut lines = text.lines().rev().map(str::trim).filter(|line| !line.is_empty());
        let last = lines.next().unwrap_or_default();
        // The command line's parser ends with a hint on help. The relevant line is its first.
        if last.starts_with("For more information") {
            text.lines().next().unwrap_or_default().to_owned()
        } else {
            last.to_owned()
        }
    }

    /// Looks for `fragment` in the last line or, while the process runs, in any line of its log.
    pub(crate) fn has_logged(&mut self, fragment: &str) -> bool {
        match self.ended_within(Duration::ZERO) {
            Some(_) => self.last_line().contains(fragment),
            None => self.text().contains(fragment),
        }
    }

    pub(crate) fn panicked(&self) -> bool {
        self.text().contains("panicked at")
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
