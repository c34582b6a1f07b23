//! The comparison of the disturbed answer with the undisturbed one.

use std::fmt;

use serde::Serialize;

use super::fault::Fault;
use super::recording::Recording;

/// The outcome of a drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DrillVerdict {
    /// Every token and every byte of text is the same, and the fault was felt.
    Equal,
    /// The answers differ.
    Different,
    /// The answers are the same, but the fault came too late to disturb the second one, so nothing is proved.
    Unfelt,
}

/// The first place at which two answers differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "in", rename_all = "lowercase")]
pub enum Difference {
    /// A token.
    Tokens {
        /// Its number, from 0.
        at: usize,
        /// The token of the undisturbed answer. `None` if that is shorter.
        expected: Option<u32>,
        /// The token of the disturbed answer. `None` if that is shorter.
        found: Option<u32>,
    },
    /// A byte of the text, though the tokens are the same.
    Text {
        /// Its number, from 0.
        at: usize,
    },
}

// === impl DrillVerdict ===

impl DrillVerdict {
    /// Compares the answers. A fault of a stage is felt if the gateway had to begin anew; one of the store is not to be
    /// felt at all.
    pub(super) fn new(fault: Fault, undisturbed: &Recording, disturbed: &Recording) -> (Self, Option<Difference>) {
        let difference = Difference::between(undisturbed, disturbed);
        let was_felt = fault == Fault::Store || disturbed.attempts > undisturbed.attempts;
        let verdict = match (&difference, was_felt) {
            (Some(_), _) => Self::Different,
            (None, true) => Self::Equal,
            (None, false) => Self::Unfelt,
        };
        (verdict, difference)
    }
}

// === impl Difference ===

impl Difference {
    fn between(undisturbed: &Recording, disturbed: &Recording) -> Option<Self> {
        let (expected, found) = (&undisturbed.token_ids, &disturbed.token_ids);
        let tokens = (0..expected.len().max(found.len())).find(|at| expected.get(*at) != found.get(*at));
        if let Some(at) = tokens {
            return Some(Self::Tokens { at, expected: expected.get(at).copied(), found: found.get(at).copied() });
        }
        let (expected, found) = (undisturbed.text.as_bytes(), disturbed.text.as_bytes());
        let text = (0..expected.len().max(found.len())).find(|at| expected.get(*at) != found.get(*at));
        text.map(|at| Self::Text { at })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |token: &Option<u32>| token.map_or_else(|| "no token".to_owned(), |token| format!("id {token}"));
        match self {
            Self::Tokens { at, expected, found } => {
                write!(f, "token {} is {} in the place of {}", at + 1, word(found), word(expected))
            }
            Self::Text { at } => write!(f, "the tokens are the same, but the texts differ from byte {} on", at + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(token_ids: &[u32], text: &str, attempts: u32) -> Recording {
        Recording { token_ids: token_ids.to_vec(), text: text.to_owned(), attempts, ..Recording::default() }
    }

    #[test]
    fn equal_answers_pass_and_one_token_or_byte_more_or_less_or_else_does_not() {
        let undisturbed = recording(&[5, 6, 7], "abc", 1);
        let judge = |ids: &[u32], text| DrillVerdict::new(Fault::Kill, &undisturbed, &recording(ids, text, 2));
        assert_eq!(judge(&[5, 6, 7], "abc"), (DrillVerdict::Equal, None));
        for (ids, text, expected) in [
            (&[5, 9, 7][..], "abc", "token 2 is id 9 in the place of id 6"),
            (&[5, 6], "abc", "token 3 is no token in the place of id 7"),
            (&[5, 6, 7, 8], "abc", "token 4 is id 8 in the place of no token"),
            (&[5, 6, 7], "abd", "the tokens are the same, but the texts differ from byte 3 on"),
            (&[5, 6, 7], "ab", "the tokens are the same, but the texts differ from byte 3 on"),
        ] {
            let (verdict, difference) = judge(ids, text);
            assert_eq!((verdict, difference.unwrap().to_string().as_str()), (DrillVerdict::Different, expected));
        }
    }

    #[test]
    fn a_fault_that_nothing_felt_proves_nothing() {
        let answer = recording(&[5], "a", 1);
        assert_eq!(DrillVerdict::new(Fault::Freeze, &answer, &answer).0, DrillVerdict::Unfelt);
        assert_eq!(DrillVerdict::new(Fault::Store, &answer, &answer).0, DrillVerdict::Equal);
        assert_eq!(DrillVerdict::new(Fault::Freeze, &answer, &recording(&[6], "b", 1)).0, DrillVerdict::Different);
    }
}
