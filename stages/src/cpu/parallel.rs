//! Distributes work among the threads of a pool.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::kernels::ThreadPool;

/// Fewer rows than this do not repay waking a thread, because a norm of a row takes about a microsecond.
const PARALLEL_ROWS_MIN: usize = 8;
/// Parts for each thread. A late thread then costs a quarter of its share.
const PARTS_PER_THREAD: usize = 4;

/// Calls `work(slot, part)` for each part. A slot is below the number of threads. Two calls with the same slot never
/// run at the same time.
pub(super) fn parts(pool: &ThreadPool, parts: usize, work: &(dyn Fn(usize, usize) + Sync)) {
    let slots = pool.threads().min(parts);
    if slots <= 1 {
        return (0..parts).for_each(|part| work(0, part));
    }
    let next = AtomicUsize::new(0);
    pool.run(slots, &|slot| {
        loop {
            let part = next.fetch_add(1, Ordering::Relaxed);
            if part >= parts {
                return;
            }
            work(slot, part);
        }
    });
}

/// Calls `work(head)` for each head, or other group, of `rows` rows.
pub(super) fn heads(pool: &ThreadPool, heads: usize, rows: usize, work: &(dyn Fn(usize) + Sync)) {
    if rows < PARALLEL_ROWS_MIN {
        return (0..heads).for_each(work);
    }
    pool.run(heads, work);
}

/// Calls `work` with ranges that cover `0..rows` without overlap.
pub(super) fn rows(pool: &ThreadPool, rows: usize, work: &(dyn Fn(Range<usize>) + Sync)) {
    if rows < PARALLEL_ROWS_MIN {
        return work(0..rows);
    }
    let shares = (pool.threads() * PARTS_PER_THREAD).min(rows);
    pool.run(shares, &|share| work(rows * share / shares..rows * (share + 1) / shares));
}
