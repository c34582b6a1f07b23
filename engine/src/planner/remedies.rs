//! Settings and machines that would make a plan possible. They are found with the planner's own sums, so that a named
//! remedy works. That takes a dozen tries, so it is done only where they are shown. Pure.

use std::fmt;
use std::ops::Range;

use schema::HumanBytes;
use schema::record::{KvRoom, KvType, ModelRecord};

use super::{Candidate, Costs, fits};
use crate::runner::KV_BLOCK_TOKENS;

/// Changes of which each one alone makes a plan possible. Those that would not are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remedies {
    /// The most tokens of keys and values, in whole blocks, that leave room for the weights.
    pub kv_tokens: Option<u32>,
    /// The type in which the same number of tokens fits.
    pub kv_type: Option<KvType>,
    /// The bytes that one more stage must be allowed to use.
    pub one_more_bytes: Option<u64>,
}

// === impl Remedies ===

impl Remedies {
    /// The remedies for `candidates`, which have too little memory for `model`.
    pub fn new(model: &ModelRecord, candidates: &[Candidate]) -> Self {
        let helps = |changed: &ModelRecord| fits(changed, candidates).is_ok();
        Self {
            kv_tokens: most_kv_tokens(model, &helps),
            kv_type: as_q8(model).filter(helps).map(|changed| changed.kv_type),
            one_more_bytes: one_more_bytes(model, candidates),
        }
    }

    /// True if nothing would help.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Remedies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |bytes| format!("one more stage that may use {}", HumanBytes(bytes).rounded_up());
        let named: Vec<_> = [
            self.kv_tokens.map(|tokens| format!("--kv-tokens {tokens}")),
            self.kv_type.map(|kv_type| format!("--kv-type {kv_type}")),
            self.one_more_bytes.map(bytes),
        ]
        .into_iter()
        .flatten()
        .collect();
        match named.split_last() {
            Some((last, [])) => f.write_str(last),
            Some((last, others)) => write!(f, "{} or {last}", others.join(", ")),
            None => f.write_str("nothing that is known"),
        }
    }
}

/// The most tokens, in whole blocks and fewer than those of `model`, that help.
fn most_kv_tokens(model: &ModelRecord, helps: &impl Fn(&ModelRecord) -> bool) -> Option<u32> {
    let with = |blocks: u32| ModelRecord { kv_tokens: blocks * KV_BLOCK_TOKENS, ..model.clone() };
    let (mut helping, mut too_many) = (0, model.kv_tokens.div_ceil(KV_BLOCK_TOKENS));
    while too_many - helping > 1 {
        let middle = helping.midpoint(too_many);
        if helps(&with(middle)) { helping = middle } else { too_many = middle }
    }
    (helping > 0).then_some(helping * KV_BLOCK_TOKENS)
}

/// `model` with as many tokens in eight bits. `None` if it has that already or its heads are not whole blocks of it.
fn as_q8(model: &ModelRecord) -> Option<ModelRecord> {
    let KvRoom { kv_type: KvType::F16, .. } = model.kv_room() else { return None };
    let in_q8 = |f16_bytes: u64| {
        let values = f16_bytes / KvType::F16.bytes(1)?;
        KvType::Q8.bytes(values).filter(|_| values.is_multiple_of(KvType::Q8_BLOCK as u64))
    };
    let kv_bytes_per_token_layer = in_q8(model.kv_bytes_per_token_layer)?;
    let layer_kv_bytes = model.layer_kv_bytes.iter().map(|bytes| in_q8(*bytes)).collect::<Option<_>>()?;
    Some(ModelRecord { kv_type: KvType::Q8, kv_bytes_per_token_layer, layer_kv_bytes, ..model.clone() })
}

/// The least budget with which one more stage makes a plan, whatever place in the order its name gives it. That stage
/// takes the layers that the stages before it leave, up to the first one at which the stages behind it can begin.
/// `None` if there are pinned layers, for which this does not hold.
fn one_more_bytes(model: &ModelRecord, candidates: &[Candidate]) -> Option<u64> {
    if candidates.iter().any(|stage| stage.fixed.is_some()) {
        return None;
    }
    let costs = Costs::new(model);
    let budgets = || candidates.iter().map(|stage| stage.budget_bytes);
    let last_end = |start: usize, budget_bytes: u64| {
        partition_point(start..costs.layers(), |layer| costs.memory_bound(start, layer + 1) <= budget_bytes)
    };
    let first_start =
        |end: usize, budget_bytes: u64| partition_point(0..end, |layer| costs.memory_bound(layer, end) > budget_bytes);
    let reached = with_each(0, budgets(), last_end);
    let mut begun = with_each(costs.layers(), budgets().rev(), first_start);
    begun.reverse();
    let gaps = reached.into_iter().zip(begun).filter(|(start, end)| start < end);
    gaps.map(|(start, end)| costs.memory_bound(start, end)).max()
}

