//! The metadata keys of mixtures of experts.

use super::error::UnsupportedModel;
use super::feed_forward::{Activation, DenseSpec, ExpertsSpec, RouterScore, Routing, SharedSpec};
use super::keys::{Keys, LAYERS_MAX, WIDTH_MAX};

/// Largest accepted number of experts in a layer: more than twice that of the largest known model.
const EXPERTS_MAX: u32 = 1024;
/// Largest accepted number of experts that a row chooses, twice that of the largest known model. A tile has as many
/// rows of experts for each of its own.
const EXPERTS_CHOSEN_MAX: u32 = 32;

/// Largest accepted number of groups of experts: eight times that of the largest known model.
const GROUPS_MAX: u32 = 64;

// === impl Keys ===

impl Keys<'_> {
    /// A mixture of experts of the usual keys, whose weights are the softmax of all logits: `None` in a file without
    /// experts. The metadata may name the width of an expert, or that of dense layers is meant.
    pub(super) fn experts(&self) -> Result<Option<ExpertsSpec>, UnsupportedModel> {
        let count = match self.count("expert_count")? {
            0 => return Ok(None),
            count if count <= EXPERTS_MAX => count as usize,
            count => return Err(self.wrong("expert_count", format!("at most {EXPERTS_MAX}"), count)),
        };
        let width = match self.count("expert_feed_forward_length")? {
            0 => self.size("feed_forward_length", WIDTH_MAX)?,
            _ => self.size("expert_feed_forward_length", WIDTH_MAX)?,
        };
        let routing =
            Routing { score: RouterScore::Softmax, normalise: false, scale: 1.0, groups: None, weigh_inputs: false };
        Ok(Some(ExpertsSpec {
            count,
            chosen: self.size("expert_used_count", EXPERTS_CHOSEN_MAX.min(count as u32))?,
            width,
            activation: Activation::Silu,
            routing,
            selection_bias: false,
            biases: false,
            fused: false,
            scales: false,
            own_norms: false,
            shared: None,
        }))
    }

    /// The same for a family whose every file has experts.
    pub(super) fn required_experts(&self) -> Result<ExpertsSpec, UnsupportedModel> {
        let experts = self.experts()?;
        experts.ok_or_else(|| self.wrong("expert_count", format!("1 to {EXPERTS_MAX}"), 0))
    }

    /// The network that is as wide as several experts, of which the file names the number: `None` without one.
    pub(super) fn shared_experts(&self, width: usize) -> Result<Option<SharedSpec>, UnsupportedModel> {
        match self.count("expert_shared_count")? {
            0 => Ok(None),
            _ => self.shared(width * self.size("expert_shared_count", EXPERTS_MAX)?, false).map(Some),
        }
    }

    /// A network with SiLU beside the experts, with `width` values unless the file names another number.
    pub(super) fn shared(&self, width: usize, gated: bool) -> Result<SharedSpec, UnsupportedModel> {
        let width = self.size_or("expert_shared_feed_forward_length", width, WIDTH_MAX)?;
        Ok(SharedSpec { dense: DenseSpec { width, activation: Activation::Silu, fused: false }, gated })
    }

    /// The scores that the file names: softmax or sigmoid.
    pub(super) fn router_score(&self, default: RouterScore) -> Result<RouterScore, UnsupportedModel> {
        match self.count("expert_gating_func")? {
            0 => Ok(default),
            1 => Ok(RouterScore::Softmax),
            2 => Ok(RouterScore::Sigmoid),
            other => Err(self.wrong("expert_gating_func", "1 (softmax) or 2 (sigmoid)".to_owned(), other)),
        }
    }

    /// Number of equal groups of `experts`, and the number of groups that a row's experts come from. `None` if a row
    /// chooses among all.
    pub(super) fn expert_groups(&self, experts: &ExpertsSpec) -> Result<Option<(usize, usize)>, UnsupportedModel> {
        if self.count("expert_group_count")? <= 1 {
            return Ok(None);
        }
        let count = self.size("expert_group_count", GROUPS_MAX)?;
        let chosen = self.size("expert_group_used_count", count as u32)?;
        if !experts.count.is_multiple_of(count) || experts.count / count * chosen < experts.chosen {
            let expected = format!("a divisor of {} experts, with enough in {chosen} groups", experts.count);
            return Err(self.wrong("expert_group_count", expected, count));
        }
        Ok(Some((count, chosen)))
    }

    /// Number of layers of which the last has experts, 1 without the key.
    pub(super) fn moe_layer_step(&self) -> Result<usize, UnsupportedModel> {
        self.size_or("interleave_moe_layer_step", 1, LAYERS_MAX)
    }
}
