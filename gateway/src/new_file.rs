//! Files that appear under their names whole or not at all.

use std::io::{self, Write as _};
use std::path::Path;

use tempfile::NamedTempFile;

/// A file in `folder` that only its user can read (temporary files are made with mode 600), with `bytes` in it, that
/// outlast a loss of power. It gets its name when it is persisted, and is removed if it is not.
pub(crate) fn written(folder: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}
