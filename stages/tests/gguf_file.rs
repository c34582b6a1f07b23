//! Model files: refusals on opening, the record, the fingerprint, and a file that is cut short while it is mapped.
#![expect(clippy::disallowed_methods, reason = "child processes of a test get their task from the environment")]

mod error_chain;
mod gguf_fixture;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use error_chain::chain;
use gguf_fixture::{HIDDEN, LAYERS, VOCABULARY, WIDE, file, metadata, model, norm};
use schema::LayerRange;
use schema::record::{KvRoom, KvType};
use stages::gguf::GgufWriter;
use stages::weights::{EXIT_CODE_WEIGHTS_LOST, ModelFile, OpenError, guard_against_truncation};

fn refusal(path: &Path) -> String {
    chain(&ModelFile::open(path).unwrap_err())
}

// === Opening ===

#[test]
fn a_path_that_is_no_model_file_is_refused_by_kind() {
    let folder = tempfile::tempdir().unwrap();
    assert!(
        refusal(folder.path())
            .ends_with("as a model: expected a GGUF file or a folder with config.json, found a folder without it")
    );

    let empty = folder.path().join("empty.gguf");
    std::fs::write(&empty, b"").unwrap();
    assert!(
        refusal(&empty)
            .ends_with("empty.gguf as a model: expected a GGUF file or a folder with config.json, found an empty one")
    );

    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(refusal(&socket).ends_with("found a device, pipe or socket"));

    let missing = refusal(&folder.path().join("missing.gguf"));
    assert!(missing.contains("cannot read") && missing.contains("No such file"), "{missing}");
}

#[test]
fn a_file_without_permission_is_refused_with_the_systems_reason() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, path) = file(model(true));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    match ModelFile::open(&path) {
        Err(error) => assert!(chain(&error).contains("Permission denied"), "{}", chain(&error)),
        Ok(_) => assert!(std::fs::File::open(&path).is_ok(), "only root may read it"),
    }
}

#[test]
fn a_damaged_file_is_refused_with_path_field_and_offset() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.gguf");
    let mut bytes = model(true).to_bytes().unwrap();
    bytes.truncate(bytes.len() - 100);
    std::fs::write(&path, bytes).unwrap();
    let message = refusal(&path);
    assert!(message.contains("damaged.gguf is not a usable GGUF file: data of tensor"), "{message}");
    assert!(matches!(ModelFile::open(&path), Err(OpenError::Gguf { .. })));
}

#[test]
fn a_stage_keeps_no_vocabulary_and_the_gateway_can_have_it() {
    let (_folder, path) = file(model(true));
    let model = ModelFile::open(&path).unwrap();
    assert!(model.header().metadata.get("tokenizer.ggml.tokens").is_none());
    let metadata = model.vocabulary_metadata().unwrap();
    let tokens = metadata.str_array("tokenizer.ggml.tokens").unwrap();
    assert_eq!((tokens.len(), tokens.get(511), tokens.get(512)), (512, Some("<511>"), None));
    assert_eq!((model.name().as_str(), model.path()), ("model", path.as_path()));
}

// === The record ===

#[test]
fn the_record_counts_bytes_by_layer_and_end() {
    let layer = HIDDEN * 4 + WIDE * HIDDEN / 32 * 34;
    let table = HIDDEN * VOCABULARY * 4;
    let (_folder, path) = file(model(true));
    let tied = ModelFile::open(&path).unwrap();
    let record = tied.record(KvRoom { tokens: 4096, kv_type: KvType::F16 }, 3).unwrap();
    assert_eq!((record.name.as_str(), record.architecture.as_str()), ("model", "llama"));
    assert_eq!((record.layers, record.hidden, record.context_tokens), (LAYERS, 256, 2048));
    assert_eq!((record.kv_tokens, record.stages_min), (4096, 3));
    assert_eq!(record.layer_bytes, vec![layer; LAYERS as usize]);
    assert_eq!((record.embedding_bytes, record.head_bytes), (table, table + HIDDEN * 4));
    assert_eq!(record.kv_bytes_per_token_layer, 2 * 2 * 32 * 2);
    assert_eq!(record.fingerprint, *tied.fingerprint());

    let (_folder, path) = file(model(false));
    let record = ModelFile::open(&path).unwrap().record(KvRoom { tokens: 4096, kv_type: KvType::F16 }, 3).unwrap();
    assert_eq!(record.head_bytes, HIDDEN * 4 + HIDDEN * VOCABULARY * 2, "an untied head is its own matrix");
}

