//! A micro-batch in flight: its part of each sequence, and the positions whose tokens it is to return.

use std::ops::Range;
use std::time::Instant;

use schema::frame::{Chosen, HiddenState, Slice, Tokens};
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
    /// The positions whose hidden states it returns.
    hidden_states: Range<u32>,
    /// Draft tokens among its rows: chosen token `i + 1` can be used only if draft token `i` equals chosen token `i`.
    pub(super) drafts: Vec<u32>,
    /// In a lookahead micro-batch, its first token: a draft token that stands for the last token that the
    /// micro-batch before is to return. The returned tokens can be used only if that one does return it.
    pub(super) assumes: Option<u32>,
    /// True if that one returned other tokens: the tokens of this one continue a text that is not the sequence's.
    pub(super) is_void: bool,
}

/// A sequence's part of a micro-batch that came back.
pub(super) struct MemberResults<'a> {
    pub(super) member: &'a BatchMember,
    pub(super) chosen: &'a [Chosen],
    pub(super) hidden_states: &'a [HiddenState],
}

/// A micro-batch in flight.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) members: Vec<BatchMember>,
    pub(super) sent: Instant,
    /// True if it returns the next token of a sequence that is being streamed.
    pub(super) is_streaming: bool,
}

/// A sequence's part of the micro-batches in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowsInFlight {
    /// The micro-batches that carry it.
    pub(super) batches: usize,
    /// Its rows in them.
    pub(super) rows: u32,
    /// The time at which the oldest of them was sent.
    pub(super) oldest: Instant,
}

// === impl BatchMember ===

impl BatchMember {
    /// The part that `slice` describes. Its last `drafts` tokens are draft tokens. In a lookahead micro-batch its first
    /// token is one as well, and becomes [`Self::assumes`].
    pub(super) fn new(slice: &Slice, drafts: usize, lookahead: bool) -> Self {
        let known = slice.tokens.len() - drafts;
        let first_state = slice.position + slice.hidden_states.first().copied().unwrap_or(0);
        Self {
            sequence: slice.sequence,
            attempt: slice.attempt,
            rows: slice.count,
            first: slice.position + slice.logits.first().map_or(0, |offset| offset + 1),
            token_count: slice.logits.len(),
            scored: slice.scored.len(),
            hidden_states: first_state..first_state + slice.hidden_states.len() as u32,
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

    /// Each member with its part of `results`. `None` if these do not match the expected tokens, and hidden states of
    /// `hidden` values each.
    pub(super) fn by_member<'a>(&'a self, results: &'a Tokens, hidden: u32) -> Option<Vec<MemberResults<'a>>> {
        let mut by_member = Vec::with_capacity(self.members.len());
        let (mut chosen, mut hidden_states) = (&results.chosen[..], &results.hidden_states[..]);
        for member in &self.members {
            let (tokens, tokens_after) = chosen.split_at_checked(member.token_count)?;
            let (states, states_after) = hidden_states.split_at_checked(member.hidden_states.len())?;
            let key = |position| (member.sequence, member.attempt, position);
            let is_token =
                |(position, token): (u32, &Chosen)| (token.sequence, token.attempt, token.position) == key(position);
            let is_state = |(position, state): (u32, &HiddenState)| {
                let fits = state.values.len() == hidden as usize;
                (state.sequence, state.attempt, state.position) == key(position) && fits
            };
            let expected =
                (member.first..).zip(tokens).all(is_token) && member.hidden_states.clone().zip(states).all(is_state);
            if !expected {
                return None;
            }
            by_member.push(MemberResults { member, chosen: tokens, hidden_states: states });
            (chosen, hidden_states) = (tokens_after, states_after);
        }
        (chosen.is_empty() && hidden_states.is_empty()).then_some(by_member)
    }
}
