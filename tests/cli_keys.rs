//! `etc/keys.md` shows the real keys, with values as baton writes them.
//!
//! Run with `BATON_WRITE_KEYS=1` to update the document after a record has changed.

use schema::record::{
    AdvertisedAddress, ClaimRecord, ClaimState, DeviceKind, EvictionRecord, ExpertSet, FormatSpeed, GatewayLoad,
    GatewayRecord, InterfaceKind, KeyMark, KvType, LinkReport, LinkState, MemoryUse, ModelRecord, NetworkInterface,
    Pin, PinStatus, Placement, Proof, Rollout, Shard, Share, StageLoad, StageRecord, StartsRecord, TokenRecord,
    TouchedExperts,
};
use schema::{
    ClaimId, ClusterName, Deployment, Epoch, Fingerprint, Generation, Key, Keyspace, LayerRange, Protocol, StageName,
};
use serde::Serialize;

const DOCUMENT: &str = include_str!("../etc/keys.md");

fn stage(name: &str) -> StageName {
    name.parse().unwrap()
}

fn layers(start: u32, end: u32) -> LayerRange {
    LayerRange::new(start, end).unwrap()
}

/// The example cluster: the default model on two Macs.
fn records() -> Vec<(String, String)> {
    let model = ModelRecord {
        name: "SmolLM2-135M-Instruct.Q4_1".to_owned(),
        source: Some("smollm2".to_owned()),
        architecture: "llama".to_owned(),
        fingerprint: Fingerprint("5b1f9ac07d3e6e2f4c88a1d09b7e3f65".to_owned()),
        layers: 30,
        hidden: 576,
        context_tokens: 8192,
        embedding_bytes: 30_081_024,
        layer_bytes: vec![2_216_448; 30],
        head_bytes: 30_083_328,
        layer_read_bytes: Vec::new(),
        layer_multiplications: vec![3_540_096; 30],
        head_multiplications: 28_311_552,
        layer_format: Some("Q4_1".to_owned()),
        layer_formats: Vec::new(),
        head_format: Some("Q8_0".to_owned()),
        kv_bytes_per_token_layer: 1536,
        layer_kv_bytes: Vec::new(),
        layer_windows: Vec::new(),
        bidirectional: false,
        kv_tokens: 8192,
        kv_growth: None,
        kv_type: KvType::F16,
        scratch_bytes: 16_777_216,
        stages_min: 2,
    };
    let token = TokenRecord {
        secret_hash: "7e".repeat(32),
        created_s: 1_796_083_200,
        expires_s: Some(1_796_169_600),
        revoked_s: None,
    };
    let shards = vec![
        Shard { layers: layers(0, 22), stage: stage("mini-1") },
        Shard { layers: layers(22, 30), stage: stage("mini-2") },
    ];
    let claim = ClaimRecord {
        stage: stage("mini-2"),
        layers: layers(22, 30),
        endpoint: "tcp://mini-2.local:41873".to_owned(),
        state: ClaimState::Serving,
        memory_bound_bytes: 165_254_144,
        weights_bytes: 47_814_912,
        copied_bytes: 0,
        kv_blocks: 256,
        kv_block_tokens: 32,
        loads: 1,
    };
    let memory = MemoryUse {
        rss_bytes: 101_711_872,
        pss_bytes: 95_420_416,
        pss_file_bytes: 54_525_952,
        pss_anonymous_bytes: 40_894_464,
        weights_resident_bytes: 47_814_912,
        experts_touched: 3,
        experts: TouchedExperts::new(22, vec![ExpertSet::new(8, [0b1100_0001]), ExpertSet::new(8, [0])]),
        fetched_percent: None,
    };
    let record = StageRecord {
        endpoint: "tcp://mini-2.local:41873".to_owned(),
        host: "mini-2.local".to_owned(),
        pid: 4711,
        version: "0.1.0".to_owned(),
        protocol: Protocol(4),
        lease: "694d9a1bcd5e3a11".to_owned(),
        proof: Some(Proof("9e".repeat(32))),
        device: DeviceKind::Cpu,
        device_reason: None,
        chip: "Apple M4".to_owned(),
        threads: 4,
        memory_total_bytes: 17_179_869_184,
        memory_budget_bytes: 12_884_901_888,
        speed: [("Q4_1", 41_300_000_000, 412_000_000_000), ("Q8_0", 58_900_000_000, 398_000_000_000)]
            .map(|(format, bytes_per_second, multiplications_per_second)| {
                (format.to_owned(), FormatSpeed { bytes_per_second, multiplications_per_second })
            })
            .into(),
        interface: Some(NetworkInterface {
            name: "bridge0".to_owned(),
            kind: InterfaceKind::Thunderbolt,
            megabits_per_second: None,
            mtu: Some(9000),
        }),
        addresses: vec![
            advertised("tcp://169.254.7.2:41873", "bridge0", InterfaceKind::Thunderbolt),
            advertised("tcp://192.168.1.12:41873", "en1", InterfaceKind::Wifi),
        ],
        link_us: 180,
        link_megabits_per_second: Some(9400),
        leaving: false,
        standby: Vec::new(),
        stored: None,
        layers_endpoint: None,
        trouble: None,
        load: StageLoad::default(),
    };
    let load = StageLoad {
        memory,
        tokens_total: 1834,
        tokens_per_second: 41.5,
        busy: 0.62,
        idle_input: 0.36,
        idle_output: 0.02,
        batches_total: 1702,
        compute_s_total: 21.5,
        queue_s_total: 0.4,
        send_s_total: 0.1,
        sent_bytes_total: 4_225_536,
        frames_refused: 0,
        frame_refused: None,
        strikes_total: 0,
        links: vec![
            link("tcp://169.254.7.1:41870", Some(140), LinkState::Used),
            link("tcp://192.168.1.11:41870", Some(2900), LinkState::Spare),
        ],
    };
    let status = PinStatus {
        honoured: false,
        reason: Some(
            "layers 0..22 would be held by nobody: the stages that are free to take them have no room beside what is \
             pinned (mini-2 22..30)"
                .to_owned(),
        ),
        pin_revision: 317,
    };
    let eviction = EvictionRecord {
        by: "stage mini-2".to_owned(),
        endpoint: "tcp://mini-3.local:40111".to_owned(),
        cause: "tcp://mini-3.local:40111 did not accept this process: it speaks protocol 1: expected 2".to_owned(),
    };
    let gateway = GatewayRecord {
        endpoint: "tcp://mini-1.local:41870".to_owned(),
        addresses: vec![advertised("tcp://169.254.7.1:41870", "bridge0", InterfaceKind::Thunderbolt)],
        url: "http://mini-1.local:8100".to_owned(),
        host: "mini-1.local".to_owned(),
        pid: 4242,
        version: "0.1.0".to_owned(),
        protocol: Protocol(4),
        lease: "694d9a1bcd5e3a0f".to_owned(),
        proof: Some(Proof("4c".repeat(32))),
        trouble: None,
        share: Share::of(0..32),
        epoch: Some(Epoch(0)),
        kv_tokens_needed: 0,
    };
    let records = vec![
        (Key::KeyMark, json(&KeyMark { mark: "8f14e45fceea167a5a36dedd4bea2543".to_owned() })),
        (Key::Model, json(&model)),
        (Key::Stage(stage("mini-2")), json(&record)),
        (Key::Eviction(stage("mini-3")), json(&eviction)),
        (Key::Pin(stage("mini-2")), json(&Pin::Layers(layers(22, 30)))),
        (Key::PinStatus(stage("mini-2")), json(&status)),
        (Key::Starts(stage("mini-2")), json(&StartsRecord { starts: 5, wait_s: 2 })),
        (Key::Placement, json(&Placement::new(Generation(3), shards).unwrap())),
        (Key::Claim(ClaimId::new(Generation(3), 1)), json(&claim)),
        (Key::Gateway(0), json(&gateway)),
        (Key::Token("7f3a90c1".parse().unwrap()), json(&token)),
        (Key::Rollout, json(&Rollout::default().with_next(Deployment(1)).unwrap())),
    ];
    let keyspace = keyspace();
    let named = records.into_iter().map(|(key, record)| (keyspace.name(&key), record));
    let of_gateway = GatewayLoad { links: vec![link("tcp://169.254.7.2:41873", Some(150), LinkState::Used)] };
    let loads =
        [(keyspace.load_name(&stage("mini-2")), json(&load)), (keyspace.gateway_load_name(0), json(&of_gateway))];
    named.chain(loads).collect()
}

