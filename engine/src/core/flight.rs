//! A micro-batch in flight: its part of each sequence, and the positions whose tokens it is to return.

use std::time::Instant;

use schema::frame::{Chosen, Slice};
use schema::{Attempt, SequenceId};

/// A sequence's part of a micro-batch.
#[derive(Debug)]
pub(super) struct BatchMember {
    pub(super) sequence: SequenceId,
    pub(super) attempt: Attempt,
    /// Number of tokens that it sends: each is a row of activations.
    pub(super) rows: u32,
    /// Position in the sequence of the first token that it returns.
    first: u32,
    /// Number of tokens that it returns. How many of the chosen ones can be used depends on `drafts`.
    token_count: usize,
    /// Number of returned tokens that are scored, not chosen. They come first.
    pub(super) scored: usize,
    /// Draft tokens among its rows: chosen token `i + 1` can be used only if draft token `i` equals chosen token `i`.
    pub(super) drafts: Vec<u32>,
    /// In a lookahead micro-batch, its first token: a draft token that stands for the last token that the
    /// micro-batch before is to return. The returned tokens can be used only if that one does return it.
    pub(super) assumes: Option<u32>,
    /// True if that one returned other tokens: the tokens of this one continue a text that is not the sequence's.
    pub(super) is_void: bool,
}

/// A micro-batch in flight.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) members: Vec<BatchMember>,
    pub(super) sent: Instant,
    /// True if it returns the next token of a sequence that is being streamed.
    pub(super) is_streaming: bool,
}

// === impl BatchMember ===

impl BatchMember {
    /// The part that `slice` describes. Its last `drafts` tokens are draft tokens. In a lookahead micro-batch its first
    /// token is one as well, and becomes [`Self::assumes`].
    pub(super) fn new(slice: &Slice, drafts: usize, lookahead: bool) -> Self {
        let known = slice.tokens.len() - drafts;
        Self {
            sequence: slice.sequence,
            attempt: slice.attempt,
            rows: slice.count,
            first: slice.position + slice.logits.first().map_or(0, |offset| offset + 1),
            token_count: slice.logits.len(),
            scored: slice.scored.len(),
            drafts: slice.tokens[known..].to_vec(),
            assumes: slice.tokens.first().copied().filter(|_| lookahead),
            is_void: false,
        }
    }

    /// True if it returns chosen tokens.
    pub(super) fn chooses(&self) -> bool {
        self.token_count > self.scored
    }

    /// The usable tokens of `chosen`: from the first on those that equal the draft tokens, and the one after them,
    /// which the model chose after accepted tokens only.
    pub(super) fn usable<'a>(&'a self, chosen: &'a [Chosen]) -> impl Iterator<Item = &'a Chosen> {
        let accepted = self.drafts.iter().zip(chosen).take_while(|(draft, chosen)| **draft == chosen.token).count();
        chosen.iter().take(accepted + 1)
    }
}

// === impl Flight ===

impl Flight {
    pub(super) fn rows(&self) -> u32 {
        self.members.iter().map(|member| member.rows).sum()
    }

    /// Each member with its tokens of `chosen`. `None` if `chosen` does not match the expected tokens.
    pub(super) fn tokens_by_member<'a>(
        &'a self,
        mut chosen: &'a [Chosen],
    ) -> Option<Vec<(&'a BatchMember, &'a [Chosen])>> {
        let mut tokens_by_member = Vec::with_capacity(self.members.len());
        for member in &self.members {
            let (own, rest) = chosen.split_at_checked(member.token_count)?;
            let is_expected = |(position, token): (u32, &Chosen)| {
                (token.sequence, token.attempt, token.position) == (member.sequence, member.attempt, position)
            };
            if !(member.first..).zip(own).all(is_expected) {
                return None;
            }
            tokens_by_member.push((member, own));
            chosen = rest;
        }
        chosen.is_empty().then_some(tokens_by_member)
    }
}
