//! One answer as it arrived. Times are passed in.

use std::time::Duration;

use super::token_stream::Piece;

/// The tokens of an answer, its text, and when they arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Recording {
    pub(super) token_ids: Vec<u32>,
    pub(super) text: String,
    /// The number of times that the answer was begun.
    pub(super) attempts: u32,
    /// The longest time between two arrivals of tokens.
    pub(super) longest_gap: Duration,
    pub(super) last: Option<Duration>,
    /// Time of the last arrival.
    pub(super) took: Duration,
}

// === impl Recording ===

impl Recording {
    /// Takes a piece that arrived `at` this time after the request was sent. Returns the time since the arrival of
    /// tokens before it.
    pub(super) fn push(&mut self, piece: Piece, at: Duration) -> Option<Duration> {
        self.attempts = piece.attempts.unwrap_or(self.attempts);
        self.text += &piece.text;
        if piece.token_ids.is_empty() {
            return None;
        }
        self.token_ids.extend(piece.token_ids);
        self.took = at;
        let gap = self.last.replace(at).map(|last| at.saturating_sub(last));
        self.longest_gap = self.longest_gap.max(gap.unwrap_or_default());
        gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_between_arrivals_of_tokens_and_the_wait_for_the_first_is_none() {
        let mut recording = Recording::default();
        let mut push = |ids: &[u32], text: &str, at| {
            let piece = Piece { token_ids: ids.to_vec(), text: text.to_owned(), attempts: None };
            recording.push(piece, Duration::from_millis(at))
        };
        assert_eq!(push(&[1], "a", 900), None);
        assert_eq!(push(&[], "", 990), None);
        assert_eq!(push(&[2, 3], "bc", 1000), Some(Duration::from_millis(100)));
        assert_eq!(push(&[4], "d", 1040), Some(Duration::from_millis(40)));
        assert_eq!((recording.token_ids.as_slice(), recording.text.as_str()), (&[1, 2, 3, 4][..], "abcd"));
        assert_eq!((recording.longest_gap.as_millis(), recording.took.as_millis()), (100, 1040));
    }
}
