//! Rotary position embedding (RoPE): the pairs of dimensions that are rotated together, and their frequencies.

use std::sync::Arc;

use super::ROPE_FACTORS;
use super::error::UnsupportedModel;

/// The layout of the dimension pairs that RoPE rotates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeStyle {
    /// Dimensions `2i` and `2i + 1`: the llama family, whose Q and K rows are reordered for this in GGUF files.
    Adjacent,
    /// Dimensions `i` and `i + half`: the Qwen families.
    Halves,
}

/// A rotary embedding as the metadata describes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeSpec {
    /// Number of a head's dimensions that are rotated. Even.
    pub dimensions: usize,
    /// Base of the frequencies.
    pub base: f32,
    /// The stretching of frequencies to longer contexts.
    pub scaling: RopeScaling,
    /// The layout of the pairs.
    pub style: RopeStyle,
}

/// The stretching of frequencies to longer contexts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// All frequencies are divided by this number.
    Linear(f32),
}

/// The rotation of a head's dimensions by the token's position.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Frequency of each pair, in radians per token.
    frequencies: Arc<[f64]>,
    rope_style: RopeStyle,
}

// === impl RopeSpec ===

impl RopeSpec {
    /// Number of rotated pairs.
    pub fn pairs(&self) -> usize {
        self.dimensions / 2
    }

    /// The rotation. `factors` are the values of the tensor `rope_freqs.weight`, if the file has it.
    ///
    /// # Errors
    /// [`UnsupportedModel::Tensor`] when `factors` does not hold one positive factor for each pair of dimensions.
    pub fn rope(&self, factors: Option<&[f32]>) -> Result<Rope, UnsupportedModel> {
        let pairs = self.pairs();
        if let Some(factors) = factors
            && (factors.len() != pairs || factors.iter().any(|factor| !(factor.is_finite() && *factor > 0.0)))
        {
            let expected = format!("{pairs} positive factors");
            let found = format!("{} values", factors.len());
            return Err(UnsupportedModel::Tensor { name: ROPE_FACTORS.to_owned(), expected, found });
        }
        let (base, RopeScaling::Linear(divisor)) = (f64::from(self.base), self.scaling);
        Ok(Rope::new(self.dimensions, base, f64::from(divisor), factors, self.style))
    }
}

// === impl Rope ===

impl Rope {
    /// Creates the frequencies `base^(-2i / dimensions)` of the pairs `i`. Each is divided by `divisor` and, if
    /// `factors` (the tensor `rope_freqs.weight`) is given, by the pair's factor.
    ///
    /// # Panics
    /// If `factors` is given, but does not hold one factor for each pair.
    pub fn new(dimensions: usize, base: f64, divisor: f64, factors: Option<&[f32]>, rope_style: RopeStyle) -> Self {
        let pairs = dimensions / 2;
        assert!(factors.is_none_or(|factors| factors.len() == pairs), "one factor for each of {pairs} pairs");
        let frequency = |pair: usize| {
            let factor = factors.map_or(1.0, |factors| f64::from(factors[pair]));
            base.powf(-2.0 * pair as f64 / dimensions as f64) / divisor / factor
        };
        Self::from_frequencies((0..pairs).map(frequency).collect(), rope_style)
    }

    /// Creates a rotation with the given frequencies, in radians per token.
    pub fn from_frequencies(frequencies: Vec<f64>, rope_style: RopeStyle) -> Self {
        Self { frequencies: frequencies.into(), rope_style }
    }

    /// Frequency of each pair, in radians per token.
    pub fn frequencies(&self) -> &[f64] {
        &self.frequencies
    }

    /// Number of rotated pairs.
    pub fn pairs(&self) -> usize {
        self.frequencies.len()
    }

    /// The layout of the pairs.
    pub fn rope_style(&self) -> RopeStyle {
        self.rope_style
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_fall_with_the_pair_and_are_divided_by_their_factors() {
        let plain = Rope::new(4, 100.0, 1.0, None, RopeStyle::Halves);
        assert_eq!(plain.frequencies(), [1.0, 0.1]);
        let stretched = Rope::new(4, 100.0, 2.0, Some(&[1.0, 5.0]), RopeStyle::Halves);
        assert_eq!(stretched.frequencies(), [0.5, 0.01]);
    }
}
