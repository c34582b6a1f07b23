//! Ranges of transformer layers.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// A non-empty half-open range of layers, `start..end`. In JSON it is `[start, end]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "[u32; 2]", into = "[u32; 2]")]
pub struct LayerRange {
    start: u32,
    len: NonZeroU32,
}

// === impl LayerRange ===

impl LayerRange {
    /// The layers from `start` up to but not including `end`. `None` if that is no layer.
    pub fn new(start: u32, end: u32) -> Option<Self> {
        let len = NonZeroU32::new(end.checked_sub(start)?)?;
        Some(Self { start, len })
    }

    /// The first layer.
    pub fn start(self) -> u32 {
        self.start
    }

    /// One past the last layer.
    pub fn end(self) -> u32 {
        self.start + self.len.get()
    }

    /// Number of layers.
    pub fn count(self) -> u32 {
        self.len.get()
    }

    /// True if `layer` is in the range.
    pub fn contains(self, layer: u32) -> bool {
        (self.start..self.end()).contains(&layer)
    }

    /// The layer indices, for iterating and slicing.
    pub fn indices(self) -> Range<usize> {
        self.start as usize..self.end() as usize
    }
}

impl TryFrom<[u32; 2]> for LayerRange {
    type Error = String;
    fn try_from([start, end]: [u32; 2]) -> Result<Self, String> {
        Self::new(start, end)
            .ok_or_else(|| format!("layers [{start}, {end}] are empty: expected [start, end) with start < end"))
    }
}

impl From<LayerRange> for [u32; 2] {
    fn from(range: LayerRange) -> Self {
        [range.start(), range.end()]
    }
}

impl fmt::Display for LayerRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start(), self.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_or_backward_range_does_not_exist() {
        assert!(LayerRange::new(4, 4).is_none());
        assert!(LayerRange::new(5, 4).is_none());
        assert!(serde_json::from_str::<LayerRange>("[7,3]").is_err());
    }

    #[test]
    fn json_is_a_pair() {
        let range = LayerRange::new(0, 12).unwrap();
        assert_eq!(serde_json::to_string(&range).unwrap(), "[0,12]");
        assert_eq!(serde_json::from_str::<LayerRange>("[0,12]").unwrap(), range);
        assert!(range.contains(11) && !range.contains(12));
    }
}
