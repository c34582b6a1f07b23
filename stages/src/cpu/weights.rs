//! The tensors of a shard, found once and kept at hand. Matrices stay where they are mapped; norms and biases, a few
//! kilobytes a layer, are copied.

use schema::LayerRange;

use crate::model::{Hyper, OUTPUT_NORM};
use crate::weights::{EmbeddingRows, Shard, Tensor, TensorError};

/// One layer's weights.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) attention_norm: Vec<f32>,
    pub(super) query: Tensor,
    pub(super) key: Tensor,
    pub(super) value: Tensor,
    /// Of Q, K and V; empty where there is none.
    pub(super) biases: [Vec<f32>; 3],
    /// Of each head of Q and K; empty where there is none.
    pub(super) head_norms: [Vec<f32>; 2],
    pub(super) attention_output: Tensor,
    pub(super) feed_forward_norm: Vec<f32>,
    pub(super) gate: Tensor,
    pub(super) up: Tensor,
    pub(super) down: Tensor,
}

/// What turns the last layer's rows into logits.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) norm: Vec<f32>,
    pub(super) output: Tensor,
}

/// Where the first layer's rows come from.
#[derive(Debug)]
pub(super) enum Embedding {
    /// The table is mapped, because the head is the same one.
    Mapped(Tensor),
    /// The table is read from the file, row by row.
    Read(EmbeddingRows),
}

/// All weights of a shard.
#[derive(Debug)]
pub(super) struct ShardWeights {
    /// In the first stage.
    pub(super) embedding: Option<Embedding>,
    pub(super) layers: Vec<Layer>,
    /// In the last stage.
    pub(super) head: Option<Head>,
}

// === impl ShardWeights ===

impl ShardWeights {
    /// Finds the weights of a model whose tensors were checked.
    ///
    /// # Errors
    /// [`TensorError`] when the shard does not have what the header promises.
    pub(super) fn find(hyper: &Hyper, shard: &Shard) -> Result<Self, TensorError> {
        let range: LayerRange = shard.layers();
        let layers = (range.start()..range.end()).map(|layer| Layer::find(shard, layer)).collect::<Result<_, _>>()?;
        let last = range.end() == hyper.layers;
        let head = last.then(|| Head::find(shard)).transpose()?;
        let tied = head.as_ref().filter(|head| head.output.name() == crate::model::EMBEDDING);
        let embedding = shard.embedding().map(|rows| match tied {
            Some(head) => Embedding::Mapped(head.output.clone()),
            None => Embedding::Read(rows),
        });
        Ok(Self { embedding, layers, head })
    }
}

// === impl Layer ===

impl Layer {
    fn find(shard: &Shard, layer: u32) -> Result<Self, TensorError> {
        let matrix = |suffix: &str| shard.layer_tensor(layer, suffix);
        let vector = |suffix: &str| shard.layer_tensor(layer, suffix)?.f32s();
        let perhaps = |suffix: &str| match shard.find(&format!("blk.{layer}.{suffix}"))? {
            Some(tensor) => tensor.f32s(),
            None => Ok(Vec::new()),
        };
        Ok(Self {
            attention_norm: vector("attn_norm.weight")?,
            query: matrix("attn_q.weight")?,
            key: matrix("attn_k.weight")?,
            value: matrix("attn_v.weight")?,
            biases: [perhaps("attn_q.bias")?, perhaps("attn_k.bias")?, perhaps("attn_v.bias")?],
            head_norms: [perhaps("attn_q_norm.weight")?, perhaps("attn_k_norm.weight")?],
            attention_output: matrix("attn_output.weight")?,
            feed_forward_norm: vector("ffn_norm.weight")?,
            gate: matrix("ffn_gate.weight")?,
            up: matrix("ffn_up.weight")?,
            down: matrix("ffn_down.weight")?,
        })
    }
}

// === impl Head ===

impl Head {
    fn find(shard: &Shard) -> Result<Self, TensorError> {
        Ok(Self { norm: shard.tensor(OUTPUT_NORM)?.f32s()?, output: shard.output()? })
    }
}
