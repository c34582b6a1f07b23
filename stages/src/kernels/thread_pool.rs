//! The threads that share the work of one step. An idle thread spins briefly for the next region and then parks. Knows
//! nothing of the work. Not for waiting or I/O: a job that blocks delays the step.

use std::any::Any;
use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Number of times an idle thread polls for work before it parks: about 50 us. This is longer than the gap between two
/// products of a step, and short enough to leave the core to other threads between steps.
const SPINS_MAX: u32 = 3_000;

/// A fixed set of threads, including the caller of [`ThreadPool::run`]. Dropping the pool ends and joins the other
/// threads.
pub struct ThreadPool {
    shared: Arc<PoolState>,
    workers: Vec<JoinHandle<()>>,
    /// Locked while a region runs. A second caller waits for it.
    region_lock: Mutex<()>,
}

struct PoolState {
    /// `region << 32 | open << 31 | workers inside`. A worker enters an open region by compare-and-set. So no worker
    /// enters a closed region, and the caller waits only for the workers inside.
    state: AtomicU64,
    task: AtomicPtr<()>,
    /// Next part of each thread's share of the region.
    next: Vec<NextPart>,
    stop: AtomicBool,
    parked: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

/// A counter in its own cache line.
#[derive(Default)]
#[repr(align(64))]
struct NextPart(AtomicUsize);

/// The work of one region. It lives on the caller's stack while the region is open.
struct RegionTask<'a> {
    job: &'a (dyn Fn(usize) + Sync),
    parts: usize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;
const REGION: u64 = 1 << 32;

// === impl ThreadPool ===

impl ThreadPool {
    /// A pool of `threads` threads, including the caller.
    ///
    /// # Panics
    /// If the system cannot start a thread.
    pub fn new(threads: NonZeroUsize) -> Self {
        let shared = Arc::new(PoolState {
            state: AtomicU64::new(0),
            task: AtomicPtr::new(ptr::null_mut()),
            next: (0..threads.get()).map(|_| NextPart::default()).collect(),
            stop: AtomicBool::new(false),
            parked: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let workers = (1..threads.get())
            .map(|index| {
                let shared = Arc::clone(&shared);
                let thread = std::thread::Builder::new().name(format!("compute-{index}"));
                thread.spawn(move || shared.work(index)).expect("the system gives a compute thread")
            })
            .collect();
        Self { shared, workers, region_lock: Mutex::new(()) }
    }

    /// Number of threads that share the work, including the caller.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `job(0)`, `job(1)` … `job(parts - 1)`, each once, spread over the threads. Returns when all calls are
    /// done.
    ///
    /// Each thread begins with a share of neighbouring parts and takes them in order, so that adjacent memory is read
    /// in sequence. A thread that is done early takes parts of the other threads' shares. A job must not call `run` of
    /// the same pool.
    ///
    /// # Panics
    /// With the panic of a part, if one panicked. The other parts are still done.
    pub fn run(&self, parts: usize, job: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() || parts <= 1 {
            return (0..parts).for_each(job);
        }
        let guard = lock(&self.region_lock);
        let task = RegionTask { job, parts, panic: Mutex::new(None) };
        self.shared.open(&task);
        task.take_parts(&self.shared.next, 0);
        self.shared.close();
        let panicked = lock(&task.panic).take();
        drop(guard);
        if let Some(panic) = panicked {
            resume_unwind(panic);
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(lock(&self.shared.lock));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its parts, so `join` has nothing to report.
            let _ = worker.join();
        }
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool").field("threads", &self.threads()).finish()
    }
}

// === impl PoolState ===

impl PoolState {
    /// Opens a region for the workers. The caller must `close` it before `task` is dropped.
    fn open(&self, task: &RegionTask<'_>) {
        for (thread, next) in self.next.iter().enumerate() {
            // No worker is inside. A worker that enters next acquires `state` and so sees these stores.
            next.0.store(task.share(self.next.len(), thread).start, Ordering::Relaxed);
        }
        self.task.store(ptr::from_ref(task).cast_mut().cast(), Ordering::Relaxed);
        let region = (self.state.load(Ordering::Relaxed) & !(REGION - 1)).wrapping_add(REGION);
        self.state.store(region | OPEN, Ordering::SeqCst);
        if self.parked.load(Ordering::SeqCst) > 0 {
            drop(lock(&self.lock));
            self.wake.notify_all();
        }
    }

    /// Lets no more workers in and waits for those inside.
    fn close(&self) {
        self.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0;
        while self.state.load(Ordering::Acquire) & INSIDE != 0 {
            spins += 1;
            if spins < SPINS_MAX { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }

    /// Main loop of worker number `index`. The caller of a region is number 0.
    fn work(&self, index: usize) {
        let mut seen = 0;
        while let Some(region) = self.next_region(seen) {
            if self.state.compare_exchange(region, region + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                // Another worker entered at the same time, or the region closed: try again.
                continue;
            }
            seen = region & !(REGION - 1);
            let task = self.task.load(Ordering::Relaxed).cast::<RegionTask<'_>>();
            // SAFETY: this worker is counted inside the open region, and `open` stored its task before it opened the
            // region. The caller keeps the task alive until `close` has seen the count fall to zero.
            unsafe { &*task }.take_parts(&self.next, index);
            self.state.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for an open region other than `seen`. Returns `None` when the pool ends.
    fn next_region(&self, seen: u64) -> Option<u64> {
        let open = || {
            let state = self.state.load(Ordering::SeqCst);
            (state & OPEN != 0 && state & !(REGION - 1) != seen).then_some(state)
        };
        for _ in 0..SPINS_MAX {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(state) = open() {
                return Some(state);
            }
            std::hint::spin_loop();
        }
        let mut guard = lock(&self.lock);
        self.parked.fetch_add(1, Ordering::SeqCst);
        let found = loop {
            if self.stop.load(Ordering::SeqCst) {
                break None;
            }
            if let Some(state) = open() {
                break Some(state);
            }
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        self.parked.fetch_sub(1, Ordering::SeqCst);
        found
    }
}

// === impl RegionTask ===

impl RegionTask<'_> {
    /// Parts that `thread` begins with.
    fn share(&self, threads: usize, thread: usize) -> Range<usize> {
        self.parts * thread / threads..self.parts * (thread + 1) / threads
    }

    /// Runs parts until none is left: first the thread's own share, then parts left in the shares of other threads.
    fn take_parts(&self, next: &[NextPart], own: usize) {
        let threads = next.len();
        for thread in (own..threads).chain(0..own) {
            let end = self.share(threads, thread).end;
            loop {
                let part = next[thread].0.fetch_add(1, Ordering::Relaxed);
                if part >= end {
                    break;
                }
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.job)(part))) {
                    lock(&self.panic).get_or_insert(panic);
                }
            }
        }
    }
}

/// Locks `mutex` even if it is poisoned, because nothing behind these locks can be left half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> ThreadPool {
        ThreadPool::new(NonZeroUsize::new(threads).expect("not zero"))
    }

    #[test]
    fn every_part_is_done_once() {
        for threads in 1..5 {
            let pool = pool(threads);
            for parts in [0, 1, 2, 3, 64, 1000] {
                let done: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                pool.run(parts, &|part| {
                    done[part].fetch_add(1, Ordering::Relaxed);
                });
                assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn parked_threads_wake_for_the_next_region() {
        let pool = pool(3);
        // Two parts that wait for each other need two threads. If a worker stayed parked, this test would hang.
        for _ in 0..20 {
            while pool.shared.parked.load(Ordering::SeqCst) < 2 {
                std::thread::yield_now();
            }
            let barrier = std::sync::Barrier::new(2);
            pool.run(2, &|_| {
                barrier.wait();
            });
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_stays_usable() {
        let pool = pool(2);
        let done = AtomicUsize::new(0);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            pool.run(10, &|part| {
                assert!(part != 3, "part three");
                done.fetch_add(1, Ordering::Relaxed);
            });
        }));
        let panic = outcome.expect_err("the panic of part 3");
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"part three"));
        assert_eq!(done.load(Ordering::Relaxed), 9);
        pool.run(10, &|_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.load(Ordering::Relaxed), 19);
    }

    #[test]
    fn two_callers_run_one_after_the_other() {
        let pool = pool(2);
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        pool.run(7, &|_| {
                            done.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(done.load(Ordering::Relaxed), 3 * 50 * 7);
    }
}
