//! A set of bytes of a file, as ranges. Pure.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Ranges in order, none empty, none touching the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub(super) struct ByteRanges(Vec<Range<u64>>);

// === impl ByteRanges ===

impl ByteRanges {
    /// Adds a range.
    pub(super) fn insert(&mut self, mut range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.0.partition_point(|own| own.end < range.start);
        let end = self.0.partition_point(|own| own.start <= range.end);
        // Those from `first` to `end` overlap the range or touch it.
        if first < end {
            range = range.start.min(self.0[first].start)..range.end.max(self.0[end - 1].end);
        }
        self.0.splice(first..end, [range]);
    }

    /// The parts of `wanted` that are not in the set, in order.
    pub(super) fn missing(&self, wanted: &Range<u64>) -> Vec<Range<u64>> {
        let (mut missing, mut at) = (Vec::new(), wanted.start);
        let first = self.0.partition_point(|own| own.end <= wanted.start);
        for own in self.0[first..].iter().take_while(|own| own.start < wanted.end) {
            if at < own.start {
                missing.push(at..own.start);
            }
            at = own.end;
        }
        if at < wanted.end {
            missing.push(at..wanted.end);
        }
        missing
    }

    /// The end of the last range.
    pub(super) fn end(&self) -> u64 {
        self.0.last().map_or(0, |range| range.end)
    }

    /// Number of bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }
}

impl TryFrom<Vec<(u64, u64)>> for ByteRanges {
    type Error = &'static str;

    fn try_from(pairs: Vec<(u64, u64)>) -> Result<Self, Self::Error> {
        let ordered = pairs.windows(2).all(|pair| pair[0].1 < pair[1].0);
        if !ordered || pairs.iter().any(|(start, end)| start >= end) {
            return Err("ranges: expected ascending ones that do not touch");
        }
        Ok(Self(pairs.into_iter().map(|(start, end)| start..end).collect()))
    }
}

impl From<ByteRanges> for Vec<(u64, u64)> {
    fn from(ranges: ByteRanges) -> Self {
        ranges.0.into_iter().map(|range| (range.start, range.end)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_has_the_bytes_that_were_put_in_and_misses_the_others(
            ranges in prop::collection::vec((0u64..100, 0u64..20), 0..20),
            (start, bytes) in (0u64..120, 0u64..60),
        ) {
            let (mut set, mut has) = (ByteRanges::default(), [false; 200]);
            for (start, bytes) in ranges {
                set.insert(start..start + bytes);
                (start..start + bytes).for_each(|at| has[at as usize] = true);
            }
            prop_assert_eq!(set.bytes(), has.iter().filter(|has| **has).count() as u64);
            let missing: Vec<u64> = set.missing(&(start..start + bytes)).into_iter().flatten().collect();
            let expected: Vec<u64> = (start..start + bytes).filter(|at| !has[*at as usize]).collect();
            prop_assert_eq!(missing, expected);
            let text = serde_json::to_string(&set).unwrap();
            prop_assert_eq!(serde_json::from_str::<ByteRanges>(&text).unwrap(), set);
        }
    }

    #[test]
    fn a_map_that_no_set_has_is_refused() {
        for text in ["[[3,3]]", "[[4,3]]", "[[0,3],[3,5]]", "[[5,6],[0,1]]"] {
            assert!(serde_json::from_str::<ByteRanges>(text).is_err(), "{text}");
        }
    }
}
