//! Continues token ids greedily and prints the speed: `generate_ids <model.gguf> <threads> <tokens> <id,id,…>`.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;

use engine::runner::{KV_BLOCK_TOKENS, Loader, Output, Runner, Work};
use schema::frame::Slice;
use schema::record::{KvKinds, KvRoom, KvType};
use schema::{LayerRange, SequenceId};
use stages::loader::CpuLoader;
use stages::weights::ModelFile;

/// Maximum number of tokens in the sequence.
const SEQUENCE_TOKENS: u32 = 4096;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, threads, tokens, ids] = arguments.as_slice() else {
        return Err("usage: generate_ids <model.gguf> <threads> <tokens> <id,id,…>".into());
    };
    let threads: NonZeroUsize = threads.parse()?;
    let tokens: u32 = tokens.parse()?;

    let start = Instant::now();
    let loader = CpuLoader::new(ModelFile::open(Path::new(path))?, threads, None)?;
    let layers = LayerRange::new(0, loader.spec().layer_count()).ok_or("no layers")?;
    let room = KvRoom { tokens: SEQUENCE_TOKENS, kv_type: KvType::F16 };
    let mut shard = loader.load(layers, room, u64::MAX)?;
    eprintln!("ready after {:.3} s, bound {} bytes", start.elapsed().as_secs_f64(), loader.memory_bound(layers, room));

    let ids = ids.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>()?;
    let all = continue_greedily(&mut *shard.runner, loader.spec().kv_kinds(), &ids, tokens)?;
    println!("{}", all.iter().map(u32::to_string).collect::<Vec<_>>().join(","));
    let memory = loader.memory();
    eprintln!("anonymous {} bytes, resident {} bytes", memory.pss_anonymous_bytes, memory.rss_bytes);
    Ok(())
}

fn continue_greedily(runner: &mut dyn Runner, kinds: KvKinds, ids: &[u32], tokens: u32) -> Result<Vec<u32>, Failure> {
    let start = Instant::now();
    let mut all = vec![step(runner, kinds, 0, ids)?];
    eprintln!("prefill: {:.1} tokens/s", rate(ids.len() as u32, start));
    let start = Instant::now();
    for index in 1..tokens {
        let last = all[all.len() - 1];
        all.push(step(runner, kinds, ids.len() as u32 + index - 1, &[last])?);
    }
    eprintln!("decode: {:.1} tokens/s", rate(tokens - 1, start));
    Ok(all)
}

/// Runs one micro-batch and returns its token.
fn step(runner: &mut dyn Runner, kinds: KvKinds, position: u32, tokens: &[u32]) -> Result<u32, Failure> {
    let blocks = kinds.pool(SEQUENCE_TOKENS).window;
    let (window_first, window_blocks) = kinds.ring(position..position + tokens.len() as u32, 0..blocks);
    let slices = [Slice {
        position,
        count: tokens.len() as u32,
        tokens: tokens.to_vec(),
        blocks: (0..SEQUENCE_TOKENS / KV_BLOCK_TOKENS).collect(),
        window_first,
        window_blocks,
        logits: vec![tokens.len() as u32 - 1],
        ..Slice::empty(SequenceId(0))
    }];
    match runner.step(Work { slices: &slices, activations: &[] })? {
        Output::Tokens { chosen, .. } => Ok(chosen.first().ok_or("no token came back")?.token),
        Output::Activations(_) => Err("the shard is not the whole model".into()),
    }
}

fn rate(tokens: u32, start: Instant) -> f64 {
    f64::from(tokens) / start.elapsed().as_secs_f64()
}
