//! The tensors that a model must have, and their shapes. Pure: the check reads a file's header, before anything is
//! mapped.

use super::error::UnsupportedModel;
use super::feed_forward::FeedForward;
use super::layer_role::LayerRole;
use super::mixer::{AttentionSpec, Mixer, QueryKeyNorm};
use super::spec::{LayerSpec, ModelSpec};
use super::{EMBEDDING, OUTPUT, OUTPUT_NORM, ROPE_FACTORS};
use crate::gguf::{Header, TensorInfo};

/// The rule for the presence of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// A model without it is refused.
    Required,
    /// A model may have it or not.
    Optional,
    /// A model with it is refused.
    Refused,
}

/// A tensor of a layer, and its dimensions in the file's order: the row's length first.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LayerTensor {
    role: LayerRole,
    presence: Presence,
    dims: Vec<usize>,
}

// === impl ModelSpec ===

impl ModelSpec {
    /// Checks that the file has every tensor of every layer in the right shape, and no tensor that would be ignored.
    ///
    /// # Errors
    /// [`UnsupportedModel::Tensor`] for the first tensor that is missing, has another shape, or is unknown.
    pub fn check_tensors(&self, header: &Header) -> Result<(), UnsupportedModel> {
        let layers: Vec<_> = self.layers.iter().map(|layer| layer.tensors(self.hidden)).collect();
        for tensor in &header.tensors {
            let rule = match layer_suffix(&tensor.name) {
                Some((layer, suffix)) => {
                    let own = layers.get(layer as usize).into_iter().flatten();
                    own.clone().find(|own| self.family.suffix(own.role) == suffix).map(LayerTensor::rule)
                }
                None => self.other_tensor(&tensor.name),
            };
            self.check_tensor(tensor, rule)?;
        }
        for (layer, tensors) in layers.iter().enumerate() {
            for tensor in tensors.iter().filter(|tensor| tensor.presence == Presence::Required) {
                required(header, &format!("blk.{layer}.{}", self.family.suffix(tensor.role)))?;
            }
        }
        required(header, EMBEDDING)?;
        required(header, OUTPUT_NORM)
    }

    /// Checks one tensor of the file against the rule for it. `None` if no part of the model has such a tensor.
    fn check_tensor(&self, tensor: &TensorInfo, rule: Option<(Presence, Vec<u64>)>) -> Result<(), UnsupportedModel> {
        let wrong = |expected: String, found: String| {
            Err(UnsupportedModel::Tensor { name: tensor.name.clone(), expected, found })
        };
        match rule {
            None | Some((Presence::Refused, _)) => {
                wrong(format!("none of this name in a {} model", self.family), "one".to_owned())
            }
            Some((_, dims)) if tensor.dims != dims => {
                wrong(format!("dimensions {dims:?}"), format!("{:?}", tensor.dims))
            }
            Some(_) => Ok(()),
        }
    }

    fn other_tensor(&self, name: &str) -> Option<(Presence, Vec<u64>)> {
        let (presence, dims) = match name {
            EMBEDDING => (Presence::Required, vec![self.hidden, self.vocabulary]),
            OUTPUT => (Presence::Optional, vec![self.hidden, self.vocabulary]),
            OUTPUT_NORM => (Presence::Required, vec![self.hidden]),
            ROPE_FACTORS => (Presence::Optional, vec![self.ropes.first()?.pairs()]),
            _ => return None,
        };
        Some((presence, as_u64(&dims)))
    }
}

// === impl LayerSpec ===

impl LayerSpec {
    /// The tensors of such a layer in a model of this width.
    fn tensors(&self, hidden: usize) -> Vec<LayerTensor> {
        let mut tensors = vec![
            LayerTensor::required(LayerRole::MixerNorm, &[hidden]),
            LayerTensor::required(LayerRole::FeedForwardNorm, &[hidden]),
        ];
        match &self.mixer {
            Mixer::Attention(attention) => tensors.extend(attention.tensors(hidden)),
        }
        match &self.feed_forward {
            FeedForward::Dense(dense) => tensors.extend([
                LayerTensor::required(LayerRole::Gate, &[hidden, dense.width]),
                LayerTensor::required(LayerRole::Up, &[hidden, dense.width]),
                LayerTensor::required(LayerRole::Down, &[dense.width, hidden]),
            ]),
        }
        tensors
    }
}

// === impl AttentionSpec ===

impl AttentionSpec {
    fn tensors(&self, hidden: usize) -> [LayerTensor; 9] {
        let (query, key, value) = (self.query_width(), self.key_width(), self.value_width());
        let norms = match self.query_key_norm {
            QueryKeyNorm::None => Presence::Refused,
            QueryKeyNorm::Head => Presence::Required,
        };
        [
            LayerTensor::required(LayerRole::Query, &[hidden, query]),
            LayerTensor::required(LayerRole::Key, &[hidden, key]),
            LayerTensor::required(LayerRole::Value, &[hidden, value]),
            LayerTensor::required(LayerRole::MixerOutput, &[self.output_width(), hidden]),
            LayerTensor::new(self.biases, LayerRole::QueryBias, &[query]),
            LayerTensor::new(self.biases, LayerRole::KeyBias, &[key]),
            LayerTensor::new(self.biases, LayerRole::ValueBias, &[value]),
            LayerTensor::new(norms, LayerRole::QueryNorm, &[self.key]),
            LayerTensor::new(norms, LayerRole::KeyNorm, &[self.key]),
        ]
    }
}

// === impl LayerTensor ===

impl LayerTensor {
    fn new(presence: Presence, role: LayerRole, dims: &[usize]) -> Self {
        Self { role, presence, dims: dims.to_vec() }
    }

    fn required(role: LayerRole, dims: &[usize]) -> Self {
        Self::new(Presence::Required, role, dims)
    }

    fn rule(&self) -> (Presence, Vec<u64>) {
        (self.presence, as_u64(&self.dims))
    }
}

fn as_u64(dims: &[usize]) -> Vec<u64> {
    dims.iter().map(|dim| *dim as u64).collect()
}

fn required(header: &Header, name: &str) -> Result<(), UnsupportedModel> {
    if header.tensor(name).is_some() {
        return Ok(());
    }
    let (expected, found) = ("one in every model of this family".to_owned(), "none".to_owned());
    Err(UnsupportedModel::Tensor { name: name.to_owned(), expected, found })
}

/// The layer and the suffix of `blk.<layer>.<suffix>`.
fn layer_suffix(name: &str) -> Option<(u32, &str)> {
    let (layer, suffix) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((layer.parse().ok()?, suffix))
}
