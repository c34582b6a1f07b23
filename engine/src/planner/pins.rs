//! Operators' pins: those by which the plan is made, and the status to be written for each.
//!
//! Pins are tried in the order in which they were written, each with those before it. A pin that leaves no plan changes
//! nothing, so a new bad pin never takes the place of an old good one.

use std::collections::BTreeMap;

use schema::record::{ModelRecord, Pin, PinStatus, Shard};
use schema::{HumanBytes, StageName};

use super::{Candidate, PlanError, fits};
use crate::view::ClusterView;

/// Most status writes in one transaction: etcd takes 128 comparisons, and each status write has two.
const STATUS_WRITES_MAX: usize = 32;

/// The status to be written for a pin, provided the pin and its stored status are as they were seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinStatusWrite {
    /// The pinned stage.
    pub stage: StageName,
    /// The status to write. `None`: the pin is gone, and its stored status is to be deleted.
    pub status: Option<PinStatus>,
    /// The pin's revision. `None`: there is none.
    pub pin: Option<u64>,
    /// The revision of the stored status. `None`: there is none.
    pub seen: Option<u64>,
}

// === impl PinStatusWrite ===

impl PinStatusWrite {
    /// True if it erases that a pin was obeyed which is gone or replaced: its layers are still to be given back.
    pub fn erases_obeyed(&self, view: &ClusterView) -> bool {
        let seen = view.pin_statuses.get(&self.stage).filter(|seen| seen.value.honoured);
        let revision = self.status.as_ref().map(|status| status.pin_revision);
        seen.is_some_and(|seen| revision != Some(seen.value.pin_revision))
    }
}

/// The stages with the pins applied, and the status of each pin.
pub(super) fn apply(
    view: &ClusterView,
    model: &ModelRecord,
    mut candidates: Vec<Candidate>,
    placed: &[Shard],
) -> (Vec<Candidate>, BTreeMap<StageName, PinStatus>) {
    let mut statuses = BTreeMap::new();
    let mut status = |stage: &StageName, pin_revision, reason: Option<String>| {
        statuses.insert(stage.clone(), PinStatus { honoured: reason.is_none(), reason, pin_revision });
    };
    for (stage, unreadable) in &view.unreadable_pins {
        status(stage, unreadable.mod_revision, Some(unreadable.value.clone()));
    }
    let mut pins: Vec<_> = view.pins.iter().collect();
    pins.sort_by_key(|(_, pin)| pin.mod_revision);
    // Stages that pins keep from holding layers.
    let mut out: Vec<&StageName> = Vec::new();
    for (stage, pin) in pins {
        let tried = obeying(&candidates, stage, pin.value, placed)
            .and_then(|pinned| fits(model, &pinned).map(|()| pinned).map_err(|error| explain(error, &out, stage)));
        status(stage, pin.mod_revision, tried.as_ref().err().cloned());
        let Ok(pinned) = tried else { continue };
        out.extend((pinned.len() < candidates.len()).then_some(stage));
        candidates = pinned;
    }
    (candidates, statuses)
}

/// The status writes by which the stored statuses of pins become true.
pub(super) fn status_writes(view: &ClusterView, statuses: &BTreeMap<StageName, PinStatus>) -> Vec<PinStatusWrite> {
    let seen = |stage: &StageName| view.pin_statuses.get(stage);
    let news = statuses.iter().filter(|(stage, status)| seen(stage).is_none_or(|seen| seen.value != **status));
    let news = news.map(|(stage, status)| PinStatusWrite {
        stage: stage.clone(),
        status: Some(status.clone()),
        pin: Some(status.pin_revision),
        seen: seen(stage).map(|seen| seen.mod_revision),
    });
    let orphans = view.pin_statuses.iter().filter(|(stage, _)| !statuses.contains_key(stage));
    let orphans = orphans.map(|(stage, seen)| PinStatusWrite {
        stage: stage.clone(),
        status: None,
        pin: None,
        seen: Some(seen.mod_revision),
    });
    orphans.chain(news).take(STATUS_WRITES_MAX).collect()
}

/// True if a pin by which the plan was made is gone, or another pin is in its place, obeyed or not: then its layers are
/// to be divided anew.
pub(super) fn frees_layers(view: &ClusterView, statuses: &BTreeMap<StageName, PinStatus>) -> bool {
    let mut honoured = view.pin_statuses.iter().filter(|(_, seen)| seen.value.honoured);
    honoured.any(|(stage, seen)| {
        let now = statuses.get(stage);
        now.is_none_or(|now| now.pin_revision != seen.value.pin_revision)
    })
}

fn obeying(candidates: &[Candidate], stage: &StageName, pin: Pin, placed: &[Shard]) -> Result<Vec<Candidate>, String> {
    let at = candidates.iter().position(|candidate| candidate.name == *stage);
    let at = at.ok_or_else(|| format!("stage {stage} is not live"))?;
    let mut pinned = candidates.to_vec();
    let held = placed.iter().find(|shard| shard.stage == *stage).map(|shard| shard.layers);
    match pin {
        Pin::Layers(layers) => pinned[at].fixed = Some(layers),
        Pin::Cordoned if held.is_some() => pinned[at].fixed = held,
        Pin::Excluded | Pin::Cordoned => {
            pinned.remove(at);
        }
        Pin::Memory(size) => {
            let offered = pinned[at].budget_bytes;
            if size.bytes() > offered {
                return Err(format!("{size} is more than stage {stage} may use: {}", HumanBytes(offered)));
            }
            pinned[at].budget_bytes = size.bytes();
        }
    }
    Ok(pinned)
}

/// The reason for which the pin of `stage` leaves no plan, given the stages `out` that earlier pins excluded.
fn explain(error: PlanError, out: &[&StageName], stage: &StageName) -> String {
    match error {
        PlanError::NoStage => {
            let pins = out.iter().copied().chain([stage]).cloned().collect();
            PlanError::PinnedOut { pins }.to_string()
        }
        error => error.to_string(),
    }
}
