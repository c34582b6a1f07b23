//! Measures the speed of the matrix products on this machine: bytes of weights per second for one row, multiplications
//! per second for many rows.
//!
//! The measurement runs the kernels that steps use, in slices of a few milliseconds, so that a step never waits long
//! for one. The time of a slice is the processor time that the threads had, and the best slice counts, because other
//! load on the machine can only make a slice slower. A stage measures with its own mapped weights: nothing is allocated
//! for the measurement, and sizes, caches and overheads are those of its steps. So the time of a decode step is about
//! the bytes of its weights divided by `bytes_per_second`, and the time of a prefill is about its multiplications
//! divided by `multiplications_per_second`. This module depends neither on the purpose of the weights nor on the use of
//! the result.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use schema::record::{FormatSpeed, Speeds};

use crate::format::Format;
use crate::kernels::{MatmulJob, Matrix, Rows, ThreadPool, matmul};

/// Time of a measurement on an idle machine, all formats together.
pub const PROBE_TIME: Duration = Duration::from_millis(500);
/// Time for one figure on an idle machine. More slices would not find a better value.
const FIGURE_TIME: Duration = Duration::from_millis(60);
/// On a busy machine a figure takes at most this many times as long. A slice that is interrupted counts no more than
/// one that is not, so that some of them run undisturbed: a figure from interrupted slices alone is several times too
/// low, and it stays for the life of the process.
const BUSY_FACTOR: u32 = 6;
/// Time of a slice: long compared with the clock's resolution and the delay of a late thread, short compared with a
/// step.
const SLICE_TIME: Duration = Duration::from_millis(4);
/// Number of rows in a prefill's tile.
const MANY_ROWS: usize = 128;
/// Maximum size of the weights that one product reads, in bytes: they take 4 ms at a memory bandwidth of 1 GB/s.
const PRODUCT_BYTES_MAX: usize = 4 << 20;
/// Number of outputs of the first product with many rows. A product that takes less than a slice doubles the number
/// for the next, so that a slow machine does not start with a product that takes too long.
const OUTPUTS_FIRST: usize = 16;
/// Size of the made-up weights that replace a model, in bytes: several times the caches of most machines.
const MADE_UP_BYTES: usize = 128 << 20;

/// A measurement in progress.
#[derive(Debug)]
pub struct Probe {
    figures: Vec<SpeedFigure>,
    at: usize,
}

/// One figure: the speed of a format with a number of rows.
#[derive(Debug)]
struct SpeedFigure {
    format: Format,
    rows: usize,
    /// Time left, in undisturbed slices, and on the clock.
    left: Duration,
    clock_left: Duration,
    /// Maximum number of outputs of the next product.
    outputs: usize,
    /// The next weights: the index of their matrix and their first row in it.
    next: (usize, usize),
    /// The best rate so far: bytes per second for one row, multiplications per second for many.
    best: f64,
}

/// Buffers for the numbers of a measurement: the same buffers that a step uses.
#[derive(Debug)]
pub struct ProbeScratch<'a> {
    /// Buffer for inputs of up to 128 rows.
    pub rows: &'a mut Rows,
    /// Buffer for outputs of 128 rows with at least one output each.
    pub out: &'a mut [f32],
}

/// Measures all `formats` on the threads of `pool` with made-up weights. Takes [`PROBE_TIME`] on an idle machine and up
/// to six times as long on a busy one.
pub fn measure(pool: &ThreadPool, formats: &[Format]) -> Speeds {
    let started = Instant::now();
    // Any bits are valid weights. These bits give no infinite or tiny numbers in any format, because some processors
    // are slow with those.
    let bytes: Vec<u8> =
        (0..1_u32 << 16).map(|index| (index.wrapping_mul(0x9e37_79b9) >> 16) as u8 & 0x3b | 0x20).collect();
    let bytes = bytes.repeat(MADE_UP_BYTES / bytes.len());
    const COLS: usize = 2048;
    let matrix = |format: &Format| {
        let row_bytes = format.row_bytes(COLS)?;
        let rows = bytes.len() / row_bytes;
        Matrix::new(*format, rows, COLS, &bytes[..rows * row_bytes]).ok()
    };
    let matrices: Vec<_> = formats.iter().filter_map(matrix).collect();
    let mut probe = Probe::new(formats, PROBE_TIME.saturating_sub(started.elapsed()));
    let (mut rows, mut out) = (Rows::new(), vec![0.0; MANY_ROWS * COLS]);
    while !probe.measure_slice(&matrices, pool, ProbeScratch { rows: &mut rows, out: &mut out }) {}
    probe.speeds()
}

// === impl Probe ===

impl Probe {
    /// A measurement of `formats` that takes `time` on an idle machine.
    pub fn new(formats: &[Format], time: Duration) -> Self {
        let kinds = formats.iter().flat_map(|format| [(*format, 1), (*format, MANY_ROWS)]);
        let left = FIGURE_TIME.min(time / (2 * formats.len() as u32).max(1));
        let figure = |(format, rows)| {
            let outputs = if rows == 1 { usize::MAX } else { OUTPUTS_FIRST };
            SpeedFigure { format, rows, left, clock_left: left * BUSY_FACTOR, outputs, next: (0, 0), best: 0.0 }
        };
        Self { figures: kinds.map(figure).collect(), at: 0 }
    }

