//! A cluster for tests, read from the text of its store.

use engine::membership::Loads;
use engine::store::{Entry, Revision};
use engine::view::ClusterView;
use schema::record::{
    ClaimRecord, ClaimState, DeviceKind, FormatSpeed, GatewayRecord, MemoryUse, ModelRecord, Placement, Shard, Share,
    Speeds, StageLoad, StageRecord,
};
use schema::{ClaimId, ClusterName, Epoch, Generation, Key, Keyspace, LayerRange, Protocol, StageName};

pub(in crate::cli) fn name(stage: &str) -> StageName {
    stage.parse().unwrap()
}

fn layers(start: u32, end: u32) -> LayerRange {
    LayerRange::new(start, end).unwrap()
}

fn model() -> ModelRecord {
    ModelRecord {
        hidden: 576,
        context_tokens: 8192,
        embedding_bytes: 1,
        head_bytes: 1,
        kv_bytes_per_token_layer: 1,
        kv_tokens: 32,
        scratch_bytes: 1,
        stages_min: 2,
        ..ModelRecord::new("small", vec![1; 30])
    }
}

fn stage(host: &str, tokens_per_second: f64) -> StageRecord {
    let memory = MemoryUse {
        rss_bytes: 90 << 20,
        pss_bytes: 80 << 20,
        pss_file_bytes: 50 << 20,
        pss_anonymous_bytes: 30 << 20,
        weights_resident_bytes: 48 << 20,
        ..MemoryUse::default()
    };
    StageRecord {
        endpoint: "tcp://10.0.0.1:7000".to_owned(),
        host: host.to_owned(),
        pid: 7,
        version: "0.1.0".to_owned(),
        protocol: Protocol::CURRENT,
        lease: String::new(),
        proof: None,
        device: DeviceKind::Cpu,
        device_reason: None,
        chip: "chip".to_owned(),
        threads: 2,
        memory_total_bytes: 16 << 30,
        memory_budget_bytes: 8 << 30,
        speed: if host == "mini-1" { measured() } else { Speeds::new() },
        interface: None,
        addresses: Vec::new(),
        link_us: 0,
        link_megabits_per_second: None,
        leaving: false,
        standby: Vec::new(),
        stored: None,
        layers_endpoint: None,
        trouble: None,
        load: StageLoad {
            memory,
            tokens_total: 100,
            tokens_per_second,
            busy: 0.254,
            idle_input: 0.746,
            ..StageLoad::default()
        },
    }
}

fn measured() -> Speeds {
    let speed =
        |bytes_per_second, multiplications_per_second| FormatSpeed { bytes_per_second, multiplications_per_second };
    let speeds = [("Q4_1", speed(9_840_000_000, 141_000_000_000)), ("Q8_0", speed(16_400_000_000, 98_000_000))];
    speeds.map(|(format, speed)| (format.to_owned(), speed)).into()
}

fn claim(stage: &str, range: LayerRange, state: ClaimState) -> ClaimRecord {
    ClaimRecord {
        stage: name(stage),
        layers: range,
        endpoint: "tcp://10.0.0.1:7000".to_owned(),
        state,
        memory_bound_bytes: 120 << 20,
        weights_bytes: 48 << 20,
        copied_bytes: 0,
        kv_blocks: 1,
        kv_block_tokens: 32,
        loads: 1,
    }
}

/// A cluster named `home`, read from the text of its store: two stages with all layers, the second in `state`, and
/// one standing by.
pub(in crate::cli) fn view(second: Option<ClaimState>, gateway: Option<&str>) -> ClusterView {
    let keyspace = Keyspace::new(&"home".parse::<ClusterName>().unwrap());
    let shards = vec![
        Shard { layers: layers(0, 16), stage: name("left") },
        Shard { layers: layers(16, 30), stage: name("right") },
    ];
    let json = |value: serde_json::Result<Vec<u8>>| value.unwrap();
    let mut entries = vec![
        (Key::Model, json(serde_json::to_vec(&model()))),
        (Key::Placement, json(serde_json::to_vec(&Placement::new(Generation(3), shards).unwrap()))),
        (Key::Stage(name("left")), json(serde_json::to_vec(&stage("mini-1", 24.04)))),
        (Key::Stage(name("spare")), json(serde_json::to_vec(&stage("mini-3", 0.0)))),
        (
            Key::Claim(ClaimId::new(Generation(3), 0)),
            json(serde_json::to_vec(&claim("left", layers(0, 16), ClaimState::Serving))),
        ),
    ];
    if let Some(state) = second {
        entries.push((Key::Stage(name("right")), json(serde_json::to_vec(&stage("mini-2", 24.1)))));
        let claim = claim("right", layers(16, 30), state);
        entries.push((Key::Claim(ClaimId::new(Generation(3), 1)), json(serde_json::to_vec(&claim))));
    }
    if let Some(url) = gateway {
        let record = GatewayRecord {
            endpoint: "ipc:///tmp/x".to_owned(),
            addresses: Vec::new(),
            url: url.to_owned(),
            host: "mini-1".to_owned(),
            pid: 8,
            version: "0.1.0".to_owned(),
            protocol: Protocol::CURRENT,
            lease: "1".to_owned(),
            proof: None,
            trouble: None,
            share: Share::of(0..64),
            epoch: Some(Epoch(0)),
            kv_tokens_needed: 0,
        };
        entries.push((Key::Gateway(0), json(serde_json::to_vec(&record))));
    }
    let mut named: Vec<_> = entries.into_iter().map(|(key, value)| (keyspace.name(&key), value)).collect();
    named.push((format!("{}nonsense", keyspace.prefix()), b"\x1b[2J".to_vec()));
    let entry = |(key, value)| Entry { key, value, mod_revision: Revision(5), lease: None };
    let entries: Vec<_> = named.into_iter().map(entry).collect();
    let loads = [("left", stage("mini-1", 24.04)), ("right", stage("mini-2", 24.1)), ("spare", stage("mini-3", 0.0))];
    let stages = loads.map(|(stage, record)| (name(stage), record.load)).into();
    let loads = Loads { stages, ..Loads::default() };
    ClusterView::new(&keyspace, None, 42, &entries).with_loads(&loads)
}
