//! A matrix product whose outputs several threads write. Does no arithmetic and does not divide the outputs.

use std::ops::Range;

use super::split::Split;
use super::{Matrix, Rows};

/// A `MatmulJob` in the form that the threads share.
pub(super) struct Product<'a> {
    pub(super) weights: Matrix<'a>,
    pub(super) out: Split<'a, f32>,
    pub(super) x: &'a Rows,
}

// === impl Product ===

impl<'a> Product<'a> {
    /// Buffer for outputs `outputs` of row `row`.
    ///
    /// # Safety
    /// No other reference to any of them may exist.
    pub(super) unsafe fn out(&self, row: usize, outputs: Range<usize>) -> &'a mut [f32] {
        let start = row * self.weights.rows();
        // SAFETY: the caller promises that no other reference to this part exists.
        unsafe { self.out.part(start + outputs.start..start + outputs.end) }
    }
}
