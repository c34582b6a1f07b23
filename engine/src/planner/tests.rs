//! Properties of plans, by example and against exhaustive search.

use proptest::prelude::*;

use schema::record::FormatSpeed;

use super::*;
use crate::testing::{model, name, stage};

const FORMAT: &str = "Q4_1";

fn candidates(budgets: &[u64]) -> Vec<Candidate> {
    let name = |index: usize| format!("s{index:02}").parse().unwrap();
    let candidate = |(i, budget): (usize, &u64)| Candidate {
        name: name(i),
        budget_bytes: *budget,
        speed: Speeds::new(),
        link_us: 0,
        link_megabits_per_second: None,
        fixed: None,
    };
    budgets.iter().enumerate().map(candidate).collect()
}

fn ranges(shards: &[Shard]) -> Vec<[u32; 2]> {
    shards.iter().map(|shard| shard.layers.into()).collect()
}

#[test]
fn the_output_head_counts_by_its_bytes() {
    // Ten layers of 10 bytes and a head of 40: 140 bytes in all, 70 each.
    let model = model(&[10; 10], 40);
    let shards = plan(&model, &candidates(&[u64::MAX; 2])).unwrap();
    assert_eq!(ranges(&shards), [[0, 7], [7, 10]]);
}

#[test]
fn the_output_head_counts_by_its_multiplications_where_those_take_longer() {
    // Ten layers. The head is like four of them in bytes and like one in multiplications, which take longer here.
    let model = ModelRecord { layer_multiplications: vec![20; 10], head_multiplications: 20, ..model(&[10; 10], 40) };
    let shards = plan(&model, &candidates(&[u64::MAX; 2])).unwrap();
    assert_eq!(ranges(&shards), [[0, 6], [6, 10]]);
}

#[test]
fn as_many_stages_as_layers_get_one_each_and_more_get_none() {
    let model = model(&[10; 5], 40);
    let five = plan(&model, &candidates(&[u64::MAX; 5])).unwrap();
    assert_eq!(ranges(&five), [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5]]);
    let seven = plan(&model, &candidates(&[u64::MAX; 7])).unwrap();
    assert_eq!(seven.len(), 5);
}

#[test]
fn a_small_stage_gets_the_layers_that_fit() {
    let model = model(&[10; 10], 0);
    let shards = plan(&model, &candidates(&[25, 1000])).unwrap();
    assert_eq!(ranges(&shards), [[0, 2], [2, 10]]);
}

#[test]
fn a_stage_too_small_for_any_layer_is_left_out() {
    let model = model(&[10; 4], 0);
    let shards = plan(&model, &candidates(&[1000, 5, 1000])).unwrap();
    assert_eq!(ranges(&shards), [[0, 2], [2, 4]]);
    assert_eq!(shards[1].stage.as_str(), "s02");
}

#[test]
fn too_little_memory_is_refused_with_the_missing_amount() {
    let model = model(&[10; 4], 20);
    let shortage = shortage_of(&model, &[20, 15]);
    assert_eq!((shortage.needed_bytes(), shortage.offered_bytes, shortage.missing_bytes), (60, 35, 25));
    assert_eq!(shortage.budgets.iter().map(|budget| budget.bytes).collect::<Vec<_>>(), [20, 15]);
    assert_eq!(plan(&model, &[]).unwrap_err(), PlanError::NoStage);
}

#[test]
fn a_record_of_more_layers_than_it_has_sizes_of_is_refused_before_they_are_counted() {
    let model = ModelRecord { layers: u32::MAX, ..model(&[10; 4], 20) };
    let expected = PlanError::BrokenModel { layers: u32::MAX, found: 4 };
    assert_eq!(plan(&model, &candidates(&[u64::MAX])), Err(expected.clone()));
    assert_eq!(fits(&model, &candidates(&[u64::MAX])), Err(expected));
}

#[test]
fn enough_memory_in_pieces_too_small_for_the_last_layer_is_refused() {
    let model = model(&[10; 4], 20);
    let shortage = shortage_of(&model, &[20, 20, 25]);
    assert_eq!((shortage.offered_bytes, shortage.missing_bytes), (65, 0));
    assert_eq!((shortage.left, shortage.left_bytes), (LayerRange::new(3, 4).unwrap(), 30));
}

