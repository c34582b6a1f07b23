//! A command that may take a limited time.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Time between two looks at a running process.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Runs the command and returns its output, standard error included.
///
/// # Errors
/// The way in which it failed, with its output, if it ends with another status than 0 or takes longer than `time_max`.
pub(crate) fn output(command: &mut Command, time_max: Duration) -> Result<String, String> {
    // A file, since a process that fills a pipe would wait for a reader.
    let mut file = tempfile::tempfile().expect("a temporary file");
    let writer = |file: &File| Stdio::from(file.try_clone().expect("another handle of the file"));
    let process = command.stdin(Stdio::null()).stdout(writer(&file)).stderr(writer(&file)).spawn();
    let process = process.map_err(|error| format!("does not start: {error}"))?;
    let ended = wait(process, time_max);
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("the output can be read");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    match ended {
        Some(status) if status.success() => Ok(text),
        Some(status) => Err(format!("ended with {status}:\n{text}")),
        None => Err(format!("did not end within {time_max:?}:\n{text}")),
    }
}

/// Waits for the end of the process, and kills it after `time_max`. Returns its status unless it was killed.
fn wait(mut process: Child, time_max: Duration) -> Option<ExitStatus> {
    let started = Instant::now();
    while started.elapsed() < time_max {
        if let Some(status) = process.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    process.kill().and_then(|()| process.wait()).expect("a child can be killed");
    None
}
