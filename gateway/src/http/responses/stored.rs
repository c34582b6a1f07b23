//! A kept response.

use std::sync::Arc;

use bytes::Bytes;

use super::item::Item;

/// A response with its whole conversation, so that a later request can go on from it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StoredResponse {
    pub(super) id: String,
    /// The response as its client got it, as JSON.
    pub(super) body: Bytes,
    /// The items before the answer, those of earlier responses included.
    pub(super) input: Vec<Arc<Item>>,
    /// The answer's own items.
    pub(super) output: Vec<Arc<Item>>,
}

// === impl StoredResponse ===

impl StoredResponse {
    /// All items, the oldest first.
    pub(super) fn items(&self) -> impl Iterator<Item = &Arc<Item>> {
        self.input.iter().chain(&self.output)
    }

    /// Bytes that it takes in memory, if it shares no item with others.
    pub(super) fn bytes(&self) -> usize {
        let items = self.items().map(|item| size_of::<Arc<Item>>() + item.bytes());
        size_of::<Self>() + 2 * self.id.len() + self.body.len() + items.sum::<usize>()
    }
}
