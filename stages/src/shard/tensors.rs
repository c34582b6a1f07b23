//! The tensors of a layer and of the output head, by the roles that the model's spec gives them. All devices use this
//! list.

use crate::model::{
    AttentionSpec, DenseSpec, ExpertsSpec, Family, FeedForward, LatentSpec, LayerRole, Mixer, ModelSpec, NormSpec,
    OUTPUT_NORM, PlainSpec, ShortConvSpec,
};
use crate::weights::{MappedShard, Tensor, TensorError};

/// Converts mapped tensors into the form in which a device holds them.
pub(crate) trait Backend {
    /// A matrix that rows are multiplied with.
    type Matrix;
    /// A norm's weights, or a bias.
    type Vector;
    /// The error for a tensor that cannot be held.
    type Error: From<TensorError>;

    /// Converts a matrix.
    fn matrix(&self, tensor: Tensor) -> Result<Self::Matrix, Self::Error>;
    /// Converts a vector.
    fn vector(&self, tensor: Tensor) -> Result<Self::Vector, Self::Error>;
}

/// One layer's weights.
#[derive(Debug)]
pub(crate) struct LayerTensors<M, V> {
    pub(crate) norms: NormSpec,
    pub(crate) residual_scale: f32,
    pub(crate) mixer_norm: Option<V>,
    /// The norm of what the mixer adds.
    pub(crate) mixer_term_norm: Option<V>,
    /// The norm of the residual stream after it.
    pub(crate) mixer_sum_norm: Option<SumNorm<V>>,
    pub(crate) mixer: MixerTensors<M, V>,
    pub(crate) feed_forward_norm: Option<V>,
    /// The norm of what the feed-forward network adds.
    pub(crate) feed_forward_term_norm: Option<V>,
    /// The norm of the residual stream after it.
    pub(crate) feed_forward_sum_norm: Option<SumNorm<V>>,
    pub(crate) feed_forward: FeedForwardTensors<M, V>,
    /// One number: the factor of the layer's output.
    pub(crate) output_scale: Option<V>,
}

/// Weights of a norm by mean and variance.
#[derive(Debug)]
pub(crate) struct SumNorm<V> {
    pub(crate) weight: V,
    pub(crate) bias: V,
}

/// Weights of the part that combines positions.
#[derive(Debug)]
pub(crate) enum MixerTensors<M, V> {
    Attention(AttentionTensors<M, V>),
    Latent(LatentTensors<M, V>),
    ShortConv(ShortConvTensors<M, V>),
}

/// Weights of grouped attention.
#[derive(Debug)]
pub(crate) struct AttentionTensors<M, V> {
    pub(crate) spec: AttentionSpec,
    pub(crate) query: M,
    pub(crate) key: M,
    pub(crate) value: M,
    /// Biases of Q, K and V, if the model has them.
    pub(crate) biases: [Option<V>; 3],
    /// Norms of Q and of K, if the model has them.
    pub(crate) query_key_norms: [Option<V>; 2],
    pub(crate) output: M,
    pub(crate) output_bias: Option<V>,
    /// The sink of each head, if the model has them.
    pub(crate) sinks: Option<V>,
}

/// Weights of latent attention.
#[derive(Debug)]
pub(crate) struct LatentTensors<M, V> {
    pub(crate) spec: LatentSpec,
    pub(crate) query: LatentQuery<M, V>,
    /// Makes a token's compressed values and the key that all heads share.
    pub(crate) down: M,
    /// Norm of the compressed values.
    pub(crate) norm: V,
    pub(crate) up: LatentUp<M>,
    pub(crate) output: M,
}

/// Weights of a short convolution.
#[derive(Debug)]
pub(crate) struct ShortConvTensors<M, V> {
    pub(crate) spec: ShortConvSpec,
    /// Makes the two gates and the input.
    pub(crate) input: M,
    /// `[channel][tap]`.
    pub(crate) taps: V,
    pub(crate) output: M,
}

/// Weights that make queries.
#[derive(Debug)]
pub(crate) enum LatentQuery<M, V> {
    Direct(M),
    Compressed { down: M, norm: V, up: M },
}

/// Weights that make each head's keys and values of compressed values.
#[derive(Debug)]
pub(crate) enum LatentUp<M> {
    /// For each head the rows of keys, then those of values.
    Joint(M),
    /// `key` is transposed: one matrix for each head, as is `value`.
    Split { key: M, value: M },
}

