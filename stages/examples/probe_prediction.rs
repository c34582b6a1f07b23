//! Compares a model's speed with the prediction by the probe's figures: `probe_prediction <model.gguf> <threads>`.
//!
//! It probes a shard of all layers as a stage does, and predicts the time of a decoded token and of a prefill of 512
//! tokens from the figures. Then it runs both and prints measured over predicted time. The measured time is the best of
//! several runs, because the probe's figures are the best ones too.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;

use engine::runner::{KV_BLOCK_TOKENS, Loader, Runner, Work};
use schema::frame::Slice;
use schema::record::{FormatSpeed, Speeds};
use schema::record::{KvKinds, KvRoom, KvType};
use schema::{LayerRange, SequenceId};
use stages::checkpoint::TensorInfo;
use stages::loader::CpuLoader;
use stages::weights::ModelFile;

const PREFILL_TOKENS: u32 = 512;
const DECODE_TOKENS: u32 = 200;
const PREFILLS: u32 = 5;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, threads] = arguments.as_slice() else {
        return Err("usage: probe_prediction <model.gguf> <threads>".into());
    };
    let file = ModelFile::open(Path::new(path))?;
    let loader = CpuLoader::new(file.clone(), threads.parse::<NonZeroUsize>()?, None)?;
    let layers = LayerRange::new(0, loader.spec().layer_count()).ok_or("no layers")?;
    let room = KvRoom { tokens: PREFILL_TOKENS + DECODE_TOKENS, kv_type: KvType::F16 };
    let mut shard = loader.load(layers, room, u64::MAX)?;
    let (started, mut slices) = (Instant::now(), 1);
    let speeds = loop {
        match shard.runner.probe() {
            Some(speeds) => break speeds,
            None => slices += 1,
        }
    };
    println!("{slices} slices in {:.3} s: {speeds:#?}", started.elapsed().as_secs_f64());

    let vocabulary = loader.spec().vocabulary as u32;
    let prompt: Vec<u32> = (0..PREFILL_TOKENS).map(|index| index * 97 % vocabulary).collect();
    let kinds = loader.spec().kv_kinds();
    let decode = best(DECODE_TOKENS, |index| seconds(&mut *shard.runner, kinds, index, &[index * 31]))?;
    let prefill = best(PREFILLS, |_| seconds(&mut *shard.runner, kinds, 0, &prompt))?;
    for (name, measured, predicted) in [
        ("a decoded token", decode, decoding(&file, &speeds)?),
        ("a prefill of 512", prefill, prefilling(&file, &speeds)?),
    ] {
        println!("{name}: {measured:.5} s, {predicted:.5} s by the probe: {:.2}", measured / predicted);
    }
    Ok(())
}

/// Seconds that reading all weights once should take.
fn decoding(file: &ModelFile, speeds: &Speeds) -> Result<f64, Failure> {
    matrices(file).map(|info| Ok(info.bytes as f64 / speed(speeds, info)?.bytes_per_second as f64)).sum()
}

/// Seconds that the prompt's multiplications should take. The output head runs for the last position only.
fn prefilling(file: &ModelFile, speeds: &Speeds) -> Result<f64, Failure> {
    let one = |info: &TensorInfo| {
        let speed = speed(speeds, info)?;
        Ok(if info.name.starts_with("blk.") {
            (f64::from(PREFILL_TOKENS) * info.dims.iter().product::<u64>() as f64)
                / speed.multiplications_per_second as f64
        } else {
            info.bytes as f64 / speed.bytes_per_second as f64
        })
    };
    matrices(file).map(one).sum()
}

fn speed<'a>(speeds: &'a Speeds, info: &TensorInfo) -> Result<&'a FormatSpeed, Failure> {
    speeds.get(info.format.name()).ok_or_else(|| format!("{} was not measured", info.format.name()).into())
}

/// The matrices that activations are multiplied with.
fn matrices(file: &ModelFile) -> impl Iterator<Item = &TensorInfo> {
    let header = file.header();
    let looked_up = header.tensor("output.weight").map(|_| "token_embd.weight");
    header.tensors.iter().filter(move |info| info.dims.len() > 1 && Some(info.name.as_str()) != looked_up)
}

fn best(runs: u32, mut run: impl FnMut(u32) -> Result<f64, Failure>) -> Result<f64, Failure> {
    (0..runs).try_fold(f64::INFINITY, |best, index| Ok(best.min(run(index)?)))
}

/// Seconds of a step that requests a token after the last of `tokens`.
fn seconds(runner: &mut dyn Runner, kinds: KvKinds, position: u32, tokens: &[u32]) -> Result<f64, Failure> {
    let blocks = kinds.pool(PREFILL_TOKENS + DECODE_TOKENS).window;
    let (window_first, window_blocks) = kinds.ring(position..position + tokens.len() as u32, 0..blocks);
    let slice = Slice {
        position,
        count: tokens.len() as u32,
        tokens: tokens.to_vec(),
        blocks: (0..(PREFILL_TOKENS + DECODE_TOKENS).div_ceil(KV_BLOCK_TOKENS)).collect(),
        window_first,
        window_blocks,
        logits: vec![tokens.len() as u32 - 1],
        ..Slice::empty(SequenceId(0))
    };
    let started = Instant::now();
    runner.step(Work { slices: &[slice], activations: &[] })?;
    Ok(started.elapsed().as_secs_f64())
}
