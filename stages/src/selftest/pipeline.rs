//! A model's shards on the device, and sequences that run through them in any division.

use engine::runner::{KV_BLOCK_TOKENS, Loader, Output, Runner, Work};
use schema::frame::{Chosen, Slice};
use schema::record::{KvRoom, KvType};
use schema::{LayerRange, SequenceId};

use super::SelfTestError;

/// Sequences that have room.
const SEQUENCES: u32 = 3;
/// Tokens that each has room for.
const TOKENS_EACH: u32 = 64;

/// The shards of a model, one after the other.
pub(super) struct Pipeline {
    runners: Vec<Box<dyn Runner>>,
}

/// A part of a sequence: `tokens` from `position` on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) sequence: u32,
    pub(super) position: u32,
    pub(super) tokens: &'a [u32],
}

// === impl Pipeline ===

impl Pipeline {
    /// The shards of a model of `layers` layers, cut before each of the layers `cuts`.
    ///
    /// # Errors
    /// [`SelfTestError::Model`] if the device refuses: its kernels are compared when they are loaded.
    pub(super) fn load(loader: &dyn Loader, layers: u32, cuts: &[u32]) -> Result<Self, SelfTestError> {
        let ends: Vec<u32> = [0].iter().chain(cuts).chain([&layers]).copied().collect();
        let room = KvRoom { tokens: SEQUENCES * TOKENS_EACH, kv_type: KvType::F16 };
        let load = |ends: &[u32]| {
            let range = LayerRange::new(ends[0], ends[1]).ok_or_else(|| "no layers".to_owned())?;
            loader.load(range, room, u64::MAX).map(|shard| shard.runner).map_err(|error| crate::loader::chain(&error))
        };
        let runners = ends.windows(2).map(load).collect::<Result<_, _>>().map_err(SelfTestError::Model)?;
        Ok(Self { runners })
    }

    /// The likeliest token after each token of the pieces, in one micro-batch.
    ///
    /// # Errors
    /// The device's reason.
    pub(super) fn step(&mut self, pieces: &[Piece<'_>]) -> Result<Vec<Chosen>, String> {
        let mut slices: Vec<Slice> = pieces.iter().map(slice).collect();
        let mut activations = Vec::new();
        for runner in &mut self.runners {
            let work = Work { slices: &slices, activations: &activations };
            match runner.step(work).map_err(|error| error.to_string())? {
                Output::Tokens { chosen, .. } => return Ok(chosen),
                Output::Activations(rows) => activations = rows,
            }
            // The first shard alone gets tokens.
            slices.iter_mut().for_each(|slice| slice.tokens.clear());
        }
        Err("the last shard gives no tokens".to_owned())
    }

    /// The likeliest tokens of a sequence that is computed in chunks.
    pub(super) fn chunked(&mut self, sequence: u32, ids: &[u32], chunk: usize) -> Result<Vec<Chosen>, String> {
        let mut all = Vec::new();
        for (position, tokens) in (0..).step_by(chunk).zip(ids.chunks(chunk)) {
            all.extend(self.step(&[Piece { sequence, position, tokens }])?);
        }
        Ok(all)
    }

    /// The likeliest tokens of three sequences of the same tokens in common micro-batches, each a step behind the one
    /// before.
    pub(super) fn together(&mut self, ids: &[u32], chunk: usize) -> Result<[Vec<Chosen>; SEQUENCES as usize], String> {
        let chunks: Vec<(u32, &[u32])> = (0..).step_by(chunk).zip(ids.chunks(chunk)).collect();
        let mut all = [const { Vec::new() }; SEQUENCES as usize];
        for step in 0..chunks.len() + all.len() - 1 {
            let piece = |sequence: u32| {
                let (position, tokens) = *chunks.get(step.checked_sub(sequence as usize)?)?;
                Some(Piece { sequence, position, tokens })
            };
            let pieces: Vec<Piece<'_>> = (0..SEQUENCES).filter_map(piece).collect();
            for chosen in self.step(&pieces)? {
                let sequence = chosen.sequence.0 as usize;
                all.get_mut(sequence).ok_or_else(|| format!("a token of sequence {sequence}"))?.push(chosen);
            }
        }
        Ok(all)
    }

    /// The shards.
    pub(super) fn into_runners(self) -> Vec<Box<dyn Runner>> {
        self.runners
    }
}

/// The first token whose choice or probability is not that of `alone`, bit by bit.
pub(super) fn same(found: &[Chosen], alone: &[Chosen]) -> Result<(), String> {
    if found.len() != alone.len() {
        return Err(format!("{} tokens: expected {}", found.len(), alone.len()));
    }
    let bits = |chosen: &Chosen| (chosen.position, chosen.token, chosen.logprob.to_bits());
    match found.iter().zip(alone).find(|(found, alone)| bits(found) != bits(alone)) {
        None => Ok(()),
        Some((found, alone)) => Err(format!(
            "token {} at position {} with logarithm {}: alone it is {} with {}",
            found.token, found.position, found.logprob, alone.token, alone.logprob
        )),
    }
}

fn slice(piece: &Piece<'_>) -> Slice {
    // Neighbouring blocks belong to different sequences, to show mistakes in addressing them.
    let blocks: Vec<u32> = (0..TOKENS_EACH / KV_BLOCK_TOKENS).map(|block| block * SEQUENCES + piece.sequence).collect();
    Slice {
        position: piece.position,
        count: piece.tokens.len() as u32,
        tokens: piece.tokens.to_vec(),
        window_blocks: blocks.clone(),
        blocks,
        logits: (0..piece.tokens.len() as u32).collect(),
        ..Slice::empty(SequenceId(piece.sequence.into()))
    }
}
