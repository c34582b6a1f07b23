//! The metadata keys of rotary embeddings.

use super::error::UnsupportedModel;
use super::keys::{HEAD_WIDTH_MAX, Keys};
use super::rope::{LongRope, RopeScaling, RopeSpec, RopeStyle, YarnScaling};
use super::tensors::Presence;
use super::{ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT};

/// Base of the frequencies, in files that do not name it.
const BASE: f32 = 10_000.0;

// === impl Keys ===

impl Keys<'_> {
    /// A rotary embedding of another base, without scaling.
    pub(super) fn plain_rope(&self, rope: RopeSpec, suffix: &str, base: f32) -> Result<RopeSpec, UnsupportedModel> {
        Ok(RopeSpec {
            base: self.positive(suffix, Some(base))?,
            scaling: RopeScaling::Linear(1.0),
            factors: Presence::Refused,
            ..rope
        })
    }

    /// The rotary embedding of heads whose keys have `key` values.
    pub(super) fn rope(&self, style: RopeStyle, key: usize) -> Result<RopeSpec, UnsupportedModel> {
        let dimensions = self.size_or("rope.dimension_count", key, HEAD_WIDTH_MAX)?;
        if dimensions > key || !dimensions.is_multiple_of(2) {
            let expected = format!("an even number of at most the head's {key} dimensions");
            return Err(self.wrong("rope.dimension_count", expected, dimensions));
        }
        // Rows of Q and K that no converter reordered: `checkpoint/hugging_face/` says so, GGUF files never do.
        let style = if self.flag("rope.halves")? { RopeStyle::Halves } else { style };
        let base = self.positive("rope.freq_base", Some(BASE))?;
        Ok(RopeSpec { dimensions, base, scaling: self.rope_scaling()?, style, factors: Presence::Optional })
    }

    fn rope_scaling(&self) -> Result<RopeScaling, UnsupportedModel> {
        const KEY: &str = "rope.scaling.type";
        match self.header.metadata.str_or(&self.name(KEY), "none")? {
            // Files without a scaling type may have a linear scale under an older key.
            "none" => Ok(RopeScaling::Linear(self.positive("rope.scale_linear", Some(1.0))?)),
            "linear" => Ok(RopeScaling::Linear(self.positive("rope.scaling.factor", Some(1.0))?)),
            "yarn" if self.family.implements.contains(&"yarn") => Ok(RopeScaling::Yarn(self.yarn()?)),
            "longrope" if self.family.implements.contains(&"longrope") => Ok(RopeScaling::LongRope(self.long_rope()?)),
            // The file stores the factor of each pair in a tensor.
            "llama3" => Ok(RopeScaling::Linear(1.0)),
            other => {
                let implemented =
                    ["yarn", "longrope"].map(|name| self.family.implements.contains(&name).then_some(name));
                let names: String = implemented.into_iter().flatten().map(|name| format!(", {name}")).collect();
                Err(self.wrong(KEY, format!("none, linear{names} or llama3"), format!("{other:?}")))
            }
        }
    }

    /// YaRN's constants, with its own magnitude of rotated values.
    fn yarn(&self) -> Result<YarnScaling, UnsupportedModel> {
        let factor = self.positive("rope.scaling.factor", None)?;
        let attention_factor = self.positive("rope.scaling.attn_factor", Some(1.0))?;
        let base = self.positive("rope.freq_base", Some(BASE))?;
        if base <= 1.0 {
            return Err(self.wrong("rope.freq_base", "more than 1, as YaRN divides by its logarithm".to_owned(), base));
        }
        Ok(YarnScaling {
            factor,
            original_context: self.size("rope.scaling.original_context_length", u32::MAX)? as u32,
            beta_fast: self.positive("rope.scaling.yarn_beta_fast", Some(32.0))?,
            beta_slow: self.positive("rope.scaling.yarn_beta_slow", Some(1.0))?,
            magnitude: attention_factor * (1.0 + 0.1 * factor.max(1.0).ln()),
            whole_pairs: true,
        })
    }

    /// True if the file has divisors of frequencies for its original context and for longer ones.
    pub(super) fn has_rope_factors_by_length(&self) -> bool {
        [ROPE_FACTORS_SHORT, ROPE_FACTORS_LONG].iter().any(|name| self.header.tensor(name).is_some())
    }

    /// LongRoPE's constants.
    pub(super) fn long_rope(&self) -> Result<LongRope, UnsupportedModel> {
        Ok(LongRope {
            original_context: self.size("rope.scaling.original_context_length", u32::MAX)? as u32,
            magnitude: self.positive("rope.scaling.attn_factor", Some(1.0))?,
        })
    }

    /// True if pairs are divided among the parts of a position (M-RoPE). A text's positions have equal parts, so that
    /// each pair turns as without the division.
    pub(super) fn rope_sections(&self) -> Result<bool, UnsupportedModel> {
        const KEY: &str = "rope.dimension_sections";
        let sections = self.header.metadata.get_i32_array(&self.name(KEY))?.unwrap_or_default();
        if sections.len() > 4 || sections.iter().any(|section| *section < 0) {
            return Err(self.wrong(
                KEY,
                "up to 4 numbers from 0 on".to_owned(),
                format!("{:?}", &sections[..sections.len().min(8)]),
            ));
        }
        Ok(sections.iter().any(|section| *section > 0))
    }
}
