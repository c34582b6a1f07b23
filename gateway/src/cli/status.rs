//! `baton status`: the records of the cluster in the store, as text and as JSON.

use std::fmt::Write as _;

use engine::expert_report::ExpertReport;
use engine::report::{ClusterReport, StageReport};
use engine::view::{ClusterView, PinReport};
use schema::LayerRange;
use schema::record::{DeviceKind, GatewayRecord, KvType, MemoryUse, ModelRecord, Share, Speeds, TouchedExperts};
use serde::Serialize;

use super::cluster;
use super::exit::{CliError, Exit};
use super::output::{self, billions, bytes, replace_control_chars};
use super::table::Table;
use crate::settings::ClusterSettings;

/// The document that `baton status --json` prints.
#[derive(Debug, Serialize)]
pub struct StatusDocument {
    /// The cluster's name.
    pub cluster: String,
    /// The store's revision.
    pub revision: u64,
    /// The model's name.
    pub model: Option<String>,
    /// Number of layers of the model.
    pub layers: Option<u32>,
    /// Tokens of keys and values for which every stage has room.
    pub kv_tokens: Option<u32>,
    /// Number format in which keys and values are stored.
    pub kv_type: Option<KvType>,
    /// The number of the newest placement.
    pub generation: Option<u64>,
    /// True if every layer is held exactly once, except if there are gateways and all of them report a trouble.
    pub serving: bool,
    /// The reason that the cluster does not serve, if it does not.
    pub reason: Option<String>,
    /// Layers that no stage serves.
    pub missing_layers: Vec<LayerRange>,
    /// The stages: first those with layers, in layer order.
    pub stages: Vec<StageLine>,
    /// Operators' pins and their effect.
    pub pins: Vec<PinReport>,
    /// The gateways.
    pub gateways: Vec<GatewayLine>,
    /// Entries of the store that baton ignores, each with the reason.
    pub complaints: Vec<String>,
}

/// One gateway.
#[derive(Debug, Serialize)]
pub struct GatewayLine {
    /// The gateway's slot.
    pub slot: u32,
    /// Address at which it serves HTTP.
    pub url: String,
    /// The parts of the KV cache that belong to it.
    pub share: Share,
    /// The reason that no micro-batch passes through the stages, as the gateway reports it.
    pub trouble: Option<String>,
}

/// One stage.
#[derive(Debug, Serialize)]
pub struct StageLine {
    /// The stage's name.
    pub stage: String,
    /// The stage's host. `None` if the stage is not registered.
    pub host: Option<String>,
    /// The device it computes on.
    pub device: Option<DeviceKind>,
    /// The layers that the placement gives it.
    pub layers: Option<LayerRange>,
    /// The word of its [`engine::report::StageState`].
    pub state: &'static str,
    /// The reason of the state, if the state alone does not tell it.
    pub reason: Option<String>,
    /// Upper bound of the memory that its shard can take, in bytes.
    pub memory_bound_bytes: Option<u64>,
    /// Most memory that it may use, in bytes.
    pub memory_budget_bytes: Option<u64>,
    /// Memory that it uses, as the operating system counts it.
    pub memory: Option<MemoryUse>,
    /// Its experts, and those that were computed. `None` for layers without experts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experts: Option<ExpertReport>,
    /// Size of its layers' weights, in bytes.
    pub weights_bytes: Option<u64>,
    /// Those of them that are copies in another form than the file's: nothing of them is mapped.
    pub copied_bytes: Option<u64>,
    /// Most bytes of keys and values of its layers without a window.
    pub kv_bytes: Option<u64>,
    /// Most bytes of keys and values of its layers with one.
    pub window_kv_bytes: Option<u64>,
    /// Speed of its multiplications by format of the weights, as the stage measured it.
    pub speed: Option<Speeds>,
    /// Token rows per second over the last reporting period.
    pub tokens_per_second: Option<f64>,
    /// Token rows since the stage started.
    pub tokens_total: Option<u64>,
    /// Share of the last reporting period spent computing, 0 to 1.
    pub busy: Option<f64>,
    /// Share of it with nothing to compute.
    pub idle_input: Option<f64>,
    /// Share of it spent waiting for the link to take results.
    pub idle_output: Option<f64>,
    /// Frames that the stage refused since it started.
    pub frames_refused: Option<u64>,
}

