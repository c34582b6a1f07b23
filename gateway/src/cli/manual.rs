//! `baton completions` and `baton man`: what a shell and `man` know of the command line, made from its definition.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::arguments::Cli;
use super::exit::{CliError, EXIT_HELP, Exit};
use super::output;

/// Prints the completions for `shell`.
pub(super) fn completions(shell: Shell) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "baton", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}

/// Writes `baton.1` and a page for each verb into `folder`.
pub(super) fn pages(folder: &Path) -> Result<Exit, CliError> {
    let failed = |cause| CliError::Write { path: folder.to_owned(), cause };
    fs::create_dir_all(folder).map_err(failed)?;
    // The terminal's width does not matter here: `man` breaks lines itself.
    let mut command = Cli::command().disable_help_subcommand(true);
    // Gives the verbs their full names.
    command.build();
    for page in command.get_subcommands().chain([&command]) {
        write_page(folder, page.clone()).map_err(failed)?;
    }
    Ok(Exit::Ok)
}

fn write_page(folder: &Path, command: clap::Command) -> std::io::Result<()> {
    let mut page = Vec::new();
    let command = if command.get_after_help().is_some_and(|text| text.to_string().contains(EXIT_HELP)) {
        command
    } else {
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        command.after_help(format!("{after}\n\n{EXIT_HELP}"))
    };
    let manual = clap_mangen::Man::new(command);
    manual.render(&mut page)?;
    fs::write(folder.join(manual.get_filename()), page)
}