#[test]
fn scratch_is_needed_on_every_stage_that_has_room_for_more() {
    let model = ModelRecord { kv_bytes_per_token_layer: 1, kv_tokens: 5, scratch_bytes: 7, ..model(&[10; 4], 20) };
    let shortage = shortage_of(&model, &[20, 7, 15]);
    assert_eq!((shortage.weights_bytes, shortage.kv_bytes, shortage.scratch_bytes), (60, 20, 7));
    assert_eq!((shortage.holders, shortage.stages, shortage.offered_bytes), (2, 3, 35));
    assert_eq!(shortage.missing_bytes, 60 + 20 + 2 * 7 - 35);
    // If no stage has room for scratch, the largest stage is the one that should have had more.
    let shortage = shortage_of(&model, &[5, 6]);
    assert_eq!((shortage.holders, shortage.offered_bytes, shortage.missing_bytes), (1, 6, 60 + 20 + 7 - 6));
}

fn shortage_of(model: &ModelRecord, budgets: &[u64]) -> MemoryShortage {
    match plan(model, &candidates(budgets)) {
        Err(PlanError::Memory(shortage)) => *shortage,
        other => panic!("expected too little memory, found {other:?}"),
    }
}

/// A measured speed: `bytes_per_second`, and ten times as many multiplications a second.
fn speed(bytes_per_second: u64) -> Speeds {
    let speed = FormatSpeed { bytes_per_second, multiplications_per_second: bytes_per_second * 10 };
    [(FORMAT.to_owned(), speed)].into()
}

#[test]
fn a_stage_twice_as_fast_gets_twice_the_layers() {
    let model = model(&[10; 9], 0);
    let mut stages = candidates(&[u64::MAX; 2]);
    stages[0].speed = speed(2_000_000);
    stages[1].speed = speed(1_000_000);
    assert_eq!(ranges(&plan(&model, &stages).unwrap()), [[0, 6], [6, 9]]);
    assert_eq!(times_ps(&model, &stages, &plan(&model, &stages).unwrap(), 1), [30_000_000; 2]);
}

#[test]
fn a_stage_without_a_measurement_counts_as_an_average_one() {
    let model = model(&[10; 12], 0);
    let mut stages = candidates(&[u64::MAX; 4]);
    for (stage, bytes_per_second) in stages.iter_mut().zip([1_000_000, 2_000_000, 3_000_000]) {
        stage.speed = speed(bytes_per_second);
    }
    let shards = plan(&model, &stages).unwrap();
    let times = times_ps(&model, &stages, &shards, 1);
    let last = model.shard_bytes(shards[3].layers).read_per_token;
    assert_eq!(times[3], last * 1_000_000_000_000 / 2_000_000);
}

#[test]
fn machines_that_measured_nearly_the_same_get_equal_shares() {
    let model = model(&[10; 12], 0);
    let mut stages = candidates(&[u64::MAX; 4]);
    for (stage, bytes_per_second) in stages.iter_mut().zip([2_000_000, 2_400_000, 1_000_000, 1_200_000]) {
        stage.speed = speed(bytes_per_second);
    }
    assert_eq!(ranges(&plan(&model, &stages).unwrap()), [[0, 4], [4, 8], [8, 10], [10, 12]]);
}

