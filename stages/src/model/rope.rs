//! Rotary position embedding (RoPE): the pairs of dimensions that are rotated together, and their frequencies.

use std::sync::Arc;

use super::error::UnsupportedModel;
use super::tensors::Presence;
use super::{ROPE_FACTORS, ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT};

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
    /// Presence of the divisors of each pair's frequency (`rope_freqs.weight`), which Llama 3's method has.
    pub factors: Presence,
}

/// The stretching of frequencies to longer contexts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// All frequencies are divided by this number.
    Linear(f32),
    /// Frequencies that turn often within the original context stay, those that turn seldom are divided (YaRN).
    Yarn(YarnScaling),
    /// Each frequency has a divisor for the original context, and another for longer ones.
    LongRope(LongRope),
}

/// The constants of LongRoPE.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LongRope {
    /// Tokens that the model was trained for before it was stretched.
    pub original_context: u32,
    /// Factor of the rotated values.
    pub magnitude: f32,
}

/// The constants of YaRN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct YarnScaling {
    /// Divisor of the low frequencies.
    pub factor: f32,
    /// Tokens that the model was trained for before it was stretched.
    pub original_context: u32,
    /// Turns within the original context from which on a frequency stays.
    pub beta_fast: f32,
    /// Turns up to which a frequency is divided.
    pub beta_slow: f32,
    /// Factor of the rotated values, which makes scores larger.
    pub magnitude: f32,
    /// True if the bounds between the two kinds lie on whole pairs.
    pub whole_pairs: bool,
}

/// The rotation of a head's dimensions by the token's position.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Frequency of each pair, in radians per token.
    frequencies: Arc<[f64]>,
    /// Factor of cosines and sines.
    magnitude: f64,
    rope_style: RopeStyle,
}

// === impl RopeSpec ===

impl RopeSpec {
    /// Number of rotated pairs.
    pub fn pairs(&self) -> usize {
        self.dimensions / 2
    }

    /// The tensors that hold divisors of its frequencies, and the rule for their presence.
    pub fn factor_tensors(&self) -> Vec<(&'static str, Presence)> {
        match self.scaling {
            RopeScaling::LongRope(_) => {
                vec![(ROPE_FACTORS_SHORT, Presence::Required), (ROPE_FACTORS_LONG, Presence::Required)]
            }
            _ if self.factors == Presence::Refused => Vec::new(),
            _ => vec![(ROPE_FACTORS, self.factors)],
        }
    }

    /// The one of these tensors that holds the divisors for sequences of up to `tokens_max` tokens. Which of two sets
    /// is read depends on this bound alone, never on a sequence: keys once rotated stay as they are.
    pub fn factor_tensor(&self, tokens_max: u32) -> Option<&'static str> {
        match self.scaling {
            RopeScaling::LongRope(scaling) if tokens_max > scaling.original_context => Some(ROPE_FACTORS_LONG),
            RopeScaling::LongRope(_) => Some(ROPE_FACTORS_SHORT),
            _ if self.factors == Presence::Refused => None,
            _ => Some(ROPE_FACTORS),
        }
    }

    /// The rotation. `factors` are the name and the values of the tensor [`Self::factor_tensor`], if the file has it.
    ///
    /// # Errors
    /// [`UnsupportedModel::Tensor`] when `factors` does not hold one positive factor for each pair of dimensions.
    pub fn rope(&self, factors: Option<(&str, &[f32])>) -> Result<Rope, UnsupportedModel> {
        let pairs = self.pairs();
        if let Some((name, factors)) = factors
            && (factors.len() != pairs || factors.iter().any(|factor| !(factor.is_finite() && *factor > 0.0)))
        {
            let expected = format!("{pairs} positive factors");
            let wrong = factors.iter().find(|factor| !(factor.is_finite() && **factor > 0.0));
            let found = wrong.map_or_else(|| format!("{} values", factors.len()), |factor| format!("{factor}"));
            return Err(UnsupportedModel::Tensor { name: name.to_owned(), expected, found });
        }
        let factors = factors.map(|(_, factors)| factors);
        let (dimensions, base) = (self.dimensions, f64::from(self.base));
        Ok(match self.scaling {
            RopeScaling::Linear(divisor) => Rope::new(dimensions, base, f64::from(divisor), factors, self.style),
            RopeScaling::LongRope(scaling) => {
                let magnitude = f64::from(scaling.magnitude);
                Rope { magnitude, ..Rope::new(dimensions, base, 1.0, factors, self.style) }
            }
            RopeScaling::Yarn(yarn) => {
                let plain = Rope::new(dimensions, base, 1.0, factors, self.style);
                let frequencies = plain.frequencies().iter().enumerate();
                let stretched = frequencies.map(|(pair, frequency)| frequency * yarn.share(pair, dimensions, base));
                let magnitude = f64::from(yarn.magnitude);
                Rope { magnitude, ..Rope::from_frequencies(stretched.collect(), self.style) }
            }
        })
    }
}

