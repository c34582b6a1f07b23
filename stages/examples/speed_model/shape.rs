//! The supported shapes, which are the sizes of models in use. Depends neither on formats nor on bits.

use stages::gguf::GgufWriter;

/// The sizes and constants of a model whose output head is tied to its embedding table.
#[derive(Debug)]
pub struct Shape {
    /// The shape's name on the command line.
    pub name: &'static str,
    architecture: &'static str,
    layers: u32,
    hidden: u32,
    feed_forward: u32,
    heads: u32,
    kv_heads: u32,
    head: u32,
    /// Tokens in the vocabulary.
    pub vocabulary: u32,
    context_tokens: u32,
    norm_epsilon: f32,
    rope_base: f32,
}

/// One tensor of a model of a shape.
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its dimensions, the row's length first: a norm has one, a matrix two.
    pub dims: Vec<u64>,
}

/// All shapes.
const SHAPES: [Shape; 3] = [
    Shape {
        name: "llama-3.2-1b",
        architecture: "llama",
        layers: 16,
        hidden: 2048,
        feed_forward: 8192,
        heads: 32,
        kv_heads: 8,
        head: 64,
        vocabulary: 128_256,
        context_tokens: 131_072,
        norm_epsilon: 1e-5,
        rope_base: 500_000.0,
    },
    // Eight of its 36 layers: these are larger than any cache, and still fit a small machine in every format.
    Shape {
        name: "qwen3-4b-8-layers",
        architecture: "qwen3",
        layers: 8,
        hidden: 2560,
        feed_forward: 9728,
        heads: 32,
        kv_heads: 8,
        head: 128,
        vocabulary: 151_936,
        context_tokens: 40_960,
        norm_epsilon: 1e-6,
        rope_base: 1_000_000.0,
    },
    Shape {
        name: "smollm2-135m",
        architecture: "llama",
        layers: 30,
        hidden: 576,
        feed_forward: 1536,
        heads: 9,
        kv_heads: 3,
        head: 64,
        vocabulary: 49_152,
        context_tokens: 8192,
        norm_epsilon: 1e-5,
        rope_base: 100_000.0,
    },
];

// === impl Shape ===

impl Shape {
    /// The shape of this name.
    ///
    /// # Errors
    /// A text that lists the known names.
    pub fn find(name: &str) -> Result<&'static Self, String> {
        let known = || SHAPES.each_ref().map(|shape| shape.name).join(", ");
        SHAPES
            .iter()
            .find(|shape| shape.name == name)
            .ok_or_else(|| format!("expected a shape ({}), found {name:?}", known()))
    }

    /// Adds the metadata of the shape's sizes.
    pub fn describe(&self, file: GgufWriter) -> GgufWriter {
        let own = |suffix: &str| format!("{}.{suffix}", self.architecture);
        file.metadata("general.architecture", self.architecture)
            .metadata("general.name", format!("random weights, {}", self.name))
            .metadata(&own("block_count"), self.layers)
            .metadata(&own("context_length"), self.context_tokens)
            .metadata(&own("embedding_length"), self.hidden)
            .metadata(&own("feed_forward_length"), self.feed_forward)
            .metadata(&own("attention.head_count"), self.heads)
            .metadata(&own("attention.head_count_kv"), self.kv_heads)
            .metadata(&own("attention.key_length"), self.head)
            .metadata(&own("attention.value_length"), self.head)
            .metadata(&own("attention.layer_norm_rms_epsilon"), self.norm_epsilon)
            .metadata(&own("rope.dimension_count"), self.head)
            .metadata(&own("rope.freq_base"), self.rope_base)
            .metadata(&own("vocab_size"), self.vocabulary)
    }

    /// The tensors in the order of model files.
    pub fn tensors(&self) -> Vec<Tensor> {
        let (hidden, feed_forward) = (self.hidden, self.feed_forward);
        let (query, key) = (self.heads * self.head, self.kv_heads * self.head);
        let mut tensors = vec![Tensor::new("token_embd", &[hidden, self.vocabulary])];
        for layer in 0..self.layers {
            let mut add =
                |suffix: &str, dims: &[u32]| tensors.push(Tensor::new(&format!("blk.{layer}.{suffix}"), dims));
            add("attn_norm", &[hidden]);
            add("attn_q", &[hidden, query]);
            add("attn_k", &[hidden, key]);
            add("attn_v", &[hidden, key]);
            if self.architecture == "qwen3" {
                add("attn_q_norm", &[self.head]);
                add("attn_k_norm", &[self.head]);
            }
            add("attn_output", &[query, hidden]);
            add("ffn_norm", &[hidden]);
            add("ffn_gate", &[hidden, feed_forward]);
            add("ffn_up", &[hidden, feed_forward]);
            add("ffn_down", &[feed_forward, hidden]);
        }
        tensors.push(Tensor::new("output_norm", &[hidden]));
        tensors
    }
}

// === impl Tensor ===

impl Tensor {
    fn new(stem: &str, dims: &[u32]) -> Self {
        Self { name: format!("{stem}.weight"), dims: dims.iter().copied().map(u64::from).collect() }
    }

    /// True for a norm's weights, which are floats in every file.
    pub fn is_norm(&self) -> bool {
        self.dims.len() == 1
    }
}
