//! The folder of the records: `<cluster>.<process>.json`.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Instant;

use tempfile::NamedTempFile;

use super::limits::{FILES_MAX, POLL_INTERVAL, PROMISE_WAIT_MAX};
use super::promises::{Grant, Promise};
use super::record::{RunningUp, UpLock, UpRecord, write};

/// The file whose lock is the turn to promise memory.
const TURN: &str = "memory.lock";
/// The ending of a record's file.
const ENDING: &str = "json";

/// The folder below that of this user's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningFolder(PathBuf);

// === impl RunningFolder ===

impl RunningFolder {
    /// The folder below `state`.
    pub fn new(state: &Path) -> Self {
        Self(state.join("running"))
    }

    /// Writes the record of this process.
    ///
    /// # Errors
    /// The operating system's reason.
    pub fn enter(&self, record: UpRecord) -> io::Result<UpLock> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let path = self.0.join(format!("{}.{}.{ENDING}", record.cluster, record.pid));
        // It is locked before it has its name, so nobody takes it for that of a dead process.
        let mut file = NamedTempFile::new_in(&self.0)?;
        file.as_file().try_lock()?;
        write(file.as_file_mut(), &record)?;
        Ok(UpLock::new(path.clone(), file.persist(&path).map_err(|error| error.error)?, record))
    }

    /// Promises the memory that `grant` decides on, given what is promised on this machine already: by other processes,
    /// and `held` bytes by this one, beside which the new ones are. One process at a time decides. Returns what is
    /// decided.
    ///
    /// # Errors
    /// The operating system's reason, or that another process keeps the lock for longer than `PROMISE_WAIT_MAX`.
    pub fn promise<E>(
        &self,
        own: &mut UpLock,
        held: u64,
        grant: impl FnOnce(&[Promise]) -> Result<Grant, E>,
    ) -> io::Result<Result<Grant, E>> {
        let _turn = self.turn()?;
        let UpRecord { cluster, host, pid, .. } = own.record().clone();
        let others = self.running(&host)?.into_iter().map(|up| up.record);
        let others = others.filter(|other| other.pid != pid && other.memory_promised_bytes > 0);
        let promise = |UpRecord { cluster, pid, memory_promised_bytes, .. }| Promise {
            cluster,
            pid,
            bytes: memory_promised_bytes,
        };
        let own_promise = (held > 0).then_some(Promise { cluster, pid, bytes: held });
        let granted = grant(&others.map(promise).chain(own_promise).collect::<Vec<_>>());
        if let Ok(Grant { promised, .. }) = &granted {
            own.note(|record| record.memory_promised_bytes = held.saturating_add(*promised))?;
        }
        Ok(granted)
    }

    /// The turn of this process to promise memory, until the file is dropped.
    fn turn(&self) -> io::Result<File> {
        let file = File::options().create(true).truncate(false).write(true).open(self.0.join(TURN))?;
        let asked = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if asked.elapsed() < PROMISE_WAIT_MAX => sleep(POLL_INTERVAL),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The processes of this user that live on `host`, by cluster. Records of dead ones are deleted.
    ///
    /// # Errors
    /// The operating system's reason, if the folder cannot be read.
    pub fn running(&self, host: &str) -> io::Result<Vec<RunningUp>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let paths = paths.filter(|path| path.extension().is_some_and(|ending| ending == ENDING));
        let mut running = Vec::new();
        for path in paths.take(FILES_MAX) {
            match File::open(&path).and_then(RunningUp::read) {
                Ok(Some(up)) if up.record.host == host => running.push(up),
                Ok(Some(_)) => {}
                Ok(None) => drop(fs::remove_file(path)),
                // It has ended meanwhile, or is none that a baton wrote.
                Err(error) => tracing::debug!(path = %path.display(), %error, "a record of a process is passed over"),
            }
        }
        running.sort_by(|a, b| (&a.record.cluster, a.record.pid).cmp(&(&b.record.cluster, b.record.pid)));
        Ok(running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(cluster: &str, pid: u32) -> UpRecord {
        UpRecord::new(cluster.parse().unwrap(), pid, "mini-1")
    }

    fn names(folder: &RunningFolder) -> Vec<String> {
        let running = folder.running("mini-1").unwrap();
        running.iter().map(|up| format!("{} {}", up.record.cluster, up.record.pid)).collect()
    }

    #[test]
    fn a_record_lasts_as_long_as_its_process_holds_it() {
        let state = tempfile::tempdir().unwrap();
        let folder = RunningFolder::new(state.path());
        assert_eq!(names(&folder), [""; 0]);
        let mut home = folder.enter(record("home", 7)).unwrap();
        let lab = folder.enter(record("lab", 8)).unwrap();
        assert_eq!(names(&folder), ["home 7", "lab 8"]);
        home.note(|record| record.embedded_store = vec!["http://127.0.0.1:2379".to_owned()]).unwrap();
        let running = folder.running("mini-1").unwrap();
        assert_eq!(running[0].record.embedded_store, ["http://127.0.0.1:2379"]);
        assert!(!running[0].has_ended().unwrap());
        drop((home, lab));
        assert!(running[0].has_ended().unwrap());
        assert_eq!(names(&folder), [""; 0]);
    }

    #[test]
    fn a_promise_lasts_as_long_as_its_process() {
        let state = tempfile::tempdir().unwrap();
        let folder = RunningFolder::new(state.path());
        let mut home = folder.enter(record("home", 7)).unwrap();
        let mut lab = folder.enter(record("lab", 8)).unwrap();
        let promises = |own: &mut UpLock, bytes: u64| {
            let mut seen = Vec::new();
            let grant = |others: &[Promise]| {
                seen = others.iter().map(|other| (other.pid, other.bytes)).collect();
                if bytes == 0 { Err("refused") } else { Ok(Grant { budget: bytes, promised: bytes }) }
            };
            let granted = folder.promise(own, 0, grant).unwrap();
            (granted.is_ok(), seen)
        };
        assert_eq!(promises(&mut home, 5), (true, vec![]));
        assert_eq!(promises(&mut lab, 0), (false, vec![(7, 5)]));
        assert_eq!(promises(&mut home, 6), (true, vec![]), "what was refused is not promised, and nobody's own counts");
        assert_eq!(promises(&mut lab, 3), (true, vec![(7, 6)]));
        drop(home);
        let mut late = folder.enter(record("late", 9)).unwrap();
        assert_eq!(promises(&mut late, 1), (true, vec![(8, 3)]));
    }

    #[test]
    fn records_of_dead_processes_and_of_other_machines_are_not_running() {
        let state = tempfile::tempdir().unwrap();
        let folder = RunningFolder::new(state.path());
        let _far = folder.enter(UpRecord { host: "mini-2".to_owned(), ..record("home", 7) }).unwrap();
        let dead = folder.0.join("home.9.json");
        fs::write(&dead, serde_json::to_vec(&record("home", 9)).unwrap()).unwrap();
        fs::write(folder.0.join("notes.txt"), "mine").unwrap();
        assert_eq!(names(&folder), [""; 0]);
        assert!(!dead.exists() && folder.0.join("notes.txt").exists());
        assert_eq!(folder.running("mini-2").unwrap().len(), 1);
    }

    #[test]
    fn a_locked_file_with_nonsense_is_passed_over() {
        let state = tempfile::tempdir().unwrap();
        let folder = RunningFolder::new(state.path());
        let _home = folder.enter(record("home", 7)).unwrap();
        let path = folder.0.join("lab.8.json");
        fs::write(&path, [0xff; 100]).unwrap();
        let held = File::open(&path).unwrap();
        held.try_lock().unwrap();
        assert_eq!(names(&folder), ["home 7"]);
        assert!(path.exists());
    }
}
