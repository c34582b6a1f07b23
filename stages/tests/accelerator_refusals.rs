//! Refusals of candle's runner and loader. A failed step does not affect other sequences.

mod accelerator_support;
mod runner_support;

use std::path::{Path, PathBuf};

use accelerator_support::{Shards, stand_in};
use engine::runner::{LoadError, Loader, Output, RunnerError, Work};
use runner_support::golden::Golden;
use runner_support::pipeline::{GREEDY, KV_TOKENS, Piece, Pipeline, slice};
use schema::LayerRange;
use schema::frame::{Sampling, Slice};
use schema::record::DeviceKind;
use schema::record::{KvRoom, KvType};
use stages::accelerator::CandleLoader;
use stages::format::Format;
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
const BLOCKS_EACH: u32 = 4;

fn write(folder: &tempfile::TempDir) -> PathBuf {
    let path = folder.path().join("model.gguf");
    write_random(&path, SMALL).unwrap();
    path
}

fn loader(path: &Path) -> CandleLoader {
    loader_on(DeviceKind::Cpu, path).unwrap()
}

fn loader_on(kind: DeviceKind, path: &Path) -> Result<CandleLoader, UnsupportedModel> {
    CandleLoader::new(ModelFile::open(path).unwrap(), stand_in(kind), 1, None)
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
    let mut shards = Shards::new(&write(&folder), &[]);
    let good = || slice(Piece { sequence: 0, position: 0, tokens: &[1, 2, 3] }, BLOCKS_EACH);
    let mut refuse = |field: &str, change: &dyn Fn(&mut Slice)| {
        let mut slice = good();
        change(&mut slice);
        let error = shards.step(Work { slices: &[slice], activations: &[] }).unwrap_err();
        assert!(matches!(error, RunnerError::Work { field: found, .. } if found == field), "{field}: {error}");
    };
    refuse("count", &|slice| slice.count = 0);
    refuse("position + count", &|slice| slice.position = 126);
    refuse("position + count", &|slice| slice.position = u32::MAX);
    refuse("blocks", &|slice| slice.blocks.clear());
    refuse("block", &|slice| slice.blocks[3] = KV_TOKENS / 32);
    refuse("tokens", &|slice| slice.tokens.truncate(2));
    refuse("token", &|slice| slice.tokens[1] = 64);
    refuse("logits", &|slice| slice.logits = vec![3]);
    refuse("temperature", &|slice| slice.rule.sampling = Sampling { temperature: f32::NAN, ..GREEDY });
    let outcome = shards.step(Work { slices: &[good()], activations: &[] }).unwrap();
    assert!(matches!(outcome, Output::Tokens { chosen, .. } if chosen.len() == 3));
}

#[test]
fn families_that_it_does_not_compute_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let cases = [
        ("mixtral", "experts"),
        ("qwen2_moe", "experts"),
        ("qwen3_moe", "experts"),
        ("qwen3_vl_moe", "experts"),
        ("hunyuan_v1_moe", "experts"),
        ("granitemoe", "scaled or bounded values"),
        ("granite", "scaled or bounded values"),
        ("deepseek_v2", "layers that differ"),
        ("ernie4_5_moe", "layers that differ"),
        ("glm4_moe", "layers that differ"),
        ("gemma2", "layers that differ"),
        ("gemma3", "several rotary embeddings"),
        ("gemma4-moe", "several rotary embeddings"),
        ("gpt_oss", "layers that differ"),
        ("llama4", "layers that differ"),
        ("smollm3", "layers that differ"),
        ("lfm2", "layers that differ"),
        ("glm4", "norms of what layers add"),
        ("olmo2", "norms of what layers add"),
        ("minimax_m2", "experts"),
        ("phi3-longrope", "its rotary embedding"),
    ];
    for (name, feature) in cases {
        let golden = Golden::read(name);
        golden.write_gguf(&path);
        let error = loader_on(DeviceKind::Cuda, &path).unwrap_err().to_string();
        let expected = format!(
            "{} models are not computed on a GPU, because of {feature}: expected equal dense layers, or the device cpu \
             (`--device cpu`), which computes every model",
            golden.architecture()
        );
        assert_eq!(error, expected, "{name}");
    }
    // Plain rotation is all that a text needs of positions with several parts.
    for name in ["llama", "qwen2", "qwen3", "qwen2_vl", "qwen3_vl"] {
        Golden::read(name).write_gguf(&path);
        assert!(loader_on(DeviceKind::Cuda, &path).is_ok(), "{name}");
    }
}

