//! The tensors that a model must have, and their shapes. Pure: the check reads a file's header, before anything is
//! mapped.

use super::error::UnsupportedModel;
use super::feed_forward::{DenseSpec, ExpertsSpec, FeedForward, PlainSpec};
use super::layer_role::LayerRole;
use super::mixer::{AttentionSpec, LatentSpec, Mixer, QueryKeyNorm, ShortConvSpec};
use super::rope::RopeSpec;
use super::spec::{AddedRows, LayerSpec, ModelSpec};
use super::{EMBEDDING, EMBEDDING_NORM, EMBEDDING_NORM_BIAS, OUTPUT, OUTPUT_NORM, POSITIONS, TOKEN_TYPES};
use crate::checkpoint::{Header, TensorInfo};

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
                Some((layer, _)) if self.left_out(layer) => continue,
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
        for (name, presence) in self.ropes.iter().flat_map(RopeSpec::factor_tensors) {
            if presence == Presence::Required {
                required(header, name)?;
            }
        }
        for (name, _) in self.added_tensors() {
            required(header, name)?;
        }
        required(header, EMBEDDING)?;
        if self.head.is_some() { required(header, OUTPUT_NORM) } else { Ok(()) }
    }

    /// True for a layer that the file has and the model leaves out.
    fn left_out(&self, layer: u32) -> bool {
        (self.layer_count()..self.layer_count() + self.further_layers).contains(&layer)
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

    /// The tensors whose rows are added to a token's, and those of the norm of the sum, with their dimensions.
    fn added_tensors(&self) -> impl Iterator<Item = (&'static str, Vec<usize>)> {
        let (hidden, positions) = (self.hidden, self.context_tokens as usize);
        let tensors = self.embedding.added.into_iter().flat_map(move |added| added.tensors(positions));
        tensors.map(move |(name, rows)| (name, [hidden].into_iter().chain(rows).collect()))
    }

    fn other_tensor(&self, name: &str) -> Option<(Presence, Vec<u64>)> {
        let (presence, dims) = match name {
            EMBEDDING => (Presence::Required, vec![self.hidden, self.vocabulary]),
            OUTPUT if self.head.is_some() => (Presence::Optional, vec![self.hidden, self.vocabulary]),
            OUTPUT_NORM if self.head.is_some() => (Presence::Required, vec![self.hidden]),
            POSITIONS | TOKEN_TYPES | EMBEDDING_NORM | EMBEDDING_NORM_BIAS => {
                let (_, dims) = self.added_tensors().find(|(own, _)| *own == name)?;
                (Presence::Required, dims)
            }
            other => {
                let of_rope = |rope: &RopeSpec| {
                    let tensors = rope.factor_tensors();
                    tensors.into_iter().find(|(name, _)| *name == other).map(|found| (found.1, vec![rope.pairs()]))
                };
                self.ropes.iter().find_map(of_rope)?
            }
        };
        Some((presence, as_u64(&dims)))
    }
}

// === impl AddedRows ===

impl AddedRows {
    /// The tensors of the rows and of the norm of the sum: their names, and the number of rows if they are matrices.
    pub(crate) fn tensors(self, positions: usize) -> impl Iterator<Item = (&'static str, Option<usize>)> {
        let positions = self.positions.then_some((POSITIONS, Some(positions)));
        let others = [(TOKEN_TYPES, Some(self.types)), (EMBEDDING_NORM, None), (EMBEDDING_NORM_BIAS, None)];
        positions.into_iter().chain(others)
    }
}

// === impl LayerSpec ===

