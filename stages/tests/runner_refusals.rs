//! Refusals of a runner and a loader, and their error texts. Frames and files come from outside, so none of them may
//! cause a panic.

mod runner_support;

use std::num::NonZeroUsize;
use std::path::Path;

use engine::runner::{LoadError, Loader, Output, RunnerError, Work};
use runner_support::golden::Golden;
use runner_support::pipeline::{GREEDY, KV_TOKENS, Piece, Pipeline, slice};
use schema::LayerRange;
use schema::frame::{Sampling, Slice};
use schema::record::{KvRoom, KvType};
use stages::device::{self, DeviceChoice, DeviceSettings};
use stages::format::Format;
use stages::gguf::GgufWriter;
use stages::loader::CpuLoader;
use stages::model::UnsupportedModel;
use stages::selftest::{Shape, write_random};
use stages::weights::ModelFile;

const SMALL: Shape = Shape {
    architecture: "llama",
    layers: 2,
    hidden: 32,
    feed_forward: 32,
    heads: 2,
    kv_heads: 1,
    head: 16,
    vocabulary: 64,
    context: 128,
    window: None,
    format: Format::Q8_0,
};

fn one_thread() -> NonZeroUsize {
    NonZeroUsize::new(1).unwrap()
}

fn write(folder: &tempfile::TempDir, shape: Shape) -> std::path::PathBuf {
    let path = folder.path().join("model.gguf");
    write_random(&path, shape).unwrap();
    path
}

fn loader(path: &Path) -> Result<CpuLoader, UnsupportedModel> {
    CpuLoader::new(ModelFile::open(path).unwrap(), one_thread(), None)
}

fn room(tokens: u32) -> KvRoom {
    KvRoom { tokens, kv_type: KvType::F16 }
}

fn range(start: u32, end: u32) -> LayerRange {
    LayerRange::new(start, end).unwrap()
}

#[test]
fn work_that_does_not_fit_is_refused_by_field_and_the_shard_stays_usable() {
    let folder = tempfile::tempdir().unwrap();
    let mut pipeline = Pipeline::new(&write(&folder, SMALL), &[], 1);
    let blocks_each = pipeline.blocks_each();
    let good = || slice(Piece { sequence: 0, position: 0, tokens: &[1, 2, 3] }, blocks_each);
    let mut refuse = |field: &str, change: &dyn Fn(&mut Slice)| {
        let mut slice = good();
        change(&mut slice);
        let error = pipeline.step(Work { slices: &[slice], activations: &[] }).unwrap_err();
        assert!(matches!(&error, RunnerError::Work { field: found, .. } if *found == field), "{field}: {error}");
        let good = pipeline.step(Work { slices: &[good()], activations: &[] }).unwrap();
        assert!(matches!(good, Output::Tokens { chosen, .. } if chosen.len() == 3), "after a bad {field}");
    };
    refuse("count", &|slice| slice.count = 0);
    refuse("position + count", &|slice| slice.position = 126);
    refuse("position + count", &|slice| slice.position = u32::MAX);
    refuse("position + count", &|slice| slice.count = u32::MAX);
    refuse("blocks", &|slice| slice.blocks.clear());
    refuse("blocks", &|slice| (slice.position, slice.blocks) = (31, vec![0]));
    refuse("block", &|slice| slice.blocks[1] = KV_TOKENS / 32);
    refuse("tokens", &|slice| slice.tokens.truncate(2));
    refuse("tokens", &|slice| slice.tokens.clear());
    refuse("token", &|slice| slice.tokens[1] = 64);
    refuse("logits", &|slice| slice.logits = vec![3]);
    refuse("logits", &|slice| slice.logits = vec![1, 1]);
    refuse("logits", &|slice| slice.logits = vec![2, 0]);
    refuse("hidden_states", &|slice| slice.hidden_states = vec![1]);
    refuse("hidden_states", &|slice| (slice.logits, slice.hidden_states) = (vec![], vec![3]));
    refuse("hidden_states", &|slice| (slice.logits, slice.hidden_states) = (vec![], vec![1, 0]));
    refuse("temperature", &|slice| slice.rule.sampling = Sampling { temperature: f32::NAN, ..GREEDY });
    refuse("temperature", &|slice| slice.rule.sampling = Sampling { temperature: -1.0, ..GREEDY });
    refuse("top_p", &|slice| slice.rule.sampling = Sampling { top_p: 1.5, ..GREEDY });
    refuse("min_p", &|slice| slice.rule.sampling = Sampling { min_p: f32::INFINITY, ..GREEDY });
    let error = pipeline.step(Work { slices: &[], activations: &[] }).unwrap_err();
    assert!(matches!(error, RunnerError::Work { field: "slices", .. }));
    let error = pipeline.step(Work { slices: &[good()], activations: &[0.0; 96] }).unwrap_err();
    assert_eq!(error.to_string(), "activations is 96: expected 0 values");
}

