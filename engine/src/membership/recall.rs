//! Each process remembers the records that the store showed. If the store has lost some since, this module puts them
//! back into the process's view. The members go on serving by that view and write the records to the store again. The
//! module has no clock and no store: time and view are parameters.
//!
//! The model and the placement are never deleted while a cluster lives. So a view without them, with unreadable ones,
//! or with an older placement shows a loss. The records of processes do get deleted. They count as lost only if the
//! whole store was emptied (a prefix deleted, an etcd that came back without its data), and only for the time that
//! living members take to write them again.

use std::collections::BTreeMap;
use std::time::Instant;

use schema::Key;

use crate::limits::HEAL_WAIT_MAX;
use crate::view::{ClusterView, Versioned};

/// One process's memory of its cluster.
#[derive(Debug, Default)]
pub(crate) struct Recall {
    /// The newest view, with the records that were put back into it.
    last: Option<ClusterView>,
    /// The time at which the store was found emptied. `None` once no process's record needs to be put back: all were
    /// written again, or [`HEAL_WAIT_MAX`] has passed.
    emptied: Option<Instant>,
}

// === impl Recall ===

impl Recall {
    /// `view`, as the store shows it now, completed by the records that the store has lost.
    pub(crate) fn complete(&mut self, mut view: ClusterView, now: Instant) -> ClusterView {
        if let Some(last) = &self.last {
            // A smaller revision shows an etcd that came back without its data: revisions only grow.
            if last.placement.is_some() && (is_empty(&view) || view.revision < last.revision) {
                self.emptied.get_or_insert(now);
            }
            recall_model(&mut view, last);
            recall_placement(&mut view, last);
            if self.emptied.is_some_and(|since| now.saturating_duration_since(since) < HEAL_WAIT_MAX) {
                recall_processes(&mut view, last);
            }
        }
        // The model and the placement are put back without a time limit, so they do not count here.
        let is_whole = view.recalled.keys().all(|key| matches!(key, Key::Model | Key::Placement));
        self.emptied = self.emptied.filter(|_| !is_whole);
        if view.model.is_some() {
            self.last = Some(view.clone());
        }
        view
    }

    /// The time from which [`Self::complete`] no longer puts back records of processes. The caller must call it then,
    /// so that the view drops the processes that have not written their records again.
    pub(crate) fn ends(&self) -> Option<Instant> {
        self.emptied.map(|since| since + HEAL_WAIT_MAX)
    }
}

fn is_empty(view: &ClusterView) -> bool {
    view.model.is_none()
        && view.placement.is_none()
        && view.stages.is_empty()
        && view.claims.is_empty()
        && view.gateways.is_empty()
}

/// Puts the remembered model into `view` if the store has none, or another while this one is served.
fn recall_model(view: &mut ClusterView, last: &ClusterView) {
    let Some(model) = &last.model else { return };
    // The revision of the value that the store has in its place. Whoever writes the record again overwrites only that.
    let found_revision = match &view.model {
        None => view.unusable_revision(&Key::Model),
        Some(other) if other.value.fingerprint != model.value.fingerprint && last.serving().is_ok() => {
            let reason = format!(
                "another model, {}, was written over {}, which is served: it is put back; to serve another model, stop \
                 all processes of the cluster first",
                other.value.name, model.value.name
            );
            let revision = other.mod_revision;
            view.add_complaint(&Key::Model, &reason);
            Some(revision)
        }
        Some(_) => return,
    };
    view.model = Some(model.clone());
    view.recalled.insert(Key::Model, found_revision);
}

/// Puts the remembered placement into `view` if the store has none, or only one of an older generation.
fn recall_placement(view: &mut ClusterView, last: &ClusterView) {
    let Some(placement) = &last.placement else { return };
    let found_revision = match &view.placement {
        None => view.unusable_revision(&Key::Placement),
        Some(older) if older.value.generation() < placement.value.generation() => Some(older.mod_revision),
        Some(_) => return,
    };
    view.placement = Some(placement.clone());
    view.recalled.insert(Key::Placement, found_revision);
}

/// Puts the remembered records of stages, gateways and claims that `view` lacks into it.
fn recall_processes(view: &mut ClusterView, last: &ClusterView) {
    let placed = view.placed();
    // Claims of a newer generation are not put back: they are up to the process that made the generation.
    let is_lost = |key: &Key| match key {
        Key::Stage(stage) => !view.stages.contains_key(stage),
        Key::Gateway(slot) => !view.gateways.contains_key(slot),
        Key::Claim(id) => Some(id.generation) <= placed && !view.claims.contains_key(id),
        _ => false,
    };
    let stages = last.stages.keys().map(|stage| Key::Stage(stage.clone()));
    let gateways = last.gateways.keys().map(|slot| Key::Gateway(*slot));
    let claims = last.claims.keys().map(|id| Key::Claim(*id));
    let lost: Vec<_> = stages.chain(gateways).chain(claims).filter(is_lost).collect();
    for key in lost {
        match &key {
            Key::Stage(stage) => restore(&mut view.stages, &last.stages, stage),
            Key::Gateway(slot) => restore(&mut view.gateways, &last.gateways, slot),
            Key::Claim(id) => restore(&mut view.claims, &last.claims, id),
            _ => {}
        }
        let found_revision = view.unusable_revision(&key);
        view.recalled.insert(key, found_revision);
    }
}