#[test]
fn tokens_are_those_of_the_cpu_runner_in_order_and_with_their_positions() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder);
    let mut slices: Vec<Slice> = [(0, &[1, 2, 3][..]), (1, &[9]), (2, &[4, 5])]
        .map(|(sequence, tokens)| slice(Piece { sequence, position: 0, tokens }, BLOCKS_EACH))
        .into();
    slices[0].logits = vec![2];
    slices[2].rule.sampling = Sampling { temperature: 0.8, seed: 7, ..GREEDY };
    let [found, expected] = [
        Shards::new(&path, &[]).step(Work { slices: &slices, activations: &[] }).unwrap(),
        Pipeline::new(&path, &[], 1).step(Work { slices: &slices, activations: &[] }).unwrap(),
    ]
    .map(|outcome| {
        let Output::Tokens { chosen, .. } = outcome else { panic!("the last stage chooses tokens") };
        chosen.iter().map(|chosen| (chosen.sequence, chosen.position, chosen.token)).collect::<Vec<_>>()
    });
    assert_eq!(found, expected);
    assert_eq!(
        found.iter().map(|(sequence, position, _)| (sequence.0, *position)).collect::<Vec<_>>(),
        [(0, 3), (1, 1), (2, 1), (2, 2)]
    );
}

#[test]
fn a_step_without_requested_logits_gives_no_tokens_and_fills_the_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder);
    let tokens: Vec<u32> = (0..40).map(|index| index * 7 % 64).collect();
    let mut shards = Shards::new(&path, &[]);
    let mut first = slice(Piece { sequence: 0, position: 0, tokens: &tokens[..39] }, BLOCKS_EACH);
    first.logits.clear();
    let outcome = shards.step(Work { slices: &[first], activations: &[] }).unwrap();
    assert_eq!(outcome, Output::Tokens { chosen: Vec::new(), hidden_states: Vec::new() });
    let found = shards.logits(&[Piece { sequence: 0, position: 39, tokens: &tokens[39..] }]);
    let whole = Shards::new(&path, &[]).logits(&[Piece { sequence: 0, position: 0, tokens: &tokens }]);
    assert!(accelerator_support::largest_difference(&found, &whole[39..]) < 0.05, "{found:?}");
}

#[test]
fn nan_activations_are_an_error_and_do_not_affect_later_users_of_the_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    // Products with quantised weights turn NaN into zero. Products with F32 weights do not.
    write_random(&path, Shape { format: Format::F32, ..SMALL }).unwrap();
    let mut shard = loader(&path).load(range(1, 2), room(KV_TOKENS), u64::MAX).unwrap().runner;
    let rows = |wanted: &[u32]| Slice {
        tokens: Vec::new(),
        logits: wanted.to_vec(),
        ..slice(Piece { sequence: 0, position: 0, tokens: &[1, 1, 1] }, BLOCKS_EACH)
    };
    let one = Slice { count: 1, ..rows(&[0]) };
    let before = shard.step(Work { slices: std::slice::from_ref(&one), activations: &[0.5; 32] }).unwrap();
    for wanted in [&[2][..], &[]] {
        // Only the last row is NaN. A later sequence in the same block masks it, but does not overwrite it.
        let mut values = [0.5; 96];
        values[64..].fill(f32::NAN);
        let error = shard.step(Work { slices: &[rows(wanted)], activations: &values }).unwrap_err();
        assert!(matches!(error, RunnerError::Device(_)), "{error}");
        let after = shard.step(Work { slices: std::slice::from_ref(&one), activations: &[0.5; 32] }).unwrap();
        assert_eq!(before, after);
    }
}

#[test]
fn a_middle_stage_refuses_to_forward_infinite_activations() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    write_random(&path, Shape { layers: 3, ..SMALL }).unwrap();
    let mut shard = loader(&path).load(range(1, 2), room(KV_TOKENS), u64::MAX).unwrap().runner;
    let slice = Slice { tokens: Vec::new(), ..slice(Piece { sequence: 0, position: 0, tokens: &[1] }, BLOCKS_EACH) };
    let error = shard.step(Work { slices: &[slice], activations: &[f32::INFINITY; 32] }).unwrap_err();
    assert!(matches!(error, RunnerError::Device(_)), "{error}");
}

