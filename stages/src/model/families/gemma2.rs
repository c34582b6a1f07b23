//! Gemma 2: four norms a layer, bounded scores and logits, GELU, a window in every second layer.

use super::Family;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::{Activation, DenseSpec, FeedForward};
use crate::model::keys::Keys;
use crate::model::mixer::{AttentionSpec, Mixer, Window};
use crate::model::rope::RopeStyle;
use crate::model::spec::{EmbeddingSpec, HeadSpec, LayerSpec, ModelSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "gemma2",
    implements: &["attn_logit_softcapping", "final_logit_softcapping"],
    names: &[],
    read,
};

/// Layers of the model with 27 billion parameters, whose scores are scaled by other widths than its heads'.
const LAYERS_27B: usize = 46;

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    let (plain, window, layers) = (keys.attention()?, keys.window()?, keys.layers()?);
    let hidden = keys.hidden()?;
    let score_divisor = if layers == LAYERS_27B { ((hidden / plain.heads) as f32).sqrt() } else { plain.score_divisor };
    let attention = AttentionSpec { score_divisor, softcap: keys.bound("attn_logit_softcapping")?, ..plain };
    let dense = DenseSpec { activation: Activation::Gelu, ..keys.dense()? };
    let norms = NormSpec { after: true, ..keys.norms()? };
    let layer = |index: usize| {
        let window = if index.is_multiple_of(2) { window } else { Window::All };
        LayerSpec::new(Mixer::Attention(AttentionSpec { window, ..attention }), FeedForward::Dense(dense), norms)
    };
    let rope = keys.rope(RopeStyle::Halves, attention.key)?;
    let model = keys.model(vec![rope], (0..layers).map(layer).collect())?;
    let head = HeadSpec { softcap: keys.bound("final_logit_softcapping")?, ..keys.head()? };
    let embedding = EmbeddingSpec { scale: (hidden as f32).sqrt(), ..model.embedding };
    Ok(ModelSpec { embedding, head: Some(head), ..model })
}
