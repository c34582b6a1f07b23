//! A buffer that several threads write at once, each in its own part. Does not know which thread takes which part.

use std::marker::PhantomData;
use std::ops::Range;

/// A buffer lent to the threads of one parallel region. They take its parts by index instead of by splitting the slice.
pub(crate) struct Split<'a, T> {
    start: *mut T,
    len: usize,
    buffer: PhantomData<&'a mut [T]>,
}

// SAFETY: a `Split` is a `&mut [T]` that hands out parts, and the callers of `part` promise that parts do not overlap.
// So sharing it between threads only sends parts of a `&mut [T]` to them, which `T: Send` allows.
unsafe impl<T: Send> Sync for Split<'_, T> {}

// === impl Split ===

impl<'a, T> Split<'a, T> {
    /// Borrows `buffer` for one parallel region.
    pub(crate) fn new(buffer: &'a mut [T]) -> Self {
        Self { start: buffer.as_mut_ptr(), len: buffer.len(), buffer: PhantomData }
    }

    /// The values in `range`, for reading.
    ///
    /// # Safety
    /// No part that overlaps this one may be in use for writing at the same time.
    ///
    /// # Panics
    /// If the range does not lie in the buffer.
    pub(crate) unsafe fn shared(&self, range: Range<usize>) -> &'a [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part {range:?} of {} values", self.len);
        // SAFETY: the range lies in the buffer that is borrowed for 'a, and the caller promises that no part that is
        // written overlaps it.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.end - range.start) }
    }

    /// The values in `range`.
    ///
    /// # Safety
    /// No part that overlaps this one may be in use at the same time.
    ///
    /// # Panics
    /// If the range does not lie in the buffer.
    #[inline(always)]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part {range:?} of {} values", self.len);
        // SAFETY: the range lies in the buffer that is borrowed for 'a, and the caller promises that no other part
        // overlaps it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.end - range.start) }
    }
}
