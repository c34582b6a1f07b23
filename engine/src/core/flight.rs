//! A micro-batch on its way: what it carries of which sequence, and which tokens it is to bring.

use std::time::Instant;

use schema::frame::{Chosen, Slice};
use schema::{Attempt, SequenceId};

/// A sequence's part of a micro-batch.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) sequence: SequenceId,
    pub(super) attempt: Attempt,
    pub(super) rows: u32,
    /// Position of the first token it brings.
    first: u32,
    /// How many it brings, if they can all be used.
    brings: usize,
    /// Guessed tokens among its rows: token `i + 1` it brings can be used only if guess `i` is token `i`.
    pub(super) drafts: Vec<u32>,
    /// The token it goes on from, where that was guessed: only if it comes true is this of use.
    pub(super) assumes: Option<u32>,
    /// It did not: what this brings belongs to another text.
    pub(super) is_void: bool,
}

/// The micro-batch.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) members: Vec<Member>,
    pub(super) sent: Instant,
    /// Whether a client that has tokens already waits for the next one of it.
    pub(super) is_read: bool,
}

// === impl Member ===

impl Member {
    /// The part `slice`, whose last tokens are the guesses `drafts`; if it goes on `ahead`, the first is a guess, too.
    pub(super) fn new(slice: &Slice, drafts: usize, ahead: bool) -> Self {
        let guessed = slice.tokens.len() - drafts;
        Self {
            sequence: slice.sequence,
            attempt: slice.attempt,
            rows: slice.count,
            first: slice.position + slice.logits.first().map_or(0, |offset| offset + 1),
            brings: slice.logits.len(),
            drafts: slice.tokens[guessed..].to_vec(),
            assumes: slice.tokens.first().copied().filter(|_| ahead),
            is_void: false,
        }
    }

    /// Whether it brings tokens.
    pub(super) fn brings_tokens(&self) -> bool {
        self.brings > 0
    }

    /// The tokens of `chosen` that follow from the sequence: as far as the guesses came true, and one more.
    pub(super) fn usable<'a>(&'a self, chosen: &'a [Chosen]) -> impl Iterator<Item = &'a Chosen> {
        let right = self.drafts.iter().zip(chosen).take_while(|(guess, chosen)| **guess == chosen.token).count();
        chosen.iter().take(right + 1)
    }
}

// === impl Flight ===

impl Flight {
    pub(super) fn rows(&self) -> u32 {
        self.members.iter().map(|member| member.rows).sum()
    }

    /// Each member with the tokens it was to bring; `None` when `chosen` is anything but those.
    pub(super) fn brought<'a>(&'a self, mut chosen: &'a [Chosen]) -> Option<Vec<(&'a Member, &'a [Chosen])>> {
        let mut brought = Vec::with_capacity(self.members.len());
        for member in &self.members {
            let (own, rest) = chosen.split_at_checked(member.brings)?;
            let is_its = |(position, token): (u32, &Chosen)| {
                (token.sequence, token.attempt, token.position) == (member.sequence, member.attempt, position)
            };
            if !(member.first..).zip(own).all(is_its) {
                return None;
            }
            brought.push((member, own));
            chosen = rest;
        }
        chosen.is_empty().then_some(brought)
    }
}
