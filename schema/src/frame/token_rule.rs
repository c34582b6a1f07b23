//! The rule by which the last stage chooses a token: everything that it needs beside the logits. Choosing is pure:
//! equal logits and equal rules give an equal token.

/// The method of drawing a token from the probabilities of a position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Temperature. 0 takes the largest logit.
    pub temperature: f32,
    /// Keep this many of the likeliest tokens. 0 keeps all.
    pub top_k: u32,
    /// Keep the likeliest tokens until their probabilities add up to this. 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this probable relative to the likeliest. 0 keeps all.
    pub min_p: f32,
    /// Keep the tokens whose information is nearest to the expected one until their probabilities add up to this. 1
    /// keeps all.
    pub typical_p: f32,
    /// Keep tokens whose logits are at most this many standard deviations below the largest. 0 keeps all.
    pub top_n_sigma: f32,
    /// Probability that, of the tokens above `xtc_threshold`, all but the least likely one are removed. 0 removes none.
    pub xtc_probability: f32,
    /// Probability from which `xtc_probability` applies to a token.
    pub xtc_threshold: f32,
    /// Seeds the random numbers, together with `choice` and the token's position.
    pub seed: u64,
    /// Index of this choice among those of the request.
    pub choice: u32,
}

/// The rule for the tokens that a slice asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenRule {
    /// The method of drawing.
    pub sampling: Sampling,
    /// Number of the likeliest tokens to report for each scored or chosen token, at most [`ALTERNATIVES_MAX`].
    pub alternatives: u32,
    /// One rule for each chosen token, or none at all if no position has one.
    pub positions: Vec<PositionRule>,
}

/// The rule of one position. The default changes nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PositionRule {
    /// Changes of logits, ascending by token. At most [`ADJUSTMENTS_MAX`].
    pub adjustments: Vec<Adjustment>,
    /// The tokens that may be chosen. `None` if all may.
    pub mask: Option<TokenMask>,
}

/// A change of one token's logit: adds `bias`, then divides the logit by `repetition` if it is positive and multiplies
/// it otherwise, then subtracts `penalty`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adjustment {
    /// The token.
    pub token: u32,
    /// Added first, within ±[`CHANGE_MAX`]. Negative infinity forbids the token.
    pub bias: f32,
    /// From 1 / [`CHANGE_MAX`] to [`CHANGE_MAX`]. 1 changes nothing.
    pub repetition: f32,
    /// Subtracted last, within ±[`CHANGE_MAX`].
    pub penalty: f32,
}

/// The tokens that may be chosen, in the shortest of three forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenMask {
    /// These tokens, ascending.
    Only(Vec<u32>),
    /// All tokens but these, ascending.
    Without(Vec<u32>),
    /// Token `i` may be chosen if bit `i % 8` of byte `i / 8` is 1. Tokens beyond the end may not. At most
    /// [`MASK_BYTES_MAX`].
    Bits(Vec<u8>),
}

/// Most alternatives of one position.
pub const ALTERNATIVES_MAX: u32 = 20;
/// Most adjustments of one position.
pub const ADJUSTMENTS_MAX: usize = 1 << 16;
/// Largest magnitude of a finite bias or penalty, and of a repetition or its reciprocal. Logits stay finite under them.
pub const CHANGE_MAX: f32 = 1e6;
/// Longest mask, in bytes: a vocabulary of a million tokens. The largest ones in use have 262,144.
pub const MASK_BYTES_MAX: usize = 1 << 17;

// === impl Sampling ===