// === impl YarnScaling ===

impl YarnScaling {
    /// The part of its frequency that is left to pair number `pair`.
    fn share(&self, pair: usize, dimensions: usize, base: f64) -> f64 {
        // The pair that turns `turns` times within the original context.
        let pair_of = |turns: f32| {
            let context = f64::from(self.original_context);
            let wavelength = context / (f64::from(turns) * 2.0 * std::f64::consts::PI);
            dimensions as f64 * wavelength.ln() / (2.0 * base.ln())
        };
        let (low, high) = (pair_of(self.beta_fast), pair_of(self.beta_slow));
        let (low, high) = if self.whole_pairs { (low.floor(), high.ceil()) } else { (low, high) };
        let (low, high) = (low.max(0.0), high.min(dimensions as f64 - 1.0));
        let divided = ((pair as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
        divided / f64::from(self.factor) + (1.0 - divided)
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
        Self { frequencies: frequencies.into(), magnitude: 1.0, rope_style }
    }

    /// Frequency of each pair, in radians per token.
    pub fn frequencies(&self) -> &[f64] {
        &self.frequencies
    }

    /// Factor of cosines and sines.
    pub fn magnitude(&self) -> f64 {
        self.magnitude
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

    fn plain_of(dimensions: usize) -> RopeSpec {
        let (scaling, style) = (RopeScaling::Linear(1.0), RopeStyle::Adjacent);
        RopeSpec { dimensions, base: 10_000.0, scaling, style, factors: Presence::Optional }
    }

    #[test]
    fn longrope_reads_the_factors_for_the_longest_sequence_that_there_can_be() {
        let scaling = RopeScaling::LongRope(LongRope { original_context: 4096, magnitude: 1.19 });
        let spec = RopeSpec { scaling, ..plain_of(4) };
        let tensor = |tokens_max| spec.factor_tensor(tokens_max).unwrap();
        assert_eq!([1, 4096, 4097].map(tensor), [ROPE_FACTORS_SHORT, ROPE_FACTORS_SHORT, ROPE_FACTORS_LONG]);
        let rope = spec.rope(Some((ROPE_FACTORS_LONG, &[2.0, 5.0]))).unwrap();
        assert_eq!((rope.frequencies(), rope.magnitude()), (&[0.5, 0.002][..], f64::from(1.19_f32)));
        let error = spec.rope(Some((ROPE_FACTORS_SHORT, &[2.0, f32::NAN]))).unwrap_err().to_string();
        assert_eq!(error, "tensor \"rope_factors_short.weight\": expected 2 positive factors, found NaN");
    }

    #[test]
    fn frequencies_fall_with_the_pair_and_are_divided_by_their_factors() {
        let plain = Rope::new(4, 100.0, 1.0, None, RopeStyle::Halves);
        assert_eq!(plain.frequencies(), [1.0, 0.1]);
        let stretched = Rope::new(4, 100.0, 2.0, Some(&[1.0, 5.0]), RopeStyle::Halves);
        assert_eq!(stretched.frequencies(), [0.5, 0.01]);
    }

    #[test]
    fn yarn_divides_the_frequencies_that_turn_seldom() {
        let yarn = YarnScaling {
            factor: 40.0,
            original_context: 4096,
            beta_fast: 32.0,
            beta_slow: 1.0,
            magnitude: 1.2,
            whole_pairs: true,
        };
        let spec = |scaling| RopeSpec { scaling, ..plain_of(64) };
        let plain = spec(RopeScaling::Linear(1.0)).rope(None).unwrap();
        let rope = spec(RopeScaling::Yarn(yarn)).rope(None).unwrap();
        let left: Vec<f64> = rope.frequencies().iter().zip(plain.frequencies()).map(|(a, b)| a / b).collect();
        // DeepSeek-V2's: pairs up to 10 stay, those from 23 on are divided by 40.
        assert!(left[..=10].iter().all(|left| *left == 1.0), "{left:?}");
        assert!(left[23..].iter().all(|left| (left * 40.0 - 1.0).abs() < 1e-12), "{left:?}");
        assert!((left[16] - (6.0 / 13.0 / 40.0 + 7.0 / 13.0)).abs() < 1e-12, "{}", left[16]);
        assert_eq!(rope.magnitude(), f64::from(1.2_f32));
    }
}
