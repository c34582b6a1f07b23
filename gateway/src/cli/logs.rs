//! `baton logs`: the log lines of this machine's members.

use std::path::Path;

use clap::Args;
use schema::ClusterName;

use super::exit::{CliError, Exit};
use super::output::{self, replace_control_chars};
use crate::logs::{LINES_MAX, LogFolder, LogTail, POLL_INTERVAL};
use crate::settings::{ClusterOptions, ClusterSettings};

/// The arguments of `baton logs`.
#[derive(Debug, Args)]
pub struct LogsArguments {
    /// A stage's name, `up` or `gateway` [default: all members]
    #[arg(value_name = "MEMBER")]
    member: Option<String>,
    /// Name of the cluster [default: home]
    #[arg(long, env = "BATON_CLUSTER", value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// Lines of the past to show
    #[arg(short = 'n', long, value_name = "N", default_value_t = 200)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=LINES_MAX as i64))]
    lines: u32,
    /// Go on with the lines as they come, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Print the JSON objects
    #[arg(long)]
    json: bool,
}

/// Prints the last lines, and those that come.
pub(super) async fn run(
    arguments: LogsArguments,
    file: ClusterOptions,
    state: Option<&Path>,
) -> Result<Exit, CliError> {
    let state = state.ok_or(CliError::NoStateFolder)?;
    let given = ClusterOptions { cluster: arguments.cluster, ..ClusterOptions::default() };
    let folder = LogFolder::new(state, &ClusterSettings::name(&given.or(file)));
    let read = |cause| CliError::Logs { path: folder.path().to_owned(), cause };
    let mut tail = LogTail::new(folder.clone(), arguments.member.clone());
    let mut lines = tail.last(arguments.lines as usize).map_err(read)?;
    if lines.is_empty() && !arguments.follow && arguments.lines > 0 {
        return Err(CliError::NoLogs { path: folder.path().to_owned(), member: arguments.member });
    }
    let mut poll = tokio::time::interval(POLL_INTERVAL);
    loop {
        let render = |(member, line, text): &(String, crate::logs::LogLine, String)| {
            let text = if arguments.json { text.clone() } else { line.render(member) };
            replace_control_chars(&text) + "\n"
        };
        let printed = output::print_part(&lines.iter().map(render).collect::<String>())?;
        if !arguments.follow || printed.is_break() {
            return Ok(Exit::Ok);
        }
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => return Ok(interrupted.map(|()| Exit::Ok)?),
            _ = poll.tick() => {}
        }
        lines = tail.more().map_err(read)?;
    }
}