/// Reads the cluster and prints it.
pub(super) async fn run(settings: &ClusterSettings, json: bool) -> Result<Exit, CliError> {
    let view = cluster::read_once(settings).await?;
    let document = StatusDocument::new(settings.cluster.as_str(), &view);
    let text = if json { output::json(&document)? } else { render(&document) };
    output::print(&text)?;
    Ok(Exit::Ok)
}

// === impl StatusDocument ===

impl StatusDocument {
    /// The status of `cluster` by `view`.
    pub fn new(cluster: &str, view: &ClusterView) -> Self {
        let model = view.model.as_ref().map(|model| &model.value);
        let report = ClusterReport::new(view);
        let not_serving = report.serving.err();
        let missing_layers = not_serving.iter().flat_map(|reason| reason.missing.clone()).collect();
        let reason = not_serving.map(|not_serving| not_serving.reason).or_else(|| no_gateway_serves(&report.gateways));
        Self {
            cluster: cluster.to_owned(),
            revision: view.revision,
            model: model.map(|model| model.name.clone()),
            layers: model.map(|model| model.layers),
            kv_tokens: model.map(|model| model.kv_tokens),
            kv_type: model.map(|model| model.kv_type),
            generation: view.placed().map(|placed| placed.0),
            serving: reason.is_none(),
            missing_layers,
            reason,
            stages: report.stages.iter().map(|stage| StageLine::new(stage, model)).collect(),
            pins: report.pins,
            gateways: report
                .gateways
                .into_iter()
                .map(|(slot, gateway)| GatewayLine {
                    slot,
                    url: gateway.url.clone(),
                    share: gateway.share,
                    trouble: gateway.trouble.clone(),
                })
                .collect(),
            complaints: view.complaints.iter().map(ToString::to_string).collect(),
        }
    }
}

/// The reason that requests are not served although every layer is held: every gateway reports that no micro-batch
/// passes through the stages.
fn no_gateway_serves(gateways: &[(u32, &GatewayRecord)]) -> Option<String> {
    let troubles: Option<Vec<_>> = gateways
        .iter()
        .map(|(slot, gateway)| Some(format!("gateway {slot} reports that {}", gateway.trouble.as_ref()?)))
        .collect();
    troubles.filter(|troubles| !troubles.is_empty()).map(|troubles| troubles.join("; "))
}

// === impl StageLine ===

impl StageLine {
    fn new(stage: &StageReport<'_>, model: Option<&ModelRecord>) -> Self {
        let StageReport { record, claim, .. } = stage;
        let kv = model.zip(*claim).map(|(model, claim)| model.kv_bytes_of(claim.layers));
        Self {
            stage: stage.name.to_string(),
            host: record.map(|record| record.host.clone()),
            device: record.map(|record| record.device),
            layers: stage.layers,
            state: stage.state.word(),
            reason: stage.reason.as_deref().map(str::to_owned),
            memory_bound_bytes: claim.map(|claim| claim.memory_bound_bytes),
            memory_budget_bytes: record.map(|record| record.memory_budget_bytes),
            // The experts are shown beside it.
            memory: record.map(|record| MemoryUse { experts: TouchedExperts::default(), ..record.load.memory.clone() }),
            experts: record.and_then(|record| ExpertReport::of(&record.load.memory)),
            weights_bytes: claim.map(|claim| claim.weights_bytes),
            copied_bytes: claim.map(|claim| claim.copied_bytes),
            kv_bytes: kv.map(|kv| kv.full),
            window_kv_bytes: kv.map(|kv| kv.window),
            speed: record.map(|record| record.speed.clone()),
            tokens_per_second: record.map(|record| record.load.tokens_per_second),
            tokens_total: record.map(|record| record.load.tokens_total),
            busy: record.map(|record| record.load.busy),
            idle_input: record.map(|record| record.load.idle_input),
            idle_output: record.map(|record| record.load.idle_output),
            frames_refused: record.map(|record| record.load.frames_refused),
        }
    }
}

