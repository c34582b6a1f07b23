//! Dispatches a matrix product: chooses the instruction set and divides the outputs among the threads. Does no
//! arithmetic.

use std::ops::Range;

use super::isa::{InstructionSet, Isa};
#[cfg(target_arch = "aarch64")]
use super::neon::{self, DOT, MATRIX, Neon};
use super::product::Product;
use super::rows::{Quantised, Quantiser};
use super::simd::Simd;
use super::split::Split;
#[cfg(target_arch = "x86_64")]
use super::tile::MATRIX_ROWS_MIN;
use super::tile::Outputs;
#[cfg(target_arch = "x86_64")]
use super::x86::{self, avx2::Avx2, avx512::Avx512};
use super::{Matrix, Rows, ThreadPool, scalar};

/// One matrix to multiply with, and the buffer for the product.
#[derive(Debug)]
pub struct MatmulJob<'a> {
    /// `n` x `k` weights.
    pub weights: Matrix<'a>,
    /// `m` x `n` outputs, row-major.
    pub out: &'a mut [f32],
}

/// Jobs in one parallel region: Q, K, V and a few to spare. More jobs take several regions.
const JOBS_MAX: usize = 8;

/// Threads take outputs in multiples of this number. The tile width of every kernel divides it.
const OUTPUTS_STEP: usize = 16;

/// Minimum work of a part, in weight bytes times rows: 1 to 2 us, so that the cost of taking a part is negligible.
const PART_WORK_MIN: usize = 32 * 1024;

/// Parts for each thread if there is enough work. A late thread then costs a sixteenth of the region.
const PARTS_PER_THREAD: usize = 16;

/// Multiplies `x` (m x k) with each job's weights (n x k): `out[i][j] = sum over k of weights[j][k] * x[i][k]`.
///
/// Up to eight jobs share a parallel region. The best instruction set of the machine is used. The result does not
/// depend on it.
///
/// # Panics
/// If a job's columns are not those of `x`, or its `out` is not m x n values.
pub fn matmul(pool: &ThreadPool, jobs: &mut [MatmulJob<'_>], x: &mut Rows) {
    matmul_on(Isa::best(), pool, jobs, x);
}

/// As [`matmul`], on a chosen instruction set.
///
/// # Panics
/// As [`matmul`].
pub fn matmul_on(isa: Isa, pool: &ThreadPool, jobs: &mut [MatmulJob<'_>], x: &mut Rows) {
    for job in &*jobs {
        let (rows, cols, len) = (x.rows(), x.cols(), job.out.len());
        assert_eq!(job.weights.cols(), cols, "weights of {} columns, rows of {cols}", job.weights.cols());
        assert_eq!(len, rows * job.weights.rows(), "{len} outputs for {rows} x {}", job.weights.rows());
    }
    if jobs.iter().any(|job| job.weights.format().block_values() > 1) {
        x.quantise(pool, isa.quantiser());
    }
    for jobs in jobs.chunks_mut(JOBS_MAX) {
        region(isa, pool, jobs, x);
    }
}

/// Runs up to [`JOBS_MAX`] jobs in one parallel region.
fn region(isa: Isa, pool: &ThreadPool, jobs: &mut [MatmulJob<'_>], x: &Rows) {
    let total: usize = jobs.iter().map(|job| job.weights.bytes().len()).sum();
    // A single thread waits for no other, so one part is enough.
    let parts = if pool.threads() == 1 { 1 } else { pool.threads() * PARTS_PER_THREAD };
    let share = (total / parts).max(PART_WORK_MIN / x.rows().max(1));
    let mut products = [const { None }; JOBS_MAX];
    let mut parts = 0;
    for (product, job) in products.iter_mut().zip(jobs) {
        let outputs = (share / job.weights.row_bytes().max(1)).max(1).next_multiple_of(OUTPUTS_STEP);
        let first = parts;
        parts += job.weights.rows().div_ceil(outputs);
        *product = Some((first, outputs, Product { weights: job.weights, out: Split::new(job.out), x }));
    }
    pool.run(parts, &|part| {
        let found = products.iter().flatten().rev().find(|(first, ..)| *first <= part);
        let (first, outputs, product) = found.expect("the first job starts at part 0");
        let start = (part - first) * outputs;
        isa.multiply(product, start..(start + outputs).min(product.weights.rows()));
    });
}

// === impl Isa ===

impl Isa {
    fn quantiser(self) -> Quantiser {
        match self.instruction_set() {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Amx | InstructionSet::Avx512 => x86::avx512::quantise,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512F | InstructionSet::Avx2 => x86::avx2::quantise,
            #[cfg(target_arch = "aarch64")]
            InstructionSet::NeonI8mm | InstructionSet::NeonDot | InstructionSet::Neon => neon::quantise,
            InstructionSet::Scalar => Quantised::columns,
        }
    }

    /// Computes `outputs` (a range of the weights' rows) for all rows of the input. The ranges of two calls must not
    /// overlap.
    fn multiply(self, product: &Product<'_>, outputs: Range<usize>) {
        let work = Outputs { product, range: outputs };
        match self.instruction_set() {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Amx if product.x.rows() >= MATRIX_ROWS_MIN => {
                Avx512::detect_with_matrices().expect(PROVEN).run(work);
            }
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Amx | InstructionSet::Avx512 => Avx512::detect().expect(PROVEN).run(work),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512F | InstructionSet::Avx2 => Avx2::detect().expect(PROVEN).run(work),
            #[cfg(target_arch = "aarch64")]
            InstructionSet::NeonI8mm => Neon::<MATRIX>::detect().expect(PROVEN).run(work),
            #[cfg(target_arch = "aarch64")]
            InstructionSet::NeonDot => Neon::<DOT>::detect().expect(PROVEN).run(work),
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon => Neon::<0>::detect().expect(PROVEN).run(work),
            InstructionSet::Scalar => scalar::multiply(product, work.range),
        }
    }
}

/// Panic message for a failed detection. None fails here, because an `Isa` exists only for detected instructions.
const PROVEN: &str = "an `Isa` is proof of its instructions";
