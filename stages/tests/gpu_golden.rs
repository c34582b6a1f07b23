//! Whole golden models on the simulated GPU: against transformers and the processor's runner, and with equal bits in
//! chunks, in cuts and beside other sequences. `etc/check-msl` builds the simulator and runs these tests.

mod gpu_support;
mod runner_support;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use engine::runner::{KV_BLOCK_TOKENS, Loader, Output, Runner, Work};
use gpu_support::open;
use runner_support::golden::Golden;
use runner_support::pipeline::{KV_TOKENS, Piece, Pipeline, bits, for_hidden_states, hidden_states, slice};
use schema::LayerRange;
use schema::frame::Slice;
use schema::record::{DeviceKind, KvRoom, KvType};
use stages::device::{DeviceChoice, DeviceSettings, adapter_or_processor};
use stages::format::Format;
use stages::gpu::{
    Adapter, DeviceBuffer, DeviceMemory, Gpu, GpuError, GpuLoader, GpuRunner, Kernel, Launch, PagesView, Recorder,
    RowsAtOnce, SimBuffer, SimGpu,
};
use stages::model::ModelSpec;
use stages::selftest::{Shape, write_random};
use stages::shard::{RunnerSetup, SetupError};
use stages::weights::{Mapping, ModelFile};

/// Largest difference of a logit from the processor's runner, both with keys and values in half precision: a number
/// midway between two half-precision numbers may be rounded to either.
const TOLERANCE: f32 = 5e-4;
/// The same for keys and values in 8 bits, where a number may be rounded to either of two neighbouring bytes.
const TOLERANCE_OF_BYTES: f32 = 1e-2;

/// All shards of a model.
struct Shards {
    runners: Vec<GpuRunner<Recorder<SimGpu>>>,
    spec: ModelSpec,
}

impl Shards {
    fn new(path: &Path, cuts: &[u32], kv_type: KvType, seed: u64) -> Self {
        Self::open(path, cuts, kv_type, seed).expect("the shards are ready")
    }

    fn open(path: &Path, cuts: &[u32], kv_type: KvType, seed: u64) -> Result<Self, SetupError> {
        let file = ModelFile::open(path).expect("the model opens");
        let spec = ModelSpec::read(file.header()).expect("the model is supported");
        let ends: Vec<u32> = [0].iter().chain(cuts).chain([&spec.layer_count()]).copied().collect();
        let runner = |ends: &[u32]| {
            let shard = file.map(LayerRange::new(ends[0], ends[1]).expect("a range")).expect("the shard maps");
            let room = KvRoom { tokens: KV_TOKENS, kv_type };
            GpuRunner::new(RunnerSetup { spec: spec.clone(), shard, room }, Recorder::new(open(seed)))
        };
        Ok(Self { runners: ends.windows(2).map(runner).collect::<Result<_, _>>()?, spec: spec.clone() })
    }

