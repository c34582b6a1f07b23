//! The layers that a stage without layers should have in memory: those it would get if another stage were lost. Pure.

use schema::record::{ModelRecord, Shard};
use schema::{LayerRange, StageName};

use super::Proposal;
use crate::view::ClusterView;

/// Losses that are considered: each takes a plan, and more ranges than this are more than a stage can hold.
const LOSSES_MAX: usize = 8;

/// The plans after each of the losses that are considered, of one stage with layers. The same for every stage.
pub(super) fn plans_after_losses(view: &ClusterView, model: &ModelRecord) -> Vec<Vec<Shard>> {
    let current = view.placement.as_ref().map(|placement| placement.value.shards()).unwrap_or_default();
    let mut left = view.clone();
    let plan = |lost: &Shard| {
        let gone = left.stages.remove_entry(&lost.stage);
        let shards = Proposal::new(&left, model, false).shards.unwrap_or_default();
        left.stages.extend(gone);
        shards
    };
    current.iter().take(LOSSES_MAX).map(plan).collect()
}

/// The ranges that stage `me` would get by these plans, the likeliest first.
pub(super) fn standby_ranges(plans: &[Vec<Shard>], me: &StageName) -> Vec<LayerRange> {
    let mut ranges: Vec<(LayerRange, usize)> = Vec::new();
    for shards in plans {
        let Some(range) = shards.iter().find(|shard| shard.stage == *me).map(|shard| shard.layers) else { continue };
        match ranges.iter_mut().find(|(known, _)| *known == range) {
            Some((_, times)) => *times += 1,
            None => ranges.push((range, 1)),
        }
    }
    ranges.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
    ranges.into_iter().map(|(range, _)| range).collect()
}

#[cfg(test)]
mod tests {
    use schema::Generation;
    use schema::record::Placement;

    use super::*;
    use crate::planner::plan;
    use crate::testing::{model, name, stage};
    use crate::view::Versioned;

    #[test]
    fn a_standby_takes_the_place_of_a_lost_stage() {
        let versioned = |stage| Versioned { value: stage, mod_revision: 1 };
        let model = model(&[10; 4], 0);
        let mut view = ClusterView {
            stages: ["a", "b"].map(|holder| (name(holder), versioned(stage(1000)))).into(),
            ..ClusterView::default()
        };
        let shards =
            plan(&model, &crate::planner::in_order(view.stages.iter().map(|(n, s)| (n, &s.value)), &[])).unwrap();
        let placement = Placement::new(Generation(1), shards).unwrap();
        view.placement = Some(Versioned { value: placement, mod_revision: 2 });
        // By name it would come first, and all stages would have to move.
        view.stages.insert(name("0"), versioned(stage(1000)));
        let range = |start, end| LayerRange::new(start, end).unwrap();
        let plans = plans_after_losses(&view, &model);
        assert_eq!(standby_ranges(&plans, &name("0")), [range(0, 2), range(2, 4)]);
    }
}
