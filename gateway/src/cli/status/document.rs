//! The status of the cluster as a document. Pure.

use engine::link_lines::{LinkLine, links};
use engine::report::ClusterReport;
use engine::view::{ClusterView, PinReport};
use schema::LayerRange;
use schema::record::{GatewayRecord, KvType, ModelRecord, Share};
use serde::Serialize;

use super::stage_line::StageLine;

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
    /// Tokens of keys and values for which every stage has room now.
    pub kv_tokens: Option<u32>,
    /// The most that they become, if they follow the stages' memory. `None` if they were told.
    pub kv_tokens_max: Option<u32>,
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
    /// The addresses of stages and gateways on other machines, as the stages that send there find them.
    pub links: Vec<LinkLine>,
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
            kv_tokens: view.kv_tokens(),
            kv_tokens_max: model.filter(|model| model.kv_growth.is_some()).map(ModelRecord::kv_tokens_max),
            kv_type: model.map(|model| model.kv_type),
            generation: view.placed().map(|placed| placed.0),
            serving: reason.is_none(),
            missing_layers,
            reason,
            stages: report.stages.iter().map(|stage| StageLine::new(stage, model)).collect(),
            links: links(view),
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

#[cfg(test)]
mod tests {
    use super::super::fixture::view;
    use super::*;

    #[test]
    fn json_has_what_the_table_has() {
        let document = StatusDocument::new("home", &view(None, None));
        let value = serde_json::to_value(&document).unwrap();
        assert_eq!(value["links"], serde_json::json!([]));
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