impl LayerSpec {
    /// The tensors of such a layer in a model of this width.
    fn tensors(&self, hidden: usize) -> Vec<LayerTensor> {
        let mut tensors = Vec::new();
        if self.norms.before {
            tensors.push(LayerTensor::required(LayerRole::MixerNorm, &[hidden]));
            tensors.push(LayerTensor::required(LayerRole::FeedForwardNorm, &[hidden]));
        }
        if self.norms.after {
            tensors.push(LayerTensor::required(LayerRole::MixerTermNorm, &[hidden]));
            tensors.push(LayerTensor::required(LayerRole::FeedForwardTermNorm, &[hidden]));
        }
        if self.norms.of_sums {
            let roles = [LayerRole::MixerSumNorm, LayerRole::MixerSumNormBias];
            let after = [LayerRole::FeedForwardSumNorm, LayerRole::FeedForwardSumNormBias];
            tensors.extend(roles.into_iter().chain(after).map(|role| LayerTensor::required(role, &[hidden])));
        }
        if self.output_scale {
            tensors.push(LayerTensor::required(LayerRole::OutputScale, &[1]));
        }
        match &self.mixer {
            Mixer::Attention(attention) => tensors.extend(attention.tensors(hidden)),
            Mixer::Latent(latent) => tensors.extend(latent.tensors(hidden)),
            Mixer::ShortConv(conv) => tensors.extend(conv.tensors(hidden)),
        }
        match &self.feed_forward {
            FeedForward::Dense(dense) => {
                tensors.extend(dense.tensors(hidden, [LayerRole::Gate, LayerRole::Up, LayerRole::Down]));
            }
            FeedForward::Experts(experts) => tensors.extend(experts.tensors(hidden)),
            FeedForward::Plain(PlainSpec { width }) => tensors.extend([
                LayerTensor::required(LayerRole::Up, &[hidden, *width]),
                LayerTensor::required(LayerRole::UpBias, &[*width]),
                LayerTensor::required(LayerRole::Down, &[*width, hidden]),
                LayerTensor::required(LayerRole::DownBias, &[hidden]),
            ]),
        }
        tensors
    }
}

// === impl AttentionSpec ===

impl AttentionSpec {
    fn tensors(&self, hidden: usize) -> Vec<LayerTensor> {
        let (query, key, value) = (self.query_width(), self.key_width(), self.value_width());
        let mut tensors = vec![
            LayerTensor::required(LayerRole::MixerOutput, &[self.output_width(), hidden]),
            LayerTensor::new(self.biases, LayerRole::QueryBias, &[query]),
            LayerTensor::new(self.biases, LayerRole::KeyBias, &[key]),
            LayerTensor::new(self.biases, LayerRole::ValueBias, &[value]),
        ];
        if self.fused {
            tensors.push(LayerTensor::required(LayerRole::QueryKeyValue, &[hidden, query + key + value]));
        } else {
            tensors.push(LayerTensor::required(LayerRole::Query, &[hidden, query]));
            tensors.push(LayerTensor::required(LayerRole::Key, &[hidden, key]));
            if !self.shared_key_value {
                tensors.push(LayerTensor::required(LayerRole::Value, &[hidden, value]));
            }
        }
        if self.output_bias {
            tensors.push(LayerTensor::required(LayerRole::MixerOutputBias, &[hidden]));
        }
        if self.sinks {
            tensors.push(LayerTensor::required(LayerRole::Sinks, &[self.heads]));
        }
        let norms = match self.query_key_norm {
            QueryKeyNorm::None | QueryKeyNorm::UnitHead => return tensors,
            QueryKeyNorm::Head => (self.key, self.key),
            QueryKeyNorm::Row => (query, key),
        };
        tensors.push(LayerTensor::new(self.norms, LayerRole::QueryNorm, &[norms.0]));
        tensors.push(LayerTensor::new(self.norms, LayerRole::KeyNorm, &[norms.1]));
        tensors
    }
}

// === impl LatentSpec ===

