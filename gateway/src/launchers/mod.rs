//! Programs that are started so that they talk to an endpoint: which variables and arguments make each of them do it.
//! A table, and its filling in; pure.

mod launch;
mod table;

pub use launch::{Launch, LaunchTarget};
pub use table::{LAUNCHERS, Launcher};