#[test]
fn a_shard_over_its_budget_is_refused_with_both_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let loader = loader(&write(&folder));
    let bound = loader.memory_bound(range(0, 2), room(1024));
    let loaded = loader.load(range(0, 2), room(1000), bound).unwrap();
    assert_eq!(loaded.kv_blocks, 32, "room is rounded up to blocks");
    assert!(loaded.weights_bytes > 0 && loaded.weights_bytes < bound);
    let Err(error) = loader.load(range(0, 2), room(1024), bound - 1) else { panic!("it was loaded") };
    let LoadError::OverBudget { needed_bytes, budget_bytes, .. } = error else { panic!("{error}") };
    assert_eq!((needed_bytes, budget_bytes), (bound, bound - 1));
    assert!(loader.memory_bound(range(0, 1), room(1024)) < bound);
    assert!(loader.memory_bound(range(0, 2), room(4096)) > bound);
}

#[test]
fn keys_and_values_in_8_bits_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    write_random(&path, Shape { head: 32, hidden: 64, ..SMALL }).unwrap();
    let room = KvRoom { tokens: 64, kv_type: KvType::Q8 };
    let Err(error) = loader(&path).load(range(0, 2), room, u64::MAX) else { panic!("it was loaded") };
    assert!(error.to_string().contains("to be kept as q8_0: expected f16"), "{error}");
    assert!(loader(&path).load(range(0, 2), KvRoom { kv_type: KvType::F16, ..room }, u64::MAX).is_ok());
}

#[test]
fn metal_refuses_q2_k_by_name_and_lists_the_alternatives() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    write_random(&path, Shape { format: Format::Q2K, hidden: 256, feed_forward: 256, heads: 16, ..SMALL }).unwrap();
    let error = loader_on(DeviceKind::Metal, &path).unwrap_err().to_string();
    // The output head's matrix, which is the embedding table.
    let expected = "tensor \"token_embd.weight\": expected one of F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q3_K, \
                    Q4_K, Q5_K, Q6_K on the device metal, or the device cpu (`--device cpu`), which computes every \
                    format, found Q2_K: candle 0.11.1's kernel for one row writes past its output";
    assert_eq!(error, expected);
    for kind in [DeviceKind::Cpu, DeviceKind::Cuda] {
        assert!(loader_on(kind, &path).is_ok(), "{kind:?}");
    }
}

#[test]
fn the_bound_counts_16_bit_matrices_as_the_floats_they_become_on_metal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let loaded = |kind, layers| {
        let loader = loader_on(kind, &path).unwrap();
        let bound = loader.memory_bound(layers, room(64));
        let Err(error) = loader.load(layers, room(64), bound - 1) else { panic!("it was loaded") };
        assert!(matches!(error, LoadError::OverBudget { needed_bytes, .. } if needed_bytes == bound), "{error}");
        (loader.load(layers, room(64), bound).unwrap().weights_bytes, bound)
    };
    for format in [Format::F16, Format::BF16, Format::Q8_0] {
        write_random(&path, Shape { format, ..SMALL }).unwrap();
        // Queries and outputs, keys and values, three of the feed-forward layer. The output head's matrix is the
        // embedding table.
        let (layer, head) = (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 32, 32 * 64);
        for (layers, values) in [(range(0, 1), layer), (range(0, 2), 2 * layer + head)] {
            let (weights, bound) = loaded(DeviceKind::Cpu, layers);
            let (on_metal, bound_on_metal) = loaded(DeviceKind::Metal, layers);
            let more = if format == Format::Q8_0 { 0 } else { 2 * values };
            assert_eq!((on_metal - weights, bound_on_metal - bound), (more, more), "{} {layers}", format.name());
        }
    }
}

#[test]
fn layers_past_the_last_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let Err(error) = loader(&write(&folder)).load(range(1, 3), room(64), u64::MAX) else { panic!("it was loaded") };
    assert!(error.to_string().contains("1..3"), "{error}");
}

#[test]
fn the_record_names_the_device_and_its_memory() {
    let folder = tempfile::tempdir().unwrap();
    let record = loader(&write(&folder)).describe();
    assert_eq!((record.device, record.threads), (DeviceKind::Cpu, 1));
    assert!(record.memory_budget_bytes > 0 && record.memory_budget_bytes <= record.memory_total_bytes, "{record:?}");
}
