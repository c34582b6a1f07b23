//! The record of one `baton up`, and the lock that shows that its process lives.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use schema::ClusterName;
use serde::{Deserialize, Serialize};

use super::limits::RECORD_BYTES_MAX;

/// A process of `baton up`, as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpRecord {
    /// The cluster.
    pub cluster: ClusterName,
    /// The process.
    pub pid: u32,
    /// The machine: a home may be a network's, and processes are not.
    pub host: String,
    /// The addresses of its embedded store, once that answers. Empty with a store of its own (`--etcd`).
    #[serde(default)]
    pub embedded_store: Vec<String>,
    /// The address of its HTTP server, once that answers.
    #[serde(default)]
    pub http: Option<SocketAddr>,
    /// True if its HTTP server asks for an API key.
    #[serde(default)]
    pub asks_key: bool,
    /// True if its HTTP server speaks https.
    #[serde(default)]
    pub speaks_https: bool,
    /// True if it made the cluster key, and keeps it in the folder of its cluster.
    #[serde(default)]
    pub made_key: bool,
    /// The file of its model, once that is known.
    #[serde(default)]
    pub model_file: Option<PathBuf>,
    /// The process whose store and HTTP server it uses, if that is another `baton up` of this machine.
    #[serde(default)]
    pub neighbour: Option<u32>,
    /// Memory that its stages may come to take together, in bytes. 0 until it is known, and in the records of older
    /// versions.
    #[serde(default)]
    pub memory_promised_bytes: u64,
}

/// The right to be found. Dropping it deletes the record.
#[derive(Debug)]
pub struct UpLock {
    path: PathBuf,
    file: File,
    record: UpRecord,
}

/// A process that lives.
#[derive(Debug)]
pub struct RunningUp {
    /// Its record.
    pub record: UpRecord,
    file: File,
}

// === impl UpRecord ===

impl UpRecord {
    /// The record of the process `pid` that has just started.
    pub fn new(cluster: ClusterName, pid: u32, host: &str) -> Self {
        Self {
            cluster,
            pid,
            host: host.to_owned(),
            embedded_store: Vec::new(),
            http: None,
            asks_key: false,
            speaks_https: false,
            made_key: false,
            model_file: None,
            neighbour: None,
            memory_promised_bytes: 0,
        }
    }
}

// === impl UpLock ===

impl UpLock {
    pub(super) fn new(path: PathBuf, file: File, record: UpRecord) -> Self {
        Self { path, file, record }
    }

    /// Changes the record.
    ///
    /// # Errors
    /// The operating system's reason.
    pub fn note(&mut self, change: impl FnOnce(&mut UpRecord)) -> io::Result<()> {
        change(&mut self.record);
        write(&mut self.file, &self.record)
    }

    /// The record as it is now.
    pub(super) fn record(&self) -> &UpRecord {
        &self.record
    }
}

impl Drop for UpLock {
    fn drop(&mut self) {
        // A record that stays is one of a dead process, which others delete.
        let _ = std::fs::remove_file(&self.path);
    }
}

// === impl RunningUp ===

impl RunningUp {
    /// Reads the record in `file`, if the process that wrote it lives. `Ok(None)` if it does not.
    pub(super) fn read(file: File) -> io::Result<Option<Self>> {
        if has_ended(&file)? {
            return Ok(None);
        }
        let mut text = Vec::new();
        (&file).take(RECORD_BYTES_MAX).read_to_end(&mut text)?;
        Ok(Some(Self { record: serde_json::from_slice(&text)?, file }))
    }

    /// True if the process has ended.
    ///
    /// # Errors
    /// The operating system's reason.
    pub fn has_ended(&self) -> io::Result<bool> {
        has_ended(&self.file)
    }
}

/// True if nobody holds the lock on `file`.
fn has_ended(file: &File) -> io::Result<bool> {
    match file.try_lock_shared() {
        Ok(()) => file.unlock().map(|()| true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Writes `record` in the place of what was there.
pub(super) fn write(file: &mut File, record: &UpRecord) -> io::Result<()> {
    let text = serde_json::to_vec(record)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&text)?;
    file.set_len(text.len() as u64)
}