#[test]
fn fixed_layers_stay_where_they_are_and_the_others_fill_the_gaps_in_their_order() {
    let model = model(&[10; 10], 0);
    let mut stages = candidates(&[u64::MAX; 3]);
    stages[2].fixed = LayerRange::new(3, 6);
    let shards = plan(&model, &stages).unwrap();
    assert_eq!(ranges(&shards), [[0, 3], [3, 6], [6, 10]]);
    assert_eq!(shards.iter().map(|shard| shard.stage.as_str()).collect::<Vec<_>>(), ["s00", "s02", "s01"]);
    stages.iter_mut().zip([(5, 10), (0, 5), (3, 6)]).for_each(|(stage, (a, b))| stage.fixed = LayerRange::new(a, b));
    assert!(matches!(plan(&model, &stages), Err(PlanError::Overlap { .. })));
    stages[2].fixed = None;
    assert_eq!(ranges(&plan(&model, &stages).unwrap()), [[0, 5], [5, 10]]);
    stages[0].fixed = LayerRange::new(6, 10);
    stages[2].budget_bytes = 5;
    let error = plan(&model, &stages).unwrap_err();
    let PlanError::Gap { layers, pinned } = &error else { panic!("expected a gap, found {error}") };
    assert_eq!((layers.start(), layers.end(), pinned.len()), (5, 6, 2));
    assert_eq!(fits(&model, &stages).unwrap_err(), error);
}

#[test]
fn speeds_move_layers_only_if_all_are_measured_and_the_gain_is_large() {
    let model = model(&[10; 30], 0);
    let current = plan(&model, &candidates(&[u64::MAX; 2])).unwrap();
    let moves = |speeds: [Speeds; 2], speed_moves| {
        let mut stages = candidates(&[u64::MAX; 2]);
        stages.iter_mut().zip(speeds).for_each(|(stage, speed)| stage.speed = speed);
        let wanted = plan(&model, &stages).unwrap();
        improves(&model, &stages, &wanted, &current, speed_moves)
    };
    assert!(!moves([speed(1_000_000), speed(1_500_000)], true));
    assert!(moves([speed(1_000_000), speed(2_000_000)], true));
    assert!(!moves([speed(1_000_000), speed(2_000_000)], false));
    assert!(!moves([speed(1_000_000), Speeds::new()], true));
}

#[test]
fn layers_do_not_flap_while_speeds_are_measured_again_a_little_differently() {
    let model = model(&[10; 30], 60);
    let mut stages = candidates(&[u64::MAX; 3]);
    let mut current = plan(&model, &stages).unwrap();
    let mut moves = 0;
    for round in 0..50_u64 {
        for (index, stage) in (0..).zip(&mut stages) {
            // Up to a tenth more or less than 1, 2 and 3.
            stage.speed = speed((index + 1) * (900_000 + (round * 7 + index * 5) % 11 * 20_000));
        }
        let wanted = plan(&model, &stages).unwrap();
        if improves(&model, &stages, &wanted, &current, true) {
            moves += 1;
            current = wanted;
        }
    }
    assert_eq!(moves, 1);
}

#[test]
fn holders_keep_their_places_and_new_stages_fill_gaps_before_they_follow_by_name() {
    let records = ["a", "b", "c", "d"].map(|stage_name| (name(stage_name), stage(1)));
    let shard = |stage, start| Shard { layers: LayerRange::new(start, start + 1).unwrap(), stage: name(stage) };
    let current = [shard("c", 0), shard("gone", 1), shard("b", 2)];
    let ordered = in_order(records.iter().map(|(name, record)| (name, record)), &current);
    assert_eq!(ordered.iter().map(|stage| stage.name.as_str()).collect::<Vec<_>>(), ["c", "a", "b", "d"]);
}

/// Three equal stages, on which the model takes 30 ms for a micro-batch, and one more with a link of `link_us`.
fn with_a_slow_link(link_us: u32) -> (ModelRecord, Vec<Candidate>) {
    let model = model(&[10_000; 12], 0);
    let mut stages = candidates(&[u64::MAX; 4]);
    stages.iter_mut().for_each(|stage| stage.speed = speed(4_000_000));
    stages[3].link_us = link_us;
    (model, stages)
}

#[test]
fn a_stage_with_a_slow_link_is_left_out_unless_memory_needs_it() {
    let holders = |link_us, budget_bytes| {
        let (model, mut stages) = with_a_slow_link(link_us);
        stages.iter_mut().for_each(|stage| stage.budget_bytes = budget_bytes);
        plan_with_links(&model, &stages).unwrap().len()
    };
    // A quarter of the model takes 7.5 ms. The pipeline hides as much of the links.
    assert_eq!(holders(7_000, u64::MAX), 4);
    assert_eq!(holders(50_000, u64::MAX), 3);
    assert_eq!(holders(50_000, 30_000), 4, "with three there would be no room");
}

