//! The model that a cluster serves: the value of `model`.

use serde::{Deserialize, Serialize};

use super::claim::ClaimRecord;
use super::kv::{KvGrowth, KvRoom, KvType};
use super::kv_kinds::{KV_BLOCK_TOKENS, KvBlocks, KvKinds};
use super::text_limit::text_tokens_max;
use crate::{Fingerprint, LayerRange};

/// The model of a cluster. The first process that names a model writes it, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// The model's name for clients and operators: the file's name without its extension.
    pub name: String,
    /// The name by which any machine can fetch it, as `baton pull` takes it. `None` if the model was named by a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
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
    /// Bytes of each layer's weights that are read for one token: all but the experts that are not chosen. Empty if
    /// every layer reads all of its weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layer_read_bytes: Vec<u64>,
    /// Multiplications that each layer's weights take for one token. Empty if they were not counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layer_multiplications: Vec<u64>,
    /// Multiplications that the head takes for one token.
    #[serde(default)]
    pub head_multiplications: u64,
    /// The format of most of the layers' weights, by the name that it has in the stages' speeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_format: Option<String>,
    /// The format of most of each layer's weights. Empty if it is `layer_format` in every layer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layer_formats: Vec<String>,
    /// The format of the head's weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_format: Option<String>,
    /// Bytes of keys and values that one layer stores for one token, and the most of any layer if they differ.
    pub kv_bytes_per_token_layer: u64,
    /// Bytes of keys and values that each layer stores for one token. Empty if every layer stores as many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layer_kv_bytes: Vec<u64>,
    /// Window of each layer in tokens: those to whose keys and values a row attends, its own included. 0 for a layer
    /// without one. Empty if no layer has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layer_windows: Vec<u32>,
    /// True if tokens attend to those after them, too: a text goes through the layers whole, in one micro-batch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bidirectional: bool,
    /// Number of tokens for whose keys and values every stage must have room. Layers with a window beside others have
    /// room for fewer ([`KvKinds::pool`]).
    pub kv_tokens: u32,
    /// The bounds of the room if it follows the stages' memory: a placement may then name more tokens than `kv_tokens`,
    /// which layers are placed by. `None` if the room is `kv_tokens`, whatever the memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_growth: Option<KvGrowth>,
    /// The number format of keys and values. Older records have no such field and mean half precision.
    #[serde(default)]
    pub kv_type: KvType,
    /// Upper bound of the scratch memory that a shard needs in addition to weights, keys and values, in bytes.
    pub scratch_bytes: u64,
    /// Number of stages that the first placement waits for.
    pub stages_min: u32,
}

/// The cost of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerCost<'a> {
    /// Bytes of its weights.
    pub weights: u64,
    /// Bytes of its weights that are read for one token.
    pub read_per_token: u64,
    /// Multiplications with its weights for one token.
    pub multiplications: u64,
    /// Bytes of keys and values that it stores for one token.
    pub kv_per_token: u64,
    /// Number of tokens for which it has room.
    pub kv_tokens: u32,
    /// The format of most of its weights.
    pub format: Option<&'a str>,
}

/// Bytes of keys and values of each kind of layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KvBytes {
    /// Those of layers without a window.
    pub full: u64,
    /// Those of layers with a window.
    pub window: u64,
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

// === impl LayerCost ===

