//! The status as text for people. Pure.

use std::fmt::Write as _;

use super::super::output::replace_control_chars;
use super::document::StatusDocument;
use super::{link_table, pin_table, speed_table, stage_table};

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
        let rule = document.kv_tokens_max.map(|most| format!(" (by the smallest stage's memory, at most {most})"));
        line(format!("room for {tokens} tokens, keys and values as {kv_type}{}", rule.unwrap_or_default()));
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
        line(format!("\n{}", stage_table::render(&document.stages).trim_end()));
    }
    for stage in &document.stages {
        if let (Some(device), Some(reason)) = (stage.device, &stage.device_reason) {
            let device = format!("{device:?}").to_lowercase();
            line(format!("stage {} computes on {device}: {}", stage.stage, replace_control_chars(reason)));
        }
        if let Some(reason) = &stage.reason {
            line(format!("stage {} is {}: {}", stage.stage, stage.state, replace_control_chars(reason)));
        }
    }
    if let Some(links) = link_table::render(&document.links) {
        line(format!("\n{}", links.trim_end()));
    }
    if !document.pins.is_empty() {
        line(format!("\n{}", pin_table::render(&document.pins).trim_end()));
    }
    if let Some(speeds) = speed_table::render(&document.stages) {
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

#[cfg(test)]
mod tests {
    use engine::view::ClusterView;
    use schema::record::{
        AdvertisedAddress, ClaimState, ExpertSet, InterfaceKind, LinkReport, LinkState, NetworkInterface,
        TouchedExperts,
    };
    use schema::{ClusterName, Keyspace};

    use super::super::fixture::{name, view};
    use super::*;

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
          /baton/v1/home/nonsense: unknown key "/baton/v1/home/nonsense": expected key-mark, model, placement, stages/<stage>, evictions/<stage>, pins/<stage>, pins-status/<stage>, starts/<stage>, claims/<generation>/<slot>, gateways/<slot>, tokens/<id>, rollout or deployments/<n>/… below /baton/v1/home/
        "#);
    }

    #[test]
    fn links_are_shown_with_their_interface_and_use() {
        let mut view = view(Some(ClaimState::Serving), Some("http://127.0.0.1:8100"));
        let advertised = |endpoint: &str, name: &str, kind, megabits_per_second| AdvertisedAddress {
            endpoint: endpoint.to_owned(),
            interface: NetworkInterface { name: name.to_owned(), kind, megabits_per_second, mtu: Some(1500) },
        };
        let right = &mut view.stages.get_mut(&name("right")).unwrap().value;
        right.endpoint = "tcp://192.168.1.12:7000".to_owned();
        right.addresses = vec![
            advertised("tcp://169.254.7.2:7000", "bridge0", InterfaceKind::Thunderbolt, Some(40_000)),
            advertised("tcp://192.168.1.12:7000", "en1", InterfaceKind::Wifi, None),
        ];
        let link = |to: &str, address: &str, rtt_us, state| LinkReport {
            to: to.to_owned(),
            address: address.to_owned(),
            rtt_us,
            megabits_per_second: rtt_us.filter(|us| *us < 1000).map(|us| 100 * us),
            state,
        };
        view.stages.get_mut(&name("left")).unwrap().value.load.links = vec![
            link("tcp://192.168.1.12:7000", "tcp://169.254.7.2:7000", Some(94), LinkState::Used),
            link("tcp://192.168.1.12:7000", "tcp://192.168.1.12:7000", Some(2910), LinkState::Spare),
            link("tcp://192.0.2.9:1", "tcp://192.0.2.9:1", None, LinkState::Dead),
        ];
        let text = shown(&view);
        let table: Vec<_> = text.lines().skip_while(|line| !line.starts_with("LINK FROM")).take(4).collect();
        insta::assert_snapshot!(table.join("\n"), @r"
        LINK FROM  TO                 INTERFACE              ADDRESS            RTT      GBIT/S  MTU   USE
        left       right              bridge0 (thunderbolt)  169.254.7.2:7000   0.09 ms  9.4     1500  used
        left       right              en1 (wifi)             192.168.1.12:7000  2.91 ms  -       1500  spare
        left       tcp://192.0.2.9:1  -                      192.0.2.9:1        -        -       -     dead
        ");
        let json = serde_json::to_value(StatusDocument::new("home", &view)).unwrap();
        assert_eq!((&json["links"][0]["kind"], &json["links"][0]["mtu"]), (&"thunderbolt".into(), &1500.into()));
        assert_eq!((&json["links"][1]["rtt_us"], &json["links"][1]["state"]), (&2910.into(), &"spare".into()));
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
          /baton/v1/home/nonsense: unknown key "/baton/v1/home/nonsense": expected key-mark, model, placement, stages/<stage>, evictions/<stage>, pins/<stage>, pins-status/<stage>, starts/<stage>, claims/<generation>/<slot>, gateways/<slot>, tokens/<id>, rollout or deployments/<n>/… below /baton/v1/home/
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
}
