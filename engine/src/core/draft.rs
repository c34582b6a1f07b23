//! Draft tokens for speculative decoding, from the sequence's own text: the tokens that followed the same few tokens
//! the last time (prompt lookup). Pure.
//!
//! A draft token costs nothing until it is sent to be verified. So the drafter proposes tokens, and compares them with
//! the tokens that come, even while it sends none: its accuracy tells if sending pays.

use crate::limits::{DRAFT_TOKENS_MAX, LOOKBACK_TOKENS_MAX};

/// Least number of equal tokens before a place in the text counts as a match.
const SAME_MIN: usize = 2;
/// Beyond this number of equal tokens, a longer match is not a better one.
const SAME_MAX: usize = 8;
/// Weight of the newest token in the accuracy.
const NEW_WEIGHT: f64 = 0.15;
/// Least factor by which a draft must raise the expected tokens per second.
const GAIN_MIN: f64 = 1.1;
/// Least likelihood that a lookahead micro-batch is of use: it takes an idle stage, but the next micro-batch may have
/// to wait for that stage.
const LOOKAHEAD_LIKELIHOOD_MIN: f64 = 0.3;

/// The draft tokens of one sequence, and their accuracy.
#[derive(Debug, Default)]
pub(crate) struct Drafter {
    /// Likelihood that a draft token is right, given that the one before it was.
    accuracy: f64,
    draft: Vec<u32>,
}

// === impl Drafter ===

impl Drafter {
    /// Proposes the tokens that follow `history`.
    pub(crate) fn propose(&mut self, history: &[u32]) {
        self.draft.clear();
        self.draft.extend_from_slice(following(history));
    }

    /// Extends the draft, as if it had been accepted, until it has `count` tokens or there is no match.
    fn extend(&mut self, history: &[u32], count: usize) {
        while self.draft.len() < count {
            let recent = &history[history.len().saturating_sub(LOOKBACK_TOKENS_MAX)..];
            let text = [recent, &self.draft].concat();
            let more = following(&text);
            if more.is_empty() {
                return;
            }
            self.draft.extend_from_slice(more);
        }
    }

    /// The draft tokens from the `first` one on, at most `count`.
    pub(crate) fn tokens(&self, first: u32, count: u32) -> impl Iterator<Item = u32> {
        self.draft.iter().copied().skip(first as usize).take(count as usize)
    }

    /// Compares the next token with the draft.
    pub(crate) fn observe(&mut self, token: u32) {
        let Some(expected) = self.draft.first() else { return };
        let right = *expected == token;
        self.accuracy += (f64::from(u8::from(right)) - self.accuracy) * NEW_WEIGHT;
        if right {
            self.draft.remove(0);
        } else {
            self.draft.clear();
        }
    }

    /// Number of draft tokens, after the ones in flight, that are worth a lookahead micro-batch on a stage that is
    /// idle. The first one takes the place of a token, and as many follow as are worth sending along. Zero if it is too
    /// unlikely that all draft tokens in flight, and that first one, are accepted. Then none are searched for.
    pub(crate) fn worth_looking_ahead(
        &mut self,
        history: &[u32],
        in_flight: u32,
        seconds: impl Fn(u32) -> Option<f64>,
    ) -> usize {
        if self.accuracy.powi(in_flight as i32 + 1) < LOOKAHEAD_LIKELIHOOD_MIN {
            return 0;
        }
        self.extend(history, in_flight as usize + DRAFT_TOKENS_MAX);
        if self.draft.len() <= in_flight as usize {
            return 0;
        }
        1 + self.worth_sending(in_flight as usize + 1, seconds)
    }

