//! Values that this crate's tests share.

use schema::record::{
    ClaimRecord, ClaimState, DeviceKind, GatewayRecord, KvType, ModelRecord, Shard, Share, Speeds, StageLoad,
    StageRecord,
};
use schema::{Fingerprint, StageName};

/// A model with layers and a head of these sizes in bytes. Nothing else in it takes memory.
pub(crate) fn model(layer_bytes: &[u64], head_bytes: u64) -> ModelRecord {
    ModelRecord {
        name: "test".to_owned(),
        architecture: "llama".to_owned(),
        fingerprint: Fingerprint("00".to_owned()),
        layers: layer_bytes.len() as u32,
        hidden: 2,
        context_tokens: 512,
        embedding_bytes: 8,
        layer_bytes: layer_bytes.to_vec(),
        head_bytes,
        layer_multiplications: Vec::new(),
        head_multiplications: 0,
        layer_format: Some("Q4_1".to_owned()),
        head_format: Some("Q4_1".to_owned()),
        kv_bytes_per_token_layer: 0,
        kv_tokens: 1024,
        kv_type: KvType::F16,
        scratch_bytes: 0,
        stages_min: 1,
    }
}

/// A live stage with this memory.
pub(crate) fn stage(budget_bytes: u64) -> StageRecord {
    StageRecord {
        endpoint: "ipc:///nowhere".to_owned(),
        host: "here".to_owned(),
        pid: 1,
        version: "0".to_owned(),
        lease: String::new(),
        proof: None,
        device: DeviceKind::Cpu,
        chip: "test".to_owned(),
        threads: 1,
        memory_total_bytes: budget_bytes,
        memory_budget_bytes: budget_bytes,
        speed: Speeds::new(),
        link_us: 0,
        leaving: false,
        standby: Vec::new(),
        trouble: None,
        load: StageLoad::default(),
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
        endpoint: "ipc:///head".to_owned(),
        url: String::new(),
        host: String::new(),
        pid: 1,
        version: String::new(),
        lease: lease.to_owned(),
        proof: None,
        trouble: None,
        share,
    }
}

/// The stage name `name`.
pub(crate) fn name(name: &str) -> StageName {
    name.parse().expect("a legal name")
}