#[test]
fn a_link_counts_by_its_throughput_too() {
    let holders = |megabits| {
        let (mut model, mut stages) = with_a_slow_link(100);
        // 8 rows of 20,480 bytes.
        model.hidden = 5120;
        stages[3].link_megabits_per_second = megabits;
        plan_with_links(&model, &stages).unwrap().len()
    };
    // They take 0.13 ms, 1.3 ms and 55 ms; a quarter of the model takes 7.5 ms.
    assert_eq!([None, Some(10_000), Some(1000), Some(24)].map(holders), [4, 4, 4, 3]);
    assert_eq!(holders(Some(0)), 3, "no division by zero");
}

#[test]
fn links_count_only_if_all_times_were_measured() {
    let (model, mut stages) = with_a_slow_link(50_000);
    stages.iter_mut().for_each(|stage| stage.speed = Speeds::new());
    assert_eq!(plan_with_links(&model, &stages).unwrap().len(), 4);
}

#[test]
fn of_many_slow_links_the_slowest_are_left_out() {
    let model = model(&[10_000; 40], 0);
    let mut stages = candidates(&[u64::MAX; 20]);
    stages.iter_mut().for_each(|stage| stage.speed = speed(4_000_000));
    stages.iter_mut().skip(18).for_each(|stage| stage.link_us = 90_000);
    stages.iter_mut().take(18).for_each(|stage| stage.link_us = 10);
    let shards = plan_with_links(&model, &stages).unwrap();
    assert_eq!(shards.last().unwrap().stage, stages[17].name);
}

/// Calls `each` with every division of the layers from `start` on among `stages` that memory allows.
fn every_division(
    model: &ModelRecord,
    stages: &[Candidate],
    start: u32,
    so_far: &mut Vec<Shard>,
    each: &mut impl FnMut(&[Shard]),
) {
    let Some((stage, rest)) = stages.split_first() else {
        if start == model.layers {
            each(so_far);
        }
        return;
    };
    every_division(model, rest, start, so_far, each);
    for end in start + 1..=model.layers {
        let layers = LayerRange::new(start, end).unwrap();
        if model.shard_bytes(layers).memory_bound() > stage.budget_bytes {
            break;
        }
        so_far.push(Shard { layers, stage: stage.name.clone() });
        every_division(model, rest, end, so_far, each);
        so_far.pop();
    }
}

/// The slowest stage's time and the sum of squares.
fn quality(model: &ModelRecord, stages: &[Candidate], shards: &[Shard]) -> (u64, u128) {
    let times = times_ps(model, stages, shards, ROWS);
    (times.iter().copied().max().unwrap(), times.iter().map(|time| u128::from(*time).pow(2)).sum())
}

