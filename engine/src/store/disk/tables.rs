//! The tables of the file. A change here is a new [`VERSION`], which an older baton refuses.

use redb::TableDefinition;

/// The version of what the tables mean.
pub(super) const VERSION: u64 = 1;

/// Numbers by name: [`FORMAT`], [`REVISION`] and [`COMMIT`].
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// The version of the tables, under this name in every version.
pub(super) const FORMAT: &str = "format";
/// The store's revision.
pub(super) const REVISION: &str = "revision";
/// The number of the batch that was written last.
pub(super) const COMMIT: &str = "commit";

/// Keys with the revision of their creation and of their last write, their version, their lease (0 for none), and their
/// value.
pub(super) const RECORDS: TableDefinition<&[u8], (i64, i64, i64, i64, &[u8])> = TableDefinition::new("records");

/// Leases by id, with their time to live in seconds, and their end in milliseconds since 1970.
pub(super) const LEASES: TableDefinition<i64, (i64, u64)> = TableDefinition::new("leases");
