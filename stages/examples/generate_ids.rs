//! Continues token ids greedily and says how fast: `generate_ids <model.gguf> <threads> <tokens> <id,id,…>`.
//!
//! Without ids it measures: a prefill of 512 tokens, then that many decoded tokens, alone and eight sequences together.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;

use engine::runner::{KV_BLOCK_TOKENS, Loader, Output, Runner, Work};
use schema::frame::{Sampling, Slice};
use schema::{Attempt, LayerRange, SequenceId};
use stages::loader::CpuLoader;
use stages::weights::ModelFile;

const GREEDY: Sampling = Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0, choice: 0 };
/// Tokens a sequence may have here.
const SEQUENCE_TOKENS: u32 = 4096;
const PREFILL_TOKENS: u32 = 512;
const TOGETHER: u32 = 8;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, threads, tokens, ids @ ..] = arguments.as_slice() else {
        return Err("usage: generate_ids <model.gguf> <threads> <tokens> [<id,id,…>]".into());
    };
    let threads: NonZeroUsize = threads.parse()?;
    let tokens: u32 = tokens.parse()?;

    let start = Instant::now();
    let loader = CpuLoader::new(ModelFile::open(Path::new(path))?, threads, None)?;
    let layers = LayerRange::new(0, loader.hyper().layers).ok_or("no layers")?;
    let mut shard = loader.load(layers, SEQUENCE_TOKENS * TOGETHER, u64::MAX)?;
    eprintln!("ready after {:.3} s, bound {} bytes", start.elapsed().as_secs_f64(), loader.memory_bound(layers, 4096));

    if let [ids] = ids {
        let ids = ids.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>()?;
        let all = continue_greedily(&mut *shard.runner, &ids, tokens)?;
        println!("{}", all.iter().map(u32::to_string).collect::<Vec<_>>().join(","));
        return Ok(());
    }
    measure(&mut *shard.runner, tokens, loader.hyper().vocabulary as u32)?;
    let memory = loader.memory();
    eprintln!("anonymous {} bytes, resident {} bytes", memory.pss_anonymous_bytes, memory.rss_bytes);
    Ok(())
}

fn measure(runner: &mut dyn Runner, tokens: u32, vocabulary: u32) -> Result<(), Failure> {
    let prompt: Vec<u32> = (0..PREFILL_TOKENS).map(|index| index * 97 % vocabulary).collect();
    for round in 0..3 {
        let start = Instant::now();
        step(runner, &[(0, 0, &prompt)])?;
        println!("prefill of {PREFILL_TOKENS}, round {round}: {:.1} tokens/s", rate(PREFILL_TOKENS, start));
        decode(runner, 0, tokens, 1)?;
    }
    decode(runner, PREFILL_TOKENS, tokens, 1)?;
    decode(runner, 2048, tokens, 1)?;
    decode(runner, 0, tokens, TOGETHER)
}

/// Decodes at a depth, without caring what the keys before it are.
fn decode(runner: &mut dyn Runner, depth: u32, tokens: u32, sequences: u32) -> Result<(), Failure> {
    let start = Instant::now();
    for index in 0..tokens {
        let ids: Vec<[u32; 1]> = (0..sequences).map(|sequence| [index * 31 + sequence]).collect();
        let slices: Vec<_> = (0..).zip(&ids).map(|(sequence, ids)| (sequence, depth + index, &ids[..])).collect();
        step(runner, &slices)?;
    }
    println!("decode at {depth}, {sequences} together: {:.1} tokens/s", rate(tokens * sequences, start));
    Ok(())
}

fn continue_greedily(runner: &mut dyn Runner, ids: &[u32], tokens: u32) -> Result<Vec<u32>, Failure> {
    let start = Instant::now();
    let mut all = vec![step(runner, &[(0, 0, ids)])?];
    eprintln!("prefill: {:.1} tokens/s", rate(ids.len() as u32, start));
    let start = Instant::now();
    for index in 1..tokens {
        let last = all[all.len() - 1];
        all.push(step(runner, &[(0, ids.len() as u32 + index - 1, &[last])])?);
    }
    eprintln!("decode: {:.1} tokens/s", rate(tokens - 1, start));
    Ok(all)
}

/// One micro-batch; the first token that comes of it.
fn step(runner: &mut dyn Runner, sequences: &[(u32, u32, &[u32])]) -> Result<u32, Failure> {
    let slice = |(sequence, position, tokens): &(u32, u32, &[u32])| {
        let blocks = SEQUENCE_TOKENS / KV_BLOCK_TOKENS;
        Slice {
            sequence: SequenceId((*sequence).into()),
            attempt: Attempt(0),
            position: *position,
            count: tokens.len() as u32,
            tokens: tokens.to_vec(),
            blocks: (sequence * blocks..(sequence + 1) * blocks).collect(),
            logits: vec![tokens.len() as u32 - 1],
            sampling: GREEDY,
        }
    };
    let slices: Vec<Slice> = sequences.iter().map(slice).collect();
    match runner.step(Work { slices: &slices, activations: &[] })? {
        Output::Tokens(chosen) => Ok(chosen.first().ok_or("no token came back")?.token),
        Output::Activations(_) => Err("the shard is not the whole model".into()),
    }
}

fn rate(tokens: u32, start: Instant) -> f64 {
    f64::from(tokens) / start.elapsed().as_secs_f64()
}
