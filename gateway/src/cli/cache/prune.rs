//! `baton cache prune`: removes the models that no process of this machine uses.

use std::io::{BufRead, IsTerminal, stdin};

use serde::Serialize;

use super::entry::{Entry, EntryDocument};
use crate::cli::exit::{CliError, Exit};
use crate::cli::output;
use crate::models::Cache;

/// The way in which it is done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    pub(super) dry_run: bool,
    pub(super) yes: bool,
    pub(super) json: bool,
}

/// The outcome.
#[derive(Debug, Serialize)]
struct PruneDocument {
    dry_run: bool,
    /// Bytes that were freed, or would be.
    freed_bytes: u64,
    removed: Vec<EntryDocument>,
    kept: Vec<EntryDocument>,
}

/// Removes those of `entries` that nobody uses.
pub(super) fn run(entries: Vec<Entry>, cache: &Cache, form: Form) -> Result<Exit, CliError> {
    let unused = |entry: &Entry| entry.is_own() && !entry.is_in_use();
    let (going, mut staying): (Vec<_>, Vec<_>) = entries.into_iter().partition(unused);
    let going: Vec<_> = going.into_iter().map(|entry| (entry.document(), entry)).collect();
    if !form.dry_run && !form.yes && !going.is_empty() && !is_confirmed(&going)? {
        output::print("nothing was removed\n")?;
        return Ok(Exit::Ok);
    }
    let mut removed = Vec::new();
    for (document, entry) in going {
        // It may have come into use since.
        if form.dry_run || entry.remove(cache)? { removed.push(document) } else { staying.push(entry) }
    }
    let freed_bytes = removed.iter().map(|document| document.disk_bytes).sum();
    let kept = staying.iter().map(Entry::document).collect();
    let document = PruneDocument { dry_run: form.dry_run, freed_bytes, removed, kept };
    output::print(&if form.json { output::json(&document)? } else { text(&document) })?;
    Ok(Exit::Ok)
}

/// Asks whether the models may be removed.
fn is_confirmed(going: &[(EntryDocument, Entry)]) -> Result<bool, CliError> {
    if !stdin().is_terminal() {
        return Err(CliError::Unconfirmed { models: going.len() });
    }
    let bytes: u64 = going.iter().map(|(document, _)| document.disk_bytes).sum();
    let lines: String = going.iter().map(|(document, _)| entry_line("", document)).collect();
    output::print(&format!("{lines}Remove these {} models, {}? [y/N] ", going.len(), output::bytes(bytes)))?;
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn text(document: &PruneDocument) -> String {
    let (removed, freed) = if document.dry_run { ("would remove ", "would free") } else { ("removed ", "freed") };
    let gone = document.removed.iter().map(|entry| entry_line(removed, entry));
    let kept =
        document.kept.iter().map(|entry| entry_line(if entry.in_use { "in use: " } else { "not ours: " }, entry));
    let lines: String = gone.chain(kept).collect();
    format!("{lines}{freed} {}\n", output::bytes(document.freed_bytes))
}

fn entry_line(what: &str, entry: &EntryDocument) -> String {
    let line = format!("{what}{}, {} ({})", entry.name, output::bytes(entry.disk_bytes), entry.path.display());
    output::replace_control_chars(&line) + "\n"
}
