//! The checks of a micro-batch before a shard computes it. Pure. Frames come from outside this process, so every value
//! that is used as an index later is checked here.

use engine::runner::{KV_BLOCK_TOKENS, RunnerError, Work};
use schema::frame::{ALTERNATIVES_MAX, Slice, TokenRule};
use schema::record::{KvBlocks, KvKinds};

use crate::model::ModelSpec;

/// The bounds of the work that a shard accepts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WorkBounds {
    /// True if the shard takes tokens instead of activations.
    first: bool,
    /// True if the shard chooses tokens.
    last: bool,
    /// Values in a row.
    hidden: usize,
    /// Tokens in the vocabulary.
    vocabulary: usize,
    /// Longest sequence, in tokens.
    context_tokens: u32,
    /// The kinds of the model's layers.
    kinds: KvKinds,
    /// Number of blocks of each kind in the KV cache.
    kv_blocks: KvBlocks,
    /// True if each slice is a whole text, and most rows of all of them then.
    whole_texts: bool,
    rows_max: usize,
    /// True if the model makes logits.
    logits: bool,
}

// === impl WorkBounds ===

impl WorkBounds {
    /// The bounds for a shard with room for `kv_blocks` blocks. `first` and `last` are true if it has the model's first
    /// and last layer.
    pub(crate) fn new(spec: &ModelSpec, first: bool, last: bool, kv_blocks: u32) -> Self {
        let ModelSpec { hidden, vocabulary, .. } = *spec;
        let (context_tokens, whole_texts) = (spec.context_tokens_max(), spec.is_bidirectional());
        let (rows_max, logits) = (spec.text_rows_max(), spec.head.is_some());
        let kinds = spec.kv_kinds();
        let kv_blocks = kinds.pool(kv_blocks.saturating_mul(KV_BLOCK_TOKENS));
        Self { first, last, hidden, vocabulary, context_tokens, kinds, kv_blocks, whole_texts, rows_max, logits }
    }

    /// Checks the work and returns its number of rows.
    ///
    /// # Errors
    /// [`RunnerError::Work`] for the first field that does not fit.
    pub(crate) fn check(&self, work: &Work<'_>) -> Result<usize, RunnerError> {
        if work.slices.is_empty() {
            return Err(wrong("slices", 0, "at least one"));
        }
        let mut rows: usize = 0;
        for slice in work.slices {
            self.check_slice(slice)?;
            // Each count is at most the context, so only an absurd number of slices can overflow.
            rows = rows.saturating_add(slice.count as usize);
        }
        if self.whole_texts && rows > self.rows_max {
            return Err(wrong("rows", rows, format!("at most {} of whole texts", self.rows_max)));
        }
        let expected = if self.first { 0 } else { rows.saturating_mul(self.hidden) };
        if work.activations.len() != expected {
            return Err(wrong("activations", work.activations.len(), format!("{expected} values")));
        }
        Ok(rows)
    }

    fn check_slice(&self, slice: &Slice) -> Result<(), RunnerError> {
        let end = u64::from(slice.position) + u64::from(slice.count);
        if slice.count == 0 {
            return Err(wrong("count", 0, "at least one token a slice"));
        }
        if end > u64::from(self.context_tokens) {
            let expected = format!("at most the context of {} tokens", self.context_tokens);
            return Err(wrong("position + count", end, expected));
        }
        if self.whole_texts && slice.position > 0 {
            return Err(wrong("position", slice.position, "0, as a token attends to the whole text"));
        }
        if !self.logits && !slice.logits.is_empty() {
            return Err(wrong("logits", slice.logits.len(), "none, as the model makes hidden states alone"));
        }
        self.check_blocks(slice, end)?;
        let tokens = if self.first { slice.count as usize } else { 0 };
        if slice.tokens.len() != tokens {
            return Err(wrong("tokens", slice.tokens.len(), format!("{tokens} ids")));
        }
        if let Some(token) = slice.tokens.iter().find(|token| **token as usize >= self.vocabulary) {
            return Err(wrong("token", *token, format!("below the vocabulary of {}", self.vocabulary)));
        }
        let ascending = slice.logits.is_sorted_by(|a, b| a < b);
        if !ascending || slice.logits.last().is_some_and(|offset| *offset >= slice.count) {
            return Err(wrong(
                "logits",
                format!("{:?}", slice.logits),
                format!("ascending offsets below {}", slice.count),
            ));
        }
        let states = &slice.hidden_states;
        let fits = states.is_sorted_by(|a, b| a < b) && states.last().is_none_or(|offset| *offset < slice.count);
        if !fits || (!states.is_empty() && !slice.logits.is_empty()) {
            let expected = format!("ascending offsets below {}, and none beside logits", slice.count);
            return Err(wrong("hidden_states", format!("{states:?}"), expected));
        }
        if self.last && !slice.logits.is_empty() {
            self.check_rule(slice)?;
        }
        Ok(())
    }

