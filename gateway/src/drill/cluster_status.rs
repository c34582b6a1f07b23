//! The parts of `/distributed/status` that a drill reads.

use schema::{LayerRange, StageName};
use serde::Deserialize;

/// The cluster as a gateway shows it.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct ClusterStatus {
    pub(super) serving: bool,
    #[serde(default)]
    pub(super) reason: Option<String>,
    #[serde(default)]
    pub(super) model: Option<StatusModel>,
    #[serde(default)]
    pub(super) stages: Vec<StatusStage>,
    #[serde(default)]
    pub(super) gateways: Vec<OtherGateway>,
    #[serde(default)]
    pub(super) store: StatusStore,
    #[serde(default)]
    pub(super) running: usize,
    #[serde(default)]
    pub(super) waiting: usize,
}

/// The served model.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct StatusModel {
    pub(super) name: String,
}

/// One stage.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct StatusStage {
    pub(super) name: StageName,
    #[serde(default)]
    pub(super) host: Option<String>,
    #[serde(default)]
    pub(super) pid: Option<u32>,
    #[serde(default)]
    pub(super) endpoint: Option<String>,
    #[serde(default)]
    pub(super) slot: Option<u32>,
    #[serde(default)]
    pub(super) layers: Option<LayerRange>,
    pub(super) state: String,
}

/// A gateway of the cluster.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct OtherGateway {
    pub(super) url: String,
}

/// The store, as the gateway sees it.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct StatusStore {
    #[serde(default)]
    pub(super) reachable: bool,
}

// === impl ClusterStatus ===

impl ClusterStatus {
    /// The stages that serve layers, in the order of the layers.
    pub(super) fn serving_stages(&self) -> Vec<&StatusStage> {
        let serves = |stage: &&StatusStage| stage.state == "serving" && stage.layers.is_some();
        let mut stages: Vec<_> = self.stages.iter().filter(serves).collect();
        stages.sort_by_key(|stage| stage.slot);
        stages
    }

    /// The names of the stages that serve or stand by.
    pub(super) fn at_rest(&self) -> Vec<StageName> {
        self.stages.iter().filter(|stage| stage.is_at_rest()).map(|stage| stage.name.clone()).collect()
    }

    /// The reason for which this is not the cluster as it was, with all of `stages` serving or standing by. `None` if
    /// it is.
    pub(super) fn lacks(&self, stages: &[StageName]) -> Option<String> {
        if !self.store.reachable {
            return Some("its store does not answer".to_owned());
        }
        for name in stages {
            match self.stages.iter().find(|stage| stage.name == *name) {
                Some(stage) if stage.is_at_rest() => {}
                Some(stage) => return Some(format!("stage {name} is {}", stage.state)),
                None => return Some(format!("stage {name} is gone")),
            }
        }
        (!self.serving).then(|| self.reason.clone().unwrap_or_else(|| "it does not serve".to_owned()))
    }
}

// === impl StatusStage ===

impl StatusStage {
    fn is_at_rest(&self) -> bool {
        matches!(self.state.as_str(), "serving" | "standby")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(stages: &str) -> ClusterStatus {
        serde_json::from_str(&format!(r#"{{"serving":true,"store":{{"reachable":true}},"stages":{stages}}}"#)).unwrap()
    }

    #[test]
    fn a_cluster_is_whole_when_every_stage_serves_or_stands_by_again() {
        let before = status(
            r#"[{"name":"b","state":"serving","slot":1,"layers":[5,9]},{"name":"a","state":"serving","slot":0,
                "layers":[0,5]},{"name":"c","state":"standby"}]"#,
        );
        let names: Vec<_> = before.serving_stages().iter().map(|stage| stage.name.to_string()).collect();
        assert_eq!(names, ["a", "b"]);
        let stages = before.at_rest();
        assert_eq!(before.lacks(&stages), None);
        let after = |text| status(text).lacks(&stages);
        assert_eq!(
            after(r#"[{"name":"a","state":"serving"},{"name":"b","state":"gone"}]"#),
            Some("stage b is gone".to_owned())
        );
        assert_eq!(after(r#"[{"name":"b","state":"loading"}]"#), Some("stage b is loading".to_owned()));
        let without = ClusterStatus { store: StatusStore { reachable: false }, ..before };
        assert_eq!(without.lacks(&stages), Some("its store does not answer".to_owned()));
    }
}
