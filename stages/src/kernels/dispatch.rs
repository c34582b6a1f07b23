//! A product's way from the call to the threads: which instruction set, which outputs together. Does no arithmetic.

use std::ops::Range;
use std::sync::OnceLock;

use super::disjoint::Disjoint;
#[cfg(target_arch = "aarch64")]
use super::neon::{self, DOT, MATRIX, Neon};
use super::rows::{Quantised, Quantiser};
use super::simd::Simd;
#[cfg(target_arch = "x86_64")]
use super::tile::MATRIX_ROWS_MIN;
use super::tile::Outputs;
#[cfg(target_arch = "x86_64")]
use super::x86::{self, avx2::Avx2, avx512::Avx512};
use super::{Matrix, Pool, Rows, scalar};

/// One matrix to multiply with, and where the product goes.
#[derive(Debug)]
pub struct MatmulJob<'a> {
    /// `n` x `k` weights.
    pub weights: Matrix<'a>,
    /// `m` x `n` outputs, row-major.
    pub out: &'a mut [f32],
}

/// The instruction sets there are kernels for. All give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// As `Avx512`, and many rows at once by AMX.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// x86-64 with AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// aarch64 with NEON, its dot product extension and the one for matrices of bytes.
    #[cfg(target_arch = "aarch64")]
    NeonI8mm,
    /// aarch64 with NEON and its dot product extension.
    #[cfg(target_arch = "aarch64")]
    NeonDot,
    /// aarch64 with NEON.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// No vectors: the reference.
    Scalar,
}

/// A job as the threads see it.
pub(super) struct Product<'a> {
    pub(super) weights: Matrix<'a>,
    pub(super) out: Disjoint<'a, f32>,
    pub(super) x: &'a Rows,
}

/// Jobs in one parallel region: Q, K, V and a few to spare. More are done in several regions.
const JOBS_MAX: usize = 8;

/// Outputs are dealt out in multiples of this: every kernel's tile divides it.
const OUTPUTS_STEP: usize = 16;

/// Weight bytes times rows a part should have at least, so that taking a part costs nothing beside it (1 to 2 us).
const PART_WORK_MIN: usize = 32 * 1024;

/// Parts a thread should find when there is enough work: a late thread then costs a sixteenth of the region.
const PARTS_PER_THREAD: usize = 16;