    /// Checks the block tables of the kinds that the model has, for tokens up to `end`. The other one is not read.
    fn check_blocks(&self, slice: &Slice, end: u64) -> Result<(), RunnerError> {
        let blocks = end.div_ceil(u64::from(KV_BLOCK_TOKENS));
        if self.kinds.has_full() {
            if (slice.blocks.len() as u64) < blocks {
                return Err(wrong("blocks", slice.blocks.len(), format!("at least {blocks} for {end} tokens")));
            }
            if let Some(block) = slice.blocks.iter().find(|block| **block >= self.kv_blocks.full) {
                return Err(wrong("block", *block, format!("below {}", self.kv_blocks.full)));
            }
        }
        if self.kinds.window().is_some() {
            let first = self.kinds.first_block(slice.position);
            if slice.window_first > first {
                return Err(wrong("window_first", slice.window_first, format!("at most {first}")));
            }
            let window_blocks = blocks - u64::from(slice.window_first);
            if (slice.window_blocks.len() as u64) < window_blocks {
                let expected = format!("at least {window_blocks} from block {} on", slice.window_first);
                return Err(wrong("window_blocks", slice.window_blocks.len(), expected));
            }
            if let Some(block) = slice.window_blocks.iter().find(|block| **block >= self.kv_blocks.window) {
                return Err(wrong("window_block", *block, format!("below {}", self.kv_blocks.window)));
            }
        }
        Ok(())
    }

    fn check_rule(&self, slice: &Slice) -> Result<(), RunnerError> {
        let TokenRule { sampling, alternatives, positions } = &slice.rule;
        sampling.check().map_err(|(field, found)| wrong(field, found, expected_values(field)))?;
        if *alternatives > ALTERNATIVES_MAX {
            return Err(wrong("alternatives", alternatives, format!("at most {ALTERNATIVES_MAX}")));
        }
        let Some(chosen) = slice.logits.len().checked_sub(slice.scored.len()) else {
            return Err(wrong("scored", slice.scored.len(), format!("at most the {} logits", slice.logits.len())));
        };
        if !positions.is_empty() && positions.len() != chosen {
            return Err(wrong("rules", positions.len(), format!("none, or one for each of {chosen} tokens")));
        }
        if let Some(token) = slice.scored.iter().find(|token| **token as usize >= self.vocabulary) {
            return Err(wrong("scored", token, format!("below the vocabulary of {}", self.vocabulary)));
        }
        Ok(())
    }
}

fn expected_values(field: &str) -> &'static str {
    if matches!(field, "temperature" | "top_n_sigma") { "a finite number from 0" } else { "a number from 0 to 1" }
}

#[expect(clippy::needless_pass_by_value, reason = "numbers and texts alike are given at the call")]
fn wrong(field: &'static str, found: impl ToString, expected: impl Into<String>) -> RunnerError {
    RunnerError::Work { field, found: found.to_string(), expected: expected.into() }
}