impl Sampling {
    /// Takes the likeliest token.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        typical_p: 1.0,
        top_n_sigma: 0.0,
        xtc_probability: 0.0,
        xtc_threshold: 0.0,
        seed: 0,
        choice: 0,
    };
    /// Draws by the model's own probabilities.
    pub const PLAIN: Self = Self { temperature: 1.0, ..Self::GREEDY };

    /// Checks the values. The error is the name and the value of the first wrong field.
    pub fn check(&self) -> Result<(), (&'static str, f32)> {
        let is_share = |value: f32| (0.0..=1.0).contains(&value);
        let is_positive = |value: f32| value.is_finite() && value >= 0.0;
        let fields = [
            ("temperature", self.temperature, is_positive(self.temperature)),
            ("top_p", self.top_p, is_share(self.top_p)),
            ("min_p", self.min_p, is_share(self.min_p)),
            ("typical_p", self.typical_p, is_share(self.typical_p)),
            ("top_n_sigma", self.top_n_sigma, is_positive(self.top_n_sigma)),
            ("xtc_probability", self.xtc_probability, is_share(self.xtc_probability)),
            ("xtc_threshold", self.xtc_threshold, is_share(self.xtc_threshold)),
        ];
        match fields.into_iter().find(|(.., holds)| !holds) {
            Some((field, value, _)) => Err((field, value)),
            None => Ok(()),
        }
    }
}

// === impl TokenRule ===

impl TokenRule {
    /// Takes the likeliest token.
    pub const GREEDY: Self = Self::new(Sampling::GREEDY);

    /// A rule of `sampling` alone.
    pub const fn new(sampling: Sampling) -> Self {
        Self { sampling, alternatives: 0, positions: Vec::new() }
    }

    /// Upper bound of the bytes that the rules of positions take in a frame.
    pub fn position_bytes(&self) -> usize {
        self.positions.iter().map(PositionRule::bytes).sum()
    }
}

// === impl PositionRule ===

impl PositionRule {
    /// True if it changes nothing.
    pub fn is_plain(&self) -> bool {
        self.adjustments.is_empty() && self.mask.is_none()
    }

    /// Upper bound of the bytes that it takes in a frame.
    pub fn bytes(&self) -> usize {
        /// Tables, offsets and padding.
        const FIXED: usize = 96;
        let mask = self.mask.as_ref().map_or(0, TokenMask::bytes);
        FIXED + self.adjustments.len() * size_of::<Adjustment>() + mask
    }
}

// === impl Adjustment ===

impl Adjustment {
    /// No change of `token`.
    pub fn none(token: u32) -> Self {
        Self { token, bias: 0.0, repetition: 1.0, penalty: 0.0 }
    }

    /// Makes `token` impossible.
    pub fn forbid(token: u32) -> Self {
        Self { bias: f32::NEG_INFINITY, ..Self::none(token) }
    }

    /// `logit` after the change.
    #[inline]
    pub fn apply(&self, logit: f32) -> f32 {
        let biased = logit + self.bias;
        let repeated = if biased > 0.0 { biased / self.repetition } else { biased * self.repetition };
        repeated - self.penalty
    }
}

// === impl TokenMask ===

impl TokenMask {
    /// The shortest form of a mask for `tokens` tokens: token `i` may be chosen if bit `i % 32` of `words[i / 32]`
    /// is 1. Tokens beyond the words may not.
    pub fn from_words(words: &[u32], tokens: u32) -> Self {
        let word = |index: usize| {
            let used = (tokens as usize - 32 * index).min(32);
            let all = if used == 32 { u32::MAX } else { (1 << used) - 1 };
            (words.get(index).copied().unwrap_or(0) & all, all)
        };
        let words = || (0..(tokens as usize).div_ceil(32)).map(word);
        let allowed: usize = words().map(|(word, _)| word.count_ones() as usize).sum();
        let (forbidden, bytes) = (tokens as usize - allowed, (tokens as usize).div_ceil(8));
        if size_of::<u32>() * allowed.min(forbidden) > bytes {
            Self::Bits(words().flat_map(|(word, _)| word.to_le_bytes()).take(bytes).collect())
        } else if allowed <= forbidden {
            Self::Only(ones(allowed, words().map(|(word, _)| word)))
        } else {
            Self::Without(ones(forbidden, words().map(|(word, all)| !word & all)))
        }
    }