/// Multiplies `x` (m x k) with each job's weights (n x k): `out[i][j] = sum over k of weights[j][k] * x[i][k]`.
///
/// All jobs share one parallel region. The best instruction set of the machine is used; the result does not depend on it.
///
/// # Panics
/// When a job's columns are not those of `x`, or its `out` is not m x n values.
pub fn matmul(pool: &Pool, jobs: &mut [MatmulJob<'_>], x: &mut Rows) {
    matmul_on(Path::best(), pool, jobs, x);
}

/// As [`matmul`], on a chosen instruction set.
///
/// # Panics
/// As [`matmul`], and when the machine does not have the instruction set.
pub fn matmul_on(path: Path, pool: &Pool, jobs: &mut [MatmulJob<'_>], x: &mut Rows) {
    assert!(path.available(), "{path:?} kernels on a machine without them");
    for job in &*jobs {
        let (rows, cols, len) = (x.rows(), x.cols(), job.out.len());
        assert_eq!(job.weights.cols(), cols, "weights of {} columns, rows of {cols}", job.weights.cols());
        assert_eq!(len, rows * job.weights.rows(), "{len} outputs for {rows} x {}", job.weights.rows());
    }
    if jobs.iter().any(|job| job.weights.format().block_values() > 1) {
        x.quantise(pool, path.quantiser());
    }
    for jobs in jobs.chunks_mut(JOBS_MAX) {
        region(path, pool, jobs, x);
    }
}

/// Does up to [`JOBS_MAX`] jobs at once.
fn region(path: Path, pool: &Pool, jobs: &mut [MatmulJob<'_>], x: &Rows) {
    let total: usize = jobs.iter().map(|job| job.weights.bytes().len()).sum();
    // One thread waits for no other.
    let parts = if pool.threads() == 1 { 1 } else { pool.threads() * PARTS_PER_THREAD };
    let share = (total / parts).max(PART_WORK_MIN / x.rows().max(1));
    let mut products = [const { None }; JOBS_MAX];
    let mut parts = 0;
    for (product, job) in products.iter_mut().zip(jobs) {
        let outputs = (share / job.weights.row_bytes().max(1)).max(1).next_multiple_of(OUTPUTS_STEP);
        let first = parts;
        parts += job.weights.rows().div_ceil(outputs);
        *product = Some((first, outputs, Product { weights: job.weights, out: Disjoint::new(job.out), x }));
    }
    pool.run(parts, &|part| {
        let mine = products.iter().flatten().rev().find(|(first, ..)| *first <= part);
        let (first, outputs, product) = mine.expect("the first job starts at part 0");
        let start = (part - first) * outputs;
        path.multiply(product, start..(start + outputs).min(product.weights.rows()));
    });
}

// === impl Path ===

impl Path {
    /// The best one this machine has.
    pub fn best() -> Self {
        static BEST: OnceLock<Path> = OnceLock::new();
        *BEST.get_or_init(|| *Self::ALL.iter().find(|path| path.available()).expect("scalar is always there"))
    }

    /// All, the best first.
    pub const ALL: &[Self] = &[
        #[cfg(target_arch = "x86_64")]
        Self::Amx,
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        #[cfg(target_arch = "aarch64")]
        Self::NeonI8mm,
        #[cfg(target_arch = "aarch64")]
        Self::NeonDot,
        #[cfg(target_arch = "aarch64")]
        Self::Neon,
        Self::Scalar,
    ];

    /// Whether this machine has it.
    pub fn available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => Avx512::detect_with_matrices().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::detect().is_some(),
            #[cfg(target_arch = "aarch64")]
            Self::NeonI8mm => Neon::<MATRIX>::detect().is_some(),
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => Neon::<DOT>::detect().is_some(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => Neon::<0>::detect().is_some(),
            Self::Scalar => true,
        }
    }

    fn quantiser(self) -> Quantiser {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx | Self::Avx512 => x86::avx512::quantise,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => x86::avx2::quantise,
            #[cfg(target_arch = "aarch64")]
            Self::NeonI8mm | Self::NeonDot | Self::Neon => neon::quantise,
            Self::Scalar => Quantised::columns,
        }
    }

    /// Computes `outputs` (a range of the weights' rows) for all rows of the input. No two calls may overlap.
    fn multiply(self, product: &Product<'_>, outputs: Range<usize>) {
        let work = Outputs { product, range: outputs };
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx if product.x.rows() >= MATRIX_ROWS_MIN => {
                Avx512::detect_with_matrices().expect("asked before").run(work);
            }
            #[cfg(target_arch = "x86_64")]
            Self::Amx | Self::Avx512 => Avx512::detect().expect("asked before").run(work),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::detect().expect("asked before").run(work),
            #[cfg(target_arch = "aarch64")]
            Self::NeonI8mm => Neon::<MATRIX>::detect().expect("asked before").run(work),
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => Neon::<DOT>::detect().expect("asked before").run(work),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => Neon::<0>::detect().expect("asked before").run(work),
            Self::Scalar => scalar::multiply(product, work.range),
        }
    }
}

// === impl Product ===

impl<'a> Product<'a> {
    /// Where outputs `outputs` of row `row` go.
    ///
    /// # Safety
    /// Nobody else may hold any of them.
    pub(super) unsafe fn out(&self, row: usize, outputs: Range<usize>) -> &'a mut [f32] {
        let start = row * self.weights.rows();
        // SAFETY: the caller promises that nobody else holds this part.
        unsafe { self.out.part(start + outputs.start..start + outputs.end) }
    }
}
