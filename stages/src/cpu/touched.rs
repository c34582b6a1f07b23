//! The experts of a shard that a row ever chose. A set of bits a layer, which other threads may count.

use std::sync::atomic::{AtomicU64, Ordering};

/// Experts that were chosen since the shard was loaded.
#[derive(Debug, Default)]
pub struct TouchedExperts {
    /// `[layer of the shard][expert / 64]`.
    layers: Vec<Vec<AtomicU64>>,
}

// === impl TouchedExperts ===

impl TouchedExperts {
    /// None yet, of layers with so many experts each.
    pub(super) fn new(experts: impl Iterator<Item = usize>) -> Self {
        let words = |count: usize| (0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { layers: experts.map(words).collect() }
    }

    /// Marks an expert of a layer of the shard. True if it was not marked before.
    pub(super) fn touch(&self, layer: usize, expert: usize) -> bool {
        let bit = 1 << (expert % 64);
        let word = self.layers.get(layer).and_then(|words| words.get(expert / 64));
        word.is_some_and(|word| word.fetch_or(bit, Ordering::Relaxed) & bit == 0)
    }

    /// Number of marked experts of all layers.
    pub fn count(&self) -> u64 {
        self.layers.iter().flatten().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expert_counts_once_in_its_layer() {
        let touched = TouchedExperts::new([3, 0, 130].into_iter());
        assert!(touched.touch(0, 2) && !touched.touch(0, 2) && touched.touch(2, 2) && touched.touch(2, 129));
        assert!(!touched.touch(1, 0), "a layer without experts has none");
        assert_eq!(touched.count(), 3);
    }
}