/// The document as text for people.
pub fn render(document: &StatusDocument) -> String {
    let mut text = String::new();
    let mut line = |content: String| {
        let _ = writeln!(text, "{content}");
    };
    let model = document.model.as_deref().map_or("no model yet".to_owned(), replace_control_chars);
    let layers = document.layers.map(|layers| format!(", {layers} layers")).unwrap_or_default();
    let generation = document.generation.map(|generation| format!(", generation {generation}")).unwrap_or_default();
    line(format!("cluster {}: {model}{layers}{generation}, store revision {}", document.cluster, document.revision));
    match &document.reason {
        None => line("serving: every layer is held exactly once".to_owned()),
        Some(reason) => line(format!("not serving: {}", replace_control_chars(reason))),
    }
    if let (Some(tokens), Some(kv_type)) = (document.kv_tokens, document.kv_type) {
        line(format!("room for {tokens} tokens, keys and values as {kv_type}"));
    }
    for gateway in &document.gateways {
        line(format!(
            "gateway {} at {}: parts {} of the keys and values",
            gateway.slot,
            replace_control_chars(&gateway.url),
            gateway.share
        ));
    }
    if !document.stages.is_empty() {
        line(format!("\n{}", table(&document.stages).trim_end()));
    }
    for stage in &document.stages {
        if let Some(reason) = &stage.reason {
            line(format!("stage {} is {}: {}", stage.stage, stage.state, replace_control_chars(reason)));
        }
    }
    if !document.pins.is_empty() {
        line(format!("\n{}", pins(&document.pins).trim_end()));
    }
    if let Some(speeds) = speeds(&document.stages) {
        line(format!("\n{}", speeds.trim_end()));
    }
    if !document.complaints.is_empty() {
        line("\nignored in the store:".to_owned());
        for complaint in &document.complaints {
            line(format!("  {}", replace_control_chars(complaint)));
        }
    }
    text
}

fn table(stages: &[StageLine]) -> String {
    let mut columns = vec![
        "STAGE", "HOST", "DEVICE", "LAYERS", "STATE", "BOUND", "USED", "FILE", "ANON", "WEIGHTS", "TOK/S", "BUSY",
        "IDLE IN", "IDLE OUT",
    ];
    // Only where a stage has experts: those that a token chose, of all.
    // Only where a stage has copies of weights, or keys and values of windows.
    let with_copies = stages.iter().any(|stage| stage.copied_bytes.is_some_and(|bytes| bytes > 0));
    let with_windows = stages.iter().any(|stage| stage.window_kv_bytes.is_some_and(|bytes| bytes > 0));
    columns.extend(with_copies.then_some("COPIED"));
    columns.extend(with_windows.then_some(["KV", "WINDOW KV"]).into_iter().flatten());
    let with_experts = stages.iter().any(|stage| stage.experts.is_some());
    columns.extend(with_experts.then_some("EXPERTS"));
    let mut table = Table::new(&columns);
    // A dash stands for an unknown value: the operating system does not report it, or the stage is not registered.
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let size = |count: Option<u64>| or_dash(count.filter(|count| *count > 0).map(bytes));
    let percent = |share: Option<f64>| or_dash(share.map(|share| format!("{:.0} %", share * 100.0)));
    for stage in stages {
        let memory = stage.memory.as_ref();
        let experts = stage.experts.as_ref().map(|experts| format!("{}/{}", experts.touched, experts.total));
        let cells = [
            stage.stage.clone(),
            or_dash(stage.host.clone()),
            or_dash(stage.device.map(|device| format!("{device:?}").to_lowercase())),
            or_dash(stage.layers.map(|layers| layers.to_string())),
            stage.state.to_owned(),
            size(stage.memory_bound_bytes),
            size(memory.map(|memory| memory.pss_bytes)),
            size(memory.map(|memory| memory.pss_file_bytes)),
            size(memory.map(|memory| memory.pss_anonymous_bytes)),
            size(memory.map(|memory| memory.weights_resident_bytes)),
            or_dash(stage.tokens_per_second.map(|rate| format!("{rate:.1}"))),
            percent(stage.busy),
            percent(stage.idle_input),
            percent(stage.idle_output),
        ];
        let copied = with_copies.then(|| size(stage.copied_bytes));
        let kv = with_windows.then(|| [size(stage.kv_bytes), size(stage.window_kv_bytes)]).into_iter().flatten();
        table.row(cells.into_iter().chain(copied).chain(kv).chain(with_experts.then(|| or_dash(experts))));
    }
    table.render()
}

