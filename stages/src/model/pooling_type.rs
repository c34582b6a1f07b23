//! The file's word for how the hidden states of a text's tokens become its embedding, or its rank.

use std::fmt;

/// The value of `{architecture}.pooling_type`, whose numbers are llama.cpp's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PoolingType {
    /// 0, or no such key: the file does not say.
    #[default]
    None,
    /// 1: the mean of all tokens.
    Mean,
    /// 2: the first token.
    Cls,
    /// 3: the last token.
    Last,
    /// 4: a ranking head makes a score of the text.
    Rank,
}

// === impl PoolingType ===

impl PoolingType {
    /// All of them, by their numbers.
    const ALL: [Self; 5] = [Self::None, Self::Mean, Self::Cls, Self::Last, Self::Rank];

    /// The one with this number.
    pub fn of_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Its number.
    pub(crate) fn number(self) -> u32 {
        self as u32
    }

    /// All numbers and their names, for an error.
    pub(super) fn expected() -> String {
        let named = Self::ALL.iter().enumerate().map(|(number, kind)| format!("{number} ({kind})"));
        named.collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for PoolingType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::Last => "last",
            Self::Rank => "rank",
        })
    }
}