    /// Number of draft tokens, from the `first` one on, to send along with one row: the number with the most expected
    /// tokens per second, or none. `seconds` is the expected time of a number of rows.
    pub(crate) fn worth_sending(&self, first: usize, seconds: impl Fn(u32) -> Option<f64>) -> usize {
        let Some(alone) = seconds(1).filter(|alone| *alone > 0.0) else { return 0 };
        let (mut best, mut best_gain) = (0, GAIN_MIN);
        let (mut tokens, mut likelihood) = (1.0, 1.0);
        for count in 1..=self.draft.len().saturating_sub(first) {
            likelihood *= self.accuracy;
            tokens += likelihood;
            let Some(together) = seconds(1 + count as u32) else { break };
            let gain = tokens * alone / together;
            if gain > best_gain {
                (best, best_gain) = (count, gain);
            }
        }
        best
    }
}

/// The tokens after the best earlier match of the text's end: the longest match, and of equal ones the latest.
fn following(history: &[u32]) -> &[u32] {
    let text = &history[history.len().saturating_sub(LOOKBACK_TOKENS_MAX)..];
    let mut best = (0, text.len());
    for end in (1..text.len()).rev() {
        if text[end - 1] != text[text.len() - 1] {
            continue;
        }
        let same = text[..end].iter().rev().zip(text.iter().rev()).take(SAME_MAX).take_while(|(a, b)| a == b).count();
        if same > best.0 {
            best = (same, end);
        }
        if same == SAME_MAX {
            break;
        }
    }
    match best {
        (SAME_MIN.., end) => &text[end..(end + DRAFT_TOKENS_MAX).min(text.len())],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step that takes a millisecond and a tenth more for each row.
    fn seconds(rows: u32) -> Option<f64> {
        Some(0.001 + 0.0001 * f64::from(rows))
    }

    #[test]
    fn the_longest_match_is_followed_and_of_equal_ones_the_latest() {
        assert_eq!(following(&[1, 2, 3, 9, 8, 2, 3, 7, 6, 1, 2, 3])[..2], [9, 8]);
        assert_eq!(following(&[2, 3, 9, 8, 2, 3, 7, 6, 2, 3])[..2], [7, 6]);
        assert!(following(&[1, 2, 3, 4, 5, 3]).is_empty(), "one equal token is no match");
        assert!(following(&[]).is_empty());
        assert_eq!(following(&[5, 5, 5]), [5]);
    }

    #[test]
    fn drafts_are_sent_only_while_tokens_are_accepted() {
        let mut drafter = Drafter::default();
        let mut history: Vec<u32> = (0..20).chain(0..3).collect();
        drafter.propose(&history);
        assert_eq!(drafter.worth_sending(0, seconds), 0, "a draft was sent before any token was accepted");
        for token in 3..15 {
            drafter.propose(&history);
            drafter.observe(token);
            history.push(token);
        }
        drafter.propose(&history);
        assert!(drafter.worth_sending(0, seconds) >= 4);
        assert_eq!(
            drafter.worth_sending(0, |rows| Some(f64::from(rows))),
            0,
            "rows that cost as much as steps were sent"
        );
        for _ in 0..12 {
            drafter.propose(&history);
            drafter.observe(1000);
        }
        drafter.propose(&history);
        assert_eq!(drafter.worth_sending(0, seconds), 0);
    }

    #[test]
    fn a_draft_is_extended_and_looked_ahead_from_while_all_of_it_is_likely() {
        let mut drafter = Drafter { accuracy: 0.9, ..Drafter::default() };
        let history = [1, 2, 3, 4, 1, 2];
        drafter.propose(&history);
        assert_eq!(drafter.draft, [3, 4, 1, 2]);
        drafter.extend(&history, 10);
        assert_eq!(drafter.draft[..10], [3, 4, 1, 2, 3, 4, 1, 2, 3, 4]);
        assert_eq!(drafter.tokens(2, 3).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(drafter.worth_looking_ahead(&history, 3, seconds) > 1);
        assert_eq!(
            drafter.worth_looking_ahead(&history, 3, |rows| Some(f64::from(rows))),
            1,
            "an idle stage makes a row worth it"
        );
        assert_eq!(drafter.worth_looking_ahead(&history, 11, seconds), 0, "too unlikely");
        drafter.accuracy = 0.2;
        assert_eq!(drafter.worth_looking_ahead(&history, 0, seconds), 0);
    }
}
