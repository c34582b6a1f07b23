//! Dispatches a matrix product: chooses the instruction set and divides the outputs among the threads. Does no
//! arithmetic.

use std::ops::Range;

use super::isa::{InstructionSet, Isa};
#[cfg(target_arch = "aarch64")]
use super::neon::{self, DOT, MATRIX, Neon};
use super::product::Product;
use super::rows::{Quantised, Quantiser};
use super::split::Split;
#[cfg(target_arch = "x86_64")]
use super::tile::MATRIX_ROWS_MIN;
use super::tile::{self, Outputs};
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

/// One matrix to multiply rows of its own with, and the buffer for the product.
#[derive(Debug)]
pub struct GroupJob<'a> {
    /// `n` x `k` weights.
    pub weights: Matrix<'a>,
    /// Index of its rows, `m` x `k`, in the list of inputs.
    pub input: usize,
    /// `m` x `n` outputs, row-major.
    pub out: &'a mut [f32],
}

/// Jobs in one parallel region: gates and ups of eight experts. More jobs take several regions.
const JOBS_MAX: usize = 16;

/// Threads take outputs in multiples of this number. The tile width of every kernel divides it.
const OUTPUTS_STEP: usize = 16;

/// Minimum work of a part, in weight bytes times rows: 1 to 2 us, so that the cost of taking a part is negligible.
const PART_WORK_MIN: usize = 32 * 1024;

/// Parts for each thread if there is enough work. A late thread then costs a sixteenth of the region.
const PARTS_PER_THREAD: usize = 16;

/// Multiplies `x` (m x k) with each job's weights (n x k): `out[i][j] = sum over k of weights[j][k] * x[i][k]`.
///
/// Up to sixteen jobs share a parallel region. The best instruction set of the machine is used. The result does not
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
    jobs.iter().for_each(|job| check(&job.weights, job.out, x));
    if jobs.iter().any(|job| is_quantised(&job.weights)) {
        x.quantise(pool, isa.quantiser());
    }
    let x = &*x;
    for jobs in jobs.chunks_mut(JOBS_MAX) {
        let total = jobs.iter().map(|job| job.weights.bytes().len()).sum();
        let products = jobs.iter_mut().map(|job| Product { weights: job.weights, out: Split::new(job.out), x });
        region(isa, pool, total, products);
    }
}

/// As [`matmul`], but each job has its own rows: those of `inputs` that it names. Jobs that are `None` are left out.
///
/// # Panics
/// As [`matmul`], and if a job names rows that are not there.
pub fn matmul_groups(pool: &ThreadPool, jobs: &mut [Option<GroupJob<'_>>], inputs: &mut [Rows]) {
    let isa = Isa::best();
    for job in jobs.iter().flatten() {
        check(&job.weights, job.out, &inputs[job.input]);
        if is_quantised(&job.weights) {
            inputs[job.input].quantise(pool, isa.quantiser());
        }
    }
    let inputs = &*inputs;
    for jobs in jobs.chunks_mut(JOBS_MAX) {
        let total = jobs.iter().flatten().map(|job| job.weights.bytes().len()).sum();
        let products = jobs.iter_mut().flatten().map(|job| {
            let (weights, out) = (job.weights, Split::new(job.out));
            Product { weights, out, x: &inputs[job.input] }
        });
        region(isa, pool, total, products);
    }
}

fn check(weights: &Matrix<'_>, out: &[f32], x: &Rows) {
    let (rows, cols, len) = (x.rows(), x.cols(), out.len());
    assert_eq!(weights.cols(), cols, "weights of {} columns, rows of {cols}", weights.cols());
    assert_eq!(len, rows * weights.rows(), "{len} outputs for {rows} x {}", weights.rows());
}

fn is_quantised(weights: &Matrix<'_>) -> bool {
    weights.format().has_integers()
}

/// Computes up to [`JOBS_MAX`] products, whose weights have `total` bytes, in one parallel region.
fn region<'a>(isa: Isa, pool: &ThreadPool, total: usize, jobs: impl Iterator<Item = Product<'a>>) {
    // A single thread waits for no other, so one part is enough.
    let parts = if pool.threads() == 1 { 1 } else { pool.threads() * PARTS_PER_THREAD };
    let share = total / parts;
    let mut products = [const { None }; JOBS_MAX];
    let mut parts = 0;
    for (place, product) in products.iter_mut().zip(jobs) {
        let share = share.max(PART_WORK_MIN / product.x.rows().max(1));
        let outputs = (share / product.weights.row_bytes().max(1)).max(1).next_multiple_of(OUTPUTS_STEP);
        let first = parts;
        parts += product.weights.rows().div_ceil(outputs);
        *place = Some((first, outputs, product));
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
                tile::multiply(Avx512::detect_with_matrices().expect(PROVEN), work);
            }
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Amx | InstructionSet::Avx512 => tile::multiply(Avx512::detect().expect(PROVEN), work),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512F | InstructionSet::Avx2 => tile::multiply(Avx2::detect().expect(PROVEN), work),
            #[cfg(target_arch = "aarch64")]
            InstructionSet::NeonI8mm => tile::multiply(Neon::<MATRIX>::detect().expect(PROVEN), work),
            #[cfg(target_arch = "aarch64")]
            InstructionSet::NeonDot => tile::multiply(Neon::<DOT>::detect().expect(PROVEN), work),
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon => tile::multiply(Neon::<0>::detect().expect(PROVEN), work),
            InstructionSet::Scalar => scalar::multiply(product, work.range),
        }
    }
}

/// Panic message for a failed detection. None fails here, because an `Isa` exists only for detected instructions.
const PROVEN: &str = "an `Isa` is proof of its instructions";
