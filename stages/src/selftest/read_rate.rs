//! The rate at which the processor reads memory: the floor of the time for one token.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use crate::probe::cpu_time;

/// Bytes that are read: several times the caches of most machines.
const READ_BYTES: usize = 256 << 20;
/// Time of the measurement. The best pass counts, as other work can only make one slower.
const READ_TIME: Duration = Duration::from_millis(400);

/// Bytes per second that so many threads read together. Time in which other processes had the processor does not count,
/// as it does not in a stage's measurement.
pub(super) fn of_processor(threads: NonZeroUsize) -> u64 {
    let memory = vec![1_u64; READ_BYTES / size_of::<u64>()];
    let started = Instant::now();
    let mut best = Duration::MAX;
    while started.elapsed() < READ_TIME {
        let took = std::thread::scope(|scope| {
            let parts = memory.chunks(memory.len().div_ceil(threads.get()));
            let readers: Vec<_> = parts.map(|part| scope.spawn(|| time_to_read(part))).collect();
            readers.into_iter().filter_map(|reader| reader.join().ok()).max()
        });
        best = best.min(took.unwrap_or(Duration::MAX));
    }
    (READ_BYTES as f64 / best.as_secs_f64()) as u64
}

/// The processor time that this thread takes to read the words.
fn time_to_read(words: &[u64]) -> Duration {
    let begun = cpu_time(1);
    std::hint::black_box(words.iter().fold(0_u64, |sum, word| sum.wrapping_add(*word)));
    cpu_time(1).saturating_sub(begun)
}
