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

    /// The first `count` of the guesses.
    pub(crate) fn guessed(&self, count: u32) -> impl Iterator<Item = u32> {
        self.guessed.iter().copied().take(count as usize)
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

    /// How many of the guesses to send along with one row, where `seconds` says what so many rows take: as many as
    /// promise the most tokens per second, or none.
    pub(crate) fn worth_sending(&self, seconds: impl Fn(u32) -> Option<f64>) -> usize {
        let Some(alone) = seconds(1).filter(|alone| *alone > 0.0) else { return 0 };
        let (mut best, mut best_gain) = (0, GAIN_MIN);
        let (mut tokens, mut likelihood) = (1.0, 1.0);
        for count in 1..=self.guessed.len() {
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
        assert_eq!(drafter.worth_sending(seconds), 0, "a draft was sent before any guess came true");
        for token in 3..15 {
            drafter.guess(&history);
            drafter.hear(token);
            history.push(token);
        }
        drafter.guess(&history);
        assert!(drafter.worth_sending(seconds) >= 4);
        assert_eq!(drafter.worth_sending(|rows| Some(f64::from(rows))), 0, "rows that cost as much as steps were sent");
        for _ in 0..12 {
            drafter.guess(&history);
            drafter.hear(1000);
        }
        drafter.guess(&history);
        assert_eq!(drafter.worth_sending(seconds), 0);
    }
}
