//! The steps of a drill, as it tells them while it runs.

use std::fmt;
use std::time::Duration;

use super::fault::Fault;

/// A step of a drill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DrillProgress {
    /// A cluster of its own serves.
    Started {
        /// The gateway's address.
        url: String,
        /// Number of stages.
        stages: u32,
    },
    /// It is known what will happen to whom.
    Planned {
        /// The fault.
        fault: Fault,
        /// The stage with its layers and process, or the store.
        victim: String,
        /// The token after which it comes.
        after: usize,
        /// Tokens of the answer.
        tokens: u32,
    },
    /// The undisturbed answer is complete.
    Undisturbed {
        /// Number of its tokens.
        tokens: usize,
        /// Time until the last one.
        took: Duration,
        /// The longest time between two of them.
        longest_gap: Duration,
    },
    /// The fault has come.
    Happened {
        /// The number of the last token before it.
        token: usize,
        /// The fault.
        fault: Fault,
        /// The stage, or the store.
        victim: String,
    },
    /// Nobody could do without the stage, so the fault was undone.
    Relieved {
        /// Time without a token.
        after: Duration,
    },
    /// The stream goes on after a pause.
    Resumed {
        /// The number of the first token after the pause.
        token: usize,
        /// Time since the token before.
        pause: Duration,
    },
    /// The disturbed answer is complete.
    Disturbed {
        /// Number of its tokens.
        tokens: usize,
        /// Time until the last one.
        took: Duration,
        /// The longest time between two of them.
        longest_gap: Duration,
        /// The number of times that it was begun.
        attempts: u32,
    },
    /// All stages serve or stand by again.
    Whole {
        /// Time since the end of the answer.
        after: Duration,
    },
}

impl fmt::Display for DrillProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { url, stages } => write!(f, "a cluster of {stages} stages serves at {url}"),
            Self::Planned { fault, victim, after, tokens } => {
                write!(f, "{fault}: {victim}, after token {after} of {tokens}")
            }
            Self::Undisturbed { tokens, took, longest_gap } => {
                let (took, gap) = (seconds(*took), ms(*longest_gap));
                write!(f, "undisturbed: {tokens} tokens in {took}, longest gap {gap}")
            }
            Self::Happened { token, fault, victim } => write!(f, "token {token}: {victim} {}", fault.happened()),
            Self::Relieved { after } => {
                write!(f, "no token for {}: the others cannot do without it, so the fault is undone", seconds(*after))
            }
            Self::Resumed { token, pause } => write!(f, "token {token}: the stream goes on after {}", ms(*pause)),
            Self::Disturbed { tokens, took, longest_gap, attempts } => {
                let (took, gap) = (seconds(*took), ms(*longest_gap));
                write!(f, "disturbed: {tokens} tokens in {took}, longest gap {gap}, begun {}", times(*attempts))
            }
            Self::Whole { after } => write!(f, "the cluster is whole again, {} after the answer", seconds(*after)),
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

pub(super) fn ms(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

fn times(count: u32) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        many => format!("{many} times"),
    }
}
