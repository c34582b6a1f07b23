//! Costs of ranges of a model's layers: memory is the same on every stage, time depends on the stage. Both come from
//! prefix sums over the layers.

use std::sync::Arc;

use schema::LayerRange;
use schema::record::ModelRecord;

use super::rates::Rates;

/// Rates that are looked for among those that have times already.
const RATES_KNOWN_MAX: usize = 64;

/// Memory of ranges of layers.
#[derive(Debug)]
pub(super) struct Costs {
    /// Weights, keys and values of the layers before each, in bytes.
    memory_before: Vec<u64>,
    scratch_bytes: u64,
}

/// Times of ranges of layers on one stage, in picoseconds.
#[derive(Debug)]
pub(super) struct Times {
    before: Vec<u64>,
}

// === impl Costs ===

impl Costs {
    pub(super) fn new(model: &ModelRecord) -> Self {
        let memory = (0..model.layers).map(|layer| {
            let bytes = LayerRange::new(layer, layer + 1).map(|range| model.shard_bytes(range));
            bytes.map_or(0, |bytes| bytes.weights.saturating_add(bytes.kv))
        });
        Self { memory_before: sums(memory), scratch_bytes: model.scratch_bytes }
    }

    pub(super) fn layers(&self) -> usize {
        self.memory_before.len() - 1
    }

    /// The most memory layers `start..end` take, in bytes.
    pub(super) fn memory_bound(&self, start: usize, end: usize) -> u64 {
        let own = self.memory_before[end].saturating_sub(self.memory_before[start]);
        own.saturating_add(self.scratch_bytes)
    }
}

// === impl Times ===

impl Times {
    /// The times of a stage with these rates, for a micro-batch of `rows`.
    pub(super) fn new(model: &ModelRecord, rates: &Rates, rows: u64) -> Self {
        let times = (0..model.layers).map(|layer| {
            let own = rates.layer_ps(model.layer(layer), rows);
            let last = layer + 1 == model.layers;
            let head = if last { rates.head_ps(model.head_bytes, model.head_multiplications, rows) } else { 0 };
            own.saturating_add(head)
        });
        Self { before: sums(times) }
    }

    /// The times of stages with each of these rates. Equal rates share theirs: measured speeds are compared so coarsely
    /// that a thousand stages have a few rates.
    pub(super) fn of_each(model: &ModelRecord, rates: &[Rates], rows: u64) -> Vec<Arc<Self>> {
        let mut known: Vec<(&Rates, Arc<Self>)> = Vec::new();
        let times = rates.iter().map(|rates| match known.iter().find(|(found, _)| *found == rates) {
            Some((_, times)) => times.clone(),
            None => {
                let times = Arc::new(Self::new(model, rates, rows));
                // More are made anew: to look for them would take as long.
                if known.len() < RATES_KNOWN_MAX {
                    known.push((rates, times.clone()));
                }
                times
            }
        });
        times.collect()
    }

    /// The time of layers `start..end`, in picoseconds.
    pub(super) fn of(&self, start: usize, end: usize) -> u64 {
        self.before[end].saturating_sub(self.before[start])
    }
}

/// The sums of the values before each value, and the sum of all.
fn sums(values: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut sums = vec![0];
    let mut sum = 0_u64;
    sums.extend(values.map(|value| {
        sum = sum.saturating_add(value);
        sum
    }));
    sums
}
