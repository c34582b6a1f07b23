//! A process of which the lines are read, those of its output and of its errors alike.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Longest wait for a line: two fetches of the model, and a start.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Lines that wait to be read.
const LINES_MAX: usize = 1000;

/// A process and its lines. Dropping it interrupts it.
pub(crate) struct LineProcess {
    pub(crate) child: Child,
    lines: Receiver<String>,
    pub(crate) seen: Vec<String>,
}

// === impl LineProcess ===

impl LineProcess {
    pub(crate) fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let (sender, lines) = sync_channel(LINES_MAX);
        send_lines(child.stdout.take().unwrap(), sender.clone());
        send_lines(child.stderr.take().unwrap(), sender);
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line with `part` in it.
    pub(crate) fn line(&mut self, part: &str) -> String {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line.clone()),
                Err(_) => panic!("no line with {part:?}: {:#?} {:?}", self.seen, self.child.try_wait()),
            }
            if self.seen.last().is_some_and(|line| line.contains(part)) {
                return self.seen.last().cloned().unwrap();
            }
        }
    }

    /// Interrupts it, and returns all lines that were seen.
    pub(crate) fn interrupted(mut self) -> Vec<String> {
        self.interrupt();
        // The senders are gone when the last line was read.
        let rest: Vec<_> = self.lines.iter().collect();
        std::mem::take(&mut self.seen).into_iter().chain(rest).collect()
    }

    pub(crate) fn interrupt(&mut self) {
        super::cluster::signal(self.child.id(), "INT");
        let _ = self.child.wait();
    }
}

impl Drop for LineProcess {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.interrupt();
        }
    }
}

fn send_lines(from: impl Read + Send + 'static, to: SyncSender<String>) {
    std::thread::spawn(move || BufReader::new(from).lines().map_while(Result::ok).try_for_each(|line| to.send(line)));
}