    /// True if `token` may be chosen.
    pub fn allows(&self, token: u32) -> bool {
        match self {
            Self::Only(tokens) => tokens.binary_search(&token).is_ok(),
            Self::Without(tokens) => tokens.binary_search(&token).is_err(),
            Self::Bits(bytes) => bytes.get(token as usize / 8).is_some_and(|byte| byte >> (token % 8) & 1 == 1),
        }
    }

    /// The tokens that may be chosen. `None` if they are all but a few.
    pub fn allowed(&self) -> Option<impl Iterator<Item = u32>> {
        let listed = match self {
            Self::Only(tokens) => &tokens[..],
            Self::Without(_) => return None,
            Self::Bits(_) => &[],
        };
        let bytes = if let Self::Bits(bytes) = self { &bytes[..] } else { &[] };
        let set = |(index, byte): (usize, &u8)| {
            let byte = *byte;
            (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| index as u32 * 8 + bit)
        };
        Some(listed.iter().copied().chain(bytes.iter().enumerate().flat_map(set)))
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Only(tokens) | Self::Without(tokens) => size_of_val(&tokens[..]),
            Self::Bits(bytes) => bytes.len(),
        }
    }
}

/// The positions of the `count` ones in `words`, ascending.
fn ones(count: usize, words: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut positions = Vec::with_capacity(count);
    for (index, mut word) in (0..).zip(words) {
        while word != 0 {
            positions.push(32 * index + word.trailing_zeros());
            word &= word - 1;
        }
    }
    positions
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_form_of_a_mask_allows_the_same_tokens(
            words in prop::collection::vec(any::<u32>(), 0..9),
            tokens in 0_u32..300,
            kind in 0..3,
        ) {
            // Nearly empty and nearly full masks take the other forms.
            let words: Vec<u32> = match kind {
                0 => words,
                1 => words.iter().map(|word| word & word.rotate_left(7) & word.rotate_left(13) & 0x0101_0101).collect(),
                _ => words.iter().map(|word| word | 0xfefe_fefe).collect(),
            };
            let mask = TokenMask::from_words(&words, tokens);
            for token in 0..tokens {
                let bit = words.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1);
                prop_assert_eq!(mask.allows(token), bit, "token {} of {:?}", token, mask);
            }
        }
    }

    #[test]
    fn a_mask_takes_its_shortest_form() {
        let mut words = vec![0_u32; 32];
        words[3] = 4;
        assert_eq!(TokenMask::from_words(&words, 1024), TokenMask::Only(vec![98]));
        let mut words = vec![u32::MAX; 32];
        words[3] = !4;
        assert_eq!(TokenMask::from_words(&words, 1024), TokenMask::Without(vec![98]));
        let words = vec![0x5555_5555; 32];
        assert_eq!(TokenMask::from_words(&words, 1021), {
            let mut bytes = vec![0x55; 128];
            bytes[127] = 0x15;
            TokenMask::Bits(bytes)
        });
    }

    #[test]
    fn an_adjustment_adds_then_scales_then_subtracts() {
        let change = Adjustment { token: 1, bias: 1.0, repetition: 2.0, penalty: 0.25 };
        assert_eq!(change.apply(3.0), 1.75);
        assert_eq!(change.apply(-3.0), -4.25);
        assert_eq!(Adjustment::forbid(1).apply(5.0), f32::NEG_INFINITY);
        assert_eq!(Adjustment::none(1).apply(5.0), 5.0);
    }

    #[test]
    fn the_first_wrong_field_of_a_sampling_is_named() {
        assert_eq!(Sampling::PLAIN.check(), Ok(()));
        assert_eq!(Sampling { min_p: 1.5, ..Sampling::PLAIN }.check(), Err(("min_p", 1.5)));
        assert!(Sampling { temperature: f32::NAN, ..Sampling::PLAIN }.check().is_err());
        assert_eq!(Sampling { typical_p: -1.0, ..Sampling::PLAIN }.check(), Err(("typical_p", -1.0)));
    }
}
