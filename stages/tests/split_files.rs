//! Models split over several GGUF files: what they give is what the joined file gives, and sets that do not fit
//! together are refused by name.

mod error_chain;
mod gguf_fixture;
mod runner_support;

use std::path::{Path, PathBuf};

use error_chain::chain;
use gguf_fixture::{LAYERS, file, model};
use runner_support::golden::Golden;
use runner_support::pipeline::{Piece, Pipeline, bits};
use schema::LayerRange;
use schema::record::{KvRoom, KvType};
use stages::gguf::{GgufHeader, GgufWriter, Value};
use stages::weights::{ModelFile, OpenError};

/// The keys of one part, and changes to them.
struct PartKeys {
    number: u32,
    count: u32,
    tensors: i32,
}

/// Splits the GGUF file at `path` into `count` files beside it, named `name-00001-of-….gguf`. `change` may change the
/// keys of a part.
fn split(path: &Path, name: &str, count: u32, change: impl Fn(&mut PartKeys)) -> Vec<PathBuf> {
    let bytes = std::fs::read(path).unwrap();
    let header = GgufHeader::parse(&bytes).unwrap();
    let each = header.tensors.len().div_ceil(count as usize);
    let part = |number: u32| {
        let mut keys = PartKeys { number, count, tensors: header.tensors.len() as i32 };
        change(&mut keys);
        let mut file = GgufWriter::new()
            .metadata("split.no", keys.number)
            .metadata("split.count", keys.count)
            .metadata("split.tensors.count", keys.tensors);
        for (key, value) in header.metadata.iter().filter(|_| number == 0) {
            file = file.metadata(key, value.clone());
        }
        for tensor in header.tensors.chunks(each).nth(number as usize).unwrap_or_default() {
            let data = bytes[tensor.offset as usize..tensor.end() as usize].to_vec();
            file = file.tensor(&tensor.name, &tensor.dims, tensor.format, data).unwrap();
        }
        let path = part_path(path, name, number, count);
        file.write_file(&path).unwrap();
        path
    };
    (0..count).map(part).collect()
}

fn part_path(beside: &Path, name: &str, number: u32, count: u32) -> PathBuf {
    beside.with_file_name(format!("{name}-{:05}-of-{count:05}.gguf", number + 1))
}

/// The refusal with its causes, as it is printed.
fn refusal(path: &Path) -> String {
    chain(&ModelFile::open(path).unwrap_err())
}

#[test]
fn every_part_opens_the_whole_model_and_its_bytes_are_those_of_one_file() {
    let (_folder, path) = file(model(false));
    let whole = ModelFile::open(&path).unwrap();
    let parts = split(&path, "model", 3, |_| {});
    let room = KvRoom { tokens: 64, kv_type: KvType::F16 };
    let fingerprints: Vec<_> = parts.iter().map(|part| ModelFile::open(part).unwrap().fingerprint().clone()).collect();
    assert!(fingerprints.iter().all(|fingerprint| *fingerprint == fingerprints[0]), "whichever part is named");
    assert_ne!(fingerprints[0], *whole.fingerprint(), "other files are another model to the cluster");

    let set = ModelFile::open(&parts[1]).unwrap();
    assert_eq!(set.name(), "model");
    assert_eq!(set.bytes(), parts.iter().map(|part| std::fs::metadata(part).unwrap().len()).sum::<u64>());
    let (ours, theirs) = (set.record(room, 1).unwrap(), whole.record(room, 1).unwrap());
    assert_eq!((ours.layer_bytes, ours.head_bytes), (theirs.layer_bytes, theirs.head_bytes));
    let texts = set.vocabulary_metadata().unwrap();
    assert_eq!(texts.str_array("tokenizer.ggml.tokens").unwrap().len(), 512);

    for (start, end) in [(0, LAYERS), (1, 4), (4, LAYERS)] {
        let layers = LayerRange::new(start, end).unwrap();
        let (ours, theirs) = (set.map(layers).unwrap(), whole.map(layers).unwrap());
        for tensor in &whole.header().tensors {
            let [ours, theirs] = [&ours, &theirs].map(|shard| shard.optional(&tensor.name));
            assert_eq!(ours.map(|own| own.bytes().to_vec()), theirs.map(|own| own.bytes().to_vec()), "{}", tensor.name);
        }
        ours.prefetch();
        assert!(ours.residency().bytes() >= ours.mapped_bytes());
    }
    let (mut ours, mut theirs) = (vec![0.0; 256], vec![0.0; 256]);
    let first = LayerRange::new(0, 1).unwrap();
    for (file, row) in [(&set, &mut ours), (&whole, &mut theirs)] {
        file.map(first).unwrap().embedding().unwrap().read(300, row).unwrap();
    }
    assert_eq!(ours, theirs);
}

#[test]
fn a_split_model_computes_the_bits_of_the_joined_one() {
    let golden = Golden::read("qwen3_moe");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    golden.write_gguf(&path);
    let parts = split(&path, "split", 4, |_| {});
    let piece = Piece { sequence: 0, position: 0, tokens: &golden.input_ids };
    let [whole, split] = [&path, &parts[3]].map(|path| bits(&Pipeline::new(path, &[1, 3], 1).logits(&[piece])));
    assert_eq!(split, whole);
}

