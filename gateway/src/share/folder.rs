//! The folder of one cluster on this machine: its keys and certificates, and the store's file where this machine
//! carries the store. All of it is readable by its user only.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use schema::ClusterName;

use super::limits::FILE_BYTES_MAX;
use crate::new_file;

/// A cluster's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterFolder(PathBuf);

/// A file in the folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The operating system failed.
    #[error("cannot {doing} {path}", path = path.display())]
    Io {
        /// The deed.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        cause: io::Error,
    },
    /// Its contents are not what baton wrote.
    #[error("{path} is not usable: expected {expected}, as baton wrote it", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The contents that it should have.
        expected: &'static str,
    },
}

// === impl ClusterFolder ===

impl ClusterFolder {
    /// The certificate of the cluster's authority.
    pub(super) const AUTHORITY: &'static str = "authority.pem";
    /// The authority's key, on the machine that carries the store.
    pub(super) const AUTHORITY_KEY: &'static str = "authority.key";
    /// The certificate that this machine shows to the store, and its key.
    pub(super) const CLIENT: &'static str = "client.pem";
    pub(super) const CLIENT_KEY: &'static str = "client.key";
    /// The cluster key.
    pub(super) const CLUSTER_KEY: &'static str = "cluster.key";
    /// The address at which the cluster is shared, on the machine that carries the store.
    pub(super) const SHARE_ADDRESS: &'static str = "share.address";
    /// The address of the store, on a machine that joined.
    pub(super) const STORE_ADDRESS: &'static str = "store.address";

    /// The folder of `cluster` below the folder of this user's state.
    pub fn new(state: &Path, cluster: &ClusterName) -> Self {
        Self(state.join("clusters").join(cluster.as_str()))
    }

    /// The path of one of its files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The store's file.
    pub fn store(&self) -> PathBuf {
        self.path("store.redb")
    }

    /// Makes the folder.
    pub(super) fn make(&self) -> Result<(), FolderError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
        made.map_err(|cause| FolderError::Io { doing: "make the folder", path: self.0.clone(), cause })
    }

    /// The text of a file, if it is there.
    pub(super) fn read(&self, name: &str) -> Result<Option<String>, FolderError> {
        let path = self.path(name);
        let mut text = String::new();
        match File::open(&path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text)) {
            Ok(_) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(FolderError::Io { doing: "read", path, cause }),
        }
    }

    /// Writes a file that only this user can read. It is replaced whole or not at all.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), FolderError> {
        let path = self.path(name);
        let failed = |cause| FolderError::Io { doing: "write", path: path.clone(), cause };
        let file = new_file::written(&self.0, text.as_bytes()).map_err(failed)?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// The text of a file, which `make` gives if it is missing. Of two processes that make one, the first wins.
    pub(super) fn read_or_make(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<String, FolderError>,
    ) -> Result<String, FolderError> {
        if let Some(text) = self.read(name)? {
            return Ok(text);
        }
        let path = self.path(name);
        let failed = |cause| FolderError::Io { doing: "write", path: path.clone(), cause };
        let text = make()?;
        match new_file::written(&self.0, text.as_bytes()).map_err(failed)?.persist_noclobber(&path) {
            Ok(_) => Ok(text),
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {
                self.read(name)?.ok_or_else(|| failed(ErrorKind::NotFound.into()))
            }
            Err(error) => Err(failed(error.error)),
        }
    }

    /// An error about the contents of one of its files.
    pub(super) fn unusable(&self, name: &str, expected: &'static str) -> FolderError {
        FolderError::Content { path: self.path(name), expected }
    }
}