    /// The logits at every position of the pieces, in one micro-batch.
    fn logits(&mut self, pieces: &[Piece<'_>]) -> Vec<Vec<f32>> {
        let (slices, activations) = self.before_last(pieces, |slice| slice);
        let last = self.runners.last_mut().expect("a shard");
        let logits = last.logits(&Work { slices: &slices, activations: &activations }).expect("it runs");
        logits.chunks_exact(self.spec.vocabulary).map(<[f32]>::to_vec).collect()
    }

    /// The output of a step of the last shard, with its slices.
    fn step(&mut self, pieces: &[Piece<'_>], ask: fn(Slice) -> Slice) -> (Output, Vec<Slice>) {
        let (slices, activations) = self.before_last(pieces, ask);
        let work = Work { slices: &slices, activations: &activations };
        let output = self.runners.last_mut().expect("a shard").step(work).expect("it runs");
        (output, slices)
    }

    fn before_last(&mut self, pieces: &[Piece<'_>], ask: fn(Slice) -> Slice) -> (Vec<Slice>, Vec<f32>) {
        let blocks_each = self.spec.context_tokens.div_ceil(KV_BLOCK_TOKENS);
        let mut slices: Vec<Slice> = pieces.iter().map(|piece| ask(slice(*piece, blocks_each))).collect();
        let mut activations = Vec::new();
        let others = self.runners.len() - 1;
        for runner in &mut self.runners[..others] {
            let work = Work { slices: &slices, activations: &activations };
            let Output::Activations(rows) = runner.step(work).expect("it runs") else {
                panic!("only the last shard gives tokens")
            };
            activations = rows;
            slices.iter_mut().for_each(|slice| slice.tokens.clear());
        }
        (slices, activations)
    }
}

fn whole(ids: &[u32]) -> [Piece<'_>; 1] {
    [Piece { sequence: 0, position: 0, tokens: ids }]
}

/// The logits of a sequence that is computed in chunks.
fn chunked(shards: &mut Shards, sequence: u32, ids: &[u32], chunk: usize) -> Vec<Vec<f32>> {
    let pieces = (0..).step_by(chunk).zip(ids.chunks(chunk));
    pieces.flat_map(|(position, tokens)| shards.logits(&[Piece { sequence, position, tokens }])).collect()
}

/// The logits of three sequences of the same tokens, each a step ahead of the next, in micro-batches that mix chunks of
/// five and single tokens.
fn staggered(shards: &mut Shards, ids: &[u32]) -> Vec<Vec<Vec<f32>>> {
    let chunks: [Vec<(u32, &[u32])>; 3] = [5, 1, 5].map(|chunk| (0..).step_by(chunk).zip(ids.chunks(chunk)).collect());
    let mut found = vec![Vec::new(); 3];
    for step in 0..ids.len() + 2 {
        let piece = |sequence: usize| {
            let (position, tokens) = *chunks[sequence].get(step.checked_sub(sequence)?)?;
            Some(Piece { sequence: sequence as u32, position, tokens })
        };
        let pieces: Vec<Piece<'_>> = (0..3).filter_map(piece).collect();
        let mut rows = if pieces.is_empty() { Vec::new() } else { shards.logits(&pieces) }.into_iter();
        for piece in pieces {
            found[piece.sequence as usize].extend(rows.by_ref().take(piece.tokens.len()));
        }
    }
    found
}

fn largest_difference(found: &[Vec<f32>], expected: &[Vec<f32>]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().flatten().zip(expected.iter().flatten());
    pairs.map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max)
}

/// The parts of a check. A row takes the simulator about a tenth of a second.
#[derive(Clone, Copy, PartialEq)]
enum Extent {
    /// Against the processor and in chunks, and the first tokens.
    Short,
    /// Also one token at a time, beside other sequences, and with keys and values in 8 bits.
    Full,
}

fn check(name: &str, extent: Extent) {
    let golden = Golden::read(name);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    golden.write_gguf(&path);
    let ids = &golden.input_ids;
    check_logits(name, &path, ids, KvType::F16, extent);
    if extent == Extent::Full {
        check_logits(name, &path, ids, KvType::Q8, Extent::Short);
    }
    let tokens = if extent == Extent::Full { golden.greedy.len() } else { 3 };
    check_tokens(name, &path, ids, &golden.greedy[..tokens]);
}

fn check_logits(name: &str, path: &Path, ids: &[u32], kv_type: KvType, extent: Extent) {
    let logits = Shards::new(path, &[], kv_type, 1).logits(&whole(ids));
    let expected = Pipeline::with_kv_type(kv_type, path, &[], 1).logits(&whole(ids));
    let difference = largest_difference(&logits, &expected);
    let tolerance = if kv_type == KvType::F16 { TOLERANCE } else { TOLERANCE_OF_BYTES };
    assert!(difference < tolerance, "{name}, {kv_type}: off by {difference} from the processor's runner");

    let same = |found: &[Vec<f32>], how: &str| {
        let differs = bits(found).iter().zip(bits(&logits)).position(|(found, expected)| *found != expected);
        assert_eq!(differs, None, "{name}, {kv_type}, {how}: the first position that differs");
    };
    same(&chunked(&mut Shards::new(path, &[1], kv_type, 2), 3, ids, 7), "cut before layer 1, chunks of 7");
    if extent == Extent::Full {
        same(&chunked(&mut Shards::new(path, &[], kv_type, 3), 1, &ids[..11], 1), "one token at a time");
        let sequences = staggered(&mut Shards::new(path, &[2], kv_type, 4), &ids[..11]);
        for (sequence, found) in sequences.iter().enumerate() {
            assert_eq!(found.len(), 11);
            same(found, &format!("cut before layer 2, sequence {sequence} of three"));
        }
    }
}

/// Compares the tokens that a step chooses with transformers' greedy ones.
fn check_tokens(name: &str, path: &Path, ids: &[u32], greedy: &[u32]) {
    let mut shards = Shards::new(path, &[], KvType::F16, 5);
    let (mut position, mut tokens) = (0, ids.to_vec());
    let only_last = |slice: Slice| Slice { logits: slice.logits.iter().copied().max().into_iter().collect(), ..slice };
    for expected in greedy {
        let (output, _) = shards.step(&[Piece { sequence: 0, position, tokens: &tokens }], only_last);
        let Output::Tokens { chosen, .. } = output else { panic!("the last shard gives tokens") };
        let [last] = chosen.as_slice() else { panic!("{} tokens: expected one", chosen.len()) };
        assert_eq!(last.token, *expected, "{name}: the token of position {}", last.position);
        assert!(last.logprob < 0.0 && last.logprob > -20.0, "{name}: {}", last.logprob);
        position += tokens.len() as u32;
        tokens = vec![last.token];
    }
}

#[test]
#[ignore = "needs the library that etc/check-msl builds"]
fn llama_agrees_and_keeps_its_bits() {
    check("llama", Extent::Short);
    check("llama-tied", Extent::Short);
}

#[test]
#[ignore = "needs the library that etc/check-msl builds"]
fn mistral_with_its_window_agrees_and_keeps_its_bits() {
    check("mistral", Extent::Short);
}

#[test]
#[ignore = "needs the library that etc/check-msl builds"]
fn qwen2_with_its_biases_agrees_and_keeps_its_bits() {
    check("qwen2", Extent::Short);
}

#[test]
#[ignore = "needs the library that etc/check-msl builds"]
fn qwen3_with_its_norms_of_heads_agrees_and_keeps_its_bits() {
    check("qwen3", Extent::Full);
}

#[test]
#[ignore = "needs the library that etc/check-msl builds"]
fn fused_tensors_and_layers_that_differ_agree_and_keep_their_bits() {
    check("phi3", Extent::Short);
    check("smollm3", Extent::Short);
}

#[test]
#[ignore = "needs the library that etc/check-msl builds"]
fn hidden_states_are_those_of_the_processor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let golden = Golden::read("qwen3");
    golden.write_gguf(&path);
    let ids = &golden.input_ids[..9];
    let (output, slices) = Shards::new(&path, &[2], KvType::F16, 6).step(&whole(ids), for_hidden_states);
    let expected = Pipeline::new(&path, &[], 1).hidden_states(&whole(ids));
    let difference = largest_difference(&hidden_states(output, &slices), &expected);
    assert!(difference < 2e-3, "off by {difference}");
}

const SHAPE: Shape = Shape {
    architecture: "qwen3",
    layers: 3,
    hidden: 256,
    feed_forward: 512,
    heads: 4,
    kv_heads: 2,
    head: 64,
    vocabulary: 320,
    context: 320,
    window: None,
    format: Format::Q4K,
};

/// A random model with matrices of `format`, its shards, and the bytes of its matrices in layers and head.
fn random_model(folder: &Path, format: Format) -> (Shards, usize) {
    let path = folder.join("model.gguf");
    write_random(&path, Shape { format, ..SHAPE }).unwrap();
    let values = 3 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 512 * 256) + 320 * 256;
    (Shards::new(&path, &[], KvType::F16, 7), format.row_bytes(values).expect("whole blocks"))
}