impl LatentSpec {
    fn tensors(&self, hidden: usize) -> Vec<LayerTensor> {
        let query = self.heads * self.query();
        let mut tensors = vec![
            LayerTensor::required(LayerRole::KeyValueDown, &[hidden, self.stored()]),
            LayerTensor::required(LayerRole::KeyValueDownNorm, &[self.rank]),
            LayerTensor::required(LayerRole::MixerOutput, &[self.heads * self.value, hidden]),
        ];
        match self.query_rank {
            None => tensors.push(LayerTensor::required(LayerRole::Query, &[hidden, query])),
            Some(rank) => tensors.extend([
                LayerTensor::required(LayerRole::QueryDown, &[hidden, rank]),
                LayerTensor::required(LayerRole::QueryDownNorm, &[rank]),
                LayerTensor::required(LayerRole::QueryUp, &[rank, query]),
            ]),
        }
        if self.joint.is_some() {
            let both = self.heads * (self.plain + self.value);
            tensors.push(LayerTensor::required(LayerRole::KeyValueUp, &[self.rank, both]));
        } else {
            tensors.push(LayerTensor::required(LayerRole::KeyUp, &[self.plain, self.rank, self.heads]));
            tensors.push(LayerTensor::required(LayerRole::ValueUp, &[self.rank, self.value, self.heads]));
        }
        tensors
    }
}

// === impl ShortConvSpec ===

impl ShortConvSpec {
    fn tensors(&self, hidden: usize) -> [LayerTensor; 3] {
        [
            LayerTensor::required(LayerRole::ConvInput, &[hidden, self.parts()]),
            LayerTensor::required(LayerRole::ConvTaps, &[self.taps as usize, self.width]),
            LayerTensor::required(LayerRole::ConvOutput, &[self.width, hidden]),
        ]
    }
}

// === impl DenseSpec ===

impl DenseSpec {
    fn tensors(&self, hidden: usize, [gate, up, down]: [LayerRole; 3]) -> Vec<LayerTensor> {
        let down = LayerTensor::required(down, &[self.width, hidden]);
        if self.fused {
            return vec![LayerTensor::required(up, &[hidden, 2 * self.width]), down];
        }
        let [gate, up] = [gate, up].map(|role| LayerTensor::required(role, &[hidden, self.width]));
        vec![gate, up, down]
    }
}

// === impl ExpertsSpec ===

impl ExpertsSpec {
    fn tensors(&self, hidden: usize) -> Vec<LayerTensor> {
        let mut tensors = vec![
            LayerTensor::required(LayerRole::Router, &[hidden, self.count]),
            LayerTensor::required(LayerRole::ExpertDowns, &[self.width, hidden, self.count]),
        ];
        if self.fused {
            tensors.push(LayerTensor::required(LayerRole::ExpertGatesUps, &[hidden, 2 * self.width, self.count]));
        } else {
            let roles = [LayerRole::ExpertGates, LayerRole::ExpertUps];
            tensors.extend(roles.map(|role| LayerTensor::required(role, &[hidden, self.width, self.count])));
        }
        if self.scales {
            tensors.push(LayerTensor::required(LayerRole::ExpertScales, &[self.count]));
        }
        if self.own_norms {
            let roles = [LayerRole::SharedTermNorm, LayerRole::ExpertsNorm, LayerRole::ExpertsTermNorm];
            tensors.extend(roles.map(|role| LayerTensor::required(role, &[hidden])));
            tensors.push(LayerTensor::required(LayerRole::RouterScale, &[hidden]));
        }
        if self.biases {
            tensors.extend([
                LayerTensor::required(LayerRole::RouterBias, &[self.count]),
                LayerTensor::required(LayerRole::ExpertGateBiases, &[self.width, self.count]),
                LayerTensor::required(LayerRole::ExpertUpBiases, &[self.width, self.count]),
                LayerTensor::required(LayerRole::ExpertDownBiases, &[hidden, self.count]),
            ]);
        }
        if self.selection_bias {
            tensors.push(LayerTensor::required(LayerRole::SelectionBias, &[self.count]));
        }
        if let Some(shared) = &self.shared {
            let roles = [LayerRole::SharedGate, LayerRole::SharedUp, LayerRole::SharedDown];
            tensors.extend(shared.dense.tensors(hidden, roles));
            if shared.gated {
                tensors.push(LayerTensor::required(LayerRole::SharedRouter, &[hidden]));
            }
        }
        tensors
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
