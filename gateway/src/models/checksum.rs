//! SHA-256 of model files, and a checksum record next to each file.
//!
//! The record has the format of `sha256sum`, which `sha256sum -c` reads. It is valid only if it is not older than the
//! file.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::ModelError;

/// Bytes read or written at once: large enough for the disk, small enough for the processor's cache.
const CHUNK_BYTES: usize = 256 * 1024;

/// Copies at most `bytes_max` bytes from `from` into `to`. Returns the count and the SHA-256 (hex) of the copied bytes.
/// `on_chunk` receives the count so far and may stop the copy with an error.
pub(super) fn copy(
    from: &mut dyn Read,
    to: &mut dyn Write,
    bytes_max: u64,
    on_chunk: &mut dyn FnMut(u64) -> io::Result<()>,
) -> io::Result<(u64, String)> {
    let mut from = from.take(bytes_max);
    let mut digest = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut copied = 0;
    loop {
        let count = match from.read(&mut chunk) {
            Ok(0) => return Ok((copied, hex(&digest.finalize()))),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        digest.update(&chunk[..count]);
        to.write_all(&chunk[..count])?;
        copied += count as u64;
        on_chunk(copied)?;
    }
}

/// The SHA-256 of a file, in hex.
pub(super) fn of_file(path: &Path) -> Result<String, ModelError> {
    let mut file = File::open(path).map_err(|error| ModelError::io("read", path, error))?;
    let (_, sha256) = copy(&mut file, &mut io::sink(), u64::MAX, &mut |_| Ok(()))
        .map_err(|error| ModelError::io("read", path, error))?;
    Ok(sha256)
}

/// Bytes as lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Path of the checksum record of `path`.
pub(super) fn record_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sha256");
    name.into()
}

/// Writes `sha256` into the checksum record of `path`.
pub(super) fn record(path: &Path, sha256: &str) -> Result<(), ModelError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let at = record_path(path);
    fs::write(&at, format!("{sha256}  {name}\n")).map_err(|error| ModelError::io("write", at, error))
}

/// The SHA-256 in the checksum record of `path`. `None` without a record, or if the file was changed after it.
pub(super) fn recorded(path: &Path) -> Option<String> {
    let at = record_path(path);
    let recorded_at = fs::metadata(&at).ok()?.modified().ok()?;
    let changed = fs::metadata(path).ok()?.modified().ok()?;
    (recorded_at >= changed).then(|| written(path)).flatten()
}

/// The SHA-256 in the checksum record of `path`, whether or not the file was changed after it.
pub(super) fn written(path: &Path) -> Option<String> {
    let text = fs::read_to_string(record_path(path)).ok()?;
    let sha256 = text.split_whitespace().next()?;
    is_sha256(sha256).then(|| sha256.to_owned())
}

/// True if `text` is 64 lower-case hex digits.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    const OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_copy_counts_and_digests_what_it_copied() {
        let mut to = Vec::new();
        let copied = copy(&mut &b"abcdef"[..], &mut to, 3, &mut |_| Ok(())).unwrap();
        assert_eq!((copied, to.as_slice()), ((3, OF_ABC.to_owned()), &b"abc"[..]));
    }

    #[test]
    fn a_record_is_valid_until_the_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        fs::write(&path, b"abc").unwrap();
        assert_eq!(recorded(&path), None);
        record(&path, &of_file(&path).unwrap()).unwrap();
        assert_eq!(recorded(&path).as_deref(), Some(OF_ABC));
        let later = SystemTime::now() + Duration::from_secs(60);
        File::options().append(true).open(&path).unwrap().set_modified(later).unwrap();
        assert_eq!(recorded(&path), None);
    }
}
