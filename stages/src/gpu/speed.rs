//! The speed of a device's products, for the plan: measured with the launches of steps, on the shard's own weights.

use std::time::{Duration, Instant};

use schema::record::{FormatSpeed, Speeds};

use super::device::{Gpu, GpuError};
use super::layer::Product;
use super::limits::{PROBED_PRODUCT_BYTES_MAX, ROWS_MAX};
use super::runner::GpuRunner;
use super::weights::{DeviceMatrix, MatrixGroup};
use crate::format::Format;

/// Time for one figure. More slices would hardly find a better value.
const FIGURE_TIME: Duration = Duration::from_millis(40);
/// Time of a slice: a step that comes meanwhile waits so long.
const SLICE_TIME: Duration = Duration::from_millis(4);

/// A measurement in progress.
#[derive(Debug)]
pub(super) struct SpeedProbe {
    figures: Vec<Figure>,
    at: usize,
}

/// The speed of a format with a number of rows.
#[derive(Debug)]
struct Figure {
    format: Format,
    rows: usize,
    left: Duration,
    /// The layer whose products come next; the output head follows the last one.
    next: usize,
    /// The best rate so far: bytes per second for one row, multiplications per second for many.
    best: f64,
}

/// Work of launches.
#[derive(Debug, Default, Clone, Copy)]
struct Amount {
    bytes: usize,
    multiplications: usize,
}

// === impl SpeedProbe ===

impl SpeedProbe {
    /// A measurement of `formats`.
    pub(super) fn new(formats: &[Format]) -> Self {
        let kinds = formats.iter().flat_map(|format| [(*format, 1), (*format, ROWS_MAX)]);
        let figure = |(format, rows)| Figure { format, rows, left: FIGURE_TIME, next: 0, best: 0.0 };
        Self { figures: kinds.map(figure).collect(), at: 0 }
    }

    /// Measures for some milliseconds and returns true if the measurement is complete.
    ///
    /// # Errors
    /// [`GpuError`] if the device fails.
    pub(super) fn measure_slice<G: Gpu>(&mut self, runner: &mut GpuRunner<G>) -> Result<bool, GpuError> {
        let Some(figure) = self.figures.get_mut(self.at) else { return Ok(true) };
        if !figure.measure_slice(runner)? {
            self.at += 1;
        }
        Ok(self.at == self.figures.len())
    }

    /// The measured speeds. Formats that could not be measured are left out.
    pub(super) fn speeds(&self) -> Speeds {
        let both = self.figures.chunks_exact(2).filter_map(|figures| {
            let [bytes, multiplications] = [figures[0].best as u64, figures[1].best as u64];
            let speed = FormatSpeed { bytes_per_second: bytes, multiplications_per_second: multiplications };
            (bytes > 0 && multiplications > 0).then(|| (figures[0].format.name().to_owned(), speed))
        });
        both.collect()
    }
}

// === impl Figure ===

impl Figure {
    /// Measures for one slice and returns true if there is time for another.
    fn measure_slice<G: Gpu>(&mut self, runner: &mut GpuRunner<G>) -> Result<bool, GpuError> {
        let places = runner.probed_places();
        let (started, mut done) = (Instant::now(), Amount::default());
        while started.elapsed() < SLICE_TIME {
            let mut encoded = Amount::default();
            for _ in 0..places {
                let more = runner.encode_products(self.next, self.format, self.rows)?;
                self.next = (self.next + 1) % places;
                encoded = encoded.and(more);
                if encoded.bytes >= PROBED_PRODUCT_BYTES_MAX {
                    break;
                }
            }
            if encoded.bytes == 0 {
                return Ok(false);
            }
            runner.finish_products()?;
            done = done.and(encoded);
        }
        let amount = if self.rows == 1 { done.bytes } else { done.multiplications };
        self.best = self.best.max(amount as f64 / started.elapsed().as_secs_f64());
        self.left = self.left.saturating_sub(started.elapsed());
        Ok(self.left >= SLICE_TIME)
    }
}

// === impl Amount ===

impl Amount {
    fn and(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, multiplications: self.multiplications + other.multiplications }
    }

    /// Of the products of `rows` rows with these matrices.
    fn of<'a, B: 'a>(matrices: impl IntoIterator<Item = &'a DeviceMatrix<B>>, rows: usize) -> Self {
        matrices.into_iter().fold(Self::default(), |sum, matrix| {
            let multiplications = rows * matrix.rows * matrix.cols;
            sum.and(Self { bytes: matrix.rows * matrix.row_bytes(), multiplications })
        })
    }
}

// === impl GpuRunner ===

impl<G: Gpu> GpuRunner<G> {
    /// Encodes the products of layer `at` of the shard, or of the output head, as far as their weights have `format`.
    fn encode_products(&mut self, at: usize, format: Format, rows: usize) -> Result<Amount, GpuError> {
        let vocabulary = self.vocabulary();
        let (mut step, weights, _) = self.step();
        step.rows = rows;
        let (scratch, hidden) = (step.scratch, step.hidden);
        let mut amount = Amount::default();
        let Some(layer) = weights.layers.get(at) else {
            if let Some(matrix) = weights.output_head.as_ref().and_then(|head| part(&head.output, format)) {
                let (input, out) = (&scratch.normed, &scratch.logits);
                let product = Product { input, rows, bias: None, out, out_stride: vocabulary, add: false };
                amount = Amount::of([&matrix], rows);
                step.multiply(&MatrixGroup::of(matrix), &product)?;
            }
            return Ok(amount);
        };
        let attention = &layer.attention;
        let width = attention.query_width() + attention.key_width() + attention.value_width();
        for group in layer.query_key_value.iter().filter(|group| group.matrices[0].format == format) {
            let (input, out) = (&scratch.normed, &scratch.query_key_value);
            amount = amount.and(Amount::of(&group.matrices, rows));
            step.multiply(group, &Product { input, rows, bias: None, out, out_stride: width, add: false })?;
        }
        for (group, input) in [(&layer.output, &scratch.attended), (&layer.down, &scratch.gated)] {
            if let Some(matrix) = part(group, format) {
                let product = Product { input, rows, bias: None, out: &scratch.stream, out_stride: hidden, add: false };
                amount = amount.and(Amount::of([&matrix], rows));
                step.multiply(&MatrixGroup::of(matrix), &product)?;
            }
        }
        if layer.gate.format == format {
            let [gate, up] = [first_rows(&layer.gate), first_rows(&layer.up)];
            amount = amount.and(Amount::of([&gate, &up], rows));
            step.gate(&gate, &up, layer.activation)?;
        }
        Ok(amount)
    }
}

/// The first rows of a group's only matrix, if it has `format`.
fn part<B: Clone>(group: &MatrixGroup<B>, format: Format) -> Option<DeviceMatrix<B>> {
    group.matrices.first().filter(|matrix| matrix.format == format).map(first_rows)
}

/// The first rows of a matrix, which take a slow device some milliseconds.
fn first_rows<B: Clone>(matrix: &DeviceMatrix<B>) -> DeviceMatrix<B> {
    let most = PROBED_PRODUCT_BYTES_MAX / matrix.row_bytes().max(1);
    matrix.first_rows(most.max(1))
}