#[test]
#[ignore = "needs the library that etc/check-msl builds"]
fn a_step_of_one_row_takes_nine_launches_a_layer_and_one_submission_and_allocates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut shards, _) = random_model(folder.path(), Format::Q4K);
    let before = shards.runners[0].gpu().records.clone();
    let (output, _) = shards.step(&[Piece { sequence: 0, position: 0, tokens: &[7] }], |slice| slice);
    assert!(matches!(output, Output::Tokens { chosen, .. } if chosen.len() == 1));
    let after = &shards.runners[0].gpu().records;
    // Besides layers: the check of values; norm, product and choice of the head.
    assert_eq!(after.launches.len() - before.launches.len(), 3 * 9 + 4, "{:?}", after.launches);
    assert_eq!(after.submissions - before.submissions, 1);
    assert_eq!((after.allocations, after.mapped_bytes), (before.allocations, before.mapped_bytes));
}

/// The simulated device with one kernel that computes wrongly: it changes a bit of its first output.
struct Faulty {
    device: SimGpu,
    wrong: Option<Kernel>,
}

impl Gpu for Faulty {
    type Buffer = SimBuffer;

    fn map(&mut self, pages: &Arc<Mapping>) -> Result<Vec<PagesView<SimBuffer>>, GpuError> {
        self.device.map(pages)
    }

