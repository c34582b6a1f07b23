//! Sets of tokens as bits: bit `i % 32` of word `i / 32` is token `i`.

/// A set of tokens of one vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TokenMask(Vec<u32>);

// === impl TokenMask ===

impl TokenMask {
    /// The empty set, for a vocabulary of `vocab_size` tokens.
    pub(super) fn new(vocab_size: usize) -> Self {
        Self(vec![0; vocab_size.div_ceil(32)])
    }

    /// The words, `vocab_size / 32` of them, rounded up.
    pub(super) fn words(&self) -> &[u32] {
        &self.0
    }

    /// True if `token` is in the set.
    pub(super) fn contains(&self, token: u32) -> bool {
        let (word, bit) = place(token);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Adds `token`. Those outside the vocabulary are ignored.
    pub(super) fn insert(&mut self, token: u32) {
        let (word, bit) = place(token);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    /// Becomes the intersection of `words` and `other`. Words that `words` lacks are zero.
    pub(super) fn set_intersection(&mut self, words: &[u32], other: &Self) {
        let words = words.iter().copied().chain(std::iter::repeat(0));
        for ((own, word), other) in self.0.iter_mut().zip(words).zip(&other.0) {
            *own = word & other;
        }
    }

    /// Adds those of `tokens` that are in `words`, too.
    pub(super) fn insert_common(&mut self, words: &[u32], tokens: &[u32]) {
        let is_set = |token: &&u32| {
            let (word, bit) = place(**token);
            words.get(word).is_some_and(|word| word & bit != 0)
        };
        tokens.iter().filter(is_set).for_each(|token| self.insert(*token));
    }

    /// True if no token is in the set.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }
}

fn place(token: u32) -> (usize, u32) {
    ((token / 32) as usize, 1 << (token % 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_a_bit_for_each_token_of_the_vocabulary() {
        let mut mask = TokenMask::new(33);
        for token in [0, 31, 32, 64, u32::MAX] {
            mask.insert(token);
        }
        assert_eq!(mask.words(), [1 | 1 << 31, 1]);
        assert!(mask.contains(31) && !mask.contains(1) && !mask.contains(64) && !mask.contains(u32::MAX));
    }

    #[test]
    fn an_intersection_takes_missing_words_for_zero() {
        let mut all = TokenMask::new(64);
        (0..64).for_each(|token| all.insert(token));
        let mut mask = all.clone();
        mask.set_intersection(&[6], &all);
        assert_eq!(mask.words(), [6, 0]);
        mask.set_intersection(&[], &all);
        assert!(mask.is_empty());
    }

    #[test]
    fn tokens_are_added_if_they_are_in_both_sets() {
        let mut mask = TokenMask::new(64);
        mask.insert_common(&[6], &[1, 3, 33, u32::MAX]);
        assert_eq!(mask.words(), [2, 0]);
    }
}
