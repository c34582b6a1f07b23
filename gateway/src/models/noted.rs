//! Notes about model files outside the cache that a cluster of this user serves: a file named by its path is found
//! again by its fingerprint, because no other process knows the path.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use schema::Fingerprint;

use super::cache::Cache;

/// Longest path that is read from a note, in bytes: that of Linux and macOS.
const PATH_BYTES_MAX: u64 = 4096;

/// The note about `fingerprint`. `None` if that cannot name a file: it may come from another machine.
fn note(fingerprint: &Fingerprint, cache: &Cache) -> Option<PathBuf> {
    let is_plain = !fingerprint.0.is_empty() && fingerprint.0.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_plain.then(|| cache.paths_folder().join(&fingerprint.0))
}

/// Notes that the model with `fingerprint` is at `path`.
///
/// # Errors
/// The operating system's reason.
pub fn note_path(path: &Path, fingerprint: &Fingerprint, cache: &Cache) -> io::Result<()> {
    let path = path.canonicalize()?;
    let note = note(fingerprint, cache).ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(cache.paths_folder())?;
    let mut file = tempfile::NamedTempFile::new_in(cache.paths_folder())?;
    io::Write::write_all(&mut file, path.as_os_str().as_encoded_bytes())?;
    file.persist(note).map(drop).map_err(|error| error.error)
}

/// The path that was noted for `fingerprint`, if there is something. The caller compares the fingerprint.
pub fn noted_path(fingerprint: &Fingerprint, cache: &Cache) -> Option<PathBuf> {
    let note = note(fingerprint, cache)?;
    let is_short = fs::metadata(&note).is_ok_and(|found| found.len() <= PATH_BYTES_MAX);
    let path = is_short.then(|| fs::read_to_string(note).ok()).flatten().map(PathBuf::from)?;
    path.exists().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Access;

    #[test]
    fn a_path_is_found_by_the_fingerprint_as_long_as_something_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("cache"), Access::default());
        let path = folder.path().join("m.gguf");
        fs::write(&path, "m").unwrap();
        let known = Fingerprint("5b1f".to_owned());
        assert_eq!(noted_path(&known, &cache), None);
        note_path(&path, &known, &cache).unwrap();
        assert_eq!(noted_path(&known, &cache), Some(path.canonicalize().unwrap()));
        assert!(note_path(&path, &Fingerprint("../5b1f".to_owned()), &cache).is_err());
        fs::remove_file(&path).unwrap();
        assert_eq!(noted_path(&known, &cache), None);
    }
}
