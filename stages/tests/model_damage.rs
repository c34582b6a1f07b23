//! Damages the metadata and the tensors of a small model of every family, one at a time. Whatever is refused is refused
//! in one sentence with the key or the tensor, what was expected and what was found, before a weight is mapped, or, for
//! values of norms and biases, when they are loaded. Nothing panics.

mod runner_support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use runner_support::golden::Golden;
use schema::LayerRange;
use schema::record::{KvRoom, KvType};
use stages::checkpoint;
use stages::cpu::CpuRunner;
use stages::format::Format;
use stages::gguf::{GgufHeader, GgufWriter, TensorInfo, Value, ValueKind};
use stages::kernels::ThreadPool;
use stages::model::{Family, Mixer, ModelSpec, RopeScaling};
use stages::shard::RunnerSetup;
use stages::weights::ModelFile;

/// A model file in parts.
struct Parts {
    name: String,
    architecture: String,
    metadata: Vec<(String, Value)>,
    tensors: Vec<(TensorInfo, Vec<u8>)>,
}

/// A model of each family: those of odd sizes.
fn families() -> Vec<Parts> {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let folders = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names = folders.filter_map(|folder| Some(folder.strip_prefix("tiny-")?.to_owned()));
    let mut all: Vec<Parts> = names.filter(|name| name.ends_with("-odd")).map(|name| Parts::of(&name)).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let covered: BTreeSet<&str> = all.iter().map(|parts| parts.architecture.as_str()).collect();
    assert_eq!(covered, Family::ALL.iter().map(|family| family.architecture).collect(), "every family has a model");
    all
}

// === impl Parts ===

impl Parts {
    fn of(name: &str) -> Self {
        let golden = Golden::read(name);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        golden.write_gguf(&path);
        let bytes = std::fs::read(&path).unwrap();
        let header = GgufHeader::parse(&bytes).unwrap();
        let metadata = header.metadata.iter().map(|(key, value)| (key.to_owned(), value.clone())).collect();
        let of_tensor = |tensor: &TensorInfo| bytes[tensor.offset as usize..tensor.end() as usize].to_vec();
        let tensors = header.tensors.iter().map(|tensor| (tensor.clone(), of_tensor(tensor))).collect();
        Self { name: name.to_owned(), architecture: golden.architecture().to_owned(), metadata, tensors }
    }

    /// The file with `damage` done to its metadata and its tensors.
    fn writer(&self, damage: impl FnOnce(&mut Vec<(String, Value)>, &mut Vec<(TensorInfo, Vec<u8>)>)) -> GgufWriter {
        let (mut metadata, mut tensors) = (self.metadata.clone(), self.tensors.clone());
        damage(&mut metadata, &mut tensors);
        let mut file = GgufWriter::new();
        for (key, value) in metadata {
            file = file.metadata(&key, value);
        }
        for (tensor, bytes) in tensors {
            file = file.tensor(&tensor.name, &tensor.dims, tensor.format, bytes).unwrap();
        }
        file
    }

    /// The answer of the checks before anything is mapped: an error's sentence, if it is refused.
    fn checked(&self, file: GgufWriter) -> Result<ModelSpec, String> {
        let header = checkpoint::Header::of_gguf(GgufHeader::parse(&file.to_bytes().unwrap()).unwrap());
        let spec = ModelSpec::read(&header).map_err(|error| error.to_string())?;
        spec.check_tensors(&header).map_err(|error| error.to_string())?;
        Ok(spec)
    }
}

/// The name that errors give a tensor: LFM2's files call their last norm by the name of another one.
fn name_in_errors<'a>(parts: &Parts, name: &'a str) -> &'a str {
    if parts.name.starts_with("lfm2") && name == "token_embd_norm.weight" { "output_norm.weight" } else { name }
}

/// The kinds of damage to a value, each with its name. `None` removes the key.
fn damages(value: &Value) -> Vec<(&'static str, Option<Value>)> {
    let mut kinds = vec![("missing", None)];
    let mut add = |name, value: Value| kinds.push((name, Some(value)));
    match value {
        Value::String(_) => {
            add("wrong type", 7_u32.into());
            add("unknown", "another".into());
        }
        Value::Float(..) => {
            add("wrong type", "seven".into());
            let numbers = [("zero", 0.0), ("negative", -1.0), ("huge", f32::MAX), ("infinite", f32::INFINITY)];
            numbers.into_iter().for_each(|(name, number)| add(name, number.into()));
            add("tiny", f32::from_bits(1).into());
            add("not a number", f32::NAN.into());
        }
        Value::Bool(flag) => {
            add("wrong type", "seven".into());
            add("flipped", (!flag).into());
        }
        Value::Integer(..) => {
            add("wrong type", "seven".into());
            add("float", 7.0_f32.into());
            add("zero", 0_u32.into());
            add("negative", (-1_i32).into());
            add("huge", u32::MAX.into());
            add("too wide", u64::MAX.into());
            add("odd", 1_000_003_u32.into());
        }
        Value::Numbers(numbers) => {
            add("wrong type", "seven".into());
            add("empty", (&[] as &[u32]).into());
            match numbers.kind() {
                ValueKind::Bool => add("short", (&[true][..]).into()),
                _ => add("negative", (&[-1_i32; 64][..]).into()),
            }
            add("huge", (&[u32::MAX; 64][..]).into());
            add("zero", (&[0_u32; 64][..]).into());
        }
        other => panic!("the converter writes no {other:?}"),
    }
    kinds
}