#[test]
fn a_later_stage_takes_activations_and_no_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, SMALL);
    let mut shard = loader(&path).unwrap().load(range(1, 2), room(KV_TOKENS), u64::MAX).unwrap();
    let with_tokens = slice(Piece { sequence: 0, position: 0, tokens: &[1, 2] }, 4);
    let without = Slice { tokens: Vec::new(), ..with_tokens.clone() };
    let mut step = |slice: &Slice, values: usize| {
        shard.runner.step(Work { slices: std::slice::from_ref(slice), activations: &vec![0.5; values] })
    };
    assert!(matches!(step(&with_tokens, 64).unwrap_err(), RunnerError::Work { field: "tokens", .. }));
    assert!(matches!(step(&without, 63).unwrap_err(), RunnerError::Work { field: "activations", .. }));
    let Output::Tokens { chosen, .. } = step(&without, 64).unwrap() else { panic!("the last stage chooses tokens") };
    let positions: Vec<u32> = chosen.iter().map(|chosen| chosen.position).collect();
    assert_eq!(positions, [1, 2]);
}

#[test]
fn two_slices_with_the_same_blocks_cause_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let mut pipeline = Pipeline::new(&write(&folder, SMALL), &[], 2);
    let slices: Vec<Slice> =
        (0..20).map(|_| slice(Piece { sequence: 0, position: 0, tokens: &[1, 2, 3] }, 4)).collect();
    let outcome = pipeline.step(Work { slices: &slices, activations: &[] }).unwrap();
    assert!(matches!(outcome, Output::Tokens { chosen, .. } if chosen.len() == 60));
}

#[test]
fn nan_activations_are_an_error_and_do_not_affect_other_sequences() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, SMALL);
    let mut shard = loader(&path).unwrap().load(range(1, 2), room(KV_TOKENS), u64::MAX).unwrap();
    let slice = |sequence| Slice { tokens: Vec::new(), ..slice(Piece { sequence, position: 0, tokens: &[1] }, 4) };
    let before = shard.runner.step(Work { slices: &[slice(1)], activations: &[0.5; 32] }).unwrap();
    let error = shard.runner.step(Work { slices: &[slice(0)], activations: &[f32::NAN; 32] }).unwrap_err();
    assert!(matches!(error, RunnerError::Device(_)), "{error}");
    let after = shard.runner.step(Work { slices: &[slice(1)], activations: &[0.5; 32] }).unwrap();
    assert_eq!(before, after);
}

#[test]
fn a_block_given_to_another_sequence_holds_nothing_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, SMALL);
    let tokens: Vec<u32> = (0..50).map(|index| index * 7 % 64).collect();
    let piece = Piece { sequence: 0, position: 0, tokens: &tokens[..33] };
    let fresh = Pipeline::new(&path, &[], 1).logits(&[piece]);
    let mut used = Pipeline::new(&path, &[], 1);
    used.logits(&[Piece { sequence: 0, position: 0, tokens: &tokens }]);
    assert_eq!(used.logits(&[piece]), fresh);
}

#[test]
fn a_shard_over_its_budget_is_refused_with_both_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let loader = loader(&write(&folder, SMALL)).unwrap();
    let bound = loader.memory_bound(range(0, 2), room(1024));
    assert!(loader.load(range(0, 2), room(1024), bound).is_ok());
    let Err(error) = loader.load(range(0, 2), room(1024), bound - 1) else { panic!("it was loaded") };
    let LoadError::OverBudget { needed_bytes, budget_bytes, .. } = error else { panic!("{error}") };
    assert_eq!((needed_bytes, budget_bytes), (bound, bound - 1));
    assert!(loader.memory_bound(range(0, 1), room(1024)) < bound);
    assert!(loader.memory_bound(range(0, 2), room(4096)) > bound);
}

