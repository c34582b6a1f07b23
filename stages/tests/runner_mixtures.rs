//! Models with experts and with latent attention: their records, their memory, and files that are damaged.

mod runner_support;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use engine::runner::{Loader, Work};
use runner_support::mixtures::{self, CHOSEN, EXPERTS, HIDDEN, LAYERS, Mixture, WIDTH, write_mixture};
use runner_support::pipeline::{Piece, Pipeline, slice};
use schema::LayerRange;
use schema::frame::Slice;
use schema::record::{KvRoom, KvType, ModelRecord};
use stages::format::Format;
use stages::gguf::GgufWriter;
use stages::loader::CpuLoader;
use stages::weights::ModelFile;

const ROOM: KvRoom = KvRoom { tokens: 320, kv_type: KvType::F16 };

fn write(folder: &tempfile::TempDir, kind: Mixture, format: Format) -> PathBuf {
    let path = folder.path().join("model.gguf");
    write_mixture(&path, kind, format);
    path
}

fn record(path: &Path, kv_type: KvType) -> ModelRecord {
    stages::model_record(&ModelFile::open(path).unwrap(), KvRoom { kv_type, ..ROOM }, 1).unwrap()
}

fn all() -> LayerRange {
    LayerRange::new(0, LAYERS).unwrap()
}

#[test]
fn a_record_counts_the_chosen_experts_alone_as_read_and_multiplied() {
    let folder = tempfile::tempdir().unwrap();
    let record = record(&write(&folder, Mixture::Qwen3, Format::Q8_0), KvType::F16);
    let expert = 3 * u64::from(HIDDEN * WIDTH);
    let stored = expert / 32 * 34;
    let layer = record.layer(1);
    assert_eq!(layer.weights - layer.read_per_token, u64::from(EXPERTS - CHOSEN) * stored);
    let attention = u64::from(HIDDEN * (4 + 2 + 2 + 4) * 32);
    let vectors = u64::from(2 * HIDDEN + 2 * 32);
    let router = u64::from(HIDDEN * EXPERTS);
    assert_eq!(layer.multiplications, u64::from(CHOSEN) * expert + attention + router + vectors);
    assert_eq!(record.shard_bytes(all()).weights - record.head_bytes, 3 * layer.weights);
}

#[test]
fn a_token_of_latent_attention_stores_one_compressed_row_and_a_shared_key() {
    let folder = tempfile::tempdir().unwrap();
    for kind in [Mixture::DeepSeekV2, Mixture::DeepSeekV3] {
        let path = write(&folder, kind, Format::Q8_0);
        assert_eq!(record(&path, KvType::F16).layer(2).kv_per_token, 2 * (256 + 32), "{kind:?}");
        assert_eq!(record(&path, KvType::Q8).layer(2).kv_per_token, 34 * (256 + 32) / 32, "{kind:?}");
        let loader = CpuLoader::new(ModelFile::open(&path).unwrap(), NonZeroUsize::MIN, None).unwrap();
        let bound = |tokens| loader.memory_bound(all(), KvRoom { tokens, ..ROOM });
        assert_eq!(bound(32 * 1024) - bound(16 * 1024), 16 * 1024 * 3 * 2 * (256 + 32), "{kind:?}");
    }
}

#[test]
fn a_copy_of_the_keys_matrix_counts_in_the_bound_and_in_the_record() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, Mixture::DeepSeekV2, Format::Q8_0);
    let file = ModelFile::open(&path).unwrap();
    let mapped = file.map(all()).unwrap().mapped_bytes();
    // Four heads of 256 x 32 values in half precision, in each of three layers.
    let copies = 3 * 4 * 256 * 32 * 2;
    let record = record(&path, KvType::F16);
    let shard = record.shard_bytes(all());
    // The mapped bytes include the padding between tensors.
    let padded = mapped + copies - shard.weights;
    assert!(padded < 4096, "{shard:?}, mapped {mapped}");
    let loader = CpuLoader::new(file, NonZeroUsize::MIN, None).unwrap();
    let bound = loader.memory_bound(all(), ROOM);
    assert!(loader.load(all(), ROOM, bound).is_ok());
    assert!(shard.memory_bound() + padded >= bound, "the planner counts no less than a stage: {shard:?}, {bound}");
}

#[test]
#[cfg(target_os = "linux")]
fn experts_that_no_row_chose_are_not_resident() {
    // On tmpfs, where pages are small: of other files, Linux 6.18 maps up to 2 MiB around a page that is read.
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    // In single precision an expert's matrix is 256 KiB, more than what the system maps around a page.
    let path = write(&folder, Mixture::Qwen3, Format::F32);
    let file = ModelFile::open(&path).unwrap();
    let experts = u64::from(LAYERS * EXPERTS) * 3 * u64::from(HIDDEN * WIDTH) * 4;
    let loader = CpuLoader::new(file, NonZeroUsize::MIN, None).unwrap();
    let mut shard = loader.load(all(), ROOM, u64::MAX).unwrap();
    let before = loader.memory().weights_resident_bytes;
    assert!(before < shard.weights_bytes - experts + (1 << 20), "{before} bytes before the first token");
    // The fixture's blocks are those of a larger room.
    let one = Slice { blocks: vec![0], ..slice(Piece { sequence: 0, position: 0, tokens: &[7] }, 1) };
    shard.runner.step(Work { slices: &[one], activations: &[] }).unwrap();
    let found = loader.memory().weights_resident_bytes - before;
    let chosen = experts / u64::from(EXPERTS) * u64::from(CHOSEN);
    println!("{found} bytes of experts after a token, whose own are {chosen}, of {experts}");
    // The system maps up to 64 KiB around a page that is read.
    assert!(found >= chosen && found <= chosen + (4 << 20), "{found} bytes of experts, the token's own are {chosen}");
}

