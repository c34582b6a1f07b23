//! The supported shapes, which are the sizes of models in use. Depends neither on formats nor on bits.

mod attention;
mod dense;
mod experts;

use stages::gguf::{GgufWriter, Value};

/// The metadata and the tensors of a model.
pub struct Shape {
    /// Tokens in the vocabulary.
    pub vocabulary: u32,
    name: &'static str,
    architecture: &'static str,
    metadata: Vec<(&'static str, Value)>,
    tensors: Vec<Tensor>,
}

/// One tensor of a model of a shape.
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its dimensions, the row's length first: one, two for a matrix, or three for as many matrices as experts.
    pub dims: Vec<u64>,
    /// The numbers in it.
    pub values: Values,
}

/// The numbers in a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// Ones as 32-bit floats: a norm's weights.
    Ones,
    /// Zeros as 32-bit floats: biases and sinks.
    Zeros,
    /// Random 32-bit floats: a router's matrix, which no program quantises.
    Floats,
    /// Random numbers in the format that the user chose.
    Weights,
    /// The same for a matrix of experts.
    Experts,
}

/// Name on the command line, and the shape.
type Entry = (&'static str, fn() -> Shape);

/// All shapes.
const SHAPES: [Entry; 7] = [
    ("llama-3.2-1b", dense::llama_1b),
    ("qwen3-4b-8-layers", dense::qwen3_4b),
    ("smollm2-135m", dense::smollm2),
    ("gemma-3-4b-8-layers", dense::gemma3_4b),
    ("qwen3-30b-a3b-4-layers", experts::qwen3_30b_a3b),
    ("gpt-oss-20b-4-layers", experts::gpt_oss_20b),
    ("deepseek-v2-lite", experts::deepseek_v2_lite),
];

// === impl Shape ===

impl Shape {
    /// The shape of this name.
    ///
    /// # Errors
    /// A text that lists the known names.
    pub fn find(name: &str) -> Result<Self, String> {
        let known = || SHAPES.map(|(name, _)| name).join(", ");
        let found = SHAPES.iter().find(|(one, _)| *one == name);
        let (name, make) = found.ok_or_else(|| format!("expected a shape ({}), found {name:?}", known()))?;
        Ok(Self { name, ..make() })
    }

    /// Adds the metadata of the shape's sizes.
    pub fn describe(&self, file: GgufWriter) -> GgufWriter {
        let file = file
            .metadata("general.architecture", self.architecture)
            .metadata("general.name", format!("random weights, {}", self.name));
        let own = |key: &str| format!("{}.{key}", self.architecture);
        self.metadata.iter().fold(file, |file, (key, value)| file.metadata(&own(key), value.clone()))
    }

    /// The tensors in the order of model files.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// A shape without layers: its embedding table is its output head as well.
    fn new(architecture: &'static str, vocabulary: u32, hidden: u32, layers: u32, context_tokens: u32) -> Self {
        let mut shape = Self { name: "", architecture, vocabulary, metadata: Vec::new(), tensors: Vec::new() };
        shape.set("block_count", layers).set("context_length", context_tokens).set("embedding_length", hidden);
        shape.set("vocab_size", vocabulary);
        shape.add("token_embd.weight", &[hidden, vocabulary], Values::Weights);
        shape.add("output_norm.weight", &[hidden], Values::Ones);
        shape
    }

    fn set(&mut self, key: &'static str, value: impl Into<Value>) -> &mut Self {
        self.metadata.push((key, value.into()));
        self
    }

    fn add(&mut self, name: &str, dims: &[u32], values: Values) {
        self.tensors.push(Tensor {
            name: name.to_owned(),
            dims: dims.iter().copied().map(u64::from).collect(),
            values,
        });
    }

    /// Gives the model an output head of its own.
    fn untie(&mut self, hidden: u32) {
        self.add("output.weight", &[hidden, self.vocabulary], Values::Weights);
    }

    /// Adds the tensors of `layers` layers, of each by its list of name, dimensions and values.
    fn layers(&mut self, layers: u32, of: impl Fn(u32) -> Vec<(&'static str, Vec<u32>, Values)>) {
        for layer in 0..layers {
            for (name, dims, values) in of(layer) {
                self.add(&format!("blk.{layer}.{name}"), &dims, values);
            }
        }
    }
}
