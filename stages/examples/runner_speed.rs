//! Measures the speed of a whole model in one process, without links and HTTP: `runner_speed <model.gguf> <threads>
//! [f16|q8_0]`. The last argument is the number type of keys and values.
//!
//! On a terminal it measures `read`, `prefill`, `decode` and `together` once. Otherwise it reads a line per measurement
//! from standard input and prints seconds per token, so that `benches/against_llama_cpp.py` can alternate between this
//! program and llama.cpp. A line is `decode`, `together`, `prefill`, `read`, or `deep` with a number of tokens, which
//! decodes after that many tokens. Token ids are fixed, and each step chooses a token greedily. `read` reads the mapped
//! weights once, in a plain loop, and does nothing else with them.

mod plain_read;

use std::io::{BufRead, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;

use engine::runner::{KV_BLOCK_TOKENS, LoadedShard, Loader, Runner, Work};
use schema::frame::Slice;
use schema::record::{KvKinds, KvRoom, KvType};
use schema::{LayerRange, SequenceId};
use stages::loader::CpuLoader;
use stages::weights::{ModelFile, Tensor};

/// Room for keys and values, shared by the sequences of a measurement.
const KV_TOKENS: u32 = 8192;
const PREFILL_TOKENS: u32 = 512;
/// Number of tokens before the decoded ones. `DECODED_TOKENS` is the number of decoded tokens.
const DECODE_DEPTH: u32 = 16;
const DECODED_TOKENS: u32 = 64;
/// Number of sequences that `together` decodes.
const TOGETHER_SEQUENCES: u32 = 8;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, threads, kv_type) = match arguments.as_slice() {
        [path, threads] => (path, threads, KvType::F16),
        [path, threads, kv_type] => (path, threads, kv_type.parse()?),
        _ => return Err("usage: runner_speed <model.gguf> <threads> [f16|q8_0]".into()),
    };
    let threads: NonZeroUsize = threads.parse()?;
    let start = Instant::now();
    let loader = CpuLoader::new(ModelFile::open(Path::new(path))?, threads, None)?;
    let layers = LayerRange::new(0, loader.spec().layer_count()).ok_or("no layers")?;
    let room = KvRoom { tokens: KV_TOKENS, kv_type };
    let LoadedShard { mut runner, weights_bytes, .. } = loader.load(layers, room, u64::MAX)?;
    eprintln!("loaded after {:.3} s", start.elapsed().as_secs_f64());
    let vocabulary = loader.spec().vocabulary as u32;
    let weights = mapped(&ModelFile::open(Path::new(path))?, layers)?;
    let kinds = loader.spec().kv_kinds();
    let mut answer = |what: &str| match what {
        "read" => Ok(read(&weights, threads.get())),
        what => measure((&mut *runner, kinds), what, vocabulary),
    };
    if std::io::stdin().is_terminal() {
        for what in ["read", "prefill", "decode", "together"] {
            println!("{what}: {:.1} tokens/s", 1.0 / answer(what)?);
        }
        let memory = loader.memory();
        println!("anonymous {} bytes, resident {} bytes", memory.pss_anonymous_bytes, memory.rss_bytes);
        return Ok(());
    }
    println!("ready {weights_bytes}");
    for line in std::io::stdin().lock().lines() {
        println!("{}", answer(line?.trim())?);
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// The weights that a token reads.
fn mapped(file: &ModelFile, layers: LayerRange) -> Result<Vec<Tensor>, Failure> {
    let shard = file.map(layers)?;
    // The embedding table is mapped only if the output head uses it.
    let names = file.header().tensors.iter().map(|tensor| &tensor.name);
    Ok(names.filter_map(|name| shard.optional(name)).collect())
}

/// Seconds to read all of the weights. Each thread reads a share of every tensor.
fn read(weights: &[Tensor], threads: usize) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for bytes in weights.iter().map(Tensor::bytes) {
                    plain_read::read(&bytes[bytes.len() * thread / threads..bytes.len() * (thread + 1) / threads]);
                }
            });
        }
    });
    start.elapsed().as_secs_f64()
}

