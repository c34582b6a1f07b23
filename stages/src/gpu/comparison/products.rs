//! Products and gated networks.

use super::{Random, differs, is_close, write_floats};
use crate::gpu::device::{Gpu, GpuError};
use crate::gpu::kernel::{Kernel, RowsAtOnce};
use crate::gpu::layer::{Product, read_floats};
use crate::gpu::runner::GpuRunner;
use crate::gpu::weights::Sample;
use crate::kernels::dequantise_row;
use crate::model::Activation;

/// Rows of activations: as many as a simdgroup computes at most.
const ROWS: usize = RowsAtOnce::Eight as usize;
/// The numbers of rows that have a kernel each.
const ROW_COUNTS: [usize; 4] = [1, 2, 4, ROWS];
/// Largest difference of a product, as a part of the sum of its terms' sizes.
const TOLERANCE: f64 = 1e-5;

/// A product in double precision, and the sum of its terms' sizes.
#[derive(Clone, Copy)]
struct Exact {
    value: f64,
    size: f64,
}

impl<G: Gpu> GpuRunner<G> {
    /// Compares the products of a matrix's format, for every number of rows, and that a row's bits are the same in all.
    pub(super) fn compare_products(&mut self, sample: &Sample<G::Buffer>, random: &mut Random) -> Result<(), GpuError> {
        let (format, cols, outputs) = (sample.matrix.format, sample.matrix.cols, sample.matrix.rows);
        let rows = random.values(ROWS * cols);
        let exact = exact(sample, &rows);
        let (mut step, _, _) = self.step();
        let (input, out) = (step.gpu.allocate(4 * ROWS * cols)?, step.gpu.allocate(4 * ROWS * outputs)?);
        write_floats(&input, &rows);
        let mut alone = vec![0_u32; outputs];
        for rows in ROW_COUNTS {
            let kernel = Kernel::Product(format, RowsAtOnce::of(rows));
            let product = Product { input: &input, rows, bias: None, out: &out, out_stride: outputs, add: false };
            step.multiply(&sample.group(), &product)?;
            step.gpu.finish()?;
            let found = read_floats(&out, rows * outputs);
            for (at, (found, exact)) in found.iter().zip(&exact).enumerate() {
                let place = || format!("output {} of row {} of {}", at % outputs, at / outputs, sample.name);
                if !is_close(*found, exact.value, TOLERANCE * (exact.size + f64::EPSILON)) {
                    return Err(differs(kernel, &place(), *found, exact.value));
                }
            }
            let bits: Vec<u32> = found[..outputs].iter().map(|value| value.to_bits()).collect();
            if rows == 1 {
                alone = bits;
            } else if let Some(at) = alone.iter().zip(&bits).position(|(alone, here)| alone != here) {
                let place = format!("output {at} of a row of {} that has company", sample.name);
                return Err(differs(kernel, &place, found[at], f32::from_bits(alone[at]).into()));
            }
        }
        if cols == self.hidden() { self.compare_gated(sample, &rows, &exact) } else { Ok(()) }
    }

    /// Compares a gated network whose gate and other matrix are both the sample's.
    fn compare_gated(&mut self, sample: &Sample<G::Buffer>, rows: &[f32], exact: &[Exact]) -> Result<(), GpuError> {
        let outputs = sample.matrix.rows;
        let (mut step, _, _) = self.step();
        write_floats(&step.scratch.normed, rows);
        for (count, activation) in ROW_COUNTS.into_iter().zip([Activation::Silu, Activation::Gelu].into_iter().cycle())
        {
            let kernel = Kernel::Gated(sample.matrix.format, RowsAtOnce::of(count));
            step.rows = count;
            step.gate(&sample.matrix, &sample.matrix, activation)?;
            step.gpu.finish()?;
            let found = read_floats(&step.scratch.gated, count * outputs);
            for (at, (found, Exact { value, size })) in found.iter().zip(exact).enumerate() {
                let inner = 2.0 * (2.0 / std::f64::consts::PI).sqrt() * (value + 0.044_715 * value.powi(3));
                let power = if activation == Activation::Silu { *value } else { inner };
                let expected = value / (1.0 + (-power).exp()) * value;
                if !is_close(*found, expected, TOLERANCE * (1.0 + size) * (1.0 + size)) {
                    let place = format!("output {} of row {} of {}", at % outputs, at / outputs, sample.name);
                    return Err(differs(kernel, &place, *found, expected));
                }
            }
        }
        Ok(())
    }
}

/// The products of all rows with the sample's outputs.
fn exact<B>(sample: &Sample<B>, rows: &[f32]) -> Vec<Exact> {
    let cols = sample.matrix.cols;
    let Some(matrix) = sample.tensor.matrix_of_rows(0..sample.matrix.rows) else { return Vec::new() };
    let mut weights = vec![0.0; cols];
    let mut found = vec![Exact { value: 0.0, size: 0.0 }; ROWS * sample.matrix.rows];
    for output in 0..sample.matrix.rows {
        dequantise_row(&matrix, output, &mut weights);
        for (row, values) in rows.chunks_exact(cols).enumerate() {
            let terms = || weights.iter().zip(values).map(|(weight, value)| f64::from(*weight) * f64::from(*value));
            found[row * sample.matrix.rows + output] =
                Exact { value: terms().sum(), size: terms().map(f64::abs).sum() };
        }
    }
    found
}
