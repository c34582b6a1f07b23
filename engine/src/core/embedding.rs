//! The embedding of one prompt while its hidden states come in: their mean over a range of positions.
//!
//! The gateway adds them, not the last stage, and one after the other in the order of positions. So the sum's bits do
//! not depend on how the prompt was cut into micro-batches, and stages keep nothing between these. A hidden state that
//! was added stays added when the sequence starts again: computed again, it would have the same bits.

use std::ops::Range;

use schema::frame::HiddenState;

use crate::generate::Pooling;

/// The sum of hidden states so far.
#[derive(Debug)]
pub(crate) struct PromptEmbedding {
    /// Positions whose hidden states are still to be added, in this order.
    missing: Range<u32>,
    /// Number of hidden states that were added.
    added: u32,
    sums: Vec<f64>,
}

// === impl PromptEmbedding ===

impl PromptEmbedding {
    /// The embedding of a prompt of `prompt_tokens` tokens, of which nothing is known yet.
    pub(crate) fn new(pooling: Pooling, prompt_tokens: u32) -> Self {
        Self { missing: pooling.positions(prompt_tokens), added: 0, sums: Vec::new() }
    }

    /// The positions whose hidden states are still missing.
    pub(crate) fn missing(&self) -> Range<u32> {
        self.missing.clone()
    }

    /// Those of them in `range`.
    pub(crate) fn missing_in(&self, range: Range<u32>) -> Range<u32> {
        let start = self.missing.start.max(range.start);
        start..self.missing.end.min(range.end).max(start)
    }

    /// Most of the `count` tokens from `position` on that have at most `states` missing hidden states.
    pub(crate) fn tokens_within(&self, position: u32, count: u32, states: u32) -> u32 {
        let missing = self.missing_in(position..position + count);
        if missing.len() <= states as usize { count } else { missing.start + states - position }
    }

    /// Adds a hidden state, unless it is not the next one.
    pub(crate) fn add(&mut self, state: &HiddenState) {
        if self.missing.is_empty() || state.position != self.missing.start {
            return;
        }
        self.missing.start += 1;
        self.added += 1;
        self.sums.resize(state.values.len(), 0.0);
        for (sum, value) in self.sums.iter_mut().zip(&state.values) {
            *sum += f64::from(*value);
        }
    }

    /// The embedding, once no hidden state is missing.
    pub(crate) fn vector(&self) -> Option<Vec<f32>> {
        let count = f64::from(self.added.max(1));
        self.missing.is_empty().then(|| self.sums.iter().map(|sum| (sum / count) as f32).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schema::{Attempt, SequenceId};

    fn state(position: u32, values: &[f32]) -> HiddenState {
        HiddenState { sequence: SequenceId(1), attempt: Attempt(0), position, values: values.to_vec() }
    }

    #[test]
    fn the_mean_is_that_of_all_tokens_and_each_counts_once() {
        let mut embedding = PromptEmbedding::new(Pooling::Mean, 3);
        embedding.add(&state(0, &[1.0, -4.0]));
        embedding.add(&state(2, &[100.0, 100.0]));
        embedding.add(&state(1, &[2.0, 0.5]));
        embedding.add(&state(0, &[1.0, -4.0]));
        assert_eq!((embedding.missing(), embedding.vector()), (2..3, None));
        embedding.add(&state(2, &[6.0, 2.0]));
        assert_eq!(embedding.vector(), Some(vec![3.0, -0.5]));
        embedding.add(&state(3, &[100.0, 100.0]));
        assert_eq!(embedding.vector(), Some(vec![3.0, -0.5]));
    }

    #[test]
    fn a_single_tokens_hidden_state_is_taken_as_it_is() {
        for (pooling, position) in [(Pooling::Cls, 0), (Pooling::Last, 6)] {
            let mut embedding = PromptEmbedding::new(pooling, 7);
            (0..7).for_each(|position| embedding.add(&state(position, &[0.1 * position as f32 + 0.3])));
            assert_eq!(embedding.vector(), Some(vec![0.1 * position as f32 + 0.3]));
        }
    }

    #[test]
    fn a_micro_batch_gets_the_tokens_whose_hidden_states_fit() {
        let mean = PromptEmbedding::new(Pooling::Mean, 100);
        let last = PromptEmbedding::new(Pooling::Last, 100);
        let cls = PromptEmbedding::new(Pooling::Cls, 100);
        assert_eq!(mean.tokens_within(10, 50, 20), 20);
        assert_eq!(mean.tokens_within(10, 50, 50), 50);
        assert_eq!(mean.tokens_within(10, 50, 0), 0);
        assert_eq!(last.tokens_within(10, 89, 0), 89);
        assert_eq!(last.tokens_within(10, 90, 0), 89);
        assert_eq!(last.tokens_within(10, 90, 1), 90);
        assert_eq!(cls.tokens_within(0, 100, 0), 0);
        assert_eq!(cls.tokens_within(0, 100, 1), 100);
        assert_eq!(cls.missing_in(1..100).len(), 0);
    }
}
