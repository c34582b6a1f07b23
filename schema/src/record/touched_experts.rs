//! The experts of a stage's layers that a token ever chose, small enough for the store.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Maximum number of experts of a layer, eight times that of the largest known model.
pub const EXPERTS_MAX: u32 = 4096;

/// Longest list of sets that a record has, in characters: 60 layers of 512 experts take a quarter. A longer one is left
/// out of the record, which keeps the counts.
pub const EXPERT_SETS_CHARS_MAX: usize = 32 << 10;

/// The experts that a stage computed, in each of its layers, since it loaded them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TouchedExperts {
    /// Experts of all layers together, chosen or not.
    pub total: u64,
    /// The first of the layers.
    pub first_layer: u32,
    /// The chosen ones of each layer, in order. Empty if they would take too much of the store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<ExpertSet>,
}

/// Some of a layer's experts. Its text is their layer's number of experts, a colon, and a hexadecimal digit for every
/// four of them: the lowest bit of the first digit is expert 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExpertSet {
    /// Number of experts of the layer.
    count: u32,
    /// A bit for each, 64 in a word.
    words: Vec<u64>,
}

/// The text of a set of experts that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a set of experts: expected COUNT:DIGITS of at most {EXPERTS_MAX} experts, such as 6:12, found {found:?}")]
pub struct InvalidExpertSet {
    /// The text, cut to 40 characters.
    pub found: String,
}

// === impl TouchedExperts ===

impl TouchedExperts {
    /// The record of these sets, of which the first is that of `first_layer`.
    pub fn new(first_layer: u32, layers: Vec<ExpertSet>) -> Self {
        let total = layers.iter().map(|set| u64::from(set.count)).sum();
        // Quotes and a comma around each.
        let chars: usize = layers.iter().map(|set| set.to_string().len() + 3).sum();
        let layers = if chars > EXPERT_SETS_CHARS_MAX { Vec::new() } else { layers };
        Self { total, first_layer, layers }
    }

    /// True if the layers have no experts.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The layers that have experts, each with its set.
    pub fn sets(&self) -> impl Iterator<Item = (u32, &ExpertSet)> {
        (self.first_layer..).zip(&self.layers).filter(|(_, set)| set.count > 0)
    }
}

// === impl ExpertSet ===

impl ExpertSet {
    /// The set of a layer of `count` experts whose `words` have a bit for each, from the lowest on. Bits beyond the
    /// last expert are ignored, and so are experts beyond [`EXPERTS_MAX`].
    pub fn new(count: u32, words: impl IntoIterator<Item = u64>) -> Self {
        let count = count.min(EXPERTS_MAX);
        let length = count.div_ceil(64) as usize;
        let mut words: Vec<u64> = words.into_iter().take(length).collect();
        words.resize(length, 0);
        if let (Some(last), beyond @ 1..) = (words.last_mut(), count % 64) {
            *last &= (1 << beyond) - 1;
        }
        Self { count, words }
    }

    /// Number of experts of the layer.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Number of those in the set.
    pub fn len(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// True if none is in the set.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if `expert` is in the set.
    pub fn contains(&self, expert: u32) -> bool {
        self.words.get(expert as usize / 64).is_some_and(|word| word >> (expert % 64) & 1 == 1)
    }

    /// The set as runs of neighbours: `0-3,7,9-127`. Empty for none.
    pub fn ranges(&self) -> String {
        let own: Vec<u32> = (0..self.count).filter(|expert| self.contains(*expert)).collect();
        let runs = own.chunk_by(|one, next| one + 1 == *next);
        let text = |run: &[u32]| match run {
            [first, .., last] => format!("{first}-{last}"),
            _ => run.first().map(ToString::to_string).unwrap_or_default(),
        };
        runs.map(text).collect::<Vec<_>>().join(",")
    }
}

impl fmt::Display for ExpertSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.count)?;
        (0..self.count.div_ceil(4)).try_for_each(|digit| {
            let word = self.words.get(digit as usize / 16).copied().unwrap_or_default();
            write!(f, "{:x}", word >> (digit % 16 * 4) & 15)
        })
    }
}