#[test]
fn keys_and_values_in_8_bits_take_34_bytes_of_the_bound_where_half_precision_takes_64() {
    let folder = tempfile::tempdir().unwrap();
    let shape = Shape { head: 64, hidden: 64, ..SMALL };
    let path = write(&folder, shape);
    let loader = loader(&path).unwrap();
    let bound = |kv_type| loader.memory_bound(range(0, 2), KvRoom { kv_type, ..room(1024) });
    // Two layers, 1024 tokens, a key and a value, two bytes per number.
    let kv_bytes = 2 * 1024 * 2 * 2 * u64::from(shape.kv_heads * shape.head);
    assert_eq!(bound(KvType::F16) - bound(KvType::Q8), kv_bytes * (64 - 34) / 64);
    let record = |kv_type| {
        let room = KvRoom { kv_type, ..room(1024) };
        stages::model_record(&ModelFile::open(&path).unwrap(), room, 1).unwrap()
    };
    let (half, eight) = (record(KvType::F16), record(KvType::Q8));
    assert_eq!(eight.kv_bytes_per_token_layer * 64, half.kv_bytes_per_token_layer * 34);
    assert_eq!(half.shard_bytes(range(0, 2)).kv, kv_bytes);
    assert_eq!(eight.scratch_bytes, half.scratch_bytes);
}

#[test]
fn layers_past_the_last_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let loader = loader(&write(&folder, SMALL)).unwrap();
    let Err(error) = loader.load(range(1, 3), room(64), u64::MAX) else { panic!("it was loaded") };
    assert!(error.to_string().contains("1..3"), "{error}");
}

#[test]
fn room_for_tokens_is_rounded_up_to_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let loader = loader(&write(&folder, SMALL)).unwrap();
    assert_eq!(loader.load(range(0, 2), room(33), u64::MAX).unwrap().kv_blocks, 2);
    assert_eq!(loader.describe().threads, 1);
}

/// The error for a file of metadata and an embedding table, which is enough for a refusal.
fn refused(file: GgufWriter) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let dims = [32, 64];
    let table = file.tensor("token_embd.weight", &dims, Format::F32, vec![0; 32 * 64 * 4]).unwrap();
    table.write_file(&path).unwrap();
    loader(&path).unwrap_err().to_string()
}

fn llama() -> GgufWriter {
    GgufWriter::new()
        .metadata("general.architecture", "llama")
        .metadata("llama.block_count", 1u32)
        .metadata("llama.context_length", 128u32)
        .metadata("llama.embedding_length", 32u32)
        .metadata("llama.feed_forward_length", 32u32)
        .metadata("llama.attention.head_count", 2u32)
        .metadata("llama.attention.layer_norm_rms_epsilon", 1e-5_f32)
}

#[test]
fn an_unknown_architecture_is_refused_with_the_known_ones() {
    let error = refused(GgufWriter::new().metadata("general.architecture", "mamba"));
    let known = "llama, qwen2, qwen3, qwen2moe, qwen3moe, deepseek2, gemma2, gemma3, glm4moe, gpt-oss, granite, \
                 minimax-m2, mistral3, olmo2, phi3, smollm3, gemma4, glm4, granitemoe, ernie4_5-moe, hunyuan-moe, \
                 llama4, qwen2vl, qwen3vl, qwen3vlmoe, bert, nomic-bert, lfm2";
    assert_eq!(error, format!("architecture \"mamba\" is not supported: expected one of {known}"));
}

#[test]
fn features_that_are_not_implemented_are_refused_by_key() {
    let gemma4 = || GgufWriter::new().metadata("general.architecture", "gemma4");
    let cases: [(GgufWriter, &str); 9] = [
        (
            llama().metadata("llama.rope.scaling.type", "yarn"),
            "\"llama.rope.scaling.type\": expected none, linear or llama3, found \"yarn\"",
        ),
        (
            GgufWriter::new().metadata("general.architecture", "qwen3").metadata("qwen3.expert_count", 8u32),
            "\"qwen3.expert_count\": expected 0",
        ),
        (llama().metadata("llama.final_logit_softcapping", 30.0_f32), "\"llama.final_logit_softcapping\": expected 0"),
        (llama().metadata("llama.logit_scale", 0.5_f32), "\"llama.logit_scale\": expected 1"),
        (llama().metadata("llama.expert_group_count", 2u32), "\"llama.expert_group_count\": expected 0 or 1"),
        (
            gemma4().metadata("gemma4.embedding_length_per_layer_input", 256u32),
            "\"gemma4.embedding_length_per_layer_input\": expected 0, as the embeddings by layer and the shared keys \
             of E2B and E4B are not implemented, found 256",
        ),
        (
            gemma4().metadata("gemma4.attention.shared_kv_layers", 20u32),
            "\"gemma4.attention.shared_kv_layers\": expected 0",
        ),
        (llama().metadata("llama.attention.causal", false), "\"llama.attention.causal\": expected true"),
        (
            llama().metadata("llama.attention.head_count_kv", 3u32),
            "\"llama.attention.head_count_kv\": expected a divisor",
        ),
    ];
    for (file, expected) in cases {
        let error = refused(file);
        assert!(error.contains(expected), "expected {expected}: {error}");
    }
}