/// The table of pins and their effect.
fn pins(reports: &[PinReport]) -> String {
    let mut table = Table::new(&["PINNED", "TO", "HONOURED", "WHY NOT"]);
    for PinReport { stage, pin, honoured, reason } in reports {
        let honoured = honoured.map_or("-", |honoured| if honoured { "yes" } else { "no" });
        let pin = pin.map_or("?".to_owned(), |pin| pin.to_string());
        table.row([stage.to_string(), pin, honoured.to_owned(), reason.clone().unwrap_or_default()]);
    }
    table.render()
}

/// The table of the speeds that the stages measured. `None` if no stage has measured itself.
fn speeds(stages: &[StageLine]) -> Option<String> {
    let mut table = Table::new(&["STAGE", "WEIGHTS", "READS", "MULTIPLIES"]);
    let measured = stages.iter().flat_map(|stage| stage.speed.iter().flatten().map(|speed| (&stage.stage, speed)));
    let mut any = false;
    for (stage, (format, speed)) in measured {
        any = true;
        let (reads, multiplies) = (billions(speed.bytes_per_second), billions(speed.multiplications_per_second));
        table.row([stage.clone(), format.clone(), format!("{reads} GB/s"), format!("{multiplies} GMAC/s")]);
    }
    any.then(|| table.render())
}

#[cfg(test)]
pub(super) mod tests {
    use engine::store::{Entry, Revision};
    use schema::record::{
        ClaimRecord, ClaimState, ExpertSet, FormatSpeed, GatewayRecord, ModelRecord, Placement, Shard, StageLoad,
        StageRecord,
    };
    use schema::{ClaimId, ClusterName, Generation, Key, Keyspace, Protocol, StageName};

    use super::*;

