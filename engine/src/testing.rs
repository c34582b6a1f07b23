//! Values that this crate's tests share.

use schema::StageName;
use schema::record::{ClaimRecord, ClaimState, GatewayRecord, ModelRecord, Shard, Share, StageRecord};

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
