//! Free space on the disk.

use std::path::Path;

use super::error::ModelError;

/// Fails if the file system of `folder` (which exists) has less than `needed_bytes` free for this user.
pub(crate) fn check(folder: &Path, needed_bytes: u64) -> Result<(), ModelError> {
    let free_bytes = free_bytes(folder)?;
    if free_bytes < needed_bytes {
        return Err(ModelError::Space { path: folder.to_owned(), needed_bytes, free_bytes });
    }
    Ok(())
}

fn free_bytes(folder: &Path) -> Result<u64, ModelError> {
    let status = rustix::fs::statvfs(folder)
        .map_err(|errno| ModelError::io("ask for the free space of", folder, errno.into()))?;
    Ok(status.f_bavail.saturating_mul(status.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_space_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        check(folder.path(), 1).unwrap();
        let error = check(folder.path(), u64::MAX).unwrap_err();
        assert!(matches!(error, ModelError::Space { needed_bytes: u64::MAX, .. }), "{error}");
    }
}