    fn name(stage: &str) -> StageName {
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
            chip: "chip".to_owned(),
            threads: 2,
            memory_total_bytes: 16 << 30,
            memory_budget_bytes: 8 << 30,
            speed: if host == "mini-1" { measured() } else { Speeds::new() },
            interface: None,
            link_us: 0,
            leaving: false,
            standby: Vec::new(),
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
                url: url.to_owned(),
                host: "mini-1".to_owned(),
                pid: 8,
                version: "0.1.0".to_owned(),
                protocol: Protocol::CURRENT,
                lease: "1".to_owned(),
                proof: None,
                trouble: None,
                share: Share::of(0..64),
            };
            entries.push((Key::Gateway(0), json(serde_json::to_vec(&record))));
        }
        let mut named: Vec<_> = entries.into_iter().map(|(key, value)| (keyspace.name(&key), value)).collect();
        named.push((format!("{}nonsense", keyspace.prefix()), b"\x1b[2J".to_vec()));
        let entry = |(key, value)| Entry { key, value, mod_revision: Revision(5), lease: None };
        let entries: Vec<_> = named.into_iter().map(entry).collect();
        let loads =
            [("left", stage("mini-1", 24.04)), ("right", stage("mini-2", 24.1)), ("spare", stage("mini-3", 0.0))];
        let loads = loads.map(|(stage, record)| (name(stage), record.load)).into();
        ClusterView::new(&keyspace, None, 42, &entries).with_loads(&loads)
    }

    fn shown(view: &ClusterView) -> String {
        render(&StatusDocument::new("home", view))
    }

    #[test]
    fn a_serving_cluster_is_shown_with_its_memory_and_speed() {
        let view = view(Some(ClaimState::Serving), Some("http://127.0.0.1:8100"));
        insta::assert_snapshot!(shown(&view), @r#"
        cluster home: small, 30 layers, generation 3, store revision 42
        serving: every layer is held exactly once
        room for 32 tokens, keys and values as f16
        gateway 0 at http://127.0.0.1:8100: parts 0..64 of the keys and values

        STAGE  HOST    DEVICE  LAYERS  STATE    BOUND      USED      FILE      ANON      WEIGHTS   TOK/S  BUSY  IDLE IN  IDLE OUT
        left   mini-1  cpu     0..16   serving  120.0 MiB  80.0 MiB  50.0 MiB  30.0 MiB  48.0 MiB  24.0   25 %  75 %     0 %
        right  mini-2  cpu     16..30  serving  120.0 MiB  80.0 MiB  50.0 MiB  30.0 MiB  48.0 MiB  24.1   25 %  75 %     0 %
        spare  mini-3  cpu     -       standby  -          80.0 MiB  50.0 MiB  30.0 MiB  48.0 MiB  0.0    25 %  75 %     0 %

        STAGE  WEIGHTS  READS      MULTIPLIES
        left   Q4_1     9.8 GB/s   141.0 GMAC/s
        left   Q8_0     16.4 GB/s  0.1 GMAC/s

        ignored in the store:
          /baton/v1/home/nonsense: unknown key "/baton/v1/home/nonsense": expected key-mark, model, placement, stages/<stage>, evictions/<stage>, pins/<stage>, pins-status/<stage>, starts/<stage>, claims/<generation>/<slot>, gateways/<slot> or tokens/<id> below /baton/v1/home/
        "#);
    }

    #[test]
    fn copies_of_weights_and_the_room_of_windows_have_columns_of_their_own() {
        let mut view = view(Some(ClaimState::Serving), None);
        let plain = shown(&view);
        assert!(!plain.contains("COPIED") && !plain.contains("WINDOW KV"), "{plain}");
        let model = &mut view.model.as_mut().unwrap().value;
        model.kv_bytes_per_token_layer = 1 << 15;
        model.layer_windows = (0..30).map(|layer| if layer % 2 == 0 { 8 } else { 0 }).collect();
        for claim in view.claims.values_mut() {
            claim.value.copied_bytes = 3 << 20;
        }
        let text = shown(&view);
        let line = text.lines().find(|line| line.starts_with("left ")).unwrap();
        let header = text.lines().find(|line| line.starts_with("STAGE ")).unwrap();
        assert!(header.ends_with("COPIED   KV       WINDOW KV"), "{header}");
        assert!(line.ends_with("3.0 MiB  8.0 MiB  8.0 MiB"), "{line}");
    }

    #[test]
    fn a_stage_with_experts_shows_those_that_were_computed() {
        let mut view = view(Some(ClaimState::Serving), None);
        let memory = &mut view.stages.get_mut(&name("left")).unwrap().value.load.memory;
        memory.experts_touched = 3;
        memory.experts = TouchedExperts::new(0, vec![ExpertSet::new(8, [0b1100_0001]), ExpertSet::new(8, [0])]);
        let text = shown(&view);
        assert!(text.contains("IDLE OUT  EXPERTS\n") && text.contains("0 %       3/16\n"), "{text}");
        assert!(text.contains("0 %       -\n"), "the others have none: {text}");
        let json = serde_json::to_value(StatusDocument::new("home", &view)).unwrap();
        let layers = serde_json::json!([
            {"layer": 0, "total": 8, "touched": 3, "ranges": "0,6-7"},
            {"layer": 1, "total": 8, "touched": 0, "ranges": ""},
        ]);
        assert_eq!(json["stages"][0]["experts"], serde_json::json!({"total": 16, "touched": 3, "layers": layers}));
        assert!(json["stages"][0]["memory"].get("experts").is_none() && json["stages"][1].get("experts").is_none());
    }

    #[test]
    fn the_layers_of_a_lost_stage_are_named() {
        insta::assert_snapshot!(shown(&view(None, None)), @r#"
        cluster home: small, 30 layers, generation 3, store revision 42
        not serving: layers 16..30 are held by nobody: stage right is gone
        room for 32 tokens, keys and values as f16

        STAGE  HOST    DEVICE  LAYERS  STATE    BOUND      USED      FILE      ANON      WEIGHTS   TOK/S  BUSY  IDLE IN  IDLE OUT
        left   mini-1  cpu     0..16   serving  120.0 MiB  80.0 MiB  50.0 MiB  30.0 MiB  48.0 MiB  24.0   25 %  75 %     0 %
        right  -       -       16..30  gone     -          -         -         -         -         -      -     -        -
        spare  mini-3  cpu     -       standby  -          80.0 MiB  50.0 MiB  30.0 MiB  48.0 MiB  0.0    25 %  75 %     0 %

        STAGE  WEIGHTS  READS      MULTIPLIES
        left   Q4_1     9.8 GB/s   141.0 GMAC/s
        left   Q8_0     16.4 GB/s  0.1 GMAC/s

        ignored in the store:
          /baton/v1/home/nonsense: unknown key "/baton/v1/home/nonsense": expected key-mark, model, placement, stages/<stage>, evictions/<stage>, pins/<stage>, pins-status/<stage>, starts/<stage>, claims/<generation>/<slot>, gateways/<slot> or tokens/<id> below /baton/v1/home/
        "#);
    }

    #[test]
    fn a_stage_that_could_not_load_is_shown_with_the_reason() {
        let failed = ClaimState::Failed { reason: "file\u{1b}[2J is cut".to_owned() };
        let text = shown(&view(Some(failed), None));
        assert!(text.contains("stage right could not load them: file\u{fffd}[2J is cut"), "{text}");
        assert!(text.contains("failed"), "{text}");
    }

    #[test]
    fn an_empty_store_is_a_cluster_without_a_model() {
        let keyspace = Keyspace::new(&"home".parse::<ClusterName>().unwrap());
        insta::assert_snapshot!(shown(&ClusterView::new(&keyspace, None, 1, [])), @r#"
        cluster home: no model yet, store revision 1
        not serving: the cluster has no model yet
        "#);
    }

    #[test]
    fn json_has_what_the_table_has() {
        let document = StatusDocument::new("home", &view(None, None));
        let value = serde_json::to_value(&document).unwrap();
        assert_eq!(value["missing_layers"], serde_json::json!([[16, 30]]));
        assert_eq!(value["serving"], false);
        assert_eq!(value["stages"][0]["layers"], serde_json::json!([0, 16]));
        assert_eq!(value["stages"][0]["memory"]["pss_file_bytes"], 50 << 20);
        assert_eq!(value["stages"][0]["speed"]["Q4_1"]["bytes_per_second"], 9_840_000_000_u64);
        assert_eq!(value["stages"][1]["speed"], serde_json::Value::Null);
        assert_eq!(value["stages"][1]["state"], "gone");
        assert_eq!(value["stages"][2]["state"], "standby");
    }
}
