//! The model that a cluster serves: the value of `model`.

use serde::{Deserialize, Serialize};

use super::kv::{KvRoom, KvType};
use crate::{Fingerprint, LayerRange};

/// The model of a cluster. The first process that names a model writes it, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// The model's name for clients and operators: the file's name without its extension.
    pub name: String,
    /// The architecture that the file names, such as `llama`.
    pub architecture: String,
    /// The fingerprint that each process's own copy of the file must have.
    pub fingerprint: Fingerprint,
    /// Number of layers.
    pub layers: u32,
    /// Width of the residual stream, in values.
    pub hidden: u32,
    /// Longest sequence that the model was trained for, in tokens.
    pub context_tokens: u32,
    /// Bytes of the embedding table.
    pub embedding_bytes: u64,
    /// Bytes of each layer's weights.
    pub layer_bytes: Vec<u64>,
    /// Bytes of the final norm and the output head. If the head is tied to the embedding table, that table is counted
    /// again.
    pub head_bytes: u64,
    /// Multiplications that each layer's weights take for one token. Empty if they were not counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layer_multiplications: Vec<u64>,
    /// Multiplications that the head takes for one token.
    #[serde(default)]
    pub head_multiplications: u64,
    /// The format of most of the layers' weights, by the name that it has in the stages' speeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_format: Option<String>,
    /// The format of the head's weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_format: Option<String>,
    /// Bytes of keys and values that one layer stores for one token.
    pub kv_bytes_per_token_layer: u64,
    /// Number of tokens for whose keys and values every stage must have room.
    pub kv_tokens: u32,
    /// The number format of keys and values. Older records have no such field and mean half precision.
    #[serde(default)]
    pub kv_type: KvType,
    /// Upper bound of the scratch memory that a shard needs in addition to weights, keys and values, in bytes.
    pub scratch_bytes: u64,
    /// Number of stages that the first placement waits for.
    pub stages_min: u32,
}

/// The cost of one shard for a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardBytes {
    /// Weights that are read for every token, in bytes. The embedding table is not counted, because a token reads one
    /// row of it.
    pub read_per_token: u64,
    /// Multiplications with these weights for one token.
    pub multiplications_per_token: u64,
    /// Weights that are mapped, in bytes.
    pub weights: u64,
    /// Keys and values, in bytes.
    pub kv: u64,
    /// Scratch, in bytes.
    pub scratch: u64,
}

// === impl ShardBytes ===

impl ShardBytes {
    /// Upper bound of the memory that the shard takes, in bytes.
    pub fn memory_bound(self) -> u64 {
        self.weights.saturating_add(self.kv).saturating_add(self.scratch)
    }
}

// === impl ModelRecord ===

impl ModelRecord {
    /// A llama model with layers of these sizes in bytes, for callers that set the other fields: nothing but the layers
    /// takes memory, there is room for one token's keys and values, and one stage suffices.
    pub fn new(name: &str, layer_bytes: Vec<u64>) -> Self {
        Self {
            name: name.to_owned(),
            architecture: "llama".to_owned(),
            fingerprint: Fingerprint("00".to_owned()),
            layers: layer_bytes.len() as u32,
            hidden: 1,
            context_tokens: 1,
            embedding_bytes: 0,
            layer_bytes,
            head_bytes: 0,
            layer_multiplications: Vec::new(),
            head_multiplications: 0,
            layer_format: None,
            head_format: None,
            kv_bytes_per_token_layer: 0,
            kv_tokens: 1,
            kv_type: KvType::F16,
            scratch_bytes: 0,
            stages_min: 1,
        }
    }

    /// Room for keys and values that every stage must have.
    pub fn kv_room(&self) -> KvRoom {
        KvRoom { tokens: self.kv_tokens, kv_type: self.kv_type }
    }

    /// Bytes of keys and values of one token in all layers of the model.
    pub fn kv_bytes_per_token(&self) -> u64 {
        self.kv_bytes_per_token_layer.saturating_mul(self.layers.into())
    }

    /// The cost of the shard `layers`. The shard with the last layer includes the head.
    pub fn shard_bytes(&self, layers: LayerRange) -> ShardBytes {
        let own = self.layer_bytes.iter().take(layers.end() as usize).skip(layers.start() as usize);
        let own = own.fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
        let work = self.layer_multiplications.iter().take(layers.end() as usize).skip(layers.start() as usize);
        let work = work.fold(0_u64, |sum, count| sum.saturating_add(*count));
        let (head, head_work) =
            if layers.end() == self.layers { (self.head_bytes, self.head_multiplications) } else { (0, 0) };
        let kv_rows = u64::from(layers.count()) * u64::from(self.kv_tokens);
        let kv = self.kv_bytes_per_token_layer.saturating_mul(kv_rows);
        let own = own.saturating_add(head);
        let multiplications_per_token = work.saturating_add(head_work);
        ShardBytes { read_per_token: own, multiplications_per_token, weights: own, kv, scratch: self.scratch_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_from_before_there_was_a_choice_means_half_precision() {
        let fingerprint = "0".repeat(64);
        let old = format!(
            r#"{{"name": "m", "architecture": "llama", "fingerprint": "{fingerprint}", "layers": 2, "hidden": 8,
                "context_tokens": 64, "embedding_bytes": 1, "layer_bytes": [1, 1], "head_bytes": 1,
                "kv_bytes_per_token_layer": 32, "kv_tokens": 64, "scratch_bytes": 1, "stages_min": 1}}"#
        );
        let record: ModelRecord = serde_json::from_str(&old).unwrap();
        assert_eq!(record.kv_room(), KvRoom { tokens: 64, kv_type: KvType::F16 });
        let new = serde_json::to_value(&record).unwrap();
        assert_eq!(new["kv_type"], "f16", "new records name the type");
        let with_type = old.replace("\"stages_min\"", "\"kv_type\": \"q8_0\", \"stages_min\"");
        assert_eq!(serde_json::from_str::<ModelRecord>(&with_type).unwrap().kv_type, KvType::Q8);
    }
}
