//! `baton cache verify`: compares models with the hashes that are known of them.

use std::fs;

use serde::Serialize;
use stages::weights::ModelFile;

use super::entry::Entry;
use super::partial;
use crate::cli::exit::{CliError, Exit};
use crate::cli::output;
use crate::models::{Cache, Console, Progress as _, WholeEntry};

/// The outcome of a comparison.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The thing that it was compared with.
    pub(super) by: &'static str,
    pub(super) bytes: u64,
    pub(super) bytes_not_checked: u64,
    /// A sentence for each wrong place.
    pub(super) wrong: Vec<String>,
}

/// The outcome for a model, as it is printed.
#[derive(Debug, Serialize)]
struct VerifyDocument {
    name: String,
    path: std::path::PathBuf,
    /// `sound`, `wrong`, or `unknown` if no hash is known.
    state: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    compared_with: &'static str,
    bytes_checked: u64,
    bytes_not_checked: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    wrong: Vec<String>,
}

/// Compares `entries` and prints what was found.
pub(super) fn run(entries: &[Entry], cache: &Cache, json: bool) -> Result<Exit, CliError> {
    let mut documents = Vec::new();
    for entry in entries {
        let document = verify(entry, cache);
        if !json {
            output::print(&line(&document))?;
        }
        documents.push(document);
    }
    if json {
        output::print(&output::json(&documents)?)?;
    } else if documents.is_empty() {
        output::print("there is no model in the cache\n")?;
    }
    let all_sound = documents.iter().all(|document| document.state != "wrong");
    Ok(if all_sound { Exit::Ok } else { Exit::Failed })
}

fn verify(entry: &Entry, cache: &Cache) -> VerifyDocument {
    let mut console = Console::new();
    let printed = entry.document();
    console.begin(&format!("checking {}", printed.name), printed.disk_bytes);
    let mut done = 0;
    let mut progress = |bytes| {
        done += bytes;
        console.at(done);
    };
    let outcome = match entry {
        Entry::Whole(whole) => check_whole(whole, cache, &mut progress),
        Entry::Partial(part) => partial::check(part, &mut progress),
    };
    console.end();
    // What cannot be read is wrong, too.
    let outcome = outcome.unwrap_or_else(|reason| Outcome { wrong: vec![reason], ..Outcome::default() });
    let state = match (outcome.wrong.is_empty(), outcome.bytes) {
        (false, _) => "wrong",
        (true, 0) => "unknown",
        (true, _) => "sound",
    };
    VerifyDocument {
        name: printed.name,
        path: printed.path,
        state,
        compared_with: outcome.by,
        bytes_checked: outcome.bytes,
        bytes_not_checked: outcome.bytes_not_checked,
        wrong: outcome.wrong,
    }
}

/// Compares a whole model with its checksums, or else with the manifest that was kept of it. Without either, only its
/// headers and lengths are checked.
fn check_whole(entry: &WholeEntry, cache: &Cache, progress: &mut dyn FnMut(u64)) -> Result<Outcome, String> {
    let file = ModelFile::open(&entry.path).map_err(|error| output::chain(&error))?;
    let known = entry.known();
    if known.is_empty() {
        let by_manifest = partial::check_by_manifest(cache, &file, progress);
        return by_manifest.unwrap_or(Ok(Outcome { bytes_not_checked: file.bytes(), ..Outcome::default() }));
    }
    let mut outcome = Outcome { by: "SHA-256", ..Outcome::default() };
    for path in &entry.files {
        let bytes = fs::metadata(path).map_or(0, |metadata| metadata.len());
        let Some((_, sha256)) = known.iter().find(|(known, _)| known == path) else {
            outcome.bytes_not_checked += bytes;
            continue;
        };
        outcome.wrong.extend(WholeEntry::check(path, sha256).map_err(|error| output::chain(&error))?);
        outcome.bytes += bytes;
        progress(bytes);
    }
    Ok(outcome)
}

fn line(document: &VerifyDocument) -> String {
    let VerifyDocument { name, state, compared_with, bytes_checked, bytes_not_checked, .. } = document;
    let checked = match *state {
        "unknown" => "no hash of it is known; its header and its lengths are sound".to_owned(),
        _ if compared_with.is_empty() => "it cannot be read".to_owned(),
        _ => {
            let rest = match bytes_not_checked {
                0 => String::new(),
                bytes => format!(", {} not, which no hash covers alone", output::bytes(*bytes)),
            };
            format!("{} compared with {compared_with}{rest}", output::bytes(*bytes_checked))
        }
    };
    let wrong: String = document.wrong.iter().map(|wrong| format!("  {wrong}\n")).collect();
    output::replace_control_chars(&format!("{name}: {state} ({checked})")) + "\n" + &wrong
}
