//! The golden models: weights from safetensors, and what transformers computed with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::bf16;
use serde_json::Value as Json;

/// A golden model: its configuration, its tensors, and the outputs of transformers for it.
pub struct Golden {
    pub config: Json,
    pub tensors: BTreeMap<String, (Vec<u64>, Vec<f32>)>,
    pub input_ids: Vec<u32>,
    pub greedy: Vec<u32>,
    /// Logits at the last positions of the input: at all of them, or at four in the older models.
    pub last_logits: Vec<Vec<f32>>,
    /// The last hidden states at some positions, of a model that makes no logits.
    pub hidden_states: Vec<(usize, Vec<f32>)>,
}

impl Golden {
    pub fn read(name: &str) -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        // The program's tests have their data elsewhere.
        let folders = ["tests/data", "stages/tests/data"].map(|data| root.join(data).join(format!("tiny-{name}")));
        let folder = folders.into_iter().find(|folder| folder.exists()).expect("the fixture is there");
        let json = |file: &str| -> Json {
            serde_json::from_slice(&std::fs::read(folder.join(file)).expect("the fixture is there")).expect("is JSON")
        };
        let (config, golden) = (json("config.json"), json("golden.json"));
        let ids = |key: &str| -> Vec<u32> {
            golden.get(key).map_or_else(Vec::new, |ids| serde_json::from_value(ids.clone()).expect("ids"))
        };
        let rows = |key: &str| -> Vec<Vec<f32>> {
            golden.get(key).map_or_else(Vec::new, |rows| serde_json::from_value(rows.clone()).expect("rows"))
        };
        let positions = ids("positions").into_iter().map(|position| position as usize);
        Self {
            config,
            tensors: read_safetensors(&folder.join("model.safetensors")),
            input_ids: ids("input_ids"),
            greedy: ids("greedy_16"),
            last_logits: rows(if golden.get("logits").is_some() { "logits" } else { "last_4_logits" }),
            hidden_states: positions.zip(rows("hidden_states")).collect(),
        }
    }

    /// The matrix called `name` in the safetensors file, by rows.
    pub fn matrix(&self, name: &str) -> Option<Vec<Vec<f64>>> {
        let (dims, values) = self.tensors.get(name)?;
        let rows = values.chunks(dims[1] as usize);
        Some(rows.map(|row| row.iter().map(|value| f64::from(*value)).collect()).collect())
    }

    /// The vector called `name` in the safetensors file.
    pub fn vector(&self, name: &str) -> Option<Vec<f64>> {
        self.tensors.get(name).map(|(_, values)| values.iter().map(|value| f64::from(*value)).collect())
    }

    /// RoPE frequency of each pair of a head's dimensions, in radians per token.
    pub fn rope_frequencies(&self, head: usize) -> Vec<f64> {
        let theta = self.config["rope_parameters"]["rope_theta"].as_f64().expect("a base");
        let factors = self.rope_factors().unwrap_or_else(|| vec![1.0; head / 2]);
        let frequency =
            |(pair, factor): (usize, &f32)| theta.powf(-2.0 * pair as f64 / head as f64) / f64::from(*factor);
        factors.iter().enumerate().map(frequency).collect()
    }

    pub fn number(&self, key: &str) -> u32 {
        self.config[key].as_u64().unwrap_or_else(|| panic!("{key} is a number")) as u32
    }

    /// Llama 3's divisors of its RoPE frequencies, by the model card's formula.
    pub fn rope_factors(&self) -> Option<Vec<f32>> {
        let rope = &self.config["rope_parameters"];
        if rope["rope_type"] != "llama3" {
            return None;
        }
        let number = |key: &str| rope[key].as_f64().expect("a number");
        let (factor, low, high) = (number("factor"), number("low_freq_factor"), number("high_freq_factor"));
        let (context, theta) = (number("original_max_position_embeddings"), number("rope_theta"));
        let head = f64::from(self.number("head_dim"));
        let factors = (0..self.number("head_dim") / 2).map(|pair| {
            let length = 2.0 * std::f64::consts::PI * theta.powf(2.0 * f64::from(pair) / head);
            if length < context / high {
                1.0
            } else if length > context / low {
                factor
            } else {
                let smooth = (context / length - low) / (high - low);
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        });
        Some(factors.map(|factor| factor as f32).collect())
    }
}

/// The tensors of a safetensors file of 32-bit floats or their upper halves: a length, a JSON header, the bytes.
fn read_safetensors(path: &Path) -> BTreeMap<String, (Vec<u64>, Vec<f32>)> {
    let bytes = std::fs::read(path).expect("the fixture is there");
    let (length, rest) = bytes.split_first_chunk::<8>().expect("a length");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: BTreeMap<String, Json> = serde_json::from_slice(header).expect("a JSON header");
    let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__");
    let read = |(name, tensor): (String, Json)| {
        let [from, to]: [usize; 2] = serde_json::from_value(tensor["data_offsets"].clone()).expect("offsets");
        let dims = serde_json::from_value(tensor["shape"].clone()).expect("a shape");
        let bytes = &data[from..to];
        let values = match tensor["dtype"].as_str() {
            Some("F32") => bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Some("BF16") => bytes.as_chunks::<2>().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect(),
            other => panic!("{name} is F32 or BF16: {other:?}"),
        };
        (name, (dims, values))
    };
    tensors.map(read).collect()
}