    /// Measures for a few milliseconds and returns true if the measurement is complete. If none of `weights` has a
    /// format, their bytes are read as weights of that format, because the time of a product does not depend on the
    /// values.
    pub fn measure_slice(&mut self, weights: &[Matrix<'_>], pool: &ThreadPool, scratch: ProbeScratch<'_>) -> bool {
        let Some(figure) = self.figures.get_mut(self.at) else { return true };
        if !figure.measure_slice(weights, pool, scratch) {
            self.at += 1;
        }
        self.at == self.figures.len()
    }

    /// The measured speeds. Formats that could not be measured are left out.
    pub fn speeds(&self) -> Speeds {
        let both = self.figures.chunks_exact(2).filter_map(|figures| {
            let [bytes, multiplications] = [figures[0].best as u64, figures[1].best as u64];
            let speed = FormatSpeed { bytes_per_second: bytes, multiplications_per_second: multiplications };
            (bytes > 0 && multiplications > 0).then(|| (figures[0].format.name().to_owned(), speed))
        });
        both.collect()
    }
}

// === impl SpeedFigure ===

impl SpeedFigure {
    /// Measures for one slice and returns true if there is time for another.
    fn measure_slice(&mut self, weights: &[Matrix<'_>], pool: &ThreadPool, scratch: ProbeScratch<'_>) -> bool {
        let ProbeScratch { rows, out } = scratch;
        let started = Instant::now();
        let (mut amount, mut busy) = (0, Duration::ZERO);
        while busy < SLICE_TIME && started.elapsed() < 3 * SLICE_TIME {
            let Some(weights) = self.weights(weights, out.len()) else { return false };
            let input = rows.prepare(self.rows, weights.cols());
            input.iter_mut().enumerate().for_each(|(index, value)| *value = (index % 17) as f32 - 8.0);
            let (begun, worked) = (Instant::now(), cpu_time(pool.threads()));
            matmul(pool, &mut [MatmulJob { weights, out: &mut out[..self.rows * weights.rows()] }], rows);
            let took = begun.elapsed();
            // Without the time in which other processes had the processor.
            busy += took.min(cpu_time(pool.threads()).saturating_sub(worked));
            amount += if self.rows == 1 { weights.bytes().len() } else { self.rows * weights.rows() * weights.cols() };
            if took < SLICE_TIME {
                self.outputs = self.outputs.saturating_mul(2);
            }
        }
        if !busy.is_zero() {
            self.best = self.best.max(amount as f64 / busy.as_secs_f64());
        }
        let elapsed = started.elapsed();
        self.left = self.left.saturating_sub(elapsed.min(SLICE_TIME + SLICE_TIME / 2));
        self.clock_left = self.clock_left.saturating_sub(elapsed);
        self.left >= SLICE_TIME && self.clock_left >= SLICE_TIME
    }

    /// The next weights to multiply with: rows of one matrix, limited so that the products fit `outputs` values.
    fn weights<'a>(&mut self, weights: &[Matrix<'a>], outputs: usize) -> Option<Matrix<'a>> {
        let own = weights.iter().any(|matrix| matrix.format() == self.format);
        // Tries each matrix once, and the first one again from its first row.
        for _ in 0..=weights.len() {
            let (index, row) = self.next;
            let matrix = weights.get(index).filter(|matrix| !own || matrix.format() == self.format);
            let matrix =
                matrix.and_then(|matrix| reinterpret(self.format, matrix)).filter(|matrix| row < matrix.rows());
            let Some(matrix) = matrix else {
                self.next = if index + 1 < weights.len() { (index + 1, 0) } else { (0, 0) };
                continue;
            };
            let most = self.outputs.min(outputs / self.rows).min(PRODUCT_BYTES_MAX / matrix.row_bytes()).max(1);
            let end = matrix.rows().min(row + most);
            self.next = (index, end);
            let bytes = &matrix.bytes()[row * matrix.row_bytes()..end * matrix.row_bytes()];
            return Matrix::new(self.format, end - row, matrix.cols(), bytes).ok();
        }
        None
    }
}

/// The processor time that this thread has used; with several threads, each one's share of what the process has used. A
/// stage that measures computes nothing else.
pub(crate) fn cpu_time(threads: usize) -> Duration {
    let clock = if threads == 1 { ClockId::ThreadCPUTime } else { ClockId::ProcessCPUTime };
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32) / threads as u32
}

