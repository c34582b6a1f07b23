//! Values that this crate's tests share.

use schema::StageName;
use schema::frame::TokenMask;
use schema::record::{ClaimRecord, ClaimState, GatewayRecord, ModelRecord, Shard, Share, StageRecord};

use crate::generate::{Constraint, ConstraintError, Grammar, NextTokens, SharedGrammar};

/// A model with layers and a head of these sizes in bytes. Nothing else in it takes memory.
pub(crate) fn model(layer_bytes: &[u64], head_bytes: u64) -> ModelRecord {
    ModelRecord {
        hidden: 2,
        context_tokens: 512,
        embedding_bytes: 8,
        head_bytes,
        layer_format: Some("Q4_1".to_owned()),
        head_format: Some("Q4_1".to_owned()),
        kv_tokens: 1024,
        ..ModelRecord::new("test", layer_bytes.to_vec())
    }
}

/// A live stage with this memory.
pub(crate) fn stage(budget_bytes: u64) -> StageRecord {
    StageRecord {
        endpoint: "ipc:///nowhere".to_owned(),
        pid: 1,
        version: "0".to_owned(),
        chip: "test".to_owned(),
        ..StageRecord::new("here", budget_bytes)
    }
}

/// The claim of `shard`'s stage on it, with one block of keys and values.
pub(crate) fn claim_of(shard: &Shard, endpoint: &str, state: ClaimState) -> ClaimRecord {
    ClaimRecord {
        stage: shard.stage.clone(),
        layers: shard.layers,
        endpoint: endpoint.to_owned(),
        state,
        memory_bound_bytes: 0,
        weights_bytes: 0,
        copied_bytes: 0,
        kv_blocks: 1,
        kv_block_tokens: 32,
        loads: 1,
    }
}

/// A gateway that lives under `lease`.
pub(crate) fn gateway(lease: &str, share: Share) -> GatewayRecord {
    GatewayRecord {
        endpoint: "ipc:///gateway".to_owned(),
        pid: 1,
        lease: lease.to_owned(),
        share,
        ..GatewayRecord::new("", String::new())
    }
}

/// The stage name `name`.
pub(crate) fn name(name: &str) -> StageName {
    name.parse().expect("a legal name")
}

/// Number of tokens of [`StepGrammar`]'s vocabulary.
pub(crate) const VOCABULARY: u32 = 97;

/// A grammar over 97 tokens that depends on every accepted token: some places allow any token, some only a few or all
/// but a few, some force one or two tokens, and after twelve tokens some end the text.
#[derive(Debug)]
pub(crate) struct StepGrammar;

/// A place in it: the state after each accepted token.
#[derive(Debug)]
struct StepConstraint {
    states: Vec<StepState>,
}

#[derive(Debug, Clone, Default)]
struct StepState {
    sum: u64,
    /// Forced tokens that are not accepted yet.
    forced: Vec<u32>,
}

// === impl StepGrammar ===

impl StepGrammar {
    pub(crate) fn shared() -> SharedGrammar {
        SharedGrammar::new(Self)
    }
}

impl Grammar for StepGrammar {
    fn begin(&self) -> Box<dyn Constraint> {
        Box::new(StepConstraint { states: vec![StepState::default()] })
    }
}

// === impl StepConstraint ===

impl StepConstraint {
    fn state(&self) -> StepState {
        self.states.last().cloned().unwrap_or_default()
    }

    fn following(&self) -> NextTokens {
        let StepState { sum, forced } = self.state();
        if !forced.is_empty() {
            return NextTokens::Forced(forced);
        }
        let token = |factor: u64| (sum.wrapping_mul(factor) >> 3) as u32 % VOCABULARY;
        let mut few = vec![token(1), token(31), token(77), token(91)];
        few.sort_unstable();
        few.dedup();
        match sum % 9 {
            0 | 5 => NextTokens::Any,
            1 => NextTokens::Forced(vec![token(13)]),
            2 => NextTokens::Forced(vec![token(13), token(17)]),
            3 if self.states.len() > 12 => NextTokens::End,
            3 | 4 => NextTokens::Masked(TokenMask::Without(few)),
            6 => NextTokens::Masked(TokenMask::Bits((0..13).map(|byte| (sum >> byte) as u8 | 1).collect())),
            _ => NextTokens::Masked(TokenMask::Only(few)),
        }
    }
}

impl Constraint for StepConstraint {
    fn next(&mut self) -> Result<NextTokens, ConstraintError> {
        Ok(self.following())
    }

    fn accept(&mut self, token: u32) -> Result<bool, ConstraintError> {
        let forced = match self.following() {
            NextTokens::Any => Vec::new(),
            NextTokens::Masked(mask) if mask.allows(token) => Vec::new(),
            NextTokens::Forced(forced) if forced[0] == token => forced[1..].to_vec(),
            NextTokens::Masked(_) | NextTokens::Forced(_) | NextTokens::End => return Ok(false),
        };
        let sum = self.state().sum.wrapping_mul(31).wrapping_add(u64::from(token) + 7) % 1_000_003;
        self.states.push(StepState { sum, forced });
        Ok(true)
    }

    fn rollback(&mut self, tokens: usize) {
        self.states.truncate(self.states.len() - tokens);
    }
}
