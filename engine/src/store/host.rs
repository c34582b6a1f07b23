//! The state machine behind a lock, with tokio's clock, and with a file if it is to outlive the process.
//!
//! Time needs no task: each access to the state ends the leases that are over, and each task that waits for changes
//! also waits for the next lease to end. With a file, a thread writes what changed, all that came meanwhile in one
//! transaction, and nobody gets an answer that could still be undone: neither those who wrote nor those who only saw
//! it.

use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use super::disk::{Batch, Disk, DiskError, Image, KeptLease};
use super::limits::{DISK_RETRY_PAUSE, LEASE_RESTART_GRACE};
use super::state::{KeptState, Refusal, State};

/// A state machine that several tasks use, with a channel on which they wait for changes.
#[derive(Debug)]
pub(super) struct Host {
    guarded: Mutex<Guarded>,
    clock: StoreClock,
    changed: watch::Sender<()>,
    /// Wakes the thread that writes the file. `None` if there is none.
    writer: Option<SyncSender<()>>,
}

#[derive(Debug)]
struct Guarded {
    state: State,
    waiting: Vec<SettleWaiter>,
    /// Number of the batch that was written last.
    commit: u64,
    failing: Option<Failing>,
}

/// A task that waits until all changes before `through` are on disk. It is sent whether they are; if its sender is
/// dropped, nobody knows.
#[derive(Debug)]
struct SettleWaiter {
    through: u64,
    settled: oneshot::Sender<bool>,
}

/// A file that took no write. Until `retry` all changes are refused, so that readers find a state without any, and no
/// lease ends.
#[derive(Debug)]
struct Failing {
    reason: String,
    retry: Duration,
}

/// The state's time counts from `origin`, which was `origin_ms` milliseconds after 1970.
#[derive(Debug, Clone, Copy)]
struct StoreClock {
    origin: Instant,
    origin_ms: u64,
}

/// The thread that writes the file.
struct FileWriter {
    host: Weak<Host>,
    disk: Disk,
}

// === impl Host ===

impl Host {
    /// An empty store that ends with the process.
    pub(super) fn new() -> Self {
        Self::of(State::new(), 0, StoreClock::start(), None)
    }

    /// The store in the file at `path`, which is made if it is missing.
    pub(super) fn open(path: &Path) -> Result<Arc<Self>, DiskError> {
        let (disk, image) = Disk::open(path)?;
        let (keys, leases, revision, commit) = (image.records.len(), image.leases.len(), image.revision, image.commit);
        info!(path = %path.display(), keys, leases, revision, "the store's file is open");
        let clock = StoreClock::start();
        let (wake, woken) = sync_channel(1);
        let host = Arc::new(Self::of(State::restore(clock.state(image)), commit, clock, Some(wake)));
        let mut writer = FileWriter { host: Arc::downgrade(&host), disk };
        let write_on = move || while woken.recv().is_ok() && writer.round() {};
        let started = std::thread::Builder::new().name("store-file".to_owned()).spawn(write_on);
        match started {
            Ok(_) => Ok(host),
            Err(cause) => Err(DiskError::Io { doing: "start a thread for", path: path.to_owned(), cause }),
        }
    }

    fn of(state: State, commit: u64, clock: StoreClock, writer: Option<SyncSender<()>>) -> Self {
        let guarded = Guarded { state, waiting: Vec::new(), commit, failing: None };
        Self { guarded: Mutex::new(guarded), clock, changed: watch::Sender::new(()), writer }
    }

    /// Reads the state as it is now, with what is not on disk yet. For clients there is [`Host::view`].
    pub(super) fn read<T>(&self, act: impl FnOnce(&State, Duration) -> T) -> T {
        let now = self.clock.now();
        act(&self.lock(now).state, now)
    }

    /// Reads the state. What is found is on disk. `act` also gets the time.
    pub(super) async fn view<T>(&self, act: impl Fn(&State, Duration) -> T) -> T {
        loop {
            let (found, settled) = {
                let now = self.clock.now();
                let mut guarded = self.lock(now);
                (act(&guarded.state, now), self.settling(&mut guarded))
            };
            if settled_well(settled).await == Some(true) {
                return found;
            }
        }
    }

