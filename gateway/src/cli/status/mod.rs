//! `baton status`: the records of the cluster in the store, as text and as JSON.

mod document;
#[cfg(test)]
pub(in crate::cli) mod fixture;
mod link_table;
mod pin_table;
mod speed_table;
mod stage_line;
mod stage_table;
mod text;

pub use document::StatusDocument;
pub(super) use link_table::gigabits;
pub use text::render;

use super::cluster;
use super::exit::{CliError, Exit};
use super::output;
use crate::settings::ClusterSettings;

/// Reads the cluster and prints it.
pub(super) async fn run(settings: &ClusterSettings, json: bool) -> Result<Exit, CliError> {
    let view = cluster::read_once(settings).await?;
    let document = StatusDocument::new(settings.cluster.as_str(), &view);
    let text = if json { output::json(&document)? } else { render(&document) };
    output::print(&text)?;
    Ok(Exit::Ok)
}
