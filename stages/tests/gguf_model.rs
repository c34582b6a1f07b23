//! The default model's file: SmolLM2-135M-Instruct, Q4_1.

mod common;

use schema::LayerRange;
use schema::record::{KvRoom, KvType};
use stages::format::Format;
use stages::weights::ModelFile;

fn model() -> ModelFile {
    ModelFile::open(&common::default_model()).unwrap()
}

#[test]
fn the_record_of_the_default_model_is_as_published() {
    let model = model();
    let record = model.record(KvRoom { tokens: 4096, kv_type: KvType::F16 }, 2).unwrap();
    assert_eq!((record.architecture.as_str(), record.layers, record.hidden), ("llama", 30, 576));
    assert_eq!((record.context_tokens, record.kv_bytes_per_token_layer), (8192, 2 * 3 * 64 * 2));
    assert_eq!(record.embedding_bytes, 576 / 32 * 34 * 49152);
    assert_eq!(record.head_bytes, record.embedding_bytes + 576 * 4);
    let layer = 4 * 576 * 2 + (576 * (576 * 2 + 192 * 2) + 3 * 576 * 1536) / 32 * 20;
    assert_eq!(record.layer_bytes, vec![layer; 30]);
    assert_eq!(model.name(), "SmolLM2-135M-Instruct.Q4_1");
}

#[test]
fn the_vocabulary_is_read_only_when_asked_for() {
    let model = model();
    assert!(model.header().metadata.get("tokenizer.ggml.tokens").is_none());
    let metadata = model.vocabulary_metadata().unwrap();
    let tokens = metadata.str_array("tokenizer.ggml.tokens").unwrap();
    assert_eq!((tokens.len(), tokens.get(0), tokens.get(1)), (49152, Some("<|endoftext|>"), Some("<|im_start|>")));
}

#[test]
fn a_middle_shard_has_only_its_layers_resident() {
    let model = model();
    let record = model.record(KvRoom { tokens: 4096, kv_type: KvType::F16 }, 2).unwrap();
    let layers = LayerRange::new(10, 20).unwrap();
    let shard = model.map(layers).unwrap();
    shard.prefetch();
    let own = record.shard_bytes(layers).weights;
    println!("own {own}, mapped {}, resident {}", shard.mapped_bytes(), shard.residency().bytes());
    assert!((own..own + (64 << 10)).contains(&shard.mapped_bytes()));
    assert!((own..=own + (64 << 10)).contains(&shard.residency().bytes()));
    let tensor = shard.layer_tensor(12, "ffn_down.weight").unwrap();
    assert_eq!((tensor.format(), tensor.dims()), (Format::Q4_1, &[1536, 576][..]));
    assert_eq!(tensor.matrix().rows(), 576);
}