/// `first`, and then with each of `budgets` the result of `next` for the value before.
fn with_each(first: usize, budgets: impl Iterator<Item = u64>, next: impl Fn(usize, u64) -> usize) -> Vec<usize> {
    let rest = budgets.scan(first, |at, budget_bytes| {
        *at = next(*at, budget_bytes);
        Some(*at)
    });
    std::iter::once(first).chain(rest).collect()
}

/// The first of `layers` for which `holds` is false, or their end. `holds` must be false from there on.
fn partition_point(layers: Range<usize>, holds: impl Fn(usize) -> bool) -> usize {
    let Range { mut start, mut end } = layers;
    while start < end {
        let middle = start.midpoint(end);
        if holds(middle) { start = middle + 1 } else { end = middle }
    }
    start
}

#[cfg(test)]
mod tests {
    use schema::record::Speeds;

    use super::*;
    use crate::planner::PlanError;
    use crate::testing::{model, name};

    fn candidates(budgets: &[u64]) -> Vec<Candidate> {
        let candidate = |(at, budget_bytes): (usize, &u64)| Candidate {
            name: name(&format!("s{at:04}")),
            budget_bytes: *budget_bytes,
            speed: Speeds::new(),
            link_us: 0,
            link_megabits_per_second: None,
            fixed: None,
        };
        budgets.iter().enumerate().map(candidate).collect()
    }

    /// Ten layers of 100 bytes and a head of 50. A token takes 64 bytes in each layer, 640 in all.
    fn with_kv(kv_tokens: u32) -> ModelRecord {
        ModelRecord { kv_bytes_per_token_layer: 64, kv_tokens, scratch_bytes: 7, ..model(&[100; 10], 50) }
    }

    #[test]
    fn every_remedy_works_and_a_little_less_of_it_does_not() {
        for budgets in [&[9_000, 30_000][..], &[40_000], &[11_000, 11_000, 11_000], &[8_000; 9]] {
            let (model, stages) = (with_kv(128), candidates(budgets));
            assert!(matches!(fits(&model, &stages), Err(PlanError::Memory(_))), "{budgets:?}");
            let Remedies { kv_tokens, kv_type, one_more_bytes } = Remedies::new(&model, &stages);
            let with = |kv_tokens| fits(&ModelRecord { kv_tokens, ..model.clone() }, &stages).is_ok();
            let tokens = kv_tokens.unwrap();
            assert!(with(tokens) && !with(tokens + KV_BLOCK_TOKENS) && tokens.is_multiple_of(KV_BLOCK_TOKENS));
            let eight = ModelRecord { kv_type: KvType::Q8, kv_bytes_per_token_layer: 34, ..model.clone() };
            assert_eq!(kv_type, fits(&eight, &stages).is_ok().then_some(KvType::Q8), "{budgets:?}");
            let joined = |bytes, place| {
                let mut budgets = budgets.to_vec();
                budgets.insert(place, bytes);
                fits(&model, &candidates(&budgets)).is_ok()
            };
            let bytes = one_more_bytes.unwrap();
            assert!((0..=budgets.len()).all(|place| joined(bytes, place)), "{budgets:?}: {bytes}");
            assert!((0..=budgets.len()).any(|place| !joined(bytes - 1, place)), "{budgets:?}: {bytes}");
        }
    }

    #[test]
    fn a_remedy_that_would_not_help_is_not_named() {
        // The weights alone are too much: only another stage helps.
        let remedies = Remedies::new(&with_kv(128), &candidates(&[500]));
        assert_eq!((remedies.kv_tokens, remedies.kv_type), (None, None));
        insta::assert_snapshot!(remedies, @"one more stage that may use 81.1 KiB");
        // Eight bits are too many where half as many tokens are still too many.
        let remedies = Remedies::new(&with_kv(1024), &candidates(&[50_000]));
        assert_eq!(remedies.kv_type, None);
        insta::assert_snapshot!(remedies, @"--kv-tokens 64 or one more stage that may use 641.1 KiB");
        let already = ModelRecord { kv_type: KvType::Q8, ..with_kv(128) };
        assert_eq!(Remedies::new(&already, &candidates(&[60_000])).kv_type, None);
        // Heads of other widths cannot be kept in eight bits.
        let odd = ModelRecord { kv_bytes_per_token_layer: 60, ..with_kv(128) };
        assert_eq!(Remedies::new(&odd, &candidates(&[60_000])).kv_type, None);
        assert!(Remedies::default().is_empty());
    }

    #[test]
    fn every_remedy_is_named() {
        insta::assert_snapshot!(Remedies::new(&with_kv(128), &candidates(&[60_000])),
            @"--kv-tokens 64, --kv-type q8_0 or one more stage that may use 24.4 KiB"
        );
    }
}