    fn allocate(&mut self, bytes: usize) -> Result<SimBuffer, GpuError> {
        self.device.allocate(bytes)
    }

    fn encode(&mut self, launch: &Launch<'_, SimBuffer>) -> Result<(), GpuError> {
        self.device.encode(launch)?;
        if Some(launch.kernel) == self.wrong {
            // The exponent of a float, which is in its highest byte.
            let (first, mut byte) = (launch.outputs[0], [0]);
            first.buffer.read(first.offset + 3, &mut byte);
            first.buffer.write(first.offset + 3, &[byte[0] ^ 2]);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), GpuError> {
        self.device.finish()
    }
}

/// The adapter of such devices.
#[derive(Debug)]
struct FaultyAdapter(Option<Kernel>);

impl Adapter for FaultyAdapter {
    type Gpu = Faulty;

    fn open(&self) -> Result<Faulty, GpuError> {
        Ok(Faulty { device: open(9), wrong: self.0 })
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind::Metal
    }

    fn chip(&self) -> String {
        "a simulated device".to_owned()
    }

    fn memory(&self) -> DeviceMemory {
        DeviceMemory { total_bytes: 1 << 30, available_bytes: 1 << 29 }
    }
}

#[test]
#[ignore = "needs the library that etc/check-msl builds"]
fn a_device_that_computes_wrongly_is_refused_by_the_kernel_and_a_right_one_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    write_random(&path, Shape { layers: 1, ..SHAPE }).unwrap();
    let load = |wrong: Option<Kernel>, kv_type: KvType| {
        let loader = GpuLoader::new(ModelFile::open(&path).unwrap(), FaultyAdapter(wrong), 1, None).unwrap();
        assert_eq!((loader.describe().device, loader.describe().memory_budget_bytes), (DeviceKind::Metal, 1 << 29));
        loader.load(LayerRange::new(0, 1).unwrap(), KvRoom { tokens: KV_TOKENS, kv_type }, u64::MAX)
    };
    for kv_type in [KvType::F16, KvType::Q8] {
        assert_eq!(load(None, kv_type).map(|shard| shard.kv_blocks).unwrap(), KV_TOKENS / KV_BLOCK_TOKENS);
        let kernels = [
            Kernel::RmsNorm,
            Kernel::Product(Format::Q4K, RowsAtOnce::Four),
            Kernel::Gated(Format::Q4K, RowsAtOnce::One),
            Kernel::Attend(kv_type),
            Kernel::ChooseToken,
        ];
        for kernel in kernels {
            let error = load(Some(kernel), kv_type).err().expect("it is refused").to_string();
            let name = kernel.name().expect("it has a name");
            assert!(error.contains(&format!("kernel {name}: gives")), "{name}: {error}");
        }
    }
    let error = load(Some(Kernel::MergeAttention), KvType::F16).err().expect("it is refused").to_string();
    assert!(error.contains("kernel attend_f16: gives") && error.contains("merge_attention"), "{error}");
    let error = load(Some(Kernel::FindUnusable), KvType::F16).err().expect("it is refused").to_string();
    assert!(error.contains("kernel find_unusable: gives"), "{error}");
}

