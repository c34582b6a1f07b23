//! The rule by which the device chooses a token: `kernels/choose.h`. Pure.

use schema::frame::{Sampling, Slice};

use crate::sampling::Readout;
use crate::shard::{TileRow, readout};

/// The rule of a row of logits. The default chooses the likeliest token.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct ChoiceRule {
    /// One by the temperature. 0 to choose the likeliest token.
    sharpness: f32,
    /// The least weight of a token that may be drawn, where the likeliest has 1.
    least: f32,
    position: u32,
    choice: u32,
    seed: u64,
}

// === impl ChoiceRule ===

impl ChoiceRule {
    /// The rule of `row`. `None` for one that the device does not know: scores, alternatives, adjustments, masks, and
    /// filters other than `min_p`.
    pub(super) fn of(slice: &Slice, row: &TileRow) -> Option<Self> {
        if slice.rule.alternatives > 0 {
            return None;
        }
        let Readout::Choose { position, sampling, rule: None } = readout(slice, row) else { return None };
        let Sampling { temperature, top_k, top_p, min_p, typical_p, top_n_sigma, xtc_probability, .. } = *sampling;
        let sharpness = 1.0 / temperature;
        if !sharpness.is_finite() || top_k == 1 || top_p == 0.0 {
            return Some(Self::default());
        }
        let filters = top_k != 0 || top_p < 1.0 || typical_p < 1.0 || top_n_sigma > 0.0 || xtc_probability > 0.0;
        let (choice, seed) = (sampling.choice, sampling.seed);
        (!filters).then_some(Self { sharpness, least: min_p, position, choice, seed })
    }

    /// The numbers of the source's structure.
    pub(super) fn numbers(self) -> [u32; 6] {
        let Self { sharpness, least, position, choice, seed } = self;
        [sharpness.to_bits(), least.to_bits(), position, choice, seed as u32, (seed >> 32) as u32]
    }
}
