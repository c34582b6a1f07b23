//! The experts of a shard that a row ever chose. A set of bits a layer, which other threads may read.

use std::sync::atomic::{AtomicU64, Ordering};

use schema::record::{self, ExpertSet};

/// Experts that were chosen since the shard was loaded.
#[derive(Debug, Default)]
pub struct TouchedExperts {
    /// Number of the shard's first layer in the model.
    first_layer: u32,
    /// The layers of the shard.
    layers: Vec<LayerExperts>,
}

/// The experts of one layer.
#[derive(Debug, Default)]
struct LayerExperts {
    count: usize,
    /// A bit for each, 64 in a word.
    words: Vec<AtomicU64>,
}

// === impl TouchedExperts ===

impl TouchedExperts {
    /// None yet, of layers from `first_layer` on with so many experts each.
    pub(super) fn new(first_layer: u32, experts: impl Iterator<Item = usize>) -> Self {
        let words = |count: usize| (0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { first_layer, layers: experts.map(|count| LayerExperts { count, words: words(count) }).collect() }
    }

    /// Marks an expert of a layer of the shard. True if it was not marked before.
    pub(super) fn touch(&self, layer: usize, expert: usize) -> bool {
        let bit = 1 << (expert % 64);
        let word = self.layers.get(layer).and_then(|layer| layer.words.get(expert / 64));
        word.is_some_and(|word| word.fetch_or(bit, Ordering::Relaxed) & bit == 0)
    }

    /// Number of marked experts of all layers.
    pub fn count(&self) -> u64 {
        let words = self.layers.iter().flat_map(|layer| &layer.words);
        words.map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }

    /// The marked experts of each layer, for the store.
    pub fn record(&self) -> record::TouchedExperts {
        let set = |LayerExperts { count, words }: &LayerExperts| {
            ExpertSet::new(*count as u32, words.iter().map(|word| word.load(Ordering::Relaxed)))
        };
        record::TouchedExperts::new(self.first_layer, self.layers.iter().map(set).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expert_counts_once_in_its_layer() {
        let touched = TouchedExperts::new(7, [3, 0, 130].into_iter());
        assert!(touched.touch(0, 2) && !touched.touch(0, 2) && touched.touch(2, 2) && touched.touch(2, 129));
        assert!(!touched.touch(1, 0), "a layer without experts has none");
        assert_eq!(touched.count(), 3);
        let record = touched.record();
        let sets: Vec<_> = record.sets().map(|(layer, set)| (layer, set.count(), set.ranges())).collect();
        assert_eq!(sets, [(7, 3, "2".to_owned()), (9, 130, "2,129".to_owned())]);
        assert_eq!(record.total, 133);
    }
}
