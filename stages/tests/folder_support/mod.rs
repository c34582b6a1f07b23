//! Folders in Hugging Face's form, made of the golden models and changed.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use serde_json::{Map, Value as Json, json};
use stages::model::ModelSpec;
use stages::weights::ModelFile;

use crate::error_chain::chain;

/// A model in memory.
pub(crate) struct Folder {
    pub(crate) config: Map<String, Json>,
    pub(crate) tensors: BTreeMap<String, Stored>,
    /// Further files.
    pub(crate) texts: Vec<(&'static str, String)>,
}

/// A tensor as a file has it.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) dtype: String,
    pub(crate) shape: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
}

// === impl Folder ===

impl Folder {
    /// The folder of the golden model `name`.
    pub(crate) fn golden(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(format!("tiny-{name}"))
    }

    /// The golden model `name`.
    pub(crate) fn read(name: &str) -> Self {
        let folder = Self::golden(name);
        let config = serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
        let file = std::fs::read(folder.join("model.safetensors")).unwrap();
        let (length, rest) = file.split_first_chunk::<8>().unwrap();
        let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let header: Map<String, Json> = serde_json::from_slice(header).unwrap();
        let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__").map(|(name, tensor)| {
            let [from, to]: [usize; 2] = serde_json::from_value(tensor["data_offsets"].clone()).unwrap();
            let shape = serde_json::from_value(tensor["shape"].clone()).unwrap();
            let dtype = tensor["dtype"].as_str().unwrap().to_owned();
            (name, Stored { dtype, shape, bytes: data[from..to].to_vec() })
        });
        Self { config, tensors: tensors.collect(), texts: Vec::new() }
    }

    /// Writes it, with the weights in `files` files. Dropping the folder deletes it.
    pub(crate) fn write(&self, files: usize) -> (tempfile::TempDir, PathBuf) {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("folder");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("config.json"), Json::from(self.config.clone()).to_string()).unwrap();
        for (name, text) in &self.texts {
            std::fs::write(folder.join(name), text).unwrap();
        }
        if files == 1 {
            std::fs::write(folder.join("model.safetensors"), safetensors(&self.tensors)).unwrap();
            return (scratch, folder);
        }
        let mut parts = vec![BTreeMap::new(); files];
        let mut map = Map::new();
        // In turns, so that neighbours lie in different files.
        for (index, (name, tensor)) in self.tensors.iter().enumerate() {
            parts[index % files].insert(name.clone(), tensor.clone());
            map.insert(name.clone(), part_name(index % files, files).into());
        }
        for (index, part) in parts.iter().enumerate() {
            std::fs::write(folder.join(part_name(index, files)), safetensors(part)).unwrap();
        }
        let index = json!({"metadata": {"total_size": 0}, "weight_map": map});
        std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
        (scratch, folder)
    }
}

fn part_name(index: usize, count: usize) -> String {
    format!("model-{:05}-of-{count:05}.safetensors", index + 1)
}

// === impl Stored ===

impl Stored {
    /// A tensor of 32-bit floats.
    pub(crate) fn floats(shape: &[u64], bytes: Vec<u8>) -> Self {
        Self { dtype: "F32".to_owned(), shape: shape.to_vec(), bytes }
    }

    /// The tensor in half precision, and the bytes of the same values as 32-bit floats.
    pub(crate) fn halved(&self, dtype: &str) -> (Self, Vec<u8>) {
        let (mut halves, mut exact) = (Vec::new(), Vec::new());
        for bytes in self.bytes.as_chunks::<4>().0 {
            let value = f32::from_le_bytes(*bytes);
            let (half, value) = match dtype {
                "BF16" => (bf16::from_f32(value).to_le_bytes(), bf16::from_f32(value).to_f32()),
                _ => (f16::from_f32(value).to_le_bytes(), f16::from_f32(value).to_f32()),
            };
            halves.extend(half);
            exact.extend(value.to_le_bytes());
        }
        (Self { dtype: dtype.to_owned(), shape: self.shape.clone(), bytes: halves }, exact)
    }
}

/// A safetensors file.
pub(crate) fn safetensors(tensors: &BTreeMap<String, Stored>) -> Vec<u8> {
    let mut header = Map::new();
    let mut data = Vec::new();
    for (name, Stored { dtype, shape, bytes }) in tensors {
        let start = data.len();
        data.extend(bytes);
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]}));
    }
    with_header(&Json::from(header).to_string(), &data)
}

/// A safetensors file with this text as its header.
pub(crate) fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// Opens a model and checks that it can be computed. The error is printed with its causes.
pub(crate) fn opened(path: &Path) -> Result<ModelFile, String> {
    let file = ModelFile::open(path).map_err(|error| chain(&error))?;
    let spec = ModelSpec::read(file.header()).map_err(|error| chain(&error))?;
    spec.check_tensors(file.header()).map_err(|error| chain(&error))?;
    Ok(file)
}