/// Seconds per token of the measurement `what`.
fn measure((runner, kinds): (&mut dyn Runner, KvKinds), what: &str, vocabulary: u32) -> Result<f64, Failure> {
    let prompt: Vec<u32> = (0..PREFILL_TOKENS).map(|index| (1000 + index * 97) % vocabulary).collect();
    let (sequences, tokens) = match what {
        "prefill" => {
            let start = Instant::now();
            step(runner, kinds, &[(0, &prompt)])?;
            return Ok(start.elapsed().as_secs_f64() / f64::from(PREFILL_TOKENS));
        }
        "decode" => (1, DECODED_TOKENS),
        "together" => (TOGETHER_SEQUENCES, DECODED_TOKENS / 4),
        other => match other.strip_prefix("deep ").map(str::parse) {
            Some(depth) => return deep((runner, kinds), depth?, vocabulary),
            None => return Err(format!("{other:?}: expected decode, together, prefill, deep <tokens> or read").into()),
        },
    };
    let start = &prompt[..DECODE_DEPTH as usize];
    step(runner, kinds, &vec![(0, start); sequences as usize])?;
    let begin = Instant::now();
    for index in 0..tokens {
        let token = [(1000 + 31 * index) % vocabulary];
        step(runner, kinds, &vec![(DECODE_DEPTH + index, &token[..]); sequences as usize])?;
    }
    Ok(begin.elapsed().as_secs_f64() / f64::from(tokens * sequences))
}

/// Seconds per decoded token after `depth` tokens.
fn deep((runner, kinds): (&mut dyn Runner, KvKinds), depth: u32, vocabulary: u32) -> Result<f64, Failure> {
    if depth > KV_TOKENS - DECODED_TOKENS {
        return Err(format!("{depth} tokens: expected at most {}", KV_TOKENS - DECODED_TOKENS).into());
    }
    let prompt: Vec<u32> = (0..depth).map(|index| (1000 + index * 97) % vocabulary).collect();
    for (position, tokens) in (0..).step_by(PREFILL_TOKENS as usize).zip(prompt.chunks(PREFILL_TOKENS as usize)) {
        step(runner, kinds, &[(position, tokens)])?;
    }
    let begin = Instant::now();
    for index in 0..DECODED_TOKENS {
        step(runner, kinds, &[(depth + index, &[(1000 + 31 * index) % vocabulary])])?;
    }
    Ok(begin.elapsed().as_secs_f64() / f64::from(DECODED_TOKENS))
}

/// Runs one micro-batch: for each sequence, tokens from a position on.
fn step(runner: &mut dyn Runner, kinds: KvKinds, sequences: &[(u32, &[u32])]) -> Result<(), Failure> {
    let blocks = KV_TOKENS / KV_BLOCK_TOKENS / sequences.len() as u32;
    let in_window = kinds.pool(KV_TOKENS).window / sequences.len() as u32;
    let slice = |(sequence, (position, tokens)): (u32, &(u32, &[u32]))| {
        let (rows, own) =
            (*position..*position + tokens.len() as u32, sequence * in_window..(sequence + 1) * in_window);
        let (window_first, window_blocks) = kinds.ring(rows, own);
        Slice {
            position: *position,
            count: tokens.len() as u32,
            tokens: tokens.to_vec(),
            blocks: (sequence * blocks..(sequence + 1) * blocks).collect(),
            window_first,
            window_blocks,
            logits: vec![tokens.len() as u32 - 1],
            ..Slice::empty(SequenceId(sequence.into()))
        }
    };
    let slices: Vec<Slice> = (0..).zip(sequences).map(slice).collect();
    runner.step(Work { slices: &slices, activations: &[] })?;
    Ok(())
}
