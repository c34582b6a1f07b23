//! The choice between plans of the same speed: the one with the least to fetch, by what stages say of their disks.
//!
//! A stage that holds layers keeps its place in the order. The others follow by name, which is arbitrary, and so they
//! may as well follow in the order of the layers that they have. Rates of links between machines are not in the
//! records, so the cost is bytes: those of the stage that has most to fetch, since stages fetch at the same time.

use std::collections::{BTreeMap, BTreeSet};

use schema::record::{ModelRecord, Shard};
use schema::{LayerRange, StageName};

use super::{Candidate, interval_ps, plan_with_links};
use crate::view::ClusterView;

/// The layers on each stage's disk. A stage that is missing here has all.
type Stored<'a> = BTreeMap<&'a StageName, Vec<LayerRange>>;

/// Bytes that must be fetched: by the stage with most of them, and by all.
type FetchBytes = (u64, u64);

/// The plan `by_name` of `candidates`, or one of the same speed for which less must be fetched. `current` are the
/// layers that stages hold.
pub(super) fn prefer_stored(
    view: &ClusterView,
    model: &ModelRecord,
    candidates: &[Candidate],
    current: &[Shard],
    by_name: Vec<Shard>,
) -> Vec<Shard> {
    let stored = stored(view, current);
    let least = fetch_bytes(model, &stored, &by_name);
    if least.1 == 0 {
        return by_name;
    }
    let holders: BTreeSet<_> = current.iter().map(|shard| &shard.stage).collect();
    let ordered = by_stored_layers(candidates, &stored, &holders);
    if ordered == candidates {
        return by_name;
    }
    let Ok(other) = plan_with_links(model, &ordered) else { return by_name };
    let is_as_fast = interval_ps(model, &ordered, &other) <= interval_ps(model, candidates, &by_name);
    if is_as_fast && fetch_bytes(model, &stored, &other) < least { other } else { by_name }
}

/// The layers that each stage has on its disk: those that it said when it joined, and those that it holds.
fn stored<'a>(view: &'a ClusterView, current: &[Shard]) -> Stored<'a> {
    let of_stage = |(name, record): (&'a StageName, &'a schema::record::StageRecord)| {
        let mut layers = record.stored.clone()?;
        layers.extend(current.iter().filter(|shard| shard.stage == *name).map(|shard| shard.layers));
        Some((name, layers))
    };
    view.staying().filter_map(of_stage).collect()
}

fn fetch_bytes(model: &ModelRecord, stored: &Stored<'_>, shards: &[Shard]) -> FetchBytes {
    let of_shard = |shard: &Shard| {
        let has = stored.get(&shard.stage)?;
        let lacks = |layer: &u32| !has.iter().any(|range| range.contains(*layer));
        let layers = (shard.layers.start()..shard.layers.end().min(model.layers)).filter(lacks);
        let bytes = |layer| LayerRange::new(layer, layer + 1).map_or(0, |range| model.shard_bytes(range).weights);
        Some(layers.map(bytes).fold(0, u64::saturating_add))
    };
    let bytes = shards.iter().filter_map(of_shard);
    bytes.fold((0, 0), |(most, all): FetchBytes, bytes| (most.max(bytes), all.saturating_add(bytes)))
}

/// `candidates`, of which those that hold nothing share their places out again: first those with layers on their
/// disks, in the order of these.
fn by_stored_layers(candidates: &[Candidate], stored: &Stored<'_>, holders: &BTreeSet<&StageName>) -> Vec<Candidate> {
    let is_free = |stage: &Candidate| !holders.contains(&stage.name);
    let first = |stage: &Candidate| {
        let starts = stored.get(&stage.name).into_iter().flatten().map(|range| range.start());
        starts.min().unwrap_or(u32::MAX)
    };
    let mut free: Vec<_> = candidates.iter().filter(|stage| is_free(stage)).cloned().collect();
    free.sort_by_key(first);
    let mut free = free.into_iter();
    let place = |stage: &Candidate| if is_free(stage) { free.next() } else { Some(stage.clone()) };
    candidates.iter().filter_map(place).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use schema::record::StageRecord;

    use super::*;
    use crate::planner::Proposal;
    use crate::testing::{model, name, stage};
    use crate::view::Versioned;

    fn range(start: u32, end: u32) -> LayerRange {
        LayerRange::new(start, end).unwrap()
    }

    /// The plan for stages that have these layers on their disks, each with memory for three layers of four.
    fn planned(stages: &[(&str, Option<&[LayerRange]>)]) -> Vec<(String, LayerRange)> {
        let versioned = |(at, stored): &(&str, Option<&[LayerRange]>)| {
            let record = StageRecord { stored: stored.map(<[_]>::to_vec), ..stage(350) };
            (name(at), Versioned { value: record, mod_revision: 1 })
        };
        let view = Arc::new(ClusterView { stages: stages.iter().map(versioned).collect(), ..ClusterView::default() });
        let shards = Proposal::new(&view, &model(&[100; 4], 0), false).shards.unwrap();
        shards.into_iter().map(|shard| (shard.stage.to_string(), shard.layers)).collect()
    }

    #[test]
    fn of_two_plans_of_the_same_speed_the_one_with_less_to_fetch_is_chosen() {
        let (front, back) = (range(0, 2), range(2, 4));
        let by_name = [("a".to_owned(), front), ("b".to_owned(), back)];
        let turned = [("b".to_owned(), front), ("a".to_owned(), back)];
        // Older records do not say, and count as if all were there.
        assert_eq!(planned(&[("a", None), ("b", None)]), by_name);
        assert_eq!(planned(&[("a", Some(&[])), ("b", Some(&[]))]), by_name);
        assert_eq!(planned(&[("a", Some(&[front])), ("b", Some(&[back]))]), by_name);
        assert_eq!(planned(&[("a", Some(&[back])), ("b", Some(&[front]))]), turned);
        assert_eq!(planned(&[("a", Some(&[back])), ("b", Some(&[]))]), by_name, "one has to fetch two layers anyway");
        assert_eq!(planned(&[("a", None), ("b", Some(&[front]))]), turned);
    }

    #[test]
    fn what_is_stored_moves_no_layers_that_are_held_and_costs_no_speed() {
        let (front, back) = (range(0, 2), range(2, 4));
        let record = |stored: LayerRange, budget| StageRecord { stored: Some(vec![stored]), ..stage(budget) };
        let versioned = |value| Versioned { value, mod_revision: 1 };
        let stages = [(name("a"), versioned(record(back, 350))), (name("b"), versioned(record(front, 350)))];
        let view = ClusterView { stages: stages.into(), ..ClusterView::default() };
        let model = model(&[100; 4], 0);
        let current = [(name("a"), front), (name("b"), back)].map(|(stage, layers)| Shard { stage, layers });
        let candidates = crate::planner::in_order(view.staying(), &current);
        let kept = prefer_stored(&view, &model, &candidates, &current, current.to_vec());
        assert_eq!(kept, current, "both hold layers already");
    }
}
