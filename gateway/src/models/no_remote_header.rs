//! Stands in for `remote_header.rs` in a build without the feature `hub`: no header can be read.

use std::path::Path;

use super::cache::Cache;
use super::catalogue::Entry;
use super::error::ModelError;
use super::file_url::FileUrl;
use super::source::{HubFile, HubRepository};

/// The headers of a model at a hub, of which this build has none.
#[derive(Debug)]
pub enum RemoteHeader {}

// === impl RemoteHeader ===

impl RemoteHeader {
    /// Refuses: this build reads no hub.
    ///
    /// # Errors
    /// [`ModelError::NoHub`] always.
    pub fn of_file(file: &HubFile, _: &Cache) -> Result<Self, ModelError> {
        Err(ModelError::NoHub { file: file.to_string() })
    }

    /// Refuses: this build reads no hub.
    ///
    /// # Errors
    /// [`ModelError::NoHub`] always.
    pub fn of_repository(repository: &HubRepository, _: &Cache) -> Result<Self, ModelError> {
        Err(ModelError::NoHub { file: repository.to_string() })
    }

    /// Refuses: this build reads no hub.
    ///
    /// # Errors
    /// [`ModelError::NoHub`] always.
    pub fn of_entry(entry: &Entry, _: &Cache) -> Result<Self, ModelError> {
        Err(ModelError::NoHub { file: entry.name.clone() })
    }

    /// Refuses: this build reads no web server.
    ///
    /// # Errors
    /// [`ModelError::NoHub`] always.
    pub fn of_url(url: &FileUrl) -> Result<Self, ModelError> {
        Err(ModelError::NoHub { file: url.to_string() })
    }

    /// The file or the folder to open.
    pub fn path(&self) -> &Path {
        match *self {}
    }

    /// The place where the model is.
    pub fn source(&self) -> &str {
        match *self {}
    }

    /// Bytes that were fetched.
    pub fn bytes(&self) -> u64 {
        match *self {}
    }
}
