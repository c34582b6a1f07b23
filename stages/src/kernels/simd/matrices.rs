//! The operations that a product kernel needs from matrix registers, and its work buffers for them. Knows no formats.

use std::convert::Infallible;

use super::{Simd, WeightLanes};
use crate::kernels::rows::{MATRIX_ROWS, Quantised};

/// Matrix registers, which sum the products of a block of weights with many rows at once. The result stays the same,
/// because integer sums are exact and the vectors still scale them.
pub(in crate::kernels) trait Matrices<S: Simd>: Copy {
    /// Work buffers of this thread. The caller gives them back by `return_scratch`.
    fn take_scratch(self) -> Box<MatrixScratch<S>>;
    /// Keeps the buffers that `take_scratch` returned for its next call.
    fn return_scratch(self, scratch: Box<MatrixScratch<S>>);
    /// Subtracts `above` from every byte, so that the weights are signed.
    fn sign(self, weights: &mut [S::Int; 8], above: u8);
    /// Writes the integer sums of 32 signed weights of each output with each row of `x` to `sums`.
    fn dot_block(self, weights: &[S::Int; 8], x: &[Quantised; MATRIX_ROWS], sums: &mut [S::Int; MATRIX_ROWS]);
}

impl<S: Simd> Matrices<S> for Infallible {
    fn take_scratch(self) -> Box<MatrixScratch<S>> {
        match self {}
    }

    fn return_scratch(self, _: Box<MatrixScratch<S>>) {
        match self {}
    }

    fn sign(self, _: &mut [S::Int; 8], _: u8) {
        match self {}
    }

    fn dot_block(self, _: &[S::Int; 8], _: &[Quantised; MATRIX_ROWS], _: &mut [S::Int; MATRIX_ROWS]) {
        match self {}
    }
}

/// Work buffers of a kernel that uses [`Matrices`].
pub(in crate::kernels) struct MatrixScratch<S: Simd> {
    /// Integer sums of each block, for [`MATRIX_ROWS`] rows.
    pub(in crate::kernels) integers: [[S::Int; MATRIX_ROWS]; MATRIX_BLOCKS],
    pub(in crate::kernels) lanes: [WeightLanes<S>; MATRIX_BLOCKS],
    pub(in crate::kernels) next_lanes: [WeightLanes<S>; MATRIX_BLOCKS],
}

/// Blocks of 32 weights that are unpacked, then multiplied together.
pub(in crate::kernels) const MATRIX_BLOCKS: usize = 8;

// === impl MatrixScratch ===

impl<S: Simd> MatrixScratch<S> {
    pub(in crate::kernels) fn new(s: S) -> Self {
        let lanes = [WeightLanes::zero(s); MATRIX_BLOCKS];
        Self { integers: [[s.splat(0); MATRIX_ROWS]; MATRIX_BLOCKS], lanes, next_lanes: lanes }
    }
}