#[test]
fn a_step_of_experts_gives_a_token_for_any_number_of_rows() {
    let folder = tempfile::tempdir().unwrap();
    for kind in [Mixture::Qwen3, Mixture::DeepSeekV2, Mixture::DeepSeekV3] {
        let path = write(&folder, kind, Format::Q8_0);
        let mut pipeline = Pipeline::new(&path, &[], 2);
        for rows in [1, 2, 9, 127, 128, 129, 300] {
            let tokens: Vec<u32> = (0..rows).map(|index| index * 31 % mixtures::VOCABULARY).collect();
            let logits = pipeline.logits(&[Piece { sequence: 0, position: 0, tokens: &tokens }]);
            assert!(logits.iter().flatten().all(|logit| logit.is_finite()), "{kind:?}, {rows} rows");
        }
    }
}

/// The error for a file of metadata and an embedding table, which is enough for a refusal.
fn refused(architecture: &str, keys: &[(&str, u32)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut file = GgufWriter::new().metadata("general.architecture", architecture);
    let usual = [
        ("block_count", 2),
        ("context_length", 128),
        ("embedding_length", 64),
        ("feed_forward_length", 64),
        ("attention.head_count", 2),
    ];
    let given = |key: &str| keys.iter().any(|(own, _)| *own == key);
    for (key, number) in usual.iter().filter(|(key, _)| !given(key)).chain(keys) {
        file = file.metadata(&format!("{architecture}.{key}"), *number);
    }
    let file = file.metadata(&format!("{architecture}.attention.layer_norm_rms_epsilon"), 1e-5_f32);
    file.tensor("token_embd.weight", &[64, 64], Format::F32, vec![0; 64 * 64 * 4]).unwrap().write_file(&path).unwrap();
    CpuLoader::new(ModelFile::open(&path).unwrap(), NonZeroUsize::MIN, None).unwrap_err().to_string()
}

#[test]
fn counts_of_experts_and_widths_of_latents_that_do_not_fit_are_refused_by_key() {
    let cases: [(&str, &[(&str, u32)], &str); 9] = [
        ("qwen3moe", &[], "\"qwen3moe.expert_count\": expected 1 to 1024, found 0"),
        ("qwen3moe", &[("expert_count", 1 << 30)], "\"qwen3moe.expert_count\": expected at most 1024"),
        (
            "qwen3moe",
            &[("expert_count", 8), ("expert_used_count", 9)],
            "\"qwen3moe.expert_used_count\": expected 1 to 8, found 9",
        ),
        (
            "deepseek2",
            &[("rope.dimension_count", 32), ("attention.key_length", 32), ("attention.value_length", 32)],
            "\"deepseek2.attention.key_length\": expected more than the 32 rotated values",
        ),
        (
            "deepseek2",
            &[("expert_gating_func", 3)],
            "\"deepseek2.expert_gating_func\": expected 1 (softmax) or 2 (sigmoid), found 3",
        ),
        (
            "deepseek2",
            &[("expert_group_count", 3), ("expert_group_used_count", 1)],
            "\"deepseek2.expert_group_count\": expected a divisor of 8 experts",
        ),
        (
            "deepseek2",
            &[("attention.kv_lora_rank", 1 << 20)],
            "\"deepseek2.attention.kv_lora_rank\": expected 1 to 4096",
        ),
        (
            "deepseek2",
            &[("nextn_predict_layers", 2)],
            "\"deepseek2.nextn_predict_layers\": expected fewer than the 2 layers, found 2",
        ),
        ("deepseek2", &[("block_count", 100_000)], "\"deepseek2.block_count\": expected 1 to 1024"),
    ];
    let deepseek: &[(&str, u32)] = &[
        ("rope.dimension_count", 32),
        ("attention.key_length", 64),
        ("attention.value_length", 32),
        ("attention.kv_lora_rank", 64),
        ("expert_count", 8),
        ("expert_used_count", 2),
    ];
    for (architecture, keys, expected) in cases {
        let given = |key: &str| keys.iter().any(|(own, _)| *own == key);
        let base = if architecture == "deepseek2" { deepseek } else { &[] };
        let keys: Vec<_> = base.iter().filter(|(key, _)| !given(key)).chain(keys).copied().collect();
        let error = refused(architecture, &keys);
        assert!(error.contains(expected), "expected {expected}: {error}");
    }
}

#[test]
fn a_tensor_of_experts_of_another_shape_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, Mixture::Qwen3, Format::Q8_0);
    let spec = Pipeline::new(&path, &[], 1).spec;
    let mut header = ModelFile::open(&path).unwrap().header().clone();
    let place = header.tensors.iter().position(|tensor| tensor.name == "blk.1.ffn_up_exps.weight").unwrap();
    header.tensors[place].dims = vec![256, 256, 15];
    let error = spec.check_tensors(&header).unwrap_err().to_string();
    let expected = "tensor \"blk.1.ffn_up_exps.weight\": expected dimensions [256, 256, 16], found [256, 256, 15]";
    assert_eq!(error, expected);
}