/// The bytes of `matrix` read as weights of `format`. `None` if `format` has a wide range of exponents (F32, BF16,
/// MXFP4, our own) and `matrix` has another: its bytes may give numbers so tiny that some processors are slow with
/// them.
fn reinterpret<'a>(format: Format, matrix: &Matrix<'a>) -> Option<Matrix<'a>> {
    if format == matrix.format() {
        return Some(*matrix);
    }
    let of_ours = format.ggml().is_none();
    if of_ours || matches!(format, Format::F32 | Format::BF16 | Format::Mxfp4) {
        return None;
    }
    let cols = matrix.cols().next_multiple_of(format.block_values());
    let row_bytes = format.row_bytes(cols)?;
    let rows = matrix.bytes().len() / row_bytes;
    Matrix::new(format, rows, cols, &matrix.bytes()[..rows * row_bytes]).ok()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    fn pool(threads: usize) -> ThreadPool {
        ThreadPool::new(NonZeroUsize::new(threads).expect("not zero"))
    }

    /// Runs slices until the measurement is complete. Returns their number and the longest time of one.
    fn finish(probe: &mut Probe, weights: &[Matrix<'_>], pool: &ThreadPool) -> (usize, Duration) {
        let (mut rows, mut out) = (Rows::new(), vec![0.0; MANY_ROWS * 96]);
        let (mut slices, mut longest) = (0, Duration::ZERO);
        loop {
            let started = Instant::now();
            let done = probe.measure_slice(weights, pool, ProbeScratch { rows: &mut rows, out: &mut out });
            (slices, longest) = (slices + 1, longest.max(started.elapsed()));
            if done {
                return (slices, longest);
            }
        }
    }

    #[test]
    fn all_formats_are_measured_within_the_time() {
        let started = Instant::now();
        let speeds = measure(&pool(2), &Format::ALL);
        let took = started.elapsed();
        assert_eq!(speeds.len(), Format::ALL.len(), "{speeds:?}");
        for (format, speed) in &speeds {
            println!("{format}: {speed:?}");
            // One byte per second would be a bug, and so would a rate beyond any machine.
            assert!((1_000_000..1 << 50).contains(&speed.bytes_per_second), "{format}: {speed:?}");
            assert!((1_000_000..1 << 50).contains(&speed.multiplications_per_second), "{format}: {speed:?}");
        }
        // Other tests run at the same time.
        assert!(took < 3 * BUSY_FACTOR * PROBE_TIME, "took {took:?}");
    }

    #[test]
    fn any_one_format_is_measured_in_short_slices() {
        let pool = pool(1);
        for format in Format::ALL {
            let bytes = vec![0x20; format.row_bytes(256).expect("whole blocks") * 300];
            let matrix = Matrix::new(format, 300, 256, &bytes).expect("sound");
            let mut probe = Probe::new(&[format], Duration::from_millis(40));
            let started = Instant::now();
            let (slices, longest) = finish(&mut probe, &[matrix], &pool);
            println!("{}: {slices} slices in {:?}, the longest {longest:?}", format.name(), started.elapsed());
            assert!((2..=12).contains(&slices), "{slices} slices of {}", format.name());
            assert!(started.elapsed() < Duration::from_secs(2), "{}", format.name());
            let found = probe.speeds()[format.name()];
            assert!(found.bytes_per_second > 0 && found.multiplications_per_second > 0, "{found:?}");
        }
    }

    #[test]
    fn a_format_the_weights_do_not_have_is_measured_on_their_bytes_or_not_at_all() {
        let bytes = vec![0x20; Format::Q4_1.row_bytes(576).expect("whole blocks") * 600];
        let matrix = Matrix::new(Format::Q4_1, 600, 576, &bytes).expect("sound");
        let mut probe = Probe::new(&[Format::Q6K, Format::F32], Duration::from_millis(20));
        finish(&mut probe, &[matrix], &pool(1));
        assert_eq!(probe.speeds().keys().collect::<Vec<_>>(), ["Q6_K"]);
    }

    #[test]
    fn without_weights_no_speeds_are_reported() {
        let mut probe = Probe::new(&Format::ALL, PROBE_TIME);
        finish(&mut probe, &[], &pool(1));
        assert!(probe.speeds().is_empty());
        assert!(Probe::new(&[], PROBE_TIME).speeds().is_empty());
    }

    #[test]
    fn all_weights_of_a_format_are_measured() {
        let bytes = [0x20; 34 * 40];
        let matrix = |format: Format, rows, bytes| Matrix::new(format, rows, 32, bytes).expect("sound");
        let weights = [
            matrix(Format::Q8_0, 40, &bytes[..]),
            matrix(Format::Q4_0, 3, &bytes[..54]),
            matrix(Format::Q8_0, 2, &bytes[34..102]),
        ];
        let mut figure = SpeedFigure {
            format: Format::Q8_0,
            rows: MANY_ROWS,
            left: Duration::ZERO,
            clock_left: Duration::ZERO,
            outputs: usize::MAX,
            next: (0, 0),
            best: 0.0,
        };
        let mut measured = Vec::new();
        for _ in 0..5 {
            let taken = figure.weights(&weights, 30 * MANY_ROWS).expect("weights");
            measured.push((taken.bytes().as_ptr() as usize - bytes.as_ptr() as usize, taken.rows()));
        }
        assert_eq!(measured, [(0, 30), (34 * 30, 10), (34, 2), (0, 30), (34 * 30, 10)]);
    }
}
