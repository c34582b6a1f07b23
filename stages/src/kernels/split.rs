//! One buffer written by several threads at once, each in a part of its own. Does not know how the parts are dealt out.

use std::marker::PhantomData;
use std::ops::Range;

/// A buffer lent to the threads of one parallel region, whose parts are handed out by index instead of by splitting.
pub(crate) struct Split<'a, T> {
    start: *mut T,
    len: usize,
    buffer: PhantomData<&'a mut [T]>,
}

// SAFETY: a `Split` is a `&mut [T]` that hands out parts which the callers of `part` promise not to overlap, so sharing
// it between threads is sending parts of a `&mut [T]` to them, which `T: Send` allows.
unsafe impl<T: Send> Sync for Split<'_, T> {}

// === impl Split ===

impl<'a, T> Split<'a, T> {
    /// Lends out `buffer`.
    pub(crate) fn new(buffer: &'a mut [T]) -> Self {
        Self { start: buffer.as_mut_ptr(), len: buffer.len(), buffer: PhantomData }
    }

    /// The values in `range`.
    ///
    /// # Safety
    /// While the part is in use, no other part that overlaps it is.
    ///
    /// # Panics
    /// When the range does not lie in the buffer.
    #[inline(always)]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part {range:?} of {} values", self.len);
        // SAFETY: the range lies in the buffer that is borrowed for 'a, and the caller keeps others out of it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.end - range.start) }
    }
}
