//! A slice that several threads write at once, each its own part. Does not know how the parts are dealt out.

use std::marker::PhantomData;
use std::ops::Range;

/// A borrowed slice whose parts are handed out by index instead of by splitting.
#[derive(Clone, Copy)]
pub(super) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    borrowed: PhantomData<&'a mut [T]>,
}

// SAFETY: this is a `&mut [T]`, whose parts go to other threads; `part` demands that no two of them overlap.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}
// SAFETY: as above; a shared `Disjoint` gives nothing but exclusive parts.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), borrowed: PhantomData }
    }

    /// The part at `range`.
    ///
    /// # Safety
    /// No index may be in two parts that live at the same time.
    ///
    /// # Panics
    /// When `range` is not within the slice.
    #[inline(always)]
    pub(super) unsafe fn part(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: within the slice, which is borrowed for `'a`; the caller promises that nobody else has this part.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.end - range.start) }
    }
}
