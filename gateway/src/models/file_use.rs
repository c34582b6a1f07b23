//! Files of models that are in use: a process that computes with a model holds a shared lock on its files, and only
//! whoever gets the exclusive one may cut or remove them. A mapped file that becomes shorter ends its process.

use std::fs::File;

use stages::weights::ModelFile;
use tracing::debug;

/// Marks the files of `model` as used, for as long as it or a clone of it is open.
pub(crate) fn hold(model: &ModelFile) {
    model.files().for_each(hold_file);
}

/// Marks a file as used for as long as it is open. A file system without locks has no such mark.
pub(crate) fn hold_file(file: &File) {
    if let Err(error) = file.try_lock_shared() {
        debug!(%error, "a model's file cannot be marked as used");
    }
}

/// Takes the right to cut or remove `file`, until it is held or closed. False if a process uses it, or if nobody can
/// know.
pub(crate) fn take(file: &File) -> bool {
    file.try_lock().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_somebody_holds_cannot_be_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        std::fs::write(&path, b"GGUF").unwrap();
        let open = || File::open(&path).unwrap();
        let (first, second, third) = (open(), open(), open());
        assert!(take(&first));
        hold_file(&first);
        hold_file(&second);
        assert!(!take(&third));
        drop(first);
        assert!(!take(&third), "the second holds it still");
        drop(second);
        assert!(take(&third));
    }
}
