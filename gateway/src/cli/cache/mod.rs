//! `baton cache`: the models on this machine, whole ones and those of which only some layers are here; checks and
//! removes them.

mod entry;
#[cfg_attr(not(feature = "tls"), path = "no_partial.rs")]
mod partial;
mod prune;
mod verify;

use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};

use self::entry::{Entry, EntryDocument};
use super::exit::{CliError, Exit};
use super::output;
use super::table::Table;
use crate::models::Cache;

/// The arguments of `baton cache`.
#[derive(Debug, Args)]
pub struct CacheArguments {
    #[command(subcommand)]
    deed: CacheDeed,
}

/// The deed.
#[derive(Debug, Subcommand)]
pub enum CacheDeed {
    /// Show the models on this machine: their bytes, which layers are here, and when they were last used
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Compare models with the hashes that are known of them; the status is 1 if one is wrong
    Verify {
        /// The model, by its name in the list [default: all in baton's own cache]
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove the models that no process of this machine uses; those of other programs stay
    Prune {
        /// Only this model, by its name in the list
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
        /// Remove without asking
        #[arg(long, short)]
        yes: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Does what is asked.
pub(super) fn run(arguments: CacheArguments, cache: &Cache) -> Result<Exit, CliError> {
    match arguments.deed {
        CacheDeed::List { json } => {
            let documents: Vec<_> = Entry::list(cache).iter().map(Entry::document).collect();
            output::print(&if json { output::json(&documents)? } else { table(&documents) })?;
            Ok(Exit::Ok)
        }
        CacheDeed::Verify { name, json } => verify::run(&named(Entry::list(cache), name)?, cache, json),
        CacheDeed::Prune { name, dry_run, yes, json } => {
            prune::run(named(Entry::list(cache), name)?, cache, prune::Form { dry_run, yes, json })
        }
    }
}

/// The models that are named: all of the cache's own if none is.
fn named(entries: Vec<Entry>, name: Option<String>) -> Result<Vec<Entry>, CliError> {
    let Some(name) = name else { return Ok(entries.into_iter().filter(Entry::is_own).collect()) };
    let known: Vec<_> = entries.iter().map(|entry| entry.name().to_owned()).collect();
    let named: Vec<_> = entries.into_iter().filter(|entry| entry.name() == name).collect();
    if named.is_empty() { Err(CliError::NotCached { name, known }) } else { Ok(named) }
}

fn table(documents: &[EntryDocument]) -> String {
    if documents.is_empty() {
        return "no model is on this machine; `baton pull` fetches one\n".to_owned();
    }
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let mut table = Table::new(&["NAME", "ON DISK", "OF", "LAYERS", "LAST USE", "PATH"]);
    for document in documents {
        let used = match (document.in_use, document.last_used_s) {
            (true, _) => "in use".to_owned(),
            (false, Some(last)) => format!("{} ago", output::time(now_s.saturating_sub(last))),
            (false, None) => "-".to_owned(),
        };
        table.row([
            document.name.clone(),
            output::bytes(document.disk_bytes),
            output::bytes(document.bytes),
            document.layers_text(),
            used,
            document.path.display().to_string(),
        ]);
    }
    table.render()
}