#[test]
fn values_out_of_range_are_refused_by_key() {
    let cases: [(GgufWriter, &str); 5] = [
        (llama().metadata("llama.rope.dimension_count", 18u32), "\"llama.rope.dimension_count\": expected an even"),
        (llama().metadata("llama.rope.dimension_count", 3u32), "\"llama.rope.dimension_count\": expected an even"),
        (llama().metadata("llama.rope.freq_base", f32::NAN), "\"llama.rope.freq_base\": expected a positive"),
        (llama().metadata("llama.attention.head_count_kv", 0u32), "\"llama.attention.head_count_kv\": expected 1 to"),
        (llama().metadata("llama.attention.key_length", u32::MAX), "\"llama.attention.key_length\": expected 1 to"),
    ];
    for (file, expected) in cases {
        let error = refused(file);
        assert!(error.contains(expected), "expected {expected}: {error}");
    }
}

#[test]
fn a_window_is_refused_in_families_that_have_none_here() {
    let golden = Golden::read("qwen2");
    assert!(golden.config["sliding_window"].is_null());
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, Shape { architecture: "qwen2", window: Some(16), ..SMALL });
    let error = loader(&path).unwrap_err().to_string();
    assert!(error.contains("\"qwen2.attention.sliding_window\": expected none below the context of 128"), "{error}");
}

#[test]
fn a_tensor_of_the_wrong_shape_missing_or_unknown_is_refused_by_name() {
    let error = refused(llama());
    assert_eq!(error, "tensor \"blk.0.attn_norm.weight\": expected one in every model of this family, found none");
    let error = refused(llama().tensor("output_norm.weight", &[31], Format::F32, vec![0; 124]).unwrap());
    assert_eq!(error, "tensor \"output_norm.weight\": expected dimensions [32], found [31]");
    let error = refused(llama().tensor("blk.0.ffn_gate_inp.weight", &[32], Format::F32, vec![0; 128]).unwrap());
    assert_eq!(error, "tensor \"blk.0.ffn_gate_inp.weight\": expected none of this name in a llama model, found one");
}

#[test]
fn a_device_that_is_not_built_in_is_refused_with_how_to_build_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = ModelFile::open(&write(&folder, SMALL)).unwrap();
    let settings =
        |device| DeviceSettings { device, threads: one_thread(), budget_bytes: Some(1 << 20), has_weights: true };
    let Err(error) = device::loader(file.clone(), settings(DeviceChoice::Metal)) else { panic!("metal is there") };
    assert!(error.to_string().contains("--features metal"), "{error}");
    if !stages::gpu::has_cuda_driver() {
        let Err(error) = device::loader(file.clone(), settings(DeviceChoice::Cuda)) else { panic!("cuda is there") };
        assert!(error.to_string().starts_with("cannot use the device cuda: NVIDIA's driver (libcuda)"), "{error}");
        let record = device::loader(file.clone(), settings(DeviceChoice::Auto)).unwrap().describe();
        assert_eq!((record.device, record.device_reason), (schema::record::DeviceKind::Cpu, None));
    }
    let loader = device::loader(file, settings(DeviceChoice::Cpu)).unwrap();
    assert_eq!(loader.describe().memory_budget_bytes, 1 << 20);
}

#[test]
fn heads_that_are_not_whole_blocks_are_refused_in_8_bits() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, SMALL);
    let room = KvRoom { tokens: 64, kv_type: KvType::Q8 };
    let expected = "heads have 16 and 16 values: expected multiples of 32, or f16";
    let error = stages::model_record(&ModelFile::open(&path).unwrap(), room, 1).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
    let Err(error) = loader(&path).unwrap().load(range(0, 2), room, u64::MAX) else { panic!("it was loaded") };
    assert!(error.to_string().contains(expected), "{error}");
}
