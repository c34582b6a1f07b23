//! The cluster's record of a model, computed from the file's header. Pure.

use std::collections::BTreeMap;

use schema::Fingerprint;
use schema::record::{KvRoom, KvType, ModelRecord};

use super::tensor_role::{EMBEDDING, OUTPUT, TensorRole, output_head};
use crate::checkpoint::{Header, TensorInfo};
use crate::format::Format;
use crate::gguf::{Metadata, MetadataError};

/// Errors of a GGUF file that is not a language model that baton can cut into layers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotALanguageModel {
    /// A key is missing or of the wrong type.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A number that is out of range.
    #[error("metadata key {key:?}: expected {expected}, found {found}")]
    Value {
        /// The key.
        key: String,
        /// The accepted values.
        expected: &'static str,
        /// The value found.
        found: u64,
    },
    /// A layer without a tensor.
    #[error("layer {layer} has no tensors: expected tensors named blk.{layer}.* for each of {layers} layers")]
    NoLayer {
        /// The first such layer.
        layer: u32,
        /// Number of layers that the metadata declares.
        layers: u32,
    },
    /// A tensor of a layer that the metadata does not declare.
    #[error("tensor {name:?} belongs to layer {layer}: expected a layer below {layers}")]
    ExtraLayer {
        /// The tensor.
        name: String,
        /// Its layer.
        layer: u32,
        /// Number of layers that the metadata declares.
        layers: u32,
    },
    /// A missing tensor that every language model has.
    #[error("there is no tensor {name:?}: expected one, as this is not a language model without it")]
    NoTensor {
        /// Its name.
        name: &'static str,
    },
}

/// Number of layers of the model. Each has a tensor, and no tensor belongs to another layer.
pub(super) fn layers(header: &Header) -> Result<u32, NotALanguageModel> {
    layers_of(header).map(|layers| layers.len() as u32)
}

/// The record of the model with this header.
pub(super) fn record(
    header: &Header,
    name: String,
    fingerprint: Fingerprint,
    room: KvRoom,
    stages_min: u32,
) -> Result<ModelRecord, NotALanguageModel> {
    let metadata = &header.metadata;
    let architecture = metadata.str("general.architecture")?.to_owned();
    let own = |suffix: &str| format!("{architecture}.{suffix}");
    let layers = layers_of(header)?;
    let embedding_bytes = bytes_of(header, EMBEDDING).ok_or(NotALanguageModel::NoTensor { name: EMBEDDING })?;
    let output = output_head(header);
    let output_bytes = output.map_or(0, |tensor| tensor.bytes);
    let norms = header
        .tensors
        .iter()
        .filter(|tensor| TensorRole::of(&tensor.name) == TensorRole::OutputHead && tensor.name != OUTPUT);
    let head_bytes = norms.map(|tensor| tensor.bytes).sum::<u64>() + output_bytes;
    Ok(ModelRecord {
        name,
        source: None,
        fingerprint,
        layers: layers.len() as u32,
        hidden: at_least_one(metadata, &own("embedding_length"))?,
        context_tokens: at_least_one(metadata, &own("context_length"))?,
        embedding_bytes,
        layer_bytes: layers.iter().map(|layer| layer.bytes).collect(),
        layer_read_bytes: Vec::new(),
        head_bytes,
        layer_multiplications: layers.iter().map(|layer| layer.values).collect(),
        head_multiplications: output.map_or(0, values),
        layer_format: layer_format(header).map(|format| format.name().to_owned()),
        layer_formats: Vec::new(),
        head_format: output.map(|tensor| tensor.format.name().to_owned()),
        kv_bytes_per_token_layer: kv_bytes_per_token_layer(metadata, &architecture, room.kv_type)?,
        layer_kv_bytes: Vec::new(),
        layer_windows: Vec::new(),
        bidirectional: false,
        kv_tokens: room.tokens,
        kv_growth: None,
        kv_type: room.kv_type,
        scratch_bytes: 0,
        stages_min,
        architecture,
    })
}

/// Totals over the tensors of a layer.
#[derive(Debug, Clone, Copy, Default)]
struct LayerTotals {
    bytes: u64,
    /// Number of values. Each is multiplied once per token.
    values: u64,
}

/// Number of values in a tensor.
fn values(tensor: &TensorInfo) -> u64 {
    tensor.dims.iter().fold(1, |product: u64, dim| product.saturating_mul(*dim))
}

