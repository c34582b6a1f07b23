//! The room for keys and values of a placement: layers are placed by the least room that the model's record names, and
//! then the room fills what that leaves free. Pure.
//!
//! The stage that has the least memory left decides, because all stages of a generation use the same block numbers. A
//! room that is already in use stays while it fits and while a larger one is not worth a new generation, which computes
//! every sequence again.

use std::collections::BTreeMap;

use schema::StageName;
use schema::record::{DeviceKind, KV_BLOCK_TOKENS, ModelRecord, Shard, StageRecord};

use super::Candidate;
use crate::limits::{ROOM_FREE_PARTS, ROOM_GAIN_PERCENT};

/// Most bytes that each stage may use for a shard.
pub(super) type Budgets<'a> = BTreeMap<&'a StageName, u64>;

/// The budgets of the stages that hold `shards`. Those that compute on the processors of one machine have at most equal
/// parts of its memory together: each may have taken all of it for its own when it started.
pub(super) fn budgets<'a>(
    candidates: &'a [Candidate],
    records: &BTreeMap<&StageName, &StageRecord>,
    shards: &[Shard],
) -> Budgets<'a> {
    let machine = |stage: &StageName| {
        records.get(stage).filter(|record| record.device == DeviceKind::Cpu).map(|record| record.host.as_str())
    };
    let mut holders: BTreeMap<&str, u64> = BTreeMap::new();
    for host in shards.iter().filter_map(|shard| machine(&shard.stage)) {
        *holders.entry(host).or_default() += 1;
    }
    let own = |stage: &Candidate| {
        let part = machine(&stage.name).and_then(|host| holders.get(host)).zip(records.get(&stage.name));
        let part = part.map_or(u64::MAX, |(count, record)| record.memory_total_bytes / count);
        stage.budget_bytes.min(part)
    };
    candidates.iter().map(|stage| (&stage.name, own(stage))).collect()
}

/// The room in tokens for `shards` of `model`, by which they were placed. `current` is the room that these very shards
/// have now, if they are placed already.
pub(super) fn room(model: &ModelRecord, shards: &[Shard], budgets: &Budgets<'_>, current: Option<u32>) -> u32 {
    let needs = |tokens| {
        let model = model.with_room(tokens);
        move |shard: &Shard| model.shard_bytes(shard.layers).memory_bound()
    };
    let budget = |shard: &Shard| budgets.get(&shard.stage).copied().unwrap_or(0);
    let least = needs(model.kv_tokens);
    let filled = |shard: &Shard| budget(shard) - budget(shard).saturating_sub(least(shard)) / ROOM_FREE_PARTS;
    let fits = |tokens, most: &dyn Fn(&Shard) -> u64| {
        let needs = needs(tokens);
        shards.iter().all(|shard| needs(shard) <= most(shard))
    };
    // Half-open, in blocks: the first is enough for the least room and counts as fitting.
    let mut fitting = model.kv_tokens / KV_BLOCK_TOKENS;
    let mut too_many = (model.kv_tokens_max() / KV_BLOCK_TOKENS).max(fitting) + 1;
    while too_many - fitting > 1 {
        let middle = fitting.midpoint(too_many);
        if fits(middle * KV_BLOCK_TOKENS, &filled) { fitting = middle } else { too_many = middle }
    }
    let wanted = (fitting * KV_BLOCK_TOKENS).max(model.kv_tokens);
    let is_worth_it = |current: u32| u64::from(wanted) * 100 >= u64::from(current) * (100 + ROOM_GAIN_PERCENT);
    let stays = |current: &u32| {
        *current >= model.kv_tokens
            && *current <= model.kv_tokens_max()
            && !is_worth_it(*current)
            && (*current == model.kv_tokens || fits(*current, &budget))
    };
    current.filter(stays).unwrap_or(wanted)
}

#[cfg(test)]
mod tests {
    use schema::LayerRange;
    use schema::record::KvGrowth;

    use super::*;
    use crate::testing::{model, name, stage};