#[test]
#[ignore = "needs the library that etc/check-msl builds"]
fn a_device_that_computes_wrongly_is_left_for_the_processor_with_the_reason_in_the_record() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    write_random(&path, SHAPE).unwrap();
    let settings = DeviceSettings {
        device: DeviceChoice::Auto,
        threads: NonZeroUsize::MIN,
        budget_bytes: None,
        has_weights: true,
    };
    let record = |adapter, settings| {
        let file = ModelFile::open(&path).unwrap();
        adapter_or_processor(adapter, file, settings).unwrap().describe()
    };
    let right = record(Ok(FaultyAdapter(None)), settings);
    assert_eq!((right.device, right.device_reason), (DeviceKind::Metal, None));
    let missing = Err(GpuError::Unavailable { device: "metal", cause: "it is asleep".to_owned() });
    let wrong = Ok(FaultyAdapter(Some(Kernel::RmsNorm)));
    let header_only = DeviceSettings { has_weights: false, ..settings };
    for (adapter, settings, expected) in [
        (wrong, settings, "kernel rms_norm: gives"),
        (missing, settings, "cannot use the device metal: it is asleep"),
        (Ok(FaultyAdapter(None)), header_only, "before layers are fetched"),
    ] {
        let record = record(adapter, settings);
        assert_eq!(record.device, DeviceKind::Cpu, "{expected}");
        let reason = record.device_reason.expect("a reason");
        assert!(reason.contains(expected), "{reason}");
    }
}

#[test]
#[ignore = "needs the library that etc/check-msl builds"]
fn the_memory_bound_is_what_a_runner_allocates() {
    let folder = tempfile::tempdir().unwrap();
    let (shards, _) = random_model(folder.path(), Format::Q4K);
    let file = ModelFile::open(&folder.path().join("model.gguf")).unwrap();
    let loader = GpuLoader::new(file.clone(), FaultyAdapter(None), 1, None).unwrap();
    let layers = LayerRange::new(0, 3).unwrap();
    let bound = loader.memory_bound(layers, KvRoom { tokens: KV_TOKENS, kv_type: KvType::F16 });
    let held = file.map(layers).unwrap().bytes() + shards.runners[0].gpu().records.allocated_bytes as u64;
    // The sampler's memory is the host's, and only biases that the model does not have are counted for nothing.
    assert!(bound >= held && bound < held + held / 20 + (1 << 20), "{bound} for {held} bytes");
}

#[test]
#[ignore = "needs the library that etc/check-msl builds"]
fn weights_stay_in_the_mapped_pages() {
    let folder = tempfile::tempdir().unwrap();
    let of = |format| {
        let (shards, bytes) = random_model(folder.path(), format);
        (shards.runners[0].gpu().records.clone(), bytes)
    };
    let ((large, large_bytes), (small, small_bytes)) = (of(Format::F32), of(Format::Q4K));
    assert!(large.mapped_bytes >= large_bytes && small.mapped_bytes >= small_bytes, "{large:?}, {small:?}");
    // Whatever the bytes of the matrices, the device allocates the same.
    assert_eq!(large.allocated_bytes, small.allocated_bytes);
    assert!(large_bytes > 7 * small_bytes);
}

#[test]
#[ignore = "needs the library that etc/check-msl builds"]
fn what_the_kernels_do_not_compute_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for (name, feature) in [
        ("mixtral", "experts"),
        ("deepseek_v2", "latent attention"),
        ("gemma2", "scaled or bounded values"),
        ("glm4", "norms of what layers add"),
        ("gpt_oss", "its attention"),
        ("olmo2", "norms of what layers add"),
        ("lfm2", "short convolutions"),
    ] {
        Golden::read(name).write_gguf(&path);
        let error = Shards::open(&path, &[], KvType::F16, 8).err().expect("it is refused").to_string();
        assert!(error.contains(&format!("because of {feature}:")), "{name}: {error}");
    }
    Golden::read("llama-odd").write_gguf(&path);
    let error = Shards::open(&path, &[], KvType::F16, 8).err().expect("it is refused").to_string();
    assert!(error.ends_with("expected rows of a multiple of 8 values, found 45"), "{error}");
    write_random(&path, Shape { format: Format::Tq2_0, ..SHAPE }).unwrap();
    let error = Shards::open(&path, &[], KvType::F16, 8).err().expect("it is refused").to_string();
    assert!(error.contains("expected one of F32, F16, BF16, Q4_0,") && error.ends_with("found TQ2_0"), "{error}");
}