    /// Changes the state and wakes the tasks that wait for changes. Returns once the change is on disk.
    pub(super) async fn commit<T>(
        &self,
        act: impl FnOnce(&mut State, Duration) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let (reply, settled) = {
            let now = self.clock.now();
            let mut guarded = self.lock(now);
            if let Some(failing) = guarded.failing.as_ref().filter(|failing| now < failing.retry) {
                return Err(Refusal::Full(failing.reason.clone()));
            }
            (act(&mut guarded.state, now), self.settling(&mut guarded))
        };
        self.changed.send_replace(());
        match settled_well(settled).await {
            Some(true) => reply,
            Some(false) => Err(Refusal::Full(self.failure())),
            None => Err(Refusal::Unsettled(self.failure())),
        }
    }

    /// Renews a lease and returns its time to live in seconds. `None` if it is unknown. A file that takes no write does
    /// not keep a lease from being renewed.
    pub(super) async fn renew(&self, id: i64) -> Option<i64> {
        loop {
            let (ttl, settled) = {
                let now = self.clock.now();
                let mut guarded = self.lock(now);
                let ttl = guarded.state.keep_alive(id, now);
                // A short lease gets as much time at a restart as one renewal gives, so the renewals need no disk.
                if guarded.failing.is_none() && ttl.is_some_and(|ttl| seconds(ttl) > LEASE_RESTART_GRACE) {
                    guarded.state.record_renewal(id);
                }
                (ttl, self.settling(&mut guarded))
            };
            if settled_well(settled).await == Some(true) {
                return ttl;
            }
        }
    }

    /// Locks the state and ends the leases whose time is over.
    fn lock(&self, now: Duration) -> MutexGuard<'_, Guarded> {
        let mut guarded = self.guarded();
        let held_back = guarded.failing.as_ref().is_some_and(|failing| now < failing.retry);
        if !held_back && guarded.state.expire(now) {
            self.changed.send_replace(());
            self.wake_writer();
        }
        guarded
    }

    /// Locks the state as it is.
    fn guarded(&self) -> MutexGuard<'_, Guarded> {
        // A panic in the pure state machine leaves at worst one commit half done. Going on is better than a dead store.
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The receiver that learns that all changes up to now are on disk. `None` if they are.
    fn settling(&self, guarded: &mut Guarded) -> Option<oneshot::Receiver<bool>> {
        let through = guarded.state.unsettled()?;
        let (settled, receiver) = oneshot::channel();
        guarded.waiting.push(SettleWaiter { through, settled });
        self.wake_writer();
        Some(receiver)
    }

    fn wake_writer(&self) {
        if let Some(wake) = &self.writer {
            // If the channel is full, the thread is about to look anyway.
            if let Err(TrySendError::Disconnected(())) = wake.try_send(()) {
                warn!("the thread that writes the store's file has ended");
            }
        }
    }

    /// True if the file took no write the last time.
    pub(super) fn is_failing(&self) -> bool {
        self.guarded().failing.is_some()
    }

    /// The reason for which the file takes nothing.
    fn failure(&self) -> String {
        let guarded = self.guarded();
        guarded.failing.as_ref().map_or_else(|| "the store's file took nothing".to_owned(), |it| it.reason.clone())
    }

    /// A receiver for `Host::wait`. Subscribe before reading the state: then the wait misses nothing.
    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Waits until there may be something new: a change, or the end of a lease.
    pub(super) async fn wait(&self, changed: &mut watch::Receiver<()>) {
        let deadline = {
            let guarded = self.lock(self.clock.now());
            let retry = guarded.failing.as_ref().map_or(Duration::ZERO, |failing| failing.retry);
            guarded.state.next_deadline().map(|deadline| deadline.max(retry))
        };
        let lease_over = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(self.clock.origin + deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Cannot fail: the host owns the sender.
            _ = changed.changed() => {}
            () = lease_over => {}
        }
    }
}

/// `Some(true)` if all is on disk, `Some(false)` if it is undone, `None` if nobody knows.
async fn settled_well(settled: Option<oneshot::Receiver<bool>>) -> Option<bool> {
    match settled {
        None => Some(true),
        Some(settled) => settled.await.ok(),
    }
}

// === impl Guarded ===

