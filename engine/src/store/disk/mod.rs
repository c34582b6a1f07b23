//! The embedded store's file: an embedded database (redb) that holds the keys, the leases and the revision.
//!
//! Each [`Batch`] is one transaction of the database, on disk when [`Disk::write`] returns. This module knows nothing
//! of the state machine's rules and nothing of who waits.

mod error;
mod tables;

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableError};

pub use self::error::DiskError;
use self::tables::{COMMIT, FORMAT, LEASES, META, RECORDS, REVISION, VERSION};
use super::limits::DISK_CACHE_BYTES;
use super::state::Record;

/// The open file. No other process can open it meanwhile.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    /// Absent between an error and the next successful opening: the database takes nothing more after an error.
    database: Option<Database>,
}

/// A lease as it is kept: its end is a time of day, because it outlives the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeptLease {
    pub ttl_seconds: i64,
    /// Milliseconds since 1970.
    pub deadline_ms: u64,
}

/// Everything in a file.
#[derive(Debug, Default)]
pub(super) struct Image {
    pub records: Vec<Record>,
    pub leases: Vec<(i64, KeptLease)>,
    pub revision: i64,
    /// The number of the batch that was written last.
    pub commit: u64,
}

/// A change: the new values of some keys and leases, `None` for those that are gone.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub records: Vec<(Vec<u8>, Option<Arc<Record>>)>,
    pub leases: Vec<(i64, Option<KeptLease>)>,
    pub revision: i64,
    /// Its number: one more than that of the batch before.
    pub commit: u64,
}

// === impl Disk ===

impl Disk {
    /// Opens the file at `path`, which is made if it is missing, and reads it. Only its owner can read it.
    pub(super) fn open(path: &Path) -> Result<(Self, Image), DiskError> {
        if let Some(folder) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|cause| DiskError::io("make the folder of", path, cause))?;
        }
        let mut disk = Self { path: path.to_owned(), database: None };
        let image = disk.reopen()?;
        Ok((disk, image))
    }

    /// Opens the file again after an error, and reads it.
    pub(super) fn reopen(&mut self) -> Result<Image, DiskError> {
        self.database = None;
        // The database checks what it reads by checksums, but not every byte: a damaged file must not end the process.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let database = open_database(&self.path)?;
            let image = load(&database, &self.path)?;
            Ok((database, image))
        }));
        let (database, image) = opened.unwrap_or_else(|_| Err(DiskError::damaged(&self.path, "its pages")))?;
        self.database = Some(database);
        Ok(image)
    }

    /// False after an error, until it is opened again.
    pub(super) fn is_open(&self) -> bool {
        self.database.is_some()
    }

    /// Writes a batch. When this returns, it is on disk. After an error it may be there or not: [`Disk::reopen`] tells.
    pub(super) fn write(&mut self, batch: &Batch) -> Result<(), DiskError> {
        let Some(database) = &self.database else { return Err(DiskError::Closed { path: self.path.clone() }) };
        let written = write(database, batch);
        if written.is_err() {
            self.database = None;
        }
        written.map_err(|cause| DiskError::database("write", &self.path, cause))
    }
}

fn open_database(path: &Path) -> Result<Database, DiskError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file: File = file.map_err(|cause| DiskError::io("open", path, cause))?;
    let opened = Database::builder().set_cache_size(DISK_CACHE_BYTES).create_file(file);
    opened.map_err(|cause| DiskError::database("open", path, cause.into()))
}

/// Reads everything. An empty database gets its format first.
fn load(database: &Database, path: &Path) -> Result<Image, DiskError> {
    let failed = |cause| DiskError::database("read", path, cause);
    let reading = database.begin_read().map_err(|cause| failed(cause.into()))?;
    let meta = match reading.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_)) => {
            begin(database).map_err(failed)?;
            return Ok(Image { revision: 1, ..Image::default() });
        }
        Err(cause) => return Err(failed(cause.into())),
    };
    let number = |name| Ok::<_, redb::Error>(meta.get(name)?.map_or(0, |value| value.value()));
    let found = number(FORMAT).map_err(failed)?;
    if found != VERSION {
        return Err(DiskError::Format { path: path.to_owned(), found, expected: VERSION });
    }
    let read = || -> Result<Image, redb::Error> {
        let mut image = Image {
            revision: i64::try_from(number(REVISION)?).unwrap_or(i64::MAX),
            commit: number(COMMIT)?,
            ..Image::default()
        };
        for entry in reading.open_table(RECORDS)?.iter()? {
            let (key, value) = entry?;
            let (create_revision, mod_revision, version, lease, bytes) = value.value();
            image.records.push(Record {
                key: key.value().to_vec(),
                value: bytes.to_vec(),
                create_revision,
                mod_revision,
                version,
                lease,
            });
        }
        for entry in reading.open_table(LEASES)?.iter()? {
            let (id, value) = entry?;
            let (ttl_seconds, deadline_ms) = value.value();
            image.leases.push((id.value(), KeptLease { ttl_seconds, deadline_ms }));
        }
        Ok(image)
    };
    read().map_err(failed)
}

/// Makes the tables of a new file.
fn begin(database: &Database) -> Result<(), redb::Error> {
    let writing = database.begin_write()?;
    {
        let mut meta = writing.open_table(META)?;
        meta.insert(FORMAT, VERSION)?;
        meta.insert(REVISION, 1)?;
        writing.open_table(RECORDS)?;
        writing.open_table(LEASES)?;
    }
    Ok(writing.commit()?)
}

fn write(database: &Database, batch: &Batch) -> Result<(), redb::Error> {
    let writing = database.begin_write()?;
    {
        let mut records = writing.open_table(RECORDS)?;
        for (key, record) in &batch.records {
            match record {
                Some(record) => {
                    let Record { create_revision, mod_revision, version, lease, value, .. } = &**record;
                    let value = (*create_revision, *mod_revision, *version, *lease, value.as_slice());
                    records.insert(key.as_slice(), value)?;
                }
                None => drop(records.remove(key.as_slice())?),
            }
        }
        let mut leases = writing.open_table(LEASES)?;
        for (id, lease) in &batch.leases {
            match lease {
                Some(KeptLease { ttl_seconds, deadline_ms }) => drop(leases.insert(id, (*ttl_seconds, *deadline_ms))?),
                None => drop(leases.remove(id)?),
            }
        }
        let mut meta = writing.open_table(META)?;
        meta.insert(REVISION, batch.revision.unsigned_abs())?;
        meta.insert(COMMIT, batch.commit)?;
    }
    Ok(writing.commit()?)
}

#[cfg(test)]
mod tests;