proptest! {
    #[test]
    fn no_division_has_a_faster_slowest_stage_or_is_more_even(
        layers in prop::collection::vec(1_u64..50, 1..8),
        work in prop::collection::vec(0_u64..200, 7),
        head in 0_u64..100,
        stages in prop::collection::vec((0_u64..300, prop::option::of(1_u64..8)), 1..5),
        kv in 0_u64..4,
    ) {
        let model = ModelRecord {
            layer_multiplications: work[..layers.len()].to_vec(),
            head_multiplications: head,
            kv_bytes_per_token_layer: kv,
            kv_tokens: 4,
            scratch_bytes: 3,
            ..model(&layers, head)
        };
        let mut candidates = candidates(&stages.iter().map(|(budget, _)| *budget).collect::<Vec<_>>());
        for (candidate, (_, bytes_per_second)) in candidates.iter_mut().zip(&stages) {
            candidate.speed = bytes_per_second.map(|megabytes| speed(megabytes * 1_000_000)).unwrap_or_default();
        }
        let mut best = None;
        every_division(&model, &candidates, 0, &mut Vec::new(), &mut |shards| {
            let found = quality(&model, &candidates, shards);
            best = Some(best.map_or(found, |best: (u64, u128)| best.min(found)));
        });
        let found = plan(&model, &candidates);
        prop_assert_eq!(found.as_ref().ok().map(|shards| quality(&model, &candidates, shards)), best);
        prop_assert_eq!(fits(&model, &candidates).err(), found.as_ref().err().cloned());
        if let Ok(shards) = found {
            let placement = schema::record::Placement::new(schema::Generation(1), shards).unwrap();
            prop_assert_eq!(placement.layers(), model.layers);
        }
    }

    #[test]
    fn no_division_has_a_shorter_interval_with_links_counted_unless_it_needs_more_stages_for_the_same(
        layers in prop::collection::vec(1_u64..50, 1..8),
        stages in prop::collection::vec((0_u64..300, 0_u32..60), 1..5),
    ) {
        let model = model(&layers, 0);
        let mut candidates = candidates(&stages.iter().map(|(budget, _)| *budget).collect::<Vec<_>>());
        for (candidate, (_, link_us)) in candidates.iter_mut().zip(&stages) {
            (candidate.speed, candidate.link_us) = (speed(1_000_000), *link_us);
        }
        let mut best = None;
        every_division(&model, &candidates, 0, &mut Vec::new(), &mut |shards| {
            // A plan of the same stages may have a faster slowest stage with fewer of them, and fewer micro-batches in
            // flight.
            let is_there = |stage: &&Candidate| {
                stage.link_us == 0 || shards.iter().any(|shard| shard.stage == stage.name)
            };
            let same: Vec<_> = candidates.iter().filter(is_there).cloned().collect();
            if plan(&model, &same).unwrap().len() >= shards.len() {
                let found = interval_ps(&model, &candidates, shards);
                best = Some(best.map_or(found, |best: u128| best.min(found)));
            }
        });
        let found = plan_with_links(&model, &candidates).ok().map(|shards| interval_ps(&model, &candidates, &shards));
        prop_assert_eq!(found.is_some(), best.is_some());
        prop_assert!(found <= best, "{found:?}, best {best:?}");
    }

    #[test]
    fn beside_fixed_layers_no_division_has_a_faster_slowest_stage(
        layers in prop::collection::vec(1_u64..50, 2..8),
        budgets in prop::collection::vec(0_u64..300, 2..5),
        fixed in (0_usize..4, 0_u32..7, 1_u32..4),
    ) {
        let model = model(&layers, 30);
        let mut candidates = candidates(&budgets);
        let (fixed_at, start, count) = fixed;
        let (fixed_at, start) = (fixed_at % candidates.len(), start % model.layers);
        let range = LayerRange::new(start, (start + count).min(model.layers)).unwrap();
        let others = candidates.iter().enumerate().filter(|(at, _)| *at != fixed_at);
        let free: Vec<_> = others.map(|(_, stage)| stage.clone()).collect();
        // The free stages keep their order among each other. The fixed one may stand anywhere between them.
        let mut best = None;
        for place in 0..=free.len() {
            let mut order = free.clone();
            order.insert(place, candidates[fixed_at].clone());
            every_division(&model, &order, 0, &mut Vec::new(), &mut |shards| {
                if shards.iter().any(|shard| shard.stage == candidates[fixed_at].name && shard.layers == range) {
                    let times = times_ps(&model, &candidates, shards, ROWS);
                    let others = times.iter().zip(shards).filter(|(_, shard)| shard.layers != range);
                    let slowest = others.map(|(time, _)| *time).max().unwrap_or(0);
                    best = Some(best.map_or(slowest, |best: u64| best.min(slowest)));
                }
            });
        }
        candidates[fixed_at].fixed = Some(range);
        let found = plan(&model, &candidates).ok().map(|shards| {
            let times = times_ps(&model, &candidates, &shards, ROWS);
            let others = times.iter().zip(&shards).filter(|(_, shard)| shard.layers != range);
            others.map(|(time, _)| *time).max().unwrap_or(0)
        });
        prop_assert_eq!(found, best);
    }
}
