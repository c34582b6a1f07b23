//! The processor's products, against double precision.

use std::num::NonZeroUsize;

use super::random_model::{Random, random_blocks};
use crate::format::Format;
use crate::kernels::{MatmulJob, Matrix, Rows, ThreadPool, dequantise_row, matmul};

const OUTPUTS: usize = 24;
const COLS: usize = 512;
const ROWS: usize = 9;
/// Largest difference of a product, as a part of the sum of its terms' sizes: of floats, and of integers, for which
/// activations are rounded to 8 bits.
const TOLERANCE: f64 = 1e-6;
const TOLERANCE_OF_BYTES: f64 = 6e-3;

/// Compares the products of random weights in `format`.
pub(super) fn check(threads: NonZeroUsize, format: Format) -> Result<(), String> {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let blocks = random_blocks(&mut random, format, COLS * OUTPUTS, COLS as f32);
    let weights = Matrix::new(format, OUTPUTS, COLS, &blocks).map_err(|error| error.to_string())?;
    let rows: Vec<f32> = (0..ROWS * COLS).map(|_| 2.0 * random.float()).collect();
    let mut input = Rows::default();
    input.prepare(ROWS, COLS).copy_from_slice(&rows);
    let mut found = vec![f32::NAN; ROWS * OUTPUTS];
    matmul(&ThreadPool::new(threads), &mut [MatmulJob { weights, out: &mut found }], &mut input);
    let bound = if format.has_integers() { TOLERANCE_OF_BYTES } else { TOLERANCE };
    let mut exact = vec![0.0; COLS];
    for output in 0..OUTPUTS {
        dequantise_row(&weights, output, &mut exact);
        for (row, values) in rows.chunks_exact(COLS).enumerate() {
            let terms = || exact.iter().zip(values).map(|(weight, value)| f64::from(*weight) * f64::from(*value));
            let (sum, size): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
            let found = found[row * OUTPUTS + output];
            let difference = (f64::from(found) - sum).abs();
            if difference > bound * size || difference.is_nan() {
                return Err(format!("output {output} of row {row} is {found}: expected {sum}"));
            }
        }
    }
    Ok(())
}
