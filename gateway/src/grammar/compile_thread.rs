//! Runs a compilation on a thread of its own: with a stack for llguidance's recursion, and no longer than a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::GrammarError;
use super::limits::{COMPILE_STACK_BYTES, COMPILE_TIME, COMPILES_MAX};

/// The compilations that are running. Clones count together.
#[derive(Clone, Default)]
pub(super) struct CompileThreads {
    running: Arc<AtomicUsize>,
}

/// The right to run one compilation. Dropping it gives it back.
struct Permit(Arc<AtomicUsize>);

// === impl CompileThreads ===

impl CompileThreads {
    /// Runs `work` and waits for its result.
    ///
    /// # Errors
    /// The work's own error. [`GrammarError::Busy`] when [`COMPILES_MAX`] are running, [`GrammarError::TooSlow`] when
    /// it takes longer than [`COMPILE_TIME`] (it then goes on without this caller), [`GrammarError::Internal`] when it
    /// panics, [`GrammarError::Thread`] when the system starts no thread.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, GrammarError> + Send + 'static,
    ) -> Result<T, GrammarError> {
        self.run_within(COMPILE_TIME, work)
    }

    fn run_within<T: Send + 'static>(
        &self,
        most: Duration,
        work: impl FnOnce() -> Result<T, GrammarError> + Send + 'static,
    ) -> Result<T, GrammarError> {
        let permit = self.permit()?;
        let (result, done) = sync_channel(1);
        let work = move || {
            let compiled = work();
            drop(permit);
            // Without a receiver, the caller has given up.
            let _ = result.send(compiled);
        };
        let thread = std::thread::Builder::new().name("grammar".to_owned()).stack_size(COMPILE_STACK_BYTES);
        thread.spawn(work).map_err(GrammarError::Thread)?;
        match done.recv_timeout(most) {
            Ok(compiled) => compiled,
            Err(RecvTimeoutError::Timeout) => Err(GrammarError::TooSlow { most }),
            Err(RecvTimeoutError::Disconnected) => {
                Err(GrammarError::Internal { reason: "the compiling thread panicked".to_owned() })
            }
        }
    }

    fn permit(&self) -> Result<Permit, GrammarError> {
        let more = |running| (running < COMPILES_MAX).then_some(running + 1);
        match self.running.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Permit(Arc::clone(&self.running))),
            Err(_) => Err(GrammarError::Busy { most: COMPILES_MAX }),
        }
    }
}

// === impl Permit ===

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn a_panic_is_an_error_and_gives_its_permit_back() {
        let threads = CompileThreads::default();
        for _ in 0..=COMPILES_MAX {
            let error = threads.run::<()>(|| panic!("on purpose")).unwrap_err();
            assert!(matches!(error, GrammarError::Internal { .. }), "{error}");
        }
    }

    #[test]
    fn a_slow_one_is_left_alone_and_keeps_its_permit_until_it_ends() {
        let threads = CompileThreads::default();
        let end = Arc::new(Barrier::new(2));
        let slow = {
            let end = Arc::clone(&end);
            move || {
                end.wait();
                Ok(())
            }
        };
        let most = Duration::from_millis(10);
        assert!(matches!(threads.run_within(most, slow), Err(GrammarError::TooSlow { most: found }) if found == most));
        assert_eq!(threads.running.load(Ordering::Relaxed), 1);
        end.wait();
        while threads.running.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn one_more_than_the_bound_is_refused() {
        let threads = CompileThreads::default();
        let all = Arc::new(Barrier::new(COMPILES_MAX + 1));
        std::thread::scope(|scope| {
            for _ in 0..COMPILES_MAX {
                let (threads, all) = (threads.clone(), Arc::clone(&all));
                let wait = move || {
                    all.wait();
                    all.wait();
                    Ok(())
                };
                scope.spawn(move || threads.run(wait).unwrap());
            }
            all.wait();
            assert!(matches!(threads.run(|| Ok(())), Err(GrammarError::Busy { most: COMPILES_MAX })));
            all.wait();
        });
        threads.run(|| Ok(())).unwrap();
    }
}
