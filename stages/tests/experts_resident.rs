//! The weights of a stage with experts that are in memory, in the operating system's words. The only test of its
//! binary, so that nobody else's memory counts.

#![cfg(target_os = "linux")]

mod gguf_fixture;

use std::num::NonZeroUsize;
use std::path::Path;

use engine::runner::{Loader, Work};
use gguf_fixture::float_bytes;
use schema::frame::Slice;
use schema::record::{KvRoom, KvType};
use schema::{LayerRange, SequenceId};
use stages::format::Format;
use stages::gguf::GgufWriter;
use stages::loader::CpuLoader;
use stages::weights::ModelFile;

const HIDDEN: u64 = 512;
/// An expert's three matrices have 512 KiB each in single precision, many times what the system maps around a page.
const WIDTH: u64 = 256;
const EXPERTS: u64 = 32;
const VOCABULARY: u64 = 256;
const TOKENS: u32 = 20;
const ROOM: KvRoom = KvRoom { tokens: 64, kv_type: KvType::F16 };
/// Bytes of pages that the system maps beside those that are read: up to 64 KiB around each end of a run of experts.
const SLACK_BYTES: u64 = 2 << 20;

/// Random floats around zero.
fn floats(seed: u64, count: u64, scale: f32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    float_bytes((0..count).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f32 / (1_u32 << 24) as f32 - 0.5) * scale
    }))
}

/// Writes a Mixtral of two layers.
fn write(path: &Path) {
    let mut seed = 0;
    let mut file = GgufWriter::new()
        .metadata("general.architecture", "llama")
        .metadata("llama.block_count", 2_u32)
        .metadata("llama.context_length", 256_u32)
        .metadata("llama.embedding_length", HIDDEN as u32)
        .metadata("llama.feed_forward_length", WIDTH as u32)
        .metadata("llama.attention.head_count", 4_u32)
        .metadata("llama.attention.head_count_kv", 2_u32)
        .metadata("llama.attention.layer_norm_rms_epsilon", 1e-5_f32)
        .metadata("llama.expert_count", EXPERTS as u32)
        .metadata("llama.expert_used_count", 2_u32);
    let mut add = |name: String, dims: &[u64], scale: f32| {
        seed += 1;
        let bytes = floats(seed, dims.iter().product(), scale);
        let own = std::mem::take(&mut file);
        file = own.tensor(&name, dims, Format::F32, bytes).unwrap();
    };
    add("token_embd.weight".to_owned(), &[HIDDEN, VOCABULARY], 2.0);
    for layer in 0..2 {
        let name = |what: &str| format!("blk.{layer}.{what}.weight");
        add(name("attn_norm"), &[HIDDEN], 2.0);
        add(name("ffn_norm"), &[HIDDEN], 2.0);
        add(name("attn_q"), &[HIDDEN, HIDDEN], 0.1);
        add(name("attn_k"), &[HIDDEN, HIDDEN / 2], 0.1);
        add(name("attn_v"), &[HIDDEN, HIDDEN / 2], 0.1);
        add(name("attn_output"), &[HIDDEN, HIDDEN], 0.1);
        add(name("ffn_gate_inp"), &[HIDDEN, EXPERTS], 0.5);
        add(name("ffn_gate_exps"), &[HIDDEN, WIDTH, EXPERTS], 0.1);
        add(name("ffn_up_exps"), &[HIDDEN, WIDTH, EXPERTS], 0.1);
        add(name("ffn_down_exps"), &[WIDTH, HIDDEN, EXPERTS], 0.1);
    }
    add("output_norm.weight".to_owned(), &[HIDDEN], 2.0);
    add("output.weight".to_owned(), &[HIDDEN, VOCABULARY], 0.1);
    file.write_file(path).unwrap();
}

/// Resident bytes of this process's mappings of `path`, by the system's own list.
fn resident_bytes(path: &Path) -> u64 {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let path = path.canonicalize().unwrap();
    let (mut inside, mut sum) = (false, 0);
    for line in smaps.lines() {
        if line.split(' ').next().is_some_and(|addresses| addresses.contains('-')) {
            inside = line.ends_with(path.to_str().unwrap());
        } else if let Some(kilobytes) = line.strip_prefix("Rss:").filter(|_| inside) {
            sum += kilobytes.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024;
        }
    }
    sum
}

#[test]
fn after_twenty_tokens_a_stage_has_the_experts_that_they_chose_and_no_others_in_memory() {
    // On tmpfs, where pages are small: of other files, Linux 6.18 maps up to 2 MiB around a page that is read.
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = folder.path().join("mixture.gguf");
    write(&path);
    let range = LayerRange::new(0, 1).unwrap();
    let loader = CpuLoader::new(ModelFile::open(&path).unwrap(), NonZeroUsize::MIN, None).unwrap();
    let anonymous = loader.memory().pss_anonymous_bytes;
    let bound = loader.memory_bound(range, ROOM);
    let mut shard = loader.load(range, ROOM, bound).unwrap();
    let before = resident_bytes(&path);
    let expert = 3 * HIDDEN * WIDTH * 4;
    assert!(before < shard.weights_bytes - EXPERTS * expert + SLACK_BYTES, "{before} bytes before the first token");
    for position in 0..TOKENS {
        let tokens = vec![position * 37 % VOCABULARY as u32];
        let slice =
            Slice { position, count: 1, tokens, blocks: vec![0], logits: vec![0], ..Slice::empty(SequenceId(1)) };
        shard.runner.step(Work { slices: &[slice], activations: &[] }).unwrap();
    }
    let memory = loader.memory();
    let resident = resident_bytes(&path);
    let touched = memory.experts_touched * expert;
    println!(
        "{} of {} experts ({:?}): {touched} bytes of them, {} bytes of the file resident beyond what loading took, \
         bound {bound}",
        memory.experts_touched,
        memory.experts.total,
        memory.experts.layers[0].ranges(),
        resident - before
    );
    assert!(memory.experts.total == EXPERTS && (2..EXPERTS).contains(&memory.experts_touched), "{memory:?}");
    assert_eq!(memory.experts.layers[0].len(), memory.experts_touched);
    assert!(resident - before >= touched - SLACK_BYTES, "{resident}, {before}, {touched}");
    assert!(resident - before <= touched + SLACK_BYTES, "{resident}, {before}, {touched}");
    assert_eq!(memory.weights_resident_bytes, resident, "the stage's own count is the system's");
    let measured = resident + memory.pss_anonymous_bytes.saturating_sub(anonymous);
    assert!(bound >= measured, "bound {bound}, measured {measured}");
}
