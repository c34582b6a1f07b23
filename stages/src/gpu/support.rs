//! The one list of what these kernels compute. Pure.

use schema::record::KvType;

use super::kernel::format_name;
use super::limits::HEAD_VALUES_MAX;
use crate::format::Format;
use crate::model::{
    Activation, AttentionSpec, DenseSpec, FeedForward, LayerSpec, Mixer, ModelSpec, QueryKeyNorm, UnsupportedModel,
    Window,
};
use crate::weights::ModelFile;

/// Values that a lane reads together. The kernels' `PART`.
const PART_VALUES: u64 = 8;

/// Reason why a layer is not computed.
type UnsupportedReason = &'static str;

/// Checks that the kernels compute every layer of `spec`, whose weights are in `file`, with keys and values kept as
/// `kv_type`.
///
/// # Errors
/// [`UnsupportedModel`] names the first feature or tensor that they do not compute.
pub fn check(spec: &ModelSpec, file: &ModelFile, kv_type: KvType) -> Result<(), UnsupportedModel> {
    let refused = |feature| UnsupportedModel::Accelerator { family: spec.family.architecture, feature };
    spec.check_kv(kv_type)?;
    let (Some(head), None) = (spec.head, spec.embedding.added) else {
        return Err(refused("texts that go through layers whole"));
    };
    if [spec.embedding.scale, head.scale].iter().any(|factor| *factor != 1.0) || head.softcap.is_some() {
        return Err(refused("scaled or bounded values"));
    }
    spec.layers.iter().try_for_each(|layer| check_layer(layer).map_err(refused))?;
    for tensor in file.matrices() {
        if !tensor.cols().is_multiple_of(PART_VALUES) {
            let expected = format!("rows of a multiple of {PART_VALUES} values");
            return Err(UnsupportedModel::Tensor {
                name: tensor.name.clone(),
                expected,
                found: tensor.cols().to_string(),
            });
        }
        if tensor.is_repacked() || format_name(tensor.format).is_none() {
            let formats = Format::ALL.into_iter().filter(|format| format_name(*format).is_some());
            let names = formats.map(Format::name).collect::<Vec<_>>().join(", ");
            let copied = if tensor.is_repacked() { ", copied in another order than the file's" } else { "" };
            let expected = format!("one of {names}, as the file has it");
            let found = format!("{}{copied}", tensor.format.name());
            return Err(UnsupportedModel::Tensor { name: tensor.name.clone(), expected, found });
        }
    }
    Ok(())
}

fn check_layer(layer: &LayerSpec) -> Result<(), UnsupportedReason> {
    let LayerSpec { mixer, feed_forward, norms, residual_scale, output_scale } = layer;
    if *output_scale || *residual_scale != 1.0 {
        return Err("scaled or bounded values");
    }
    if !norms.before || norms.after || norms.of_sums {
        return Err("norms of what layers add");
    }
    match mixer {
        Mixer::Attention(attention) => check_attention(attention)?,
        Mixer::Latent(_) => return Err("latent attention"),
        Mixer::ShortConv(_) => return Err("short convolutions"),
    }
    match feed_forward {
        FeedForward::Dense(DenseSpec { activation: Activation::Silu | Activation::Gelu, .. }) => Ok(()),
        FeedForward::Dense(_) => Err("an activation other than SiLU and GELU"),
        FeedForward::Experts(_) => Err("experts"),
        FeedForward::Plain(_) => Err("networks without a gate"),
    }
}

fn check_attention(attention: &AttentionSpec) -> Result<(), UnsupportedReason> {
    let AttentionSpec { softcap, temperature, output_bias, sinks, norm_after_rope, value_norm, .. } = attention;
    let plain = softcap.is_none() && temperature.is_none() && !output_bias && !sinks;
    let usual = !norm_after_rope && !value_norm && !matches!(attention.window, Window::Chunk(_) | Window::Text);
    if !plain || !usual || !matches!(attention.query_key_norm, QueryKeyNorm::None | QueryKeyNorm::Head) {
        return Err("its attention");
    }
    if attention.key.max(attention.value) > HEAD_VALUES_MAX {
        return Err("heads of more than 512 values");
    }
    Ok(())
}