/// True if every constant of the model is a finite number, and those that divide or scale are positive.
fn is_finite(spec: &ModelSpec) -> bool {
    let scale = |number: f32| number.is_finite() && number > 0.0;
    let layers = spec.layers.iter().all(|layer| {
        let divisor = match &layer.mixer {
            Mixer::Attention(attention) => attention.score_divisor,
            Mixer::Latent(latent) => latent.score_divisor,
            Mixer::ShortConv(_) => 1.0,
        };
        scale(divisor) && scale(layer.norms.epsilon) && scale(layer.residual_scale)
    });
    let ropes = spec.ropes.iter().all(|rope| {
        let magnitude = match rope.scaling {
            RopeScaling::Linear(divisor) => divisor,
            RopeScaling::Yarn(yarn) => yarn.magnitude,
            RopeScaling::LongRope(long) => long.magnitude,
        };
        let rope = rope.rope(None).expect("there are no factors");
        scale(magnitude) && rope.magnitude().is_finite() && rope.frequencies().iter().all(|one| one.is_finite())
    });
    let head = spec.head.is_none_or(|head| scale(head.scale) && head.softcap.is_none_or(scale));
    let added = spec.embedding.added.is_none_or(|added| scale(added.norm_epsilon));
    layers && ropes && head && added && scale(spec.embedding.scale)
}

/// Checks the form of a refusal.
fn assert_sentence(error: &str, damage: &str) {
    let named = error.contains("metadata key \"") || error.contains("tensor \"");
    let whole = named && error.contains(": expected ") && error.contains(", found ");
    assert!(
        whole || error.starts_with("architecture \"another\" is not supported: expected one of "),
        "{damage}: {error}"
    );
    assert!(!error.contains('\n') && error.len() < 600, "{damage}: {error}");
}

#[test]
fn damaged_metadata_of_every_family_is_refused_by_key_or_harmless() {
    let (mut kinds, mut refused) = (0, 0);
    let mut unread = BTreeSet::new();
    for parts in families() {
        assert!(parts.checked(parts.writer(|_, _| {})).is_ok(), "{} is whole", parts.name);
        for index in 0..parts.metadata.len() {
            let key = parts.metadata[index].0.clone();
            for (kind, value) in damages(&parts.metadata[index].1) {
                let damage = format!("{}: {key} {kind}", parts.name);
                let file = parts.writer(|metadata, _| match value.clone() {
                    Some(value) => metadata[index].1 = value,
                    None => drop(metadata.remove(index)),
                });
                kinds += 1;
                match parts.checked(file) {
                    Ok(spec) => {
                        assert!(is_finite(&spec), "{damage}: {spec:?}");
                        if matches!(kind, "wrong type" | "not a number" | "infinite" | "too wide") {
                            let suffix = key.strip_prefix(&format!("{}.", parts.architecture)).unwrap_or(&key);
                            unread.insert((parts.name.clone(), suffix.to_owned()));
                        }
                    }
                    Err(error) => {
                        assert_sentence(&error, &damage);
                        if matches!(kind, "wrong type" | "not a number" | "infinite" | "negative" | "too wide") {
                            assert!(
                                error.contains(&format!("{key:?}")) || key == "general.architecture",
                                "{damage}: {error}"
                            );
                        }
                        refused += 1;
                    }
                }
            }
        }
    }
    // Groups of which there is one, and widths of dense layers of which there is none.
    let needless = [
        ("deepseek_v3-odd", "expert_group_used_count"),
        ("glm4_moe-odd", "expert_group_used_count"),
        ("qwen2_moe-odd", "feed_forward_length"),
        ("qwen3_moe-odd", "feed_forward_length"),
        ("qwen3_vl_moe-odd", "feed_forward_length"),
    ];
    let needless = needless.map(|(name, key)| (name.to_owned(), key.to_owned()));
    assert_eq!(unread, BTreeSet::from(needless), "keys that nobody reads");
    assert!(kinds > 3000 && refused > 2000, "{refused} of {kinds} kinds of damage are refused");
}

