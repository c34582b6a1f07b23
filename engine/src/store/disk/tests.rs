//! Batches go in and come out; files that are not ours, newer or damaged are refused by name.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn record(key: &str, revision: i64) -> Record {
    let (key, value) = (key.as_bytes().to_vec(), b"value".to_vec());
    Record { key, value, create_revision: 2, mod_revision: revision, version: 3, lease: 7 }
}

#[test]
fn what_was_written_is_read_and_what_was_deleted_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/store.redb");
    let (mut disk, image) = Disk::open(&path).unwrap();
    assert_eq!((image.revision, image.commit, image.records.len()), (1, 0, 0));
    let lease = KeptLease { ttl_seconds: 5, deadline_ms: 1_000 };
    let put = |key: &str| (key.as_bytes().to_vec(), Some(Arc::new(record(key, 4))));
    let leases = vec![(7, Some(lease)), (8, Some(lease))];
    disk.write(&Batch { records: vec![put("a"), put("b")], leases, revision: 4, commit: 1 }).unwrap();
    let gone = vec![(b"a".to_vec(), None)];
    disk.write(&Batch { records: gone, leases: vec![(8, None)], revision: 5, commit: 2 }).unwrap();
    drop(disk);
    let (_, image) = Disk::open(&path).unwrap();
    assert_eq!((image.revision, image.commit), (5, 2));
    assert_eq!((image.records, image.leases), (vec![record("b", 4)], vec![(7, lease)]));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(path.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_file_is_open_in_one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let (disk, _) = Disk::open(&path).unwrap();
    let error = Disk::open(&path).unwrap_err();
    assert!(matches!(error, DiskError::InUse { .. }), "{error}");
    drop(disk);
    Disk::open(&path).unwrap();
}

#[test]
fn a_file_of_a_newer_format_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    drop(Disk::open(&path).unwrap());
    let database = open_database(&path).unwrap();
    let writing = database.begin_write().unwrap();
    writing.open_table(META).unwrap().insert(FORMAT, 9).unwrap();
    writing.commit().unwrap();
    drop(database);
    let error = Disk::open(&path).unwrap_err().to_string();
    assert!(error.contains("has format 9: expected 1, so a newer baton wrote it"), "{error}");
}

#[test]
fn a_file_that_is_no_store_or_is_damaged_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let foreign = b"this is a diary\n".repeat(1000);
    std::fs::write(&path, &foreign).unwrap();
    let error = Disk::open(&path).unwrap_err();
    assert!(matches!(error, DiskError::Damaged { .. }), "{error:?}");
    assert_eq!(std::fs::read(&path).unwrap(), foreign);

    std::fs::remove_file(&path).unwrap();
    let (mut disk, _) = Disk::open(&path).unwrap();
    let records = (0..200).map(|at| format!("{at:03}")).map(|key| {
        let record = Arc::new(record(&key, 4));
        (key.into_bytes(), Some(record))
    });
    disk.write(&Batch { records: records.collect(), leases: vec![], revision: 4, commit: 1 }).unwrap();
    drop(disk);
    let whole = std::fs::read(&path).unwrap();
    // Whatever byte is damaged, the file is read as it was, as it was before its last batch, or refused; no panic.
    for at in (0..whole.len()).step_by(whole.len() / 200) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xff;
        std::fs::write(&path, &damaged).unwrap();
        let _ = Disk::open(&path);
    }
}
