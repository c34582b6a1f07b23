//! A launch: a kernel, its groups and its arguments.

use super::kernel::Kernel;

/// One launch of a kernel.
#[derive(Debug)]
pub struct Launch<'a, B> {
    /// The kernel.
    pub kernel: Kernel,
    /// Number of groups in each direction, at least one.
    pub groups: [u32; 3],
    /// Buffers that it reads, in the order of the source.
    pub inputs: &'a [View<'a, B>],
    /// Buffers that it writes, likewise. In the source, these follow.
    pub outputs: &'a [View<'a, B>],
    /// Its sizes: the numbers of the source's structure, floats by their bits.
    pub sizes: &'a [u32],
}

/// A buffer from a byte on.
#[derive(Debug)]
pub struct View<'a, B> {
    /// The buffer.
    pub buffer: &'a B,
    /// The first byte.
    pub offset: usize,
}

// === impl View ===

impl<B> Clone for View<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for View<'_, B> {}

impl<'a, B> From<&'a B> for View<'a, B> {
    /// All of the buffer.
    fn from(buffer: &'a B) -> Self {
        Self { buffer, offset: 0 }
    }
}