fn restore<K: Ord + Clone, T: Clone>(now: &mut BTreeMap<K, Versioned<T>>, before: &BTreeMap<K, Versioned<T>>, key: &K) {
    now.extend(before.get(key).map(|record| (key.clone(), record.clone())));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use schema::record::{ClaimState, ModelRecord, Placement, Shard, Share};
    use schema::{ClaimId, Fingerprint, Generation, LayerRange};

    use super::*;
    use crate::testing::{claim_of, gateway, model, name, stage};

    fn versioned<T>(value: T, mod_revision: u64) -> Versioned<T> {
        Versioned { value, mod_revision }
    }

    /// A view with a stage that serves everything, and a gateway.
    fn whole(revision: u64, generation: u64) -> ClusterView {
        let layers = LayerRange::new(0, 4).unwrap();
        let shard = Shard { layers, stage: name("a") };
        let claim = claim_of(&shard, "ipc:///nowhere", ClaimState::Serving);
        let placement = Placement::new(Generation(generation), vec![shard]).unwrap();
        ClusterView {
            revision,
            reachable: true,
            model: Some(versioned(model(&[10; 4], 0), 2)),
            placement: Some(versioned(placement, 9)),
            stages: [(name("a"), versioned(stage(1000), 3))].into(),
            claims: [(ClaimId::new(Generation(generation), 0), versioned(claim, 11))].into(),
            gateways: [(0, versioned(gateway("77", Share::of(0..32)), 5))].into(),
            ..ClusterView::default()
        }
    }

    fn bare(revision: u64) -> ClusterView {
        ClusterView { revision, reachable: true, ..ClusterView::default() }
    }

    #[test]
    fn the_records_of_an_emptied_store_are_recalled_for_a_limited_time() {
        let (mut recall, now) = (Recall::default(), Instant::now());
        assert!(recall.complete(bare(1), now).recalled.is_empty(), "nothing was there");
        assert_eq!(recall.complete(whole(20, 3), now), whole(20, 3));
        let emptied = recall.complete(bare(21), now);
        assert!(emptied.serving().is_ok());
        assert_eq!(emptied.recalled.len(), 5, "{:?}", emptied.recalled);
        // Some of the records are back, in a store whose revisions begin anew.
        let part = ClusterView { claims: [].into(), gateways: [].into(), ..whole(4, 3) };
        let healing = recall.complete(part.clone(), now + HEAL_WAIT_MAX / 2);
        assert_eq!(
            healing.recalled.keys().collect::<Vec<_>>(),
            [&Key::Claim(ClaimId::new(Generation(3), 0)), &Key::Gateway(0)]
        );
        assert!(healing.serving().is_ok());
        let late = recall.complete(part, now + HEAL_WAIT_MAX);
        assert!(late.recalled.is_empty() && late.gateways.is_empty() && late.claims.is_empty());
    }

    #[test]
    fn a_process_that_leaves_an_intact_store_is_not_recalled() {
        let (mut recall, now) = (Recall::default(), Instant::now());
        recall.complete(whole(20, 3), now);
        let gone = ClusterView { claims: [].into(), stages: [].into(), ..whole(21, 3) };
        assert_eq!(recall.complete(gone.clone(), now), gone);
        assert_eq!(recall.ends(), None);
    }

    #[test]
    fn a_lost_or_unusable_model_and_placement_are_restored() {
        let (mut recall, now) = (Recall::default(), Instant::now());
        recall.complete(whole(20, 3), now);
        let unusable = [(Key::Placement, versioned("unreadable".to_owned(), 22))].into();
        let view = recall.complete(ClusterView { model: None, placement: None, unusable, ..whole(22, 3) }, now);
        assert_eq!(view.recalled, [(Key::Model, None), (Key::Placement, Some(22))].into());
        assert_eq!((view.model, view.placement), (whole(20, 3).model, whole(20, 3).placement));
        // A store that was restored has an older placement only.
        let view = recall.complete(whole(23, 2), now + Duration::from_secs(60));
        assert_eq!((view.placed(), view.recalled.get(&Key::Placement)), (Some(Generation(3)), Some(&Some(9))));
    }

    #[test]
    fn a_model_written_over_the_served_one_is_replaced_and_named() {
        let (mut recall, now) = (Recall::default(), Instant::now());
        recall.complete(whole(20, 3), now);
        let other =
            ModelRecord { name: "other".to_owned(), fingerprint: Fingerprint("11".to_owned()), ..model(&[1], 0) };
        let view = ClusterView { model: Some(versioned(other, 30)), ..whole(30, 3) };
        let seen = recall.complete(view.clone(), now);
        assert_eq!((seen.model, seen.recalled), (whole(20, 3).model, [(Key::Model, Some(30))].into()));
        assert!(
            seen.complaints[0].reason.contains("another model, other, was written over test"),
            "{:?}",
            seen.complaints
        );
        let mut idle = Recall::default();
        idle.complete(ClusterView { claims: [].into(), ..whole(20, 3) }, now);
        assert_eq!(idle.complete(view.clone(), now).model, view.model, "no stage serves the old one");
    }
}