/// Weights of the part that computes each position by itself.
#[derive(Debug)]
pub(crate) enum FeedForwardTensors<M, V> {
    Dense(DenseTensors<M>),
    Experts(ExpertTensors<M, V>),
    Plain(PlainTensors<M, V>),
}

/// Weights of a network without a gate.
#[derive(Debug)]
pub(crate) struct PlainTensors<M, V> {
    pub(crate) spec: PlainSpec,
    pub(crate) up: M,
    pub(crate) up_bias: V,
    pub(crate) down: M,
    pub(crate) down_bias: V,
}

/// Weights of a gated network.
#[derive(Debug)]
pub(crate) struct DenseTensors<M> {
    pub(crate) spec: DenseSpec,
    pub(crate) gate: M,
    pub(crate) up: M,
    pub(crate) down: M,
}

/// Weights of a mixture of experts. Each matrix of the experts holds all of them, one after the other.
#[derive(Debug)]
pub(crate) struct ExpertTensors<M, V> {
    pub(crate) spec: ExpertsSpec,
    pub(crate) router: M,
    pub(crate) router_bias: Option<V>,
    pub(crate) selection_bias: Option<V>,
    /// Biases of gates, ups and downs, a row for each expert.
    pub(crate) biases: Option<[M; 3]>,
    pub(crate) gates_ups: GatesUps<M>,
    pub(crate) downs: M,
    /// The factor of each expert's result.
    pub(crate) scales: Option<V>,
    /// The norms of the router, the experts and the network beside them, if they have their own.
    pub(crate) own_norms: Option<ExpertNorms<V>>,
    pub(crate) shared: Option<DenseTensors<M>>,
    /// Makes the logit that the shared network's result is weighed by.
    pub(crate) shared_router: Option<M>,
}

/// The matrices of all experts that make gates, and the values that these are multiplied with.
#[derive(Debug)]
pub(crate) enum GatesUps<M> {
    Split {
        gates: M,
        ups: M,
    },
    /// Each expert's gates, then the values.
    Fused(M),
}

/// The norms of a mixture whose parts have their own.
#[derive(Debug)]
pub(crate) struct ExpertNorms<V> {
    /// Factors of the router's input, which is divided by its length.
    pub(crate) router: V,
    /// The norm before the experts.
    pub(crate) before: V,
    /// The norm of the experts' result.
    pub(crate) after: V,
    /// The norm of the result of the network beside them.
    pub(crate) after_shared: V,
}

/// The weights that turn the last layer's rows into logits.
#[derive(Debug)]
pub(crate) struct OutputHeadTensors<M, V> {
    pub(crate) norm: V,
    pub(crate) output: M,
}

/// Looks up the tensors of one layer by their roles.
struct LayerSource<'a, B> {
    family: &'static Family,
    shard: &'a MappedShard,
    layer: u32,
    backend: &'a B,
}

// === impl LayerTensors ===

impl<M, V> LayerTensors<M, V> {
    /// The weights of `layer`, which is in `shard`, in the form of `backend`.
    ///
    /// # Errors
    /// [`TensorError`] when the shard does not have a tensor, and the backend's own errors.
    pub(crate) fn load<B: Backend<Matrix = M, Vector = V>>(
        model: &ModelSpec,
        shard: &MappedShard,
        layer: u32,
        backend: &B,
    ) -> Result<Self, B::Error> {
        let spec = &model.layers[layer as usize];
        let source = LayerSource { family: model.family, shard, layer, backend };
        Ok(Self {
            norms: spec.norms,
            residual_scale: spec.residual_scale,
            mixer_norm: source.vector_if(spec.norms.before, LayerRole::MixerNorm)?,
            mixer_term_norm: source.vector_if(spec.norms.after, LayerRole::MixerTermNorm)?,
            mixer: match &spec.mixer {
                Mixer::Attention(attention) => MixerTensors::Attention(source.attention(*attention)?),
                Mixer::Latent(latent) => MixerTensors::Latent(source.latent(*latent)?),
                Mixer::ShortConv(conv) => MixerTensors::ShortConv(source.short_conv(*conv)?),
            },
            mixer_sum_norm: source.sum_norm([LayerRole::MixerSumNorm, LayerRole::MixerSumNormBias], spec.norms)?,
            feed_forward_norm: source.vector_if(spec.norms.before, LayerRole::FeedForwardNorm)?,
            feed_forward_term_norm: source.vector_if(spec.norms.after, LayerRole::FeedForwardTermNorm)?,
            feed_forward_sum_norm: source
                .sum_norm([LayerRole::FeedForwardSumNorm, LayerRole::FeedForwardSumNormBias], spec.norms)?,
            feed_forward: match &spec.feed_forward {
                FeedForward::Dense(dense) => {
                    FeedForwardTensors::Dense(source.dense(*dense, [LayerRole::Gate, LayerRole::Up, LayerRole::Down])?)
                }
                FeedForward::Experts(experts) => FeedForwardTensors::Experts(source.experts(*experts)?),
                FeedForward::Plain(plain) => FeedForwardTensors::Plain(PlainTensors {
                    spec: *plain,
                    up: source.matrix(LayerRole::Up)?,
                    up_bias: source.vector(LayerRole::UpBias)?,
                    down: source.matrix(LayerRole::Down)?,
                    down_bias: source.vector(LayerRole::DownBias)?,
                }),
            },
            output_scale: source.vector_if(spec.output_scale, LayerRole::OutputScale)?,
        })
    }
}

