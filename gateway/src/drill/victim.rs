//! The stage that a fault happens to.

use schema::{LayerRange, StageName};

use super::cluster_status::{ClusterStatus, StatusStage};
use super::error::DrillError;
use super::fault::Fault;
use super::link_cut;
use super::process;

/// A stage of this machine that holds layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Victim {
    pub(super) stage: StageName,
    pub(super) layers: LayerRange,
    pub(super) host: String,
    pub(super) pid: u32,
    pub(super) endpoint: String,
}

// === impl Victim ===

impl Victim {
    /// Chooses the stage `name`, or the middle one, of a cluster that is seen from the machine `here`.
    ///
    /// # Errors
    /// [`DrillError`] if there is no such stage or it is on another machine.
    pub(super) fn choose(status: &ClusterStatus, name: Option<&StageName>, here: &str) -> Result<Self, DrillError> {
        let serving = status.serving_stages();
        let chosen = match name {
            Some(name) => serving.iter().find(|stage| stage.name == *name).ok_or_else(|| DrillError::NoSuchStage {
                found: name.clone(),
                known: names(serving.iter().copied()),
            })?,
            None => serving.get(serving.len() / 2).ok_or_else(|| DrillError::NotServing {
                reason: status.reason.clone().unwrap_or_else(|| "no stage holds layers".to_owned()),
            })?,
        };
        let host = chosen.host.clone().unwrap_or_default();
        if host != here {
            let local = serving.iter().filter(|stage| stage.host.as_deref() == Some(here));
            let local = names(local.copied());
            let advice = match local.as_str() {
                "" => format!("run the drill on {host}"),
                local => format!("run the drill on {host}, or name one of this machine with --stage ({local})"),
            };
            return Err(DrillError::OtherMachine { stage: chosen.name.clone(), host, here: here.to_owned(), advice });
        }
        let (Some(layers), Some(pid)) = (chosen.layers, chosen.pid) else {
            return Err(DrillError::NoSuchStage { found: chosen.name.clone(), known: names(serving.into_iter()) });
        };
        let endpoint = chosen.endpoint.clone().unwrap_or_default();
        Ok(Self { stage: chosen.name.clone(), layers, host, pid, endpoint })
    }

    /// Refuses a fault that cannot be brought about here.
    pub(super) async fn check(&self, fault: Fault) -> Result<(), DrillError> {
        process::is_stage(self.pid).map_err(|found| DrillError::NoProcess {
            stage: self.stage.clone(),
            pid: self.pid,
            found,
        })?;
        if fault == Fault::Cut {
            self.port()?;
            link_cut::check().await?;
        }
        Ok(())
    }

    /// The port at which the others reach it.
    pub(super) fn port(&self) -> Result<u16, DrillError> {
        let what = || format!("cut the link of stage {}", self.stage);
        link_cut::port(&self.endpoint).map_err(|reason| DrillError::Impossible { what: what(), reason })
    }
}

fn names<'a>(stages: impl Iterator<Item = &'a StatusStage>) -> String {
    stages.map(|stage| stage.name.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> ClusterStatus {
        let stage = |name, host, slot: u32| {
            format!(
                r#"{{"name":"{name}","host":"{host}","pid":1{slot},"endpoint":"ipc:///{name}","slot":{slot},
                    "layers":[{slot},{}],"state":"serving"}}"#,
                slot + 1
            )
        };
        let stages = [stage("a", "here", 0), stage("b", "there", 1), stage("c", "here", 2)].join(",");
        let standby = r#"{"name":"d","host":"here","pid":41,"state":"standby"}"#;
        serde_json::from_str(&format!(r#"{{"serving":true,"stages":[{standby},{stages}]}}"#)).unwrap()
    }

    #[test]
    fn the_named_stage_or_the_middle_one_is_chosen() {
        let name = |text: &str| Some(text.parse::<StageName>().unwrap());
        let chosen = Victim::choose(&status(), name("c").as_ref(), "here").unwrap();
        assert_eq!((chosen.stage.as_str(), chosen.pid, chosen.layers.to_string().as_str()), ("c", 12, "2..3"));
        assert_eq!(Victim::choose(&status(), None, "there").unwrap().stage.as_str(), "b");
        let error = Victim::choose(&status(), name("d").as_ref(), "here").unwrap_err().to_string();
        assert_eq!(error, "stage d holds no layers: expected one of a, b, c");
        let error = Victim::choose(&ClusterStatus::default(), None, "here").unwrap_err();
        assert!(matches!(error, DrillError::NotServing { .. }), "{error}");
    }

    #[test]
    fn a_stage_of_another_machine_is_refused_with_the_machine_s_name() {
        let error = Victim::choose(&status(), None, "here").unwrap_err().to_string();
        let advice = "run the drill on there, or name one of this machine with --stage (a, c)";
        assert_eq!(error, format!("stage b runs on there, and this is here: {advice}"));
        let error = Victim::choose(&status(), None, "elsewhere").unwrap_err().to_string();
        assert_eq!(error, "stage b runs on there, and this is elsewhere: run the drill on there");
    }
}
