//! Golden models as GGUF files with 32-bit weights, with the keys, names and orders that llama.cpp's converter writes.

mod encoders;
mod experts;
mod metadata;
mod names;

use std::collections::BTreeMap;
use std::path::Path;

use stages::format::Format;
use stages::gguf::GgufWriter;

use super::golden::Golden;
use experts::expert;

/// Tensors by their names in a GGUF file, dimensions in the order of safetensors: the row's length last.
type Tensors = BTreeMap<String, (Vec<u64>, Vec<f32>)>;

impl Golden {
    /// Writes the model as a GGUF file with 32-bit weights.
    pub fn write_gguf(&self, path: &Path) {
        self.write_gguf_with(path, |file| file);
    }

    /// The same with further metadata.
    pub fn write_gguf_with(&self, path: &Path, more: impl FnOnce(GgufWriter) -> GgufWriter) {
        let encoder = self.is_encoder();
        let mut file = more(if encoder { self.encoder_metadata() } else { self.metadata() });
        for (name, (dims, values)) in if encoder { self.encoder_tensors() } else { self.gguf_tensors() } {
            let dims: Vec<u64> = dims.iter().rev().copied().collect();
            file = file.tensor(&name, &dims, Format::F32, bytes_of(&values)).expect("dimensions fit");
        }
        for (name, factors) in if encoder { Vec::new() } else { self.factor_tensors() } {
            let dims = [factors.len() as u64];
            file = file.tensor(name, &dims, Format::F32, bytes_of(&factors)).expect("dimensions fit");
        }
        file.write_file(path).expect("the file can be written");
    }

    fn gguf_tensors(&self) -> Tensors {
        let mut found = Tensors::new();
        for (name, (dims, values)) in &self.tensors {
            if let Some(tensors) = experts::of_fused(self.architecture(), name, dims, values) {
                found.extend(tensors);
                continue;
            }
            let heads = |key: &str| self.number(key) as usize;
            // Gemma's norms are stored without the one that they add.
            let plus_one = matches!(self.architecture(), "gemma2" | "gemma3") && name.ends_with("norm.weight");
            let values = match self.architecture() {
                _ if plus_one => values.iter().map(|value| value + 1.0).collect(),
                "llama" | "granite" | "granitemoe" | "mistral3" | "smollm3" if name.ends_with("q_proj.weight") => {
                    interleave(values, dims, heads("num_attention_heads"))
                }
                "llama" | "granite" | "granitemoe" | "mistral3" | "smollm3" if name.ends_with("k_proj.weight") => {
                    interleave(values, dims, heads("num_key_value_heads"))
                }
                _ => values.clone(),
            };
            match expert(name) {
                // Names sort by text, so each expert is put into its place.
                Some((layer, index, suffix)) => {
                    let count = self.experts_of(&layer);
                    let whole = [count as u64, dims[0], dims[1]];
                    let all = found
                        .entry(format!("blk.{layer}.{suffix}"))
                        .or_insert_with(|| (whole.to_vec(), vec![0.0; count * values.len()]));
                    all.1[index * values.len()..][..values.len()].copy_from_slice(&values);
                }
                None => drop(found.insert(self.gguf_name(name), (squeezed(dims), values))),
            }
        }
        found
    }

    /// Number of experts in a layer.
    fn experts_of(&self, layer: &str) -> usize {
        let prefix = format!("model.layers.{layer}.");
        let own = self.tensors.keys().filter(|name| name.starts_with(&prefix));
        own.filter_map(|name| expert(name)).map(|(_, index, _)| index + 1).max().expect("there are experts")
    }
}

/// Dimensions without those of one, of which a vector is left at least.
fn squeezed(dims: &[u64]) -> Vec<u64> {
    let kept: Vec<u64> = dims.iter().copied().filter(|dim| *dim > 1).collect();
    if kept.is_empty() { vec![1] } else { kept }
}

/// Reorders each head's rows so that the two rows of a RoPE pair are neighbours, as converters do for llama.
fn interleave(values: &[f32], dims: &[u64], heads: usize) -> Vec<f32> {
    let (rows, cols) = (dims[0] as usize, dims[1] as usize);
    let half = rows / heads / 2;
    let row = |head: usize, pair: usize, side: usize| &values[((head * 2 + side) * half + pair) * cols..][..cols];
    let order = (0..heads).flat_map(|head| (0..half).flat_map(move |pair| (0..2).map(move |side| (head, pair, side))));
    order.flat_map(|(head, pair, side)| row(head, pair, side).iter().copied()).collect()
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