/// Tensors without which a file is another model, of the same family or as complete.
fn is_optional(parts: &Parts, suffix: &str) -> bool {
    let biases = ["attn_q.bias", "attn_k.bias", "attn_v.bias"];
    let with_optional_biases = ["llama", "glm4", "glm4moe", "ernie4_5-moe", "granite", "granitemoe"];
    let optional: &[&str] = match parts.architecture.as_str() {
        "gemma4" => &["attn_v.weight", "layer_output_scale.weight", "ffn_down_exps.scale"],
        "ernie4_5-moe" => &["exp_probs_b.bias"],
        "glm4moe" => &["attn_q_norm.weight", "attn_k_norm.weight"],
        _ => &[],
    };
    biases.contains(&suffix) && with_optional_biases.contains(&parts.architecture.as_str())
        || optional.contains(&suffix)
}

#[test]
fn damaged_tensors_of_every_family_are_refused_by_name() {
    let mut kinds = 0;
    for parts in families() {
        for (index, (tensor, _)) in parts.tensors.iter().enumerate() {
            let name = &tensor.name;
            let suffix = name.splitn(3, '.').nth(2).unwrap_or(name);
            let damage = |kind: &str| format!("{}: {name} {kind}", parts.name);
            let missing = parts.checked(parts.writer(|_, tensors| drop(tensors.remove(index))));
            match missing {
                Ok(_) => assert!(is_optional(&parts, suffix), "{}", damage("missing")),
                Err(error) => assert_sentence(&error, &damage("missing")),
            }
            for dimension in 0..tensor.dims.len() {
                if ["token_embd.weight", "token_types.weight"].contains(&name.as_str()) && dimension == 1 {
                    // Its rows say how large the vocabulary is, and how many types of tokens there are.
                    continue;
                }
                let grown = parts.checked(parts.writer(|_, tensors| {
                    let (tensor, bytes) = &mut tensors[index];
                    tensor.dims[dimension] += 1;
                    bytes.resize(tensor.dims.iter().product::<u64>() as usize * 4, 0);
                }));
                let error = grown.map(|_| ()).expect_err(&damage("grown"));
                assert_sentence(&error, &damage("grown"));
                assert!(error.contains(&format!("{:?}", name_in_errors(&parts, name))), "{error}");
                kinds += 1;
            }
            let renamed = parts.checked(parts.writer(|_, tensors| tensors[index].0.name.push('x')));
            assert_sentence(&renamed.map(|_| ()).expect_err(&damage("renamed")), &damage("renamed"));
            kinds += 2;
        }
    }
    assert!(kinds > 2000, "{kinds} kinds of damage");
}

#[test]
fn norms_and_biases_that_are_no_finite_numbers_are_refused_by_name_when_they_are_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let pool = Arc::new(ThreadPool::new(std::num::NonZeroUsize::MIN));
    let mut kinds = 0;
    for parts in families() {
        let mut seen = BTreeSet::new();
        for (index, (tensor, _)) in parts.tensors.iter().enumerate() {
            let name = tensor.name.clone();
            let suffix = name.splitn(3, '.').nth(2).unwrap_or(&name).to_owned();
            // The gate of the network beside the experts is a vector that rows are multiplied with.
            let is_vector = tensor.dims.len() == 1 && suffix != "ffn_gate_inp_shexp.weight";
            if !(is_vector || suffix.ends_with("_exps.bias")) || !seen.insert(suffix) {
                continue;
            }
            assert_eq!(tensor.format, Format::F32);
            for (number, shown) in [(f32::NAN, "NaN"), (f32::NEG_INFINITY, "-inf")] {
                let file = parts.writer(|_, tensors| {
                    let bytes = &mut tensors[index].1;
                    let last = bytes.len() - 4;
                    bytes[last..].copy_from_slice(&number.to_le_bytes());
                });
                file.write_file(&path).unwrap();
                let file = ModelFile::open(&path).unwrap();
                let spec = ModelSpec::read(file.header()).unwrap();
                let shard = file.map(LayerRange::new(0, spec.layer_count()).unwrap()).unwrap();
                // RoPE divisors for longer contexts are read where sequences may be longer.
                let tokens = if name == "rope_factors_short.weight" { 1 } else { u32::MAX };
                let spec = ModelSpec { context_tokens: tokens.max(32), ..spec };
                let room = KvRoom { tokens: 64, kv_type: KvType::F16 };
                let loaded = CpuRunner::new(RunnerSetup { spec, shard, room }, Arc::clone(&pool));
                let Err(error) = loaded.map(|_| ()) else {
                    assert!(name == "rope_factors_long.weight", "{}: {name} with {shown} is loaded", parts.name);
                    continue;
                };
                let error = error.to_string();
                let name = name_in_errors(&parts, &name);
                let begin = format!("tensor {name:?}: expected finite numbers, found {shown} at place ");
                assert!(error.starts_with(&begin), "{}: {error}", parts.name);
                kinds += 1;
            }
        }
    }
    assert!(kinds > 250, "{kinds} kinds of damage");
}
