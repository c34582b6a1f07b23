//! The reasons for which a drill is refused or ends early.

use std::io;

use schema::StageName;

use super::limits::WHOLE_TIMEOUT;
use crate::client::{Failure, TrustError};

/// The reason for which a drill was refused or ended early.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// TLS cannot be used.
    #[error("cannot speak https with {url}")]
    Trust {
        /// The gateway.
        url: String,
        /// The reason.
        #[source]
        cause: TrustError,
    },
    /// The gateway did not answer.
    #[error("cannot talk to {url}")]
    Gateway {
        /// The gateway.
        url: String,
        /// The step that failed.
        #[source]
        cause: Failure,
    },
    /// The cluster does not serve, so there is nothing to disturb.
    #[error("the cluster does not serve: {reason}")]
    NotServing {
        /// The gateway's reason.
        reason: String,
    },
    /// Requests of others run.
    #[error("{found} at {url}, which a drill would interrupt: wait until there are none, or say --yes")]
    Busy {
        /// The gateway.
        url: String,
        /// Their number, with its noun.
        found: String,
    },
    /// Another gateway of the cluster cannot be asked for requests of others.
    #[error("cannot ask the gateway {url} whether it serves other clients: say --yes to go on without knowing")]
    Unknown {
        /// The gateway.
        url: String,
        /// The step that failed.
        #[source]
        cause: Failure,
    },
    /// No stage of this name holds layers.
    #[error("stage {found} holds no layers: expected one of {known}")]
    NoSuchStage {
        /// The name.
        found: StageName,
        /// The stages that hold layers.
        known: String,
    },
    /// The stage runs on another machine.
    #[error("stage {stage} runs on {host}, and this is {here}: {advice}")]
    OtherMachine {
        /// The stage.
        stage: StageName,
        /// Its machine.
        host: String,
        /// This machine.
        here: String,
        /// The next step.
        advice: String,
    },
    /// The stage's process is not there.
    #[error("process {pid} of stage {stage} is no `baton stage` of this machine: {found}")]
    NoProcess {
        /// The stage.
        stage: StageName,
        /// The process id in its record.
        pid: u32,
        /// The process that was found in its place.
        found: String,
    },
    /// The fault cannot be brought about here.
    #[error("cannot {what} here: {reason}")]
    Impossible {
        /// The deed.
        what: String,
        /// The obstacle, and what to do about it.
        reason: String,
    },
    /// The answer has too few tokens for a fault in its middle.
    #[error("the answer ended after {found} of {expected} tokens, so there was no middle to disturb")]
    Short {
        /// Tokens of the answer.
        found: usize,
        /// Those that were asked for.
        expected: u32,
    },
    /// The cluster of the drill's own did not start.
    #[error("cannot start {what}: {reason}")]
    Start {
        /// The program.
        what: &'static str,
        /// Its output, or the operating system's reason.
        reason: String,
    },
    /// A fault was not undone.
    #[error("cannot undo the fault: {reason}")]
    Undo {
        /// The reason.
        reason: String,
    },
    /// An operation of the operating system failed.
    #[error("cannot {doing}")]
    Io {
        /// The operation.
        doing: &'static str,
        /// The operating system's reason.
        #[source]
        cause: io::Error,
    },
    /// The cluster is not whole after the drill. The verdict was printed.
    #[error("the cluster is not whole {} s after the answer: {reason}", WHOLE_TIMEOUT.as_secs())]
    NotWhole {
        /// The lack.
        reason: String,
    },
}
