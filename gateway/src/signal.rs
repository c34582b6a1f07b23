//! Signals to other processes of this machine.

use std::io;

use rustix::process::{Pid, Signal, kill_process};

/// Sends `signal` to process `pid`.
///
/// # Errors
/// The system's: there is no such process, or it belongs to somebody else.
pub(crate) fn send(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(rustix::io::Errno::SRCH)?;
    Ok(kill_process(pid, signal)?)
}