/// The format of most bytes in the layers.
fn layer_format(header: &Header) -> Option<Format> {
    let bytes_in = |format: &Format| {
        let own = |tensor: &&TensorInfo| {
            tensor.format == *format && matches!(TensorRole::of(&tensor.name), TensorRole::Layer(_))
        };
        header.tensors.iter().filter(own).map(|tensor| tensor.bytes).sum::<u64>()
    };
    Format::ALL.into_iter().max_by_key(bytes_in).filter(|format| bytes_in(format) > 0)
}

/// The totals of each layer.
fn layers_of(header: &Header) -> Result<Vec<LayerTotals>, NotALanguageModel> {
    let architecture = header.metadata.str("general.architecture")?;
    let all = at_least_one(&header.metadata, &format!("{architecture}.block_count"))?;
    // Those that predict further tokens come last, and are left out.
    let further = header.metadata.u32_or(&format!("{architecture}.nextn_predict_layers"), 0)?;
    let layers = all.saturating_sub(further).max(1);
    let mut found = BTreeMap::<u32, LayerTotals>::new();
    for tensor in &header.tensors {
        if let TensorRole::Layer(layer) = TensorRole::of(&tensor.name) {
            if (layers..all).contains(&layer) {
                continue;
            }
            if layer >= layers {
                return Err(NotALanguageModel::ExtraLayer { name: tensor.name.clone(), layer, layers });
            }
            let layer = found.entry(layer).or_default();
            layer.bytes += tensor.bytes;
            layer.values = layer.values.saturating_add(values(tensor));
        }
    }
    // The declared count may be absurdly high. So the gap is searched among the layers found, whose number the file
    // bounds.
    let gap = (0..).zip(found.keys()).find(|(expected, layer)| expected != *layer).map(|(expected, _)| expected);
    match gap.unwrap_or(found.len() as u32) {
        end if end == layers => Ok(found.into_values().collect()),
        layer => Err(NotALanguageModel::NoLayer { layer, layers }),
    }
}

/// Size of the keys and values of one token in one layer, in bytes.
fn kv_bytes_per_token_layer(
    metadata: &Metadata,
    architecture: &str,
    kv_type: KvType,
) -> Result<u64, NotALanguageModel> {
    let own = |suffix: &str| format!("{architecture}.attention.{suffix}");
    let heads = most_heads(metadata, &own("head_count"))?;
    let kv_heads = match metadata.get(&own("head_count_kv")) {
        Some(_) => most_heads(metadata, &own("head_count_kv"))?,
        None => heads,
    };
    let hidden = at_least_one(metadata, &format!("{architecture}.embedding_length"))?;
    let key_values = metadata.u32_or(&own("key_length"), hidden / heads)?;
    let value_values = metadata.u32_or(&own("value_length"), key_values)?;
    // The product of these factors from the metadata can reach 2^32 * 2^33 * 2, so it needs checked arithmetic.
    u64::from(kv_heads)
        .checked_mul(u64::from(key_values) + u64::from(value_values))
        .and_then(|values| kv_type.bytes(values))
        .ok_or(NotALanguageModel::Value {
            key: own("head_count_kv"),
            expected: "a count whose product fits 64 bits",
            found: kv_heads.into(),
        })
}

/// The head count, or the greatest one if each layer has its own.
fn most_heads(metadata: &Metadata, key: &str) -> Result<u32, NotALanguageModel> {
    match metadata.u32(key) {
        Ok(_) => at_least_one(metadata, key),
        Err(error) => match metadata.get_u32_array(key) {
            Ok(Some(each)) => {
                let most = each.into_iter().max().unwrap_or(0);
                nonzero(key, most)
            }
            _ => Err(error.into()),
        },
    }
}

fn at_least_one(metadata: &Metadata, key: &str) -> Result<u32, NotALanguageModel> {
    nonzero(key, metadata.u32(key)?)
}

fn nonzero(key: &str, value: u32) -> Result<u32, NotALanguageModel> {
    match value {
        0 => Err(NotALanguageModel::Value { key: key.to_owned(), expected: "at least 1", found: 0 }),
        value => Ok(value),
    }
}

fn bytes_of(header: &Header, name: &str) -> Option<u64> {
    header.tensor(name).map(|tensor| tensor.bytes)
}