impl FromStr for ExpertSet {
    type Err = InvalidExpertSet;

    fn from_str(text: &str) -> Result<Self, InvalidExpertSet> {
        let invalid = || InvalidExpertSet { found: text.chars().take(40).collect() };
        let (count, digits) = text.split_once(':').ok_or_else(invalid)?;
        let count = count.parse().ok().filter(|count| *count <= EXPERTS_MAX).ok_or_else(invalid)?;
        if digits.len() != u32::div_ceil(count, 4) as usize {
            return Err(invalid());
        }
        let mut words = vec![0_u64; u32::div_ceil(count, 64) as usize];
        for (index, digit) in digits.chars().enumerate() {
            let bits = digit.to_digit(16).ok_or_else(invalid)?;
            // There are as many words as digits need.
            words.iter_mut().skip(index / 16).take(1).for_each(|word| *word |= u64::from(bits) << (index % 16 * 4));
        }
        let set = Self::new(count, words.iter().copied());
        // A bit beyond the last expert is none.
        if set.words == words { Ok(set) } else { Err(invalid()) }
    }
}

impl TryFrom<String> for ExpertSet {
    type Error = InvalidExpertSet;

    fn try_from(text: String) -> Result<Self, InvalidExpertSet> {
        text.parse()
    }
}

impl From<ExpertSet> for String {
    fn from(set: ExpertSet) -> Self {
        set.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(count: u32, experts: &[u32]) -> ExpertSet {
        let mut words = vec![0; count.div_ceil(64) as usize];
        experts.iter().for_each(|expert| words[*expert as usize / 64] |= 1 << (expert % 64));
        ExpertSet::new(count, words)
    }

    #[test]
    fn a_set_has_a_text_and_ranges() {
        for (set, text, ranges) in [
            (set(6, &[0, 5]), "6:12", "0,5"),
            (set(8, &[0, 1, 2, 3, 7]), "8:f8", "0-3,7"),
            (set(130, &[63, 64, 65, 129]), "130:000000000000000830000000000000002", "63-65,129"),
            (set(0, &[]), "0:", ""),
            (set(3, &[]), "3:0", ""),
        ] {
            assert_eq!((set.to_string().as_str(), set.ranges().as_str()), (text, ranges));
            assert_eq!(text.parse::<ExpertSet>().unwrap(), set);
        }
        assert_eq!(set(130, &[63, 64, 65, 129]).len(), 4);
        assert!(set(6, &[5]).contains(5) && !set(6, &[5]).contains(4) && !set(6, &[5]).contains(9999));
    }

    #[test]
    fn a_text_that_is_no_set_is_refused() {
        let long = "9".repeat(1 << 16);
        for text in ["", "6", "6:1", "6:123", "6:1g", "6:14", "-1:", "4097:", "6:é", ":", &long, "99999999999:0"] {
            let error = text.parse::<ExpertSet>().unwrap_err();
            assert!(error.to_string().len() < 200, "{error}");
        }
        assert!(serde_json::from_str::<TouchedExperts>(r#"{"total":1,"first_layer":0,"layers":["x"]}"#).is_err());
    }

    #[test]
    fn a_record_counts_its_sets_and_stays_within_its_bound() {
        let record = TouchedExperts::new(3, vec![set(8, &[1]), set(0, &[]), set(8, &[6, 7])]);
        assert_eq!(record.total, 16);
        let sets: Vec<_> = record.sets().map(|(layer, set)| (layer, set.ranges())).collect();
        assert_eq!(sets, [(3, "1".to_owned()), (5, "6-7".to_owned())]);
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(text, r#"{"total":16,"first_layer":3,"layers":["8:20","0:","8:0c"]}"#);
        assert_eq!(serde_json::from_str::<TouchedExperts>(&text).unwrap(), record);
        let all: Vec<u32> = (0..512).collect();
        assert_eq!(TouchedExperts::new(0, vec![set(512, &all); 60]).layers.len(), 60);
        let large = TouchedExperts::new(0, vec![set(512, &all); 1000]);
        assert_eq!((large.layers.len(), large.total), (0, 512_000));
        assert!(serde_json::to_string(&large).unwrap().len() < 100);
    }
}
