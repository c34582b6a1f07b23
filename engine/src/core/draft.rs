//! Guesses at a sequence's next tokens from its own text: what followed the same few tokens the last time. Pure.
//!
//! A guess costs nothing until it is sent along to be verified. So guesses are made, and judged by the tokens that come,
//! also while none is sent: that is how a drafter knows whether sending pays.

use crate::limits::{DRAFT_TOKENS_MAX, LOOKBACK_TOKENS_MAX};

/// Tokens that must be the same before a place in the text is taken for a model.
const SAME_MIN: usize = 2;
/// Beyond so many equal tokens, a longer match is not a better one.
const SAME_MAX: usize = 8;
/// Share of the newest token in the accuracy.
const NEWS: f64 = 0.15;
/// A draft must promise at least so many times the tokens per second.
const GAIN_MIN: f64 = 1.1;
/// A micro-batch that goes on from guesses must be of use so often: it takes what is free, but also what the next one waits for.
const AHEAD_LIKELIHOOD_MIN: f64 = 0.3;

/// The guesses for one sequence, and how good they were.
#[derive(Debug, Default)]
pub(crate) struct Drafter {
    /// Likelihood that a guess is right, given that the one before it was.
    accuracy: f64,
    guessed: Vec<u32>,
}

// === impl Drafter ===

impl Drafter {
    /// Guesses what follows `history`.
    pub(crate) fn guess(&mut self, history: &[u32]) {
        self.guessed.clear();
        self.guessed.extend_from_slice(following(history));
    }

    /// Guesses on, as if the guesses so far had come true, until there are `count` or it does not know any further.
    fn guess_on(&mut self, history: &[u32], count: usize) {
        while self.guessed.len() < count {
            let recent = &history[history.len().saturating_sub(LOOKBACK_TOKENS_MAX)..];
            let text = [recent, &self.guessed].concat();
            let more = following(&text);
            if more.is_empty() {
                return;
            }
            self.guessed.extend_from_slice(more);
        }
    }

    /// The guesses from the `first` one on, at most `count`.
    pub(crate) fn guessed(&self, first: u32, count: u32) -> impl Iterator<Item = u32> {
        self.guessed.iter().copied().skip(first as usize).take(count as usize)
    }

    /// A token came: the next one that was guessed, or another.
    pub(crate) fn hear(&mut self, token: u32) {
        let Some(guess) = self.guessed.first() else { return };
        let right = *guess == token;
        self.accuracy += (f64::from(u8::from(right)) - self.accuracy) * NEWS;
        if right {
            self.guessed.remove(0);
        } else {
            self.guessed.clear();
        }
    }

    /// How many guesses after those `in_flight` are worth a micro-batch of their own, for which a stage waits in any case: the
    /// first takes the place of a token, and as many follow as are worth sending along. None when it is too unlikely that
    /// all that are in flight come true, and that first one, too; then none are looked for.
    pub(crate) fn worth_sending_ahead(
        &mut self,
        history: &[u32],
        in_flight: u32,
        seconds: impl Fn(u32) -> Option<f64>,
    ) -> usize {
        if self.accuracy.powi(in_flight as i32 + 1) < AHEAD_LIKELIHOOD_MIN {
            return 0;
        }
        self.guess_on(history, in_flight as usize + DRAFT_TOKENS_MAX);
        if self.guessed.len() <= in_flight as usize {
            return 0;
        }
        1 + self.worth_sending(in_flight as usize + 1, seconds)
    }

    /// How many of the guesses from the `first` one on to send along with one row, where `seconds` says what so many rows
    /// take: as many as promise the most tokens per second, or none.
    pub(crate) fn worth_sending(&self, first: usize, seconds: impl Fn(u32) -> Option<f64>) -> usize {
        let Some(alone) = seconds(1).filter(|alone| *alone > 0.0) else { return 0 };
        let (mut best, mut best_gain) = (0, GAIN_MIN);
        let (mut tokens, mut likelihood) = (1.0, 1.0);
        for count in 1..=self.guessed.len().saturating_sub(first) {
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

/// What followed the longest, then latest, earlier place where the text was as it is at its end.
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
    fn drafts_are_sent_once_guesses_come_true_and_not_when_they_stop() {
        let mut drafter = Drafter::default();
        let mut history: Vec<u32> = (0..20).chain(0..3).collect();
        drafter.guess(&history);
        assert_eq!(drafter.worth_sending(0, seconds), 0, "a draft was sent before any guess came true");
        for token in 3..15 {
            drafter.guess(&history);
            drafter.hear(token);
            history.push(token);
        }
        drafter.guess(&history);
        assert!(drafter.worth_sending(0, seconds) >= 4);
        assert_eq!(
            drafter.worth_sending(0, |rows| Some(f64::from(rows))),
            0,
            "rows that cost as much as steps were sent"
        );
        for _ in 0..12 {
            drafter.guess(&history);
            drafter.hear(1000);
        }
        drafter.guess(&history);
        assert_eq!(drafter.worth_sending(0, seconds), 0);
    }

    #[test]
    fn guesses_go_on_from_guesses_and_are_sent_ahead_while_all_are_likely() {
        let mut drafter = Drafter { accuracy: 0.9, ..Drafter::default() };
        let history = [1, 2, 3, 4, 1, 2];
        drafter.guess(&history);
        assert_eq!(drafter.guessed, [3, 4, 1, 2]);
        drafter.guess_on(&history, 10);
        assert_eq!(drafter.guessed[..10], [3, 4, 1, 2, 3, 4, 1, 2, 3, 4]);
        assert_eq!(drafter.guessed(2, 3).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(drafter.worth_sending_ahead(&history, 3, seconds) > 1);
        assert_eq!(
            drafter.worth_sending_ahead(&history, 3, |rows| Some(f64::from(rows))),
            1,
            "a row that is free is worth it"
        );
        assert_eq!(drafter.worth_sending_ahead(&history, 11, seconds), 0, "too unlikely");
        drafter.accuracy = 0.2;
        assert_eq!(drafter.worth_sending_ahead(&history, 0, seconds), 0);
    }
}