#[test]
fn a_change_of_any_part_is_noticed() {
    let (_folder, path) = file(model(true));
    let parts = split(&path, "model", 2, |_| {});
    let opened = ModelFile::open(&parts[0]).unwrap();
    assert!(opened.check_unchanged().is_ok());
    std::fs::File::options().write(true).open(&parts[1]).unwrap().set_len(100).unwrap();
    let error = opened.check_unchanged().unwrap_err().to_string();
    assert!(error.contains("model-00002-of-00002.gguf") && error.contains("found 100 bytes"), "{error}");
}

#[test]
fn sets_that_do_not_fit_together_are_refused_by_part() {
    type Change = fn(&mut PartKeys);
    let cases: [(&str, Change, &[&str]); 5] = [
        (
            "another number",
            |keys| keys.number = if keys.number == 1 { 2 } else { keys.number },
            &["model-00002-of-00003.gguf", "expected part 2 of 3, found part 3 of 3"],
        ),
        (
            "another count",
            |keys| keys.count = if keys.number == 2 { 4 } else { 3 },
            &["model-00003-of-00003.gguf", "expected part 3 of 3, found part 3 of 4"],
        ),
        (
            "another count of tensors",
            |keys| keys.tensors = if keys.number == 1 { 9 } else { 15 },
            &["model-00002-of-00003.gguf", "expected split.tensors.count 15, as in the given part, found 9"],
        ),
        (
            "a wrong count of tensors",
            |keys| keys.tensors = 99,
            &["expected 99 tensors in all 3 parts (split.tensors.count), found 15"],
        ),
        (
            "a number past the count",
            |keys| keys.number = if keys.number == 0 { 7 } else { keys.number },
            &["model-00001-of-00003.gguf", "expected split.no below split.count, 3, found 7"],
        ),
    ];
    for (name, change, expected) in cases {
        let (_folder, path) = file(model(true));
        let parts = split(&path, "model", 3, change);
        let message = refusal(&parts[0]);
        for expected in expected {
            assert!(message.contains(expected), "{name}: {expected} is missing in {message}");
        }
    }
}

#[test]
fn a_missing_a_doubled_and_a_foreign_part_are_refused() {
    let (_folder, path) = file(model(true));
    let parts = split(&path, "model", 3, |_| {});
    std::fs::rename(&parts[1], path.with_file_name("elsewhere")).unwrap();
    let message = refusal(&parts[2]);
    assert!(message.contains("model-00002-of-00003.gguf is not the expected part of a split model"), "{message}");
    assert!(message.contains("expected part 2 of 3, found no such file"), "{message}");
    assert!(matches!(ModelFile::open(&parts[0]), Err(OpenError::Split { .. })));

    let renamed = path.with_file_name("renamed.gguf");
    std::fs::copy(&parts[0], &renamed).unwrap();
    let message = refusal(&renamed);
    assert!(message.contains("a name that ends in -00001-of-00003.gguf"), "{message}");
    assert!(message.ends_with("found renamed.gguf"), "{message}");

    // The second part has a tensor of the first.
    let twice = GgufWriter::new()
        .metadata("split.no", 1u32)
        .metadata("split.count", 3u32)
        .metadata("split.tensors.count", 15i32);
    let twice = ["blk.0.attn_norm.weight", "a", "b", "c", "d"]
        .into_iter()
        .fold(twice, |file, name| gguf_fixture::norm(file, name, 0.0));
    twice.write_file(&parts[1]).unwrap();
    let message = refusal(&parts[0]);
    assert!(message.contains(r#"expected no tensor "blk.0.attn_norm.weight", as part 1 has it"#), "{message}");

    // It is of another model.
    let foreign = GgufWriter::new()
        .metadata("split.no", 1u32)
        .metadata("split.count", 3u32)
        .metadata("split.tensors.count", 15i32)
        .metadata("general.architecture", "qwen3");
    foreign.write_file(&parts[1]).unwrap();
    let message = refusal(&parts[0]);
    let expected =
        r#"the first part's metadata, in which "general.architecture" is string "llama", found string "qwen3""#;
    assert!(message.contains(expected), "{message}");
}

#[test]
fn an_absurd_number_of_parts_is_refused_at_once() {
    let (_folder, path) = file(model(true).metadata("split.count", 65_535u32));
    assert!(refusal(&path).contains("expected split.count of at most 1024, found 65535"));
    let (_folder, path) = file(model(true).metadata("split.count", "many"));
    assert!(refusal(&path).contains("split.count"));
    let (_folder, path) = file(model(true).metadata("split.count", Value::from(0u32)));
    assert!(ModelFile::open(&path).is_ok(), "0 is what joining leaves");
}

#[test]
fn one_files_fingerprint_is_the_digest_that_it_always_was() {
    let (_folder, path) = file(model(true));
    let bytes = std::fs::read(&path).unwrap();
    let header = GgufHeader::parse(&bytes).unwrap();
    let context = "baton 2026-11 model fingerprint: length, header, 4096 bytes of each tensor";
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(&bytes[..header.data_offset as usize]);
    for tensor in &header.tensors {
        hasher.update(&bytes[tensor.offset as usize..][..tensor.bytes.min(4096) as usize]);
    }
    assert_eq!(ModelFile::open(&path).unwrap().fingerprint().0, hasher.finalize().to_hex().to_string());
}
