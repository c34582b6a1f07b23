//! Gemma 3: four norms a layer, norms of heads, GELU, and in five of six layers a window with a rotary embedding of its
//! own.

use super::Family;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::{Activation, DenseSpec, FeedForward};
use crate::model::keys::Keys;
use crate::model::mixer::{AttentionSpec, Mixer, QueryKeyNorm, Window};
use crate::model::rope::RopeStyle;
use crate::model::spec::{EmbeddingSpec, HeadSpec, LayerSpec, ModelSpec, NormSpec};

pub(super) const FAMILY: Family =
    Family { architecture: "gemma3", implements: &["final_logit_softcapping"], names: &[], read };

/// Every layer of this number, counted from 1, has no window.
const WITHOUT_WINDOW: usize = 6;
/// Layers of the model with 27 billion parameters, whose scores are scaled by other widths than its heads'.
const LAYERS_27B: usize = 62;
/// Base of the rotary embedding in layers with a window, in files that do not name it.
const BASE_IN_WINDOW: f32 = 10_000.0;

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    let (plain, window, layers) = (keys.attention()?, keys.window()?, keys.layers()?);
    let hidden = keys.hidden()?;
    let score_divisor = if layers == LAYERS_27B { ((hidden / plain.heads) as f32).sqrt() } else { plain.score_divisor };
    let attention = AttentionSpec { score_divisor, query_key_norm: QueryKeyNorm::Head, ..plain };
    let dense = DenseSpec { activation: Activation::Gelu, ..keys.dense()? };
    let norms = NormSpec { after: true, ..keys.norms()? };
    let layer = |index: usize| {
        let global = (index + 1).is_multiple_of(WITHOUT_WINDOW);
        let (window, rope) = if global { (Window::All, Some(0)) } else { (window, Some(1)) };
        LayerSpec::new(Mixer::Attention(AttentionSpec { window, rope, ..attention }), FeedForward::Dense(dense), norms)
    };
    let rope = keys.rope(RopeStyle::Halves, attention.key)?;
    let in_window = keys.plain_rope(rope, "rope.freq_base_swa", BASE_IN_WINDOW)?;
    let model = keys.model(vec![rope, in_window], (0..layers).map(layer).collect())?;
    let head = HeadSpec { softcap: keys.bound("final_logit_softcapping")?, ..keys.head()? };
    let embedding = EmbeddingSpec { scale: (hidden as f32).sqrt(), ..model.embedding };
    Ok(ModelSpec { embedding, head: Some(head), ..model })
}
