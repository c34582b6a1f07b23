//! A model of the list, whole or in parts.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::partial::{self, PartialEntry};
use crate::models::{Cache, ModelError, WholeEntry, file_use};

/// Bytes of a block, as the system counts them for a file.
const BLOCK_BYTES: u64 = 512;

/// A model on this machine.
#[derive(Debug)]
pub(super) enum Entry {
    /// All of it is here.
    Whole(WholeEntry),
    /// Some layers are.
    Partial(PartialEntry),
}

/// A model as it is printed.
#[derive(Debug, Serialize)]
pub(super) struct EntryDocument {
    pub(super) name: String,
    kind: &'static str,
    pub(super) path: PathBuf,
    /// Length of the whole model, in bytes.
    pub(super) bytes: u64,
    /// Bytes that its files take.
    pub(super) disk_bytes: u64,
    /// The layers that are here, as runs; left out for a whole model.
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers_of_model: Option<u32>,
    /// The time at which a file of it was last read or written, in seconds of the epoch.
    pub(super) last_used_s: Option<u64>,
    pub(super) in_use: bool,
    /// True if `baton cache prune` may remove it: it lies in baton's cache.
    own: bool,
}

// === impl Entry ===

impl Entry {
    /// All models on this machine: whole ones by name, then those in parts.
    pub(super) fn list(cache: &Cache) -> Vec<Self> {
        let whole = WholeEntry::list(cache).into_iter().map(Self::Whole);
        whole.chain(partial::list(cache).into_iter().map(Self::Partial)).collect()
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Whole(entry) => &entry.name,
            Self::Partial(entry) => &entry.name,
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Whole(entry) => &entry.path,
            Self::Partial(entry) => &entry.folder,
        }
    }

    fn files(&self) -> &[PathBuf] {
        match self {
            Self::Whole(entry) => &entry.files,
            Self::Partial(entry) => &entry.files,
        }
    }

    /// True if it lies in baton's own cache.
    pub(super) fn is_own(&self) -> bool {
        match self {
            Self::Whole(entry) => entry.is_own,
            Self::Partial(_) => true,
        }
    }

    /// True if a process uses it.
    pub(super) fn is_in_use(&self) -> bool {
        file_use::take_all(self.files()).is_none()
    }

    /// Removes it. Returns true if it was, and false if a process uses it.
    pub(super) fn remove(&self, cache: &Cache) -> Result<bool, ModelError> {
        match self {
            Self::Whole(entry) => entry.remove(),
            Self::Partial(entry) => entry.remove(cache),
        }
    }

    pub(super) fn document(&self) -> EntryDocument {
        let metadata: Vec<_> = self.files().iter().filter_map(|file| fs::metadata(file).ok()).collect();
        let (kind, layers, layers_of_model) = match self {
            Self::Whole(_) => ("whole", None, None),
            Self::Partial(entry) => {
                let runs = entry.layers.iter().map(ToString::to_string).collect();
                ("partial", Some(runs), Some(entry.layers_of_model))
            }
        };
        let used = metadata.iter().map(|metadata| metadata.atime().max(metadata.mtime())).max();
        EntryDocument {
            name: self.name().to_owned(),
            kind,
            path: self.path().to_owned(),
            bytes: metadata.iter().map(fs::Metadata::len).sum(),
            disk_bytes: metadata.iter().map(|metadata| metadata.blocks() * BLOCK_BYTES).sum(),
            layers,
            layers_of_model,
            last_used_s: used.and_then(|used| u64::try_from(used).ok()),
            in_use: self.is_in_use(),
            own: self.is_own(),
        }
    }
}

// === impl EntryDocument ===

impl EntryDocument {
    /// The layers that are here, for people.
    pub(super) fn layers_text(&self) -> String {
        match (&self.layers, self.layers_of_model) {
            (Some(_), Some(0)) => "its header is not here".to_owned(),
            (Some(runs), Some(of)) if runs.is_empty() => format!("none of {of}"),
            (Some(runs), Some(of)) => format!("{} of {of}", runs.join(" ")),
            _ => "all".to_owned(),
        }
    }
}