    /// Four layers of 1000 bytes, which store a byte for each token, and 100 bytes of scratch.
    fn growing(tokens_max: u32) -> ModelRecord {
        let kv_growth = Some(KvGrowth { tokens_max, scratch_bytes: 164 });
        ModelRecord { kv_bytes_per_token_layer: 1, kv_growth, scratch_bytes: 100, ..model(&[1000; 4], 0) }
    }

    fn halves() -> Vec<Shard> {
        [("a", 0..2), ("b", 2..4)]
            .map(|(stage, layers)| Shard {
                stage: name(stage),
                layers: LayerRange::new(layers.start, layers.end).unwrap(),
            })
            .into()
    }

    /// The room of two halves on stages with these budgets, on machines of their own.
    fn room_in(model: &ModelRecord, budgets: [u64; 2], current: Option<u32>) -> u32 {
        let names = ["a", "b"].map(name);
        let budgets = names.iter().zip(budgets).collect();
        room(model, &halves(), &budgets, current)
    }

    #[test]
    fn the_stage_with_the_least_memory_left_decides() {
        let model = growing(100_000);
        // 4148 bytes hold two layers with 1024 tokens each. An eighth of what is left stays free.
        let needed = 2 * 1000 + 2 * 1024 + 100;
        assert_eq!(room_in(&model, [needed + 64, 1 << 30], None), 1024, "less than the scratch of a larger room");
        assert_eq!(room_in(&model, [needed + 16_000, 1 << 30], None), (1024 + (14_000 - 64) / 2) / 32 * 32);
        assert_eq!(room_in(&model, [1 << 30, needed + 16_000], None), (1024 + (14_000 - 64) / 2) / 32 * 32);
        assert_eq!(room_in(&model, [1 << 30, 1 << 30], None), 100_000 / 32 * 32, "the bound of the model");
        // The planner placed by another memory: the least room stays.
        assert_eq!(room_in(&model, [0, 0], None), 1024);
    }

    #[test]
    fn a_room_that_was_told_does_not_grow() {
        let model = ModelRecord { kv_growth: None, kv_tokens: 1000, ..growing(0) };
        assert_eq!(room_in(&model, [1 << 30, 1 << 30], None), 1000);
        assert_eq!(room_in(&model, [1 << 30, 1 << 30], Some(1 << 20)), 1000);
    }

    #[test]
    fn a_room_in_use_stays_while_it_fits_and_a_larger_one_is_not_worth_a_generation() {
        let model = growing(100_000);
        let budgets = [2 * 1000 + 2 * 1024 + 100 + 16_000, 1 << 30];
        let wanted = room_in(&model, budgets, None);
        assert_eq!(room_in(&model, budgets, Some(wanted - wanted / 10)), wanted - wanted / 10);
        assert_eq!(room_in(&model, budgets, Some(wanted / 2)), wanted);
        // It may use what a new one would leave free, and no more.
        assert_eq!(room_in(&model, budgets, Some(wanted + 500)), wanted + 500);
        assert_eq!(room_in(&model, budgets, Some(wanted + 2000)), wanted);
    }

    #[test]
    fn stages_of_one_machine_share_its_memory() {
        let candidate = |stage: &str| Candidate {
            name: name(stage),
            budget_bytes: 1000,
            speed: schema::record::Speeds::new(),
            link_us: 0,
            link_megabits_per_second: None,
            fixed: None,
        };
        let (candidates, names) = (["a", "b", "c"].map(candidate), ["a", "b", "c"].map(name));
        let mut records = [stage(1000), stage(1000), stage(1000)];
        let of = |records: &[StageRecord; 3]| {
            let records = names.iter().zip(records).collect();
            budgets(&candidates, &records, &halves()).into_values().collect::<Vec<_>>()
        };
        assert_eq!(of(&records), [500, 500, 500]);
        records[1].host = "elsewhere".to_owned();
        assert_eq!(of(&records), [1000, 1000, 1000]);
        records[1] = StageRecord { device: DeviceKind::Cuda, ..stage(1000) };
        assert_eq!(of(&records), [1000, 1000, 1000], "a device has memory of its own");
    }
}
