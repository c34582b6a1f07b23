//! The log files of members, which `baton logs` shows: one for each process, in a folder for each cluster, bounded in
//! size and number. A line is a JSON object.

mod file;
mod folder;
mod limits;
mod line;
mod tail;

pub use file::LogFile;
pub use folder::{LogFolder, MemberLog};
pub use limits::{LINES_MAX, POLL_INTERVAL};
pub use line::LogLine;
pub use tail::LogTail;
