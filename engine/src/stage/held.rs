//! The shard that a stage holds: its generation, its slot and its phase. Pure.

use schema::record::{ClaimRecord, ClaimState, KvRoom, Shard};
use schema::{ClaimId, Generation, StageName};

use super::done::Loaded;
use crate::runner::KV_BLOCK_TOKENS;
use crate::view::ClusterView;

/// The phase of a shard.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Phase {
    /// The claim is being written; nothing is loaded yet.
    Claiming,
    /// Its weights are being read into memory, while an older shard is served.
    ReadingAhead,
    /// Its weights are read: it waits for the other stages to be as far.
    Read,
    /// It is being mapped.
    Loading,
    /// It takes frames.
    Ready(Loaded),
    /// It could not be loaded.
    Failed { reason: String },
}

/// One shard of one generation.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) generation: Generation,
    pub(crate) slot: u32,
    pub(crate) shard: Shard,
    pub(crate) phase: Phase,
    pub(crate) memory_bound_bytes: u64,
    /// The room for keys and values that it is loaded with.
    pub(crate) room: KvRoom,
    /// The number of the order by which it is loaded.
    pub(crate) loads: u64,
}

/// The receiver of this stage's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// To the stage in the next slot, at this endpoint.
    Stage { slot: u32, endpoint: String },
    /// Back to the gateway: this is the last stage.
    Gateway,
    /// There is none: the next stage does not serve.
    Nobody,
}

// === impl Held ===

impl Held {
    /// Sets the phase by the outcome of loading.
    pub(crate) fn loaded(&mut self, loaded: Result<Loaded, String>) {
        self.phase = match loaded {
            Ok(loaded) => Phase::Ready(loaded),
            Err(reason) => Phase::Failed { reason },
        };
    }

    /// The id of its claim.
    pub(crate) fn id(&self) -> ClaimId {
        ClaimId::new(self.generation, self.slot)
    }

    /// Number of blocks for whose keys and values it has room. 0 until it takes frames.
    pub(crate) fn kv_blocks(&self) -> u32 {
        if let Phase::Ready(loaded) = &self.phase { loaded.kv_blocks } else { 0 }
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready(_))
    }

    /// The claim as it should stand in the store.
    pub(crate) fn record(&self, stage: &StageName, endpoint: &str) -> ClaimRecord {
        let (state, loaded) = match &self.phase {
            Phase::Claiming | Phase::ReadingAhead | Phase::Loading => (ClaimState::Loading, Loaded::default()),
            Phase::Read => (ClaimState::Ready, Loaded::default()),
            Phase::Ready(loaded) => (ClaimState::Serving, *loaded),
            Phase::Failed { reason } => (ClaimState::Failed { reason: reason.clone() }, Loaded::default()),
        };
        let Loaded { weights_bytes, copied_bytes, kv_blocks } = loaded;
        ClaimRecord {
            stage: stage.clone(),
            layers: self.shard.layers,
            endpoint: endpoint.to_owned(),
            state,
            memory_bound_bytes: self.memory_bound_bytes,
            weights_bytes,
            copied_bytes,
            kv_blocks,
            kv_block_tokens: KV_BLOCK_TOKENS,
            loads: self.loads,
        }
    }

    /// The receiver of its output, according to `view`.
    pub(crate) fn next(&self, view: &ClusterView) -> Next {
        let end = self.shard.layers.end();
        if view.model.as_ref().is_some_and(|model| model.value.layers == end) {
            return Next::Gateway;
        }
        let slot = self.slot + 1;
        let claim = view.claims.get(&ClaimId::new(self.generation, slot)).map(|claim| &claim.value);
        let claim = claim.filter(|claim| claim.layers.start() == end && claim.state == ClaimState::Serving);
        claim.map_or(Next::Nobody, |claim| Next::Stage { slot, endpoint: claim.endpoint.clone() })
    }
}
