//! The block table that a layer reads of a slice: that of its kind. Pure.

use schema::frame::Slice;

use crate::model::Window;

/// A sequence's block table, for layers of one kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SliceBlocks<'a> {
    /// Index in the sequence of the first block.
    pub(crate) first: usize,
    /// The blocks from there on.
    pub(crate) blocks: &'a [u32],
}

// === impl SliceBlocks ===

impl<'a> SliceBlocks<'a> {
    /// The blocks that layers with this window have for `slice`.
    pub(crate) fn of(slice: &'a Slice, window: Window) -> Self {
        match window {
            Window::All | Window::Text => Self { first: 0, blocks: &slice.blocks },
            Window::Last(_) | Window::Chunk(_) => {
                Self { first: slice.window_first as usize, blocks: &slice.window_blocks }
            }
        }
    }
}