impl LayerCost<'_> {
    /// Bytes of its keys and values, for the room that it has.
    pub fn kv_bytes(&self) -> u64 {
        self.kv_per_token.saturating_mul(self.kv_tokens.into())
    }
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
            source: None,
            architecture: "llama".to_owned(),
            fingerprint: Fingerprint("00".to_owned()),
            layers: layer_bytes.len() as u32,
            hidden: 1,
            context_tokens: 1,
            embedding_bytes: 0,
            layer_bytes,
            head_bytes: 0,
            layer_read_bytes: Vec::new(),
            layer_multiplications: Vec::new(),
            head_multiplications: 0,
            layer_format: None,
            layer_formats: Vec::new(),
            head_format: None,
            kv_bytes_per_token_layer: 0,
            layer_kv_bytes: Vec::new(),
            layer_windows: Vec::new(),
            bidirectional: false,
            kv_tokens: 1,
            kv_growth: None,
            kv_type: KvType::F16,
            scratch_bytes: 0,
            stages_min: 1,
        }
    }

    /// The most tokens of its room for keys and values.
    pub fn kv_tokens_max(&self) -> u32 {
        self.kv_growth.map_or(self.kv_tokens, |growth| growth.tokens_max.max(self.kv_tokens))
    }

    /// The record of the same model with room for `tokens` tokens, no fewer than it has and no more than it may have.
    pub fn with_room(&self, tokens: u32) -> Self {
        let kv_tokens = tokens.min(self.kv_tokens_max()).max(self.kv_tokens);
        let scratch_bytes = match self.kv_growth {
            Some(growth) if kv_tokens > self.kv_tokens => growth.scratch_bytes.max(self.scratch_bytes),
            _ => self.scratch_bytes,
        };
        Self { kv_tokens, scratch_bytes, ..self.clone() }
    }

    /// The record with the room that `claim` names.
    pub fn as_claimed(&self, claim: &ClaimRecord) -> Self {
        self.with_room(claim.kv_blocks.saturating_mul(claim.kv_block_tokens))
    }

    /// Room for keys and values that every stage must have.
    pub fn kv_room(&self) -> KvRoom {
        KvRoom { tokens: self.kv_tokens, kv_type: self.kv_type }
    }

    /// The kinds of its layers.
    pub fn kv_kinds(&self) -> KvKinds {
        KvKinds::of(self.layer_windows.iter().copied())
    }

    /// The number of blocks of each kind that every stage has.
    pub fn kv_pool(&self) -> KvBlocks {
        self.kv_kinds().pool(self.kv_tokens)
    }

    /// The longest sequence that fits the room for keys and values and the model's context, in tokens.
    pub fn sequence_tokens_max(&self) -> u32 {
        let in_room = match self.kv_kinds() {
            KvKinds::Full => self.kv_tokens,
            kinds => kinds.sequence_tokens_max(self.kv_pool()),
        };
        self.context_tokens_max().min(in_room)
    }

    /// The longest sequence that the model computes, in tokens, whatever the room.
    pub fn context_tokens_max(&self) -> u32 {
        let whole = if self.bidirectional { text_tokens_max(self.hidden.into()) } else { u32::MAX };
        self.context_tokens.min(whole)
    }

    /// The cost of layer `layer`. A layer that the record does not describe costs nothing.
    pub fn layer(&self, layer: u32) -> LayerCost<'_> {
        let at = layer as usize;
        let weights = self.layer_bytes.get(at).copied().unwrap_or(0);
        let in_window = self.layer_windows.get(at).is_some_and(|window| *window > 0);
        LayerCost {
            weights,
            // A wrong record may say that more is read than there is.
            read_per_token: self.layer_read_bytes.get(at).map_or(weights, |read| weights.min(*read)),
            multiplications: self.layer_multiplications.get(at).copied().unwrap_or(0),
            kv_per_token: self.layer_kv_bytes.get(at).copied().unwrap_or(self.kv_bytes_per_token_layer),
            kv_tokens: if in_window { self.kv_pool().window.saturating_mul(KV_BLOCK_TOKENS) } else { self.kv_tokens },
            format: self.layer_formats.get(at).or(self.layer_format.as_ref()).map(String::as_str),
        }
    }

    /// Bytes of keys and values of one token in all layers of the model.
    pub fn kv_bytes_per_token(&self) -> u64 {
        (0..self.layers).fold(0, |sum, layer| sum.saturating_add(self.layer(layer).kv_per_token))
    }

    /// Bytes of keys and values of all layers of the model, for the room that it has.
    pub fn kv_bytes(&self) -> u64 {
        (0..self.layers).fold(0, |sum, layer| sum.saturating_add(self.layer(layer).kv_bytes()))
    }

    /// Bytes of the keys and values of these layers, for the room that the model has, by kind.
    pub fn kv_bytes_of(&self, layers: LayerRange) -> KvBytes {
        let mut bytes = KvBytes::default();
        for layer in layers.start()..layers.end() {
            let in_window = self.layer_windows.get(layer as usize).is_some_and(|window| *window > 0);
            let own = if in_window { &mut bytes.window } else { &mut bytes.full };
            *own = own.saturating_add(self.layer(layer).kv_bytes());
        }
        bytes
    }

    /// The most tokens, in whole blocks and at most `tokens_max`, whose keys and values take no more than `bytes` bytes
    /// in all layers together.
    pub fn kv_tokens_within(&self, bytes: u64, tokens_max: u32) -> u32 {
        let fits = |blocks: u32| Self { kv_tokens: blocks * KV_BLOCK_TOKENS, ..self.clone() }.kv_bytes() <= bytes;
        let (mut fitting, mut too_many) = (0, tokens_max / KV_BLOCK_TOKENS + 1);
        while too_many - fitting > 1 {
            let middle = fitting.midpoint(too_many);
            if fits(middle) { fitting = middle } else { too_many = middle }
        }
        fitting * KV_BLOCK_TOKENS
    }

    /// The cost of the shard `layers`. The shard with the last layer includes the head.
    pub fn shard_bytes(&self, layers: LayerRange) -> ShardBytes {
        let last = layers.end() == self.layers;
        let head = if last { self.head_bytes } else { 0 };
        let mut shard = ShardBytes {
            read_per_token: head,
            multiplications_per_token: if last { self.head_multiplications } else { 0 },
            weights: head,
            kv: 0,
            scratch: self.scratch_bytes,
        };
        for layer in layers.start()..layers.end() {
            let cost = self.layer(layer);
            shard.read_per_token = shard.read_per_token.saturating_add(cost.read_per_token);
            shard.multiplications_per_token = shard.multiplications_per_token.saturating_add(cost.multiplications);
            shard.weights = shard.weights.saturating_add(cost.weights);
            shard.kv = shard.kv.saturating_add(cost.kv_bytes());
        }
        shard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record as version 0.1 writes it, with one figure for the keys and values of every layer.
    const UNIFORM: &str = r#"{"name":"m","architecture":"llama","fingerprint":"5b1f9ac07d3e6e2f4c88a1d09b7e3f65",
        "layers":2,"hidden":576,"context_tokens":8192,"embedding_bytes":30081024,"layer_bytes":[2216448,2216448],
        "head_bytes":30083328,"layer_multiplications":[3540096,3540096],"head_multiplications":28311552,
        "layer_format":"Q4_1","head_format":"Q8_0","kv_bytes_per_token_layer":1536,"kv_tokens":8192,"kv_type":"f16",
        "scratch_bytes":16777216,"stages_min":2}"#;

    #[test]
    fn a_room_that_follows_memory_has_its_bounds_and_the_scratch_of_the_largest() {
        let exact: ModelRecord = serde_json::from_str(UNIFORM).unwrap();
        assert_eq!((exact.kv_tokens_max(), exact.with_room(1 << 20)), (8192, exact.clone()));
        let growth = KvGrowth { tokens_max: 20_000, scratch_bytes: 20_000_000 };
        let grows = ModelRecord { kv_growth: Some(growth), ..exact };
        assert_eq!((grows.with_room(100), grows.with_room(8192)), (grows.clone(), grows.clone()));
        let grown = [8193, 1 << 20].map(|tokens| grows.with_room(tokens));
        assert_eq!(
            grown.map(|model| (model.kv_tokens, model.scratch_bytes)),
            [(8193, 20_000_000), (20_000, 20_000_000)]
        );
        let again: ModelRecord = serde_json::from_str(&serde_json::to_string(&grows).unwrap()).unwrap();
        assert_eq!(again, grows);
    }

    #[test]
    fn a_record_of_equal_layers_reads_all_of_each_and_is_written_as_before() {
        let record: ModelRecord = serde_json::from_str(UNIFORM).unwrap();
        let expected = LayerCost {
            weights: 2_216_448,
            read_per_token: 2_216_448,
            multiplications: 3_540_096,
            kv_per_token: 1536,
            kv_tokens: 8192,
            format: Some("Q4_1"),
        };
        assert_eq!((record.layer(0), record.layer(1)), (expected, expected));
        assert_eq!(record.layer(2).weights, 0, "there is no such layer");
        let shard = record.shard_bytes(LayerRange::new(0, 2).unwrap());
        assert_eq!(shard.read_per_token, 2 * 2_216_448 + 30_083_328);
        assert_eq!((shard.weights, shard.kv), (shard.read_per_token, 2 * 1536 * 8192));
        let [written, before] =
            [serde_json::to_value(&record).unwrap(), serde_json::from_str::<serde_json::Value>(UNIFORM).unwrap()];
        assert_eq!(written, before, "older members read the record");
    }

    #[test]
    fn layers_that_differ_each_have_their_own_cost() {
        let uniform: ModelRecord = serde_json::from_str(UNIFORM).unwrap();
        let record = ModelRecord {
            layer_read_bytes: vec![2_216_448, 300_000],
            layer_kv_bytes: vec![1536, 1152],
            layer_formats: vec!["Q4_1".to_owned(), "Q8_0".to_owned()],
            ..uniform
        };
        let written = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<ModelRecord>(&written).unwrap(), record);
        let second = record.layer(1);
        assert_eq!((second.weights, second.read_per_token), (2_216_448, 300_000));
        assert_eq!((second.kv_per_token, second.format), (1152, Some("Q8_0")));
        let shard = record.shard_bytes(LayerRange::new(0, 2).unwrap());
        assert_eq!(shard.weights - shard.read_per_token, 2_216_448 - 300_000);
        assert_eq!(shard.kv, (1536 + 1152) * 8192);
        assert_eq!(record.kv_bytes_per_token(), 1536 + 1152);
    }

    #[test]
    fn layers_with_a_window_have_room_for_fewer_tokens() {
        let uniform: ModelRecord = serde_json::from_str(UNIFORM).unwrap();
        let context_tokens = 1 << 20;
        let with = |layer_windows: Vec<u32>| ModelRecord { layer_windows, context_tokens, ..uniform.clone() };
        let both = with(vec![1024, 0]);
        assert_eq!(both.kv_kinds(), KvKinds::Both(1024));
        assert_eq!([0, 1].map(|layer| both.layer(layer).kv_tokens), [82 * 32, 8192]);
        let shard = |start| both.shard_bytes(LayerRange::new(start, start + 1).unwrap()).kv;
        assert_eq!([0, 1].map(shard), [1536 * 82 * 32, 1536 * 8192]);
        assert_eq!(both.kv_bytes(), 1536 * (82 * 32 + 8192));
        assert_eq!(both.sequence_tokens_max(), 8192);
        let written = serde_json::to_string(&both).unwrap();
        assert_eq!(serde_json::from_str::<ModelRecord>(&written).unwrap(), both);
        let tokens = both.kv_tokens_within(both.kv_bytes(), 1 << 24);
        assert_eq!(tokens, 8192, "one block more would not fit");
        assert_eq!((both.kv_tokens_within(1, 1 << 24), both.kv_tokens_within(u64::MAX, 100)), (0, 96));
        let all = with(vec![1024; 2]);
        assert_eq!((all.kv_bytes(), all.sequence_tokens_max()), (2 * 1536 * 8192, context_tokens));
        assert_eq!(with(vec![8192; 2]).sequence_tokens_max(), 8192, "the window never moves on");
    }

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