impl Guarded {
    /// Everything that is not on disk yet, and the number up to which that is.
    fn batch(&self, clock: StoreClock) -> Option<(Batch, u64)> {
        let through = self.state.unsettled()?;
        let (records, leases) = self.state.changed();
        let kept = |lease: (i64, Duration)| KeptLease { ttl_seconds: lease.0, deadline_ms: clock.unix_ms(lease.1) };
        let leases = leases.into_iter().map(|(id, lease)| (id, lease.map(kept))).collect();
        Some((Batch { records, leases, revision: self.state.revision(), commit: self.commit + 1 }, through))
    }

    /// All changes before `through` are on disk, as the batch `commit`.
    fn settle(&mut self, through: u64, commit: u64) {
        self.state.settle(through);
        self.commit = commit;
        self.failing = None;
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.through <= through {
                // A task that does not wait any more needs no answer.
                let _ = waiting.settled.send(true);
            } else {
                self.waiting.push(waiting);
            }
        }
    }

    /// Takes back everything that is not on disk. `certain` if it surely is not.
    fn undo(&mut self, certain: bool, reason: String, retry: Duration) {
        self.state.undo();
        self.failing = Some(Failing { reason, retry });
        for waiting in std::mem::take(&mut self.waiting) {
            if certain {
                let _ = waiting.settled.send(false);
            }
        }
    }
}

// === impl FileWriter ===

impl FileWriter {
    /// Writes what has changed, if something has. False once the store is gone.
    fn round(&mut self) -> bool {
        let Some(host) = self.host.upgrade() else { return false };
        let taken = host.guarded().batch(host.clock);
        let Some((batch, through)) = taken else { return true };
        match self.write(&host, &batch) {
            Ok(true) => host.guarded().settle(through, batch.commit),
            Ok(false) => {}
            Err((certain, error)) => {
                let mut guarded = host.guarded();
                if guarded.failing.is_none() {
                    warn!(error = error.reason(), "the store takes no writes, and goes on reading");
                }
                guarded.undo(certain, error.reason(), host.clock.now() + DISK_RETRY_PAUSE);
            }
        }
        host.changed.send_replace(());
        true
    }

    /// Writes a batch. False if the state had to be read anew instead. With an error comes whether nothing was written.
    fn write(&mut self, host: &Host, batch: &Batch) -> Result<bool, (bool, DiskError)> {
        if !self.disk.is_open() {
            let image = self.disk.reopen().map_err(|error| (true, error))?;
            if image.commit >= batch.commit {
                // The write whose outcome nobody knew has succeeded after all.
                let mut guarded = host.guarded();
                guarded.undo(true, "its file was opened again".to_owned(), host.clock.now());
                guarded.commit = image.commit;
                guarded.state = State::restore(host.clock.state(image));
                return Ok(false);
            }
        }
        let Err(error) = self.disk.write(batch) else { return Ok(true) };
        match self.disk.reopen() {
            Ok(image) if image.commit == batch.commit => Ok(true),
            Ok(_) => Err((true, error)),
            Err(_) => Err((false, error)),
        }
    }
}

// === impl StoreClock ===

impl StoreClock {
    fn start() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { origin: Instant::now(), origin_ms: milliseconds(since_1970) }
    }

    fn now(self) -> Duration {
        self.origin.elapsed()
    }

    /// A time of the state as milliseconds since 1970.
    fn unix_ms(self, time: Duration) -> u64 {
        self.origin_ms.saturating_add(milliseconds(time))
    }

    /// The contents of a file, for a state with this clock. A lease goes on with the time that it has left: at least as
    /// much as its holder needs to find the store again, and at most its whole time to live, whatever became of the
    /// time of day meanwhile.
    fn state(self, image: Image) -> KeptState {
        let now = self.now();
        let now_ms = self.unix_ms(now);
        let lease = |(id, lease): (i64, KeptLease)| {
            let ttl = seconds(lease.ttl_seconds);
            let left = Duration::from_millis(lease.deadline_ms.saturating_sub(now_ms));
            (id, lease.ttl_seconds, now + left.max(LEASE_RESTART_GRACE).min(ttl))
        };
        KeptState {
            records: image.records,
            leases: image.leases.into_iter().map(lease).collect(),
            revision: image.revision,
            // Above all that an earlier process gave out, so that no holder renews the lease of another.
            first_lease: i64::try_from(now_ms << LEASE_ID_BITS).unwrap_or(1),
        }
    }
}

/// Leases that a process can grant in a millisecond before its ids reach those of one that starts then.
const LEASE_ID_BITS: u32 = 16;

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(count.unsigned_abs())
}
