//! Models in parts, in a build without TLS, which fetches none.

use std::path::PathBuf;

use schema::LayerRange;
use stages::weights::ModelFile;

use super::verify::Outcome;
use crate::models::{Cache, ModelError};

/// A model of which parts are here, which there is none of.
#[derive(Debug)]
pub(super) struct PartialEntry {
    pub(super) name: String,
    pub(super) folder: PathBuf,
    pub(super) files: Vec<PathBuf>,
    pub(super) bytes: u64,
    pub(super) layers: Vec<LayerRange>,
    pub(super) layers_of_model: u32,
    never: std::convert::Infallible,
}

// === impl PartialEntry ===

impl PartialEntry {
    pub(super) fn remove(&self, _: &Cache) -> Result<bool, ModelError> {
        match self.never {}
    }
}

pub(super) fn list(_: &Cache) -> Vec<PartialEntry> {
    Vec::new()
}

pub(super) fn check(entry: &PartialEntry, _: &mut dyn FnMut(u64)) -> Result<Outcome, String> {
    match entry.never {}
}

pub(super) fn check_by_manifest(_: &Cache, _: &ModelFile, _: &mut dyn FnMut(u64)) -> Option<Result<Outcome, String>> {
    None
}
