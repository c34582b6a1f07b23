//! Golden encoders as llama.cpp's converter writes them.

use stages::gguf::GgufWriter;

use super::super::golden::Golden;
use super::Tensors;

/// Parts of names: those of BERT and of nomic-bert in folders, and GGUF's.
const NAMES: &[(&str, &str)] = &[
    ("attention.output.LayerNorm", "attn_output_norm"),
    ("attention.output.dense", "attn_output"),
    ("attention.self.query", "attn_q"),
    ("attention.self.key", "attn_k"),
    ("attention.self.value", "attn_v"),
    ("intermediate.dense", "ffn_up"),
    ("output.LayerNorm", "layer_output_norm"),
    ("output.dense", "ffn_down"),
    ("attn.Wqkv", "attn_qkv"),
    ("attn.out_proj", "attn_output"),
    ("mlp.fc11", "ffn_up"),
    ("mlp.fc12", "ffn_gate"),
    ("mlp.fc2", "ffn_down"),
    ("norm1", "attn_output_norm"),
    ("norm2", "layer_output_norm"),
];

/// Rows of positions that RoBERTa's kin leave out: the number of the padding token, and one.
const POSITIONS_LEFT_OUT: usize = 2;

impl Golden {
    /// True for a model that makes hidden states alone.
    pub fn is_encoder(&self) -> bool {
        matches!(self.architecture(), "bert" | "nomic-bert")
    }

    /// The longest text.
    fn encoder_context(&self) -> u32 {
        self.number("max_position_embeddings") - if self.is_roberta() { POSITIONS_LEFT_OUT as u32 } else { 0 }
    }

    fn is_roberta(&self) -> bool {
        self.config["model_type"] == "xlm-roberta"
    }

    pub(super) fn encoder_metadata(&self) -> GgufWriter {
        let architecture = self.architecture();
        let own = |suffix: &str| format!("{architecture}.{suffix}");
        let epsilon = self.config["layer_norm_eps"].as_f64().expect("an epsilon") as f32;
        let file = GgufWriter::new()
            .metadata("general.architecture", architecture)
            .metadata(&own("block_count"), self.number("num_hidden_layers"))
            .metadata(&own("context_length"), self.encoder_context())
            .metadata(&own("embedding_length"), self.number("hidden_size"))
            .metadata(&own("feed_forward_length"), self.number("intermediate_size"))
            .metadata(&own("attention.head_count"), self.number("num_attention_heads"))
            .metadata(&own("attention.layer_norm_epsilon"), epsilon)
            .metadata(&own("attention.causal"), false)
            .metadata(&own("pooling_type"), 1_u32);
        match self.config["rope_parameters"]["rope_theta"].as_f64() {
            Some(theta) => file.metadata(&own("rope.freq_base"), theta as f32),
            None => file,
        }
    }

    pub(super) fn encoder_tensors(&self) -> Tensors {
        let tensors = self.tensors.iter().filter(|(name, _)| !name.starts_with("pooler."));
        let renamed = |(name, (dims, values)): (&String, &(Vec<u64>, Vec<f32>))| {
            let (mut dims, mut values) = (dims.clone(), values.clone());
            let renamed = self.encoder_name(name);
            if self.is_roberta() && renamed == "position_embd.weight" {
                values.drain(..POSITIONS_LEFT_OUT * dims[1] as usize);
                dims[0] -= POSITIONS_LEFT_OUT as u64;
            }
            (renamed, (dims, values))
        };
        tensors.map(renamed).collect()
    }

    fn encoder_name(&self, name: &str) -> String {
        let rest = match name {
            "embeddings.word_embeddings.weight" => return "token_embd.weight".to_owned(),
            "embeddings.position_embeddings.weight" => return "position_embd.weight".to_owned(),
            "embeddings.token_type_embeddings.weight" => return "token_types.weight".to_owned(),
            "embeddings.LayerNorm.weight" | "emb_ln.weight" => return "token_embd_norm.weight".to_owned(),
            "embeddings.LayerNorm.bias" | "emb_ln.bias" => return "token_embd_norm.bias".to_owned(),
            layer => layer.strip_prefix("encoder.layer.").or_else(|| layer.strip_prefix("encoder.layers.")),
        };
        let (layer, rest) = rest.expect("a layer's tensor").split_once('.').expect("a layer number");
        let (theirs, kind) = rest.rsplit_once('.').expect("weight or bias");
        let ours = NAMES.iter().find(|(name, _)| *name == theirs).unwrap_or_else(|| panic!("{theirs} is known")).1;
        format!("blk.{layer}.{ours}.{kind}")
    }
}
