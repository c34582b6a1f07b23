//! Files of models that are in use: a process that computes with a model holds a shared lock on its files, and only
//! whoever gets the exclusive one may cut or remove them. A mapped file that becomes shorter ends its process.

use std::fs::{File, TryLockError};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use stages::weights::ModelFile;
use tracing::debug;

/// Longest wait for one that has a file alone: it looks, cuts or removes, which takes milliseconds.
const HOLD_WAIT_MAX: Duration = Duration::from_secs(5);
/// Pause between two tries.
const HOLD_POLL: Duration = Duration::from_millis(2);

/// Marks the files of `model` as used, for as long as it or a clone of it is open.
pub(crate) fn hold(model: &ModelFile) {
    model.files().for_each(hold_file);
}

/// Marks a file as used for as long as it is open. A file system without locks has no such mark.
pub(crate) fn hold_file(file: &File) {
    let started = Instant::now();
    loop {
        match file.try_lock_shared() {
            Ok(()) => return,
            Err(TryLockError::WouldBlock) if started.elapsed() < HOLD_WAIT_MAX => std::thread::sleep(HOLD_POLL),
            Err(error) => return debug!(%error, "a model's file cannot be marked as used"),
        }
    }
}

/// Takes the right to cut or remove `file`, until it is held or closed. False if a process uses it, or if nobody can
/// know.
pub(crate) fn take(file: &File) -> bool {
    file.try_lock().is_ok()
}

/// Takes the right to cut or remove all of `files`, until the result is dropped. `None` if a process uses one.
pub(crate) fn take_all(files: &[PathBuf]) -> Option<Vec<File>> {
    let open = files.iter().filter_map(|path| File::open(path).ok());
    open.map(|file| take(&file).then_some(file)).collect()
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