fn advertised(endpoint: &str, name: &str, kind: InterfaceKind) -> AdvertisedAddress {
    let interface = NetworkInterface { name: name.to_owned(), kind, megabits_per_second: None, mtu: Some(1500) };
    AdvertisedAddress { endpoint: endpoint.to_owned(), interface }
}

fn link(address: &str, rtt_us: Option<u32>, state: LinkState) -> LinkReport {
    LinkReport {
        to: "tcp://mini-1.local:41870".to_owned(),
        address: address.to_owned(),
        rtt_us,
        megabits_per_second: None,
        state,
    }
}

fn keyspace() -> Keyspace {
    Keyspace::new(&"home".parse::<ClusterName>().unwrap())
}

fn json(record: &impl Serialize) -> String {
    serde_json::to_string(record).unwrap()
}

/// The document with each example's value as baton writes it today. An example is a line `KEY` in a code block that
/// begins with ```` ```key ````, followed by its value.
fn rewritten(document: &str) -> String {
    let mut records = records();
    let mut text = String::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        text += &format!("{line}\n");
        if line != "```key" {
            continue;
        }
        let name = lines.next().unwrap();
        let at = records.iter().position(|(key, _)| key == name);
        let (_, value) = records.remove(at.unwrap_or_else(|| panic!("{name} is no example, or is shown twice")));
        for _ in lines.by_ref().take_while(|line| *line != "```") {}
        text += &format!("{name}\n{value}\n```\n");
    }
    assert!(records.is_empty(), "not shown in etc/keys.md: {records:?}");
    text
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a switch of this test, no setting")]
fn the_key_document_shows_what_baton_writes() {
    let expected = rewritten(DOCUMENT);
    if std::env::var_os("BATON_WRITE_KEYS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/etc/keys.md"), &expected).unwrap();
        return;
    }
    assert_eq!(DOCUMENT, expected, "etc/keys.md is out of date: run this test with BATON_WRITE_KEYS=1");
}

#[test]
fn every_kind_of_key_is_explained() {
    let keyspace = keyspace();
    for (key, _) in records() {
        let kind = match key.strip_prefix(keyspace.prefix()) {
            Some(below) => below.split('/').next().unwrap(),
            None => keyspace.load_prefix().trim_end_matches("home/"),
        };
        assert!(DOCUMENT.contains(&format!("## `{kind}")), "etc/keys.md has no section for {kind}");
    }
}
