//! Processes of this machine: what they are, and signals to them.

use std::process::{Output, Stdio};

use rustix::process::Signal;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::error::DrillError;
use super::limits::{OUTPUT_BYTES_MAX, PROGRAM_TIMEOUT};
use super::undo::Undo;
use crate::signal;

/// Runs a short program with `input` and returns its output. The error says why it did not succeed.
pub(super) async fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("cannot start {program}: {error}"))?;
    let running = async {
        if let Some(mut stdin) = child.stdin.take() {
            // A program that has ended without reading says why by its status.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    match tokio::time::timeout(PROGRAM_TIMEOUT, running).await {
        Ok(Ok(Output { status, stdout, .. })) if status.success() => Ok(end_of(&stdout)),
        Ok(Ok(output)) => Err(format!("{program} ended with {}: {}", output.status, end_of(&output.stderr))),
        Ok(Err(error)) => Err(format!("{program}: {error}")),
        Err(_) => Err(format!("{program} did not end within {} s", PROGRAM_TIMEOUT.as_secs())),
    }
}

/// The end of what a program printed.
pub(super) fn end_of(output: &[u8]) -> String {
    let from = output.len().saturating_sub(OUTPUT_BYTES_MAX);
    String::from_utf8_lossy(&output[from..]).trim().to_owned()
}

/// True if process `pid` is a `baton stage`. Else what it is.
pub(super) fn is_stage(pid: u32) -> Result<(), String> {
    let (pid, mut system) = (Pid::from_u32(pid), System::new());
    let refresh = ProcessRefreshKind::nothing().with_cmd(UpdateKind::Always);
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, refresh);
    let process = system.process(pid).ok_or_else(|| "there is no such process".to_owned())?;
    let words: Vec<_> = process.cmd().iter().map(|word| word.to_string_lossy()).collect();
    let is_stage = words.iter().skip(1).any(|word| word == "stage");
    if is_stage { Ok(()) } else { Err(words.join(" ").chars().take(100).collect()) }
}

/// Sends a signal.
pub(super) fn send_signal(pid: u32, signal: Signal) -> Result<(), DrillError> {
    let name = format!("{signal:?}").replace("Signal::", "SIG");
    let what = format!("send {name} to process {pid}");
    signal::send(pid, signal).map_err(|error| DrillError::Impossible { what, reason: error.to_string() })
}

/// Will let process `pid` go on that is about to be stopped. One that is gone needs nothing.
pub(super) fn thaw_later(pid: u32) -> Result<Undo, DrillError> {
    Undo::arm("kill -CONT \"$1\" || ! kill -0 \"$1\"", &pid.to_string())
}

/// Will end process `pid` in good order.
pub(super) fn end_later(pid: u32) -> Result<Undo, DrillError> {
    Undo::arm("kill -TERM \"$1\" || true", &pid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_no_stage_is_named() {
        let found = is_stage(std::process::id()).unwrap_err();
        assert!(found.contains("gateway") || found.contains("baton") || found.contains('/'), "{found}");
        assert_eq!(is_stage(u32::MAX >> 1).unwrap_err(), "there is no such process");
    }

    #[tokio::test]
    async fn a_program_that_fails_says_why() {
        assert_eq!(run("sh", &["-c", "cat"], "abc").await.unwrap(), "abc");
        let error = run("sh", &["-c", "echo no >&2; exit 4"], "").await.unwrap_err();
        assert!(error.contains("exit status: 4") && error.ends_with(": no"), "{error}");
        assert!(run("baton-no-such-program", &[], "").await.unwrap_err().contains("cannot start"));
    }
}