// === impl LayerSource ===

impl<B: Backend> LayerSource<'_, B> {
    fn attention(&self, spec: AttentionSpec) -> Result<AttentionTensors<B::Matrix, B::Vector>, B::Error> {
        let [query, key, value] = if spec.fused {
            let rows = [spec.query_width(), spec.key_width(), spec.value_width()];
            self.parts(LayerRole::QueryKeyValue, rows)?
        } else {
            let value = if spec.shared_key_value { LayerRole::Key } else { LayerRole::Value };
            [self.matrix(LayerRole::Query)?, self.matrix(LayerRole::Key)?, self.matrix(value)?]
        };
        Ok(AttentionTensors {
            spec,
            query,
            key,
            value,
            biases: [
                self.optional(LayerRole::QueryBias)?,
                self.optional(LayerRole::KeyBias)?,
                self.optional(LayerRole::ValueBias)?,
            ],
            query_key_norms: [self.optional(LayerRole::QueryNorm)?, self.optional(LayerRole::KeyNorm)?],
            output: self.matrix(LayerRole::MixerOutput)?,
            output_bias: self.vector_if(spec.output_bias, LayerRole::MixerOutputBias)?,
            sinks: self.vector_if(spec.sinks, LayerRole::Sinks)?,
        })
    }

    fn latent(&self, spec: LatentSpec) -> Result<LatentTensors<B::Matrix, B::Vector>, B::Error> {
        Ok(LatentTensors {
            spec,
            query: match spec.query_rank {
                None => LatentQuery::Direct(self.matrix(LayerRole::Query)?),
                Some(_) => LatentQuery::Compressed {
                    down: self.matrix(LayerRole::QueryDown)?,
                    norm: self.vector(LayerRole::QueryDownNorm)?,
                    up: self.matrix(LayerRole::QueryUp)?,
                },
            },
            down: self.matrix(LayerRole::KeyValueDown)?,
            norm: self.vector(LayerRole::KeyValueDownNorm)?,
            up: match spec.joint {
                Some(_) => LatentUp::Joint(self.matrix(LayerRole::KeyValueUp)?),
                None => {
                    LatentUp::Split { key: self.matrix(LayerRole::KeyUp)?, value: self.matrix(LayerRole::ValueUp)? }
                }
            },
            output: self.matrix(LayerRole::MixerOutput)?,
        })
    }

    fn short_conv(&self, spec: ShortConvSpec) -> Result<ShortConvTensors<B::Matrix, B::Vector>, B::Error> {
        Ok(ShortConvTensors {
            spec,
            input: self.matrix(LayerRole::ConvInput)?,
            taps: self.vector(LayerRole::ConvTaps)?,
            output: self.matrix(LayerRole::ConvOutput)?,
        })
    }

    fn dense(&self, spec: DenseSpec, [gate, up, down]: [LayerRole; 3]) -> Result<DenseTensors<B::Matrix>, B::Error> {
        let [gate, up] =
            if spec.fused { self.parts(up, [spec.width; 2])? } else { [self.matrix(gate)?, self.matrix(up)?] };
        Ok(DenseTensors { spec, gate, up, down: self.matrix(down)? })
    }

    fn experts(&self, spec: ExpertsSpec) -> Result<ExpertTensors<B::Matrix, B::Vector>, B::Error> {
        let shared_roles = [LayerRole::SharedGate, LayerRole::SharedUp, LayerRole::SharedDown];
        let gated = spec.shared.is_some_and(|shared| shared.gated);
        Ok(ExpertTensors {
            spec,
            router: self.matrix(LayerRole::Router)?,
            router_bias: self.vector_if(spec.biases, LayerRole::RouterBias)?,
            selection_bias: self.vector_if(spec.selection_bias, LayerRole::SelectionBias)?,
            biases: spec.biases.then(|| self.expert_biases()).transpose()?,
            gates_ups: if spec.fused {
                GatesUps::Fused(self.matrix(LayerRole::ExpertGatesUps)?)
            } else {
                let (gates, ups) = (self.matrix(LayerRole::ExpertGates)?, self.matrix(LayerRole::ExpertUps)?);
                GatesUps::Split { gates, ups }
            },
            downs: self.matrix(LayerRole::ExpertDowns)?,
            scales: self.vector_if(spec.scales, LayerRole::ExpertScales)?,
            own_norms: spec.own_norms.then(|| self.expert_norms()).transpose()?,
            shared: spec.shared.map(|shared| self.dense(shared.dense, shared_roles)).transpose()?,
            shared_router: gated.then(|| self.matrix(LayerRole::SharedRouter)).transpose()?,
        })
    }

    fn expert_norms(&self) -> Result<ExpertNorms<B::Vector>, B::Error> {
        Ok(ExpertNorms {
            router: self.vector(LayerRole::RouterScale)?,
            before: self.vector(LayerRole::ExpertsNorm)?,
            after: self.vector(LayerRole::ExpertsTermNorm)?,
            after_shared: self.vector(LayerRole::SharedTermNorm)?,
        })
    }

    fn matrix(&self, role: LayerRole) -> Result<B::Matrix, B::Error> {
        self.backend.matrix(self.shard.layer_tensor(self.layer, self.family.suffix(role))?)
    }

    fn vector(&self, role: LayerRole) -> Result<B::Vector, B::Error> {
        self.backend.vector(self.shard.layer_tensor(self.layer, self.family.suffix(role))?)
    }

    fn expert_biases(&self) -> Result<[B::Matrix; 3], B::Error> {
        let bias = |role| -> Result<B::Matrix, B::Error> {
            let tensor = self.shard.layer_tensor(self.layer, self.family.suffix(role))?;
            tensor.check_finite()?;
            self.backend.matrix(tensor)
        };
        Ok([bias(LayerRole::ExpertGateBiases)?, bias(LayerRole::ExpertUpBiases)?, bias(LayerRole::ExpertDownBiases)?])
    }

    /// The matrices of `rows` rows each that one tensor holds, one after the other.
    fn parts<const N: usize>(&self, role: LayerRole, rows: [usize; N]) -> Result<[B::Matrix; N], B::Error> {
        let whole = self.shard.layer_tensor(self.layer, self.family.suffix(role))?;
        let mut start = 0;
        let mut parts = Vec::with_capacity(N);
        for rows in rows {
            parts.push(self.backend.matrix(whole.rows_of(start..start + rows)?)?);
            start += rows;
        }
        Ok(parts.try_into().unwrap_or_else(|_| unreachable!("there are as many parts as numbers of rows")))
    }

    /// The norm of the residual stream whose weights and bias have these roles.
    fn sum_norm(
        &self,
        [weight, bias]: [LayerRole; 2],
        norms: NormSpec,
    ) -> Result<Option<SumNorm<B::Vector>>, B::Error> {
        let load = || Ok(SumNorm { weight: self.vector(weight)?, bias: self.vector(bias)? });
        norms.of_sums.then(load).transpose()
    }

    fn vector_if(&self, wanted: bool, role: LayerRole) -> Result<Option<B::Vector>, B::Error> {
        wanted.then(|| self.vector(role)).transpose()
    }

    fn optional(&self, role: LayerRole) -> Result<Option<B::Vector>, B::Error> {
        let tensor = self.shard.find(&format!("blk.{}.{}", self.layer, self.family.suffix(role)))?;
        tensor.map(|tensor| self.backend.vector(tensor)).transpose()
    }
}

// === impl OutputHeadTensors ===

impl<M, V> OutputHeadTensors<M, V> {
    /// The output head's weights, in the form of `backend`. `shard` has the last layer.
    ///
    /// # Errors
    /// As [`LayerTensors::load`].
    pub(crate) fn load<B: Backend<Matrix = M, Vector = V>>(shard: &MappedShard, backend: &B) -> Result<Self, B::Error> {
        Ok(Self { norm: backend.vector(shard.tensor(OUTPUT_NORM)?)?, output: backend.matrix(shard.output()?)? })
    }
}
