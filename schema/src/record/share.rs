//! A gateway's share of the cluster's keys and values, as parts of the pool. The type knows neither the blocks nor the
//! shares of other gateways.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The set of pool parts that a gateway may use, written as ascending ranges: `[[0,32],[48,64]]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<[u32; 2]>", into = "Vec<[u32; 2]>")]
pub struct Share(u64);

/// A range that is empty or exceeds [`Share::PARTS_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("[{start},{end}] is no range of parts: expected [first, one past last] up to {}", Share::PARTS_MAX)]
pub struct ShareError {
    start: u32,
    end: u32,
}

// === impl Share ===

impl Share {
    /// The share without parts.
    pub const EMPTY: Self = Self(0);
    /// Most parts that a pool has. It suffices for equal shares of several gateways, and people can still read the
    /// ranges.
    pub const PARTS_MAX: u32 = u64::BITS;

    /// The share of those `parts` that are below [`Share::PARTS_MAX`].
    pub fn of(parts: impl IntoIterator<Item = u32>) -> Self {
        Self(parts.into_iter().filter_map(|part| 1_u64.checked_shl(part)).fold(0, |all, part| all | part))
    }

    /// The parts in ascending order.
    pub fn parts(self) -> impl DoubleEndedIterator<Item = u32> {
        (0..Self::PARTS_MAX).filter(move |part| self.has(*part))
    }

    /// True if the share contains `part`.
    pub fn has(self, part: u32) -> bool {
        1_u64.checked_shl(part).is_some_and(|part| self.0 & part != 0)
    }

    /// Number of parts.
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// True if the share has no part.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The parts that are in either share.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The parts that are not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The parts that are in both shares.
    #[must_use]
    pub fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl TryFrom<Vec<[u32; 2]>> for Share {
    type Error = ShareError;
    fn try_from(ranges: Vec<[u32; 2]>) -> Result<Self, ShareError> {
        ranges.into_iter().try_fold(Self::EMPTY, |share, [start, end]| {
            if start < end && end <= Self::PARTS_MAX {
                Ok(share.and(Self::of(start..end)))
            } else {
                Err(ShareError { start, end })
            }
        })
    }
}

impl From<Share> for Vec<[u32; 2]> {
    fn from(share: Share) -> Self {
        let mut ranges: Self = Self::new();
        for part in share.parts() {
            match ranges.last_mut() {
                Some(range) if range[1] == part => range[1] += 1,
                _ => ranges.push([part, part + 1]),
            }
        }
        ranges
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<_> = Vec::from(*self).iter().map(|[start, end]| format!("{start}..{end}")).collect();
        f.write_str(&if ranges.is_empty() { "none".to_owned() } else { ranges.join(" ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_written_as_ranges_and_read_back() {
        for text in ["[]", "[[0,64]]", "[[0,1],[5,32],[63,64]]"] {
            let share: Share = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&share).unwrap(), text);
        }
        assert_eq!(Share::of([0, 1, 2, 7]).to_string(), "0..3 7..8");
        assert_eq!(Share::EMPTY.to_string(), "none");
    }

    #[test]
    fn an_invalid_range_of_parts_is_refused() {
        for text in ["[[3,3]]", "[[5,2]]", "[[0,65]]", "[[0]]", "7"] {
            serde_json::from_str::<Share>(text).unwrap_err();
        }
        assert_eq!(Share::of([64, 700]), Share::EMPTY);
    }
}