#[test]
fn key_and_value_widths_of_their_own_are_used() {
    let writer =
        model(true).metadata("llama.attention.key_length", 96u32).metadata("llama.attention.value_length", 64u32);
    let (_folder, path) = file(writer);
    let record = ModelFile::open(&path).unwrap().record(KvRoom { tokens: 1, kv_type: KvType::F16 }, 1).unwrap();
    assert_eq!(record.kv_bytes_per_token_layer, 2 * (96 + 64) * 2);
}

#[test]
fn a_file_that_is_no_language_model_is_refused_with_the_missing_part() {
    let refusal = |writer: GgufWriter| {
        let (_folder, path) = file(writer);
        ModelFile::open(&path).unwrap().record(KvRoom { tokens: 1, kv_type: KvType::F16 }, 1).unwrap_err().to_string()
    };
    let message = refusal(GgufWriter::new().metadata("general.name", "x"));
    assert_eq!(message, r#"metadata key "general.architecture": expected string, found no such key"#);
    let message = refusal(GgufWriter::new().metadata("general.architecture", "x").metadata("x.block_count", "many"));
    assert_eq!(message, r#"metadata key "x.block_count": expected u32, found string "many""#);
    let message = refusal(norm(metadata(0), "token_embd.weight", 0.0));
    assert_eq!(message, r#"metadata key "llama.block_count": expected at least 1, found 0"#);
    // The reader must not loop up to an absurd count.
    let message = refusal(norm(metadata(u32::MAX), "blk.0.attn_norm.weight", 0.0));
    assert!(message.starts_with("layer 1 has no tensors") && message.contains("4294967295"), "{message}");
    let message = refusal(norm(metadata(2), "blk.1.attn_norm.weight", 0.0));
    assert!(message.starts_with("layer 0 has no tensors"), "{message}");
    let message = refusal(norm(metadata(1), "blk.1.attn_norm.weight", 0.0));
    assert!(message.contains(r#""blk.1.attn_norm.weight" belongs to layer 1: expected a layer below 1"#), "{message}");
    let message = refusal(norm(metadata(1), "blk.0.attn_norm.weight", 0.0));
    assert!(message.contains(r#"there is no tensor "token_embd.weight""#), "{message}");
}

// === The fingerprint ===

#[test]
fn a_fingerprint_is_that_of_a_copy_and_not_of_another_file() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = model(true).to_bytes().unwrap();
    let fingerprint = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        ModelFile::open(&path).unwrap().fingerprint().clone()
    };
    let original = fingerprint("original.gguf", &bytes);
    assert_eq!(original.0.len(), 64);
    assert_eq!(fingerprint("a copy elsewhere.gguf", &bytes), original);

    let header = stages::gguf::GgufHeader::parse(&bytes).unwrap();
    let changed_at = |at: usize| {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fingerprint("changed.gguf", &changed)
    };
    let name_at = bytes.windows(9).position(|window| window == b"Synthetic").unwrap();
    assert_ne!(changed_at(name_at), original, "metadata counts");
    let tensor = header.tensor("blk.5.ffn_up.weight").unwrap();
    assert_ne!(changed_at(tensor.offset as usize), original, "a tensor's first bytes count");
    assert_ne!(changed_at(tensor.offset as usize + 4095), original, "4 KiB of them");
    let longer = [&bytes[..], &[0]].concat();
    assert_ne!(fingerprint("longer.gguf", &longer), original, "the length counts");
    // This is a limit of the digest, documented in `fingerprint.rs`.
    assert_eq!(changed_at(tensor.offset as usize + 4096), original);
}

// === A file that changes while it is used ===

#[test]
fn writing_or_cutting_an_open_file_is_detected_and_reading_or_replacing_it_is_not() {
    let (folder, path) = file(model(true));
    let length = std::fs::metadata(&path).unwrap().len();
    let opened = ModelFile::open(&path).unwrap();
    let shard = opened.map(LayerRange::new(0, 1).unwrap()).unwrap();
    shard.prefetch();
    drop(std::fs::read(&path).unwrap());
    assert!(opened.check_unchanged().is_ok(), "reading is no change");

    // The opened file is the one that is mapped, even if the path now names another.
    let other = folder.path().join("other.gguf");
    std::fs::write(&other, vec![0; length as usize]).unwrap();
    std::fs::rename(&other, &path).unwrap();
    assert!(opened.check_unchanged().is_ok(), "another file under the path is no change");
    let replaced = chain(&ModelFile::open(&path).unwrap_err());
    assert!(replaced.contains("is not a usable GGUF file"), "{replaced}");

    for cut in [false, true] {
        let (_folder, path) = file(model(true));
        let opened = ModelFile::open(&path).unwrap();
        // File systems record time in steps of a few milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(20));
        let writable = std::fs::File::options().write(true).open(&path).unwrap();
        if cut {
            writable.set_len(length - 1).unwrap();
        } else {
            std::os::unix::fs::FileExt::write_all_at(&writable, &[1], length - 1).unwrap();
        }
        let error = chain(&opened.check_unchanged().unwrap_err());
        let found = length - u64::from(cut);
        for expected in [
            path.to_str().unwrap(),
            "changed while its weights were in use",
            &format!("expected {length} bytes"),
            &format!("found {found} bytes"),
            "put the right file there and start again",
        ] {
            assert!(error.contains(expected), "{expected} is missing in {error}");
        }
    }
}

// === A file cut short under a mapping ===

const CHILD_FILE: &str = "BATON_TEST_CHILD_FILE";

/// Runs the ignored test `name` of this program in a child process.
fn child(name: &str, path: &Path) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD_FILE, path)
        .output()
        .unwrap()
}

fn child_file() -> Option<PathBuf> {
    std::env::var_os(CHILD_FILE).map(PathBuf::from)
}

#[test]
fn a_file_cut_short_while_mapped_ends_the_process_with_one_clear_line() {
    let (_folder, path) = file(model(true));
    let output = child("child_whose_file_is_cut_short", &path);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(EXIT_CODE_WEIGHTS_LOST), "{} {stderr}", output.status);
    let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("baton:")).collect();
    let [line] = lines[..] else { panic!("expected one line, found {stderr}") };
    assert!(line.contains(path.to_str().unwrap()) && line.contains("became shorter or its disk failed"), "{line}");
}

#[test]
#[ignore = "run by a_file_cut_short_while_mapped_ends_the_process_with_one_clear_line"]
fn child_whose_file_is_cut_short() {
    let Some(path) = child_file() else { return };
    guard_against_truncation().unwrap();
    guard_against_truncation().unwrap();
    let shard = ModelFile::open(&path).unwrap().map(LayerRange::new(4, LAYERS).unwrap()).unwrap();
    let tensor = shard.layer_tensor(4, "ffn_up.weight").unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
    let sum: u64 = tensor.bytes().iter().map(|byte| u64::from(*byte)).sum();
    panic!("read {sum} from pages that are gone");
}

#[test]
fn a_bus_error_elsewhere_ends_the_process_as_without_the_guard() {
    let (_folder, path) = file(model(true));
    let output = child("child_with_a_bus_error_elsewhere", &path);
    assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{}", output.status);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("became shorter"));
}

#[test]
#[ignore = "run by a_bus_error_elsewhere_ends_the_process_as_without_the_guard"]
fn child_with_a_bus_error_elsewhere() {
    let Some(path) = child_file() else { return };
    guard_against_truncation().unwrap();
    let _shard = ModelFile::open(&path).unwrap().map(LayerRange::new(0, 1).unwrap()).unwrap();
    let foreign = tempfile::NamedTempFile::new().unwrap();
    foreign.as_file().set_len(1 << 16).unwrap();
    // SAFETY: the bytes are plain numbers and are only read. The test cuts the file short on purpose.
    let map = unsafe { memmap2::Mmap::map(foreign.as_file()).unwrap() };
    foreign.as_file().set_len(0).unwrap();
    let sum: u64 = map.iter().map(|byte| u64::from(*byte)).sum();
    panic!("read {sum} from pages that are gone");
}
