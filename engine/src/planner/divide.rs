//! The division itself: contiguous ranges for the free stages in a given order, around layers that are taken already.
//!
//! Time and memory bound the range of one free stage, and both only grow with the range. So a free stage that begins
//! later comes at least as far, and two things follow. First, it is never wrong for a stage to take as much as it can,
//! so one pass over the free stages finds out if they can keep a bound on the time. Second, with the square of its time
//! as the cost of a range, the best end of a later start is no earlier. So the most even division is found by halving
//! instead of by trying all pairs.

use std::rc::Rc;
use std::sync::Arc;

use schema::LayerRange;

use super::costs::{Costs, Times};

/// A stage that is free to take any range.
#[derive(Debug)]
pub(super) struct FreeStage {
    pub(super) times: Arc<Times>,
    pub(super) budget_bytes: u64,
}

/// The layers to be divided: all but those taken.
#[derive(Debug)]
pub(super) struct FreeLayers<'a> {
    costs: &'a Costs,
    /// For each layer, the next start from there: the layer itself or, if it is taken, the first one past the layers
    /// taken.
    next_free_start: Vec<usize>,
    /// For each layer, the last end of a range that begins there.
    last_end: Vec<usize>,
}

/// For each layer, the least cost of the layers from it on. `None` if they cannot be divided.
type CostFrom = Vec<Option<u128>>;

/// The best ends of one free stage: for each start the best end, and the least cost of all layers from that start on.
struct BestEnds<'a> {
    free_stage: &'a FreeStage,
    after: &'a CostFrom,
    ends: Vec<usize>,
    costs: CostFrom,
}

/// A start and the ends that are possible from it.
#[derive(Debug, Clone, Copy)]
struct StartOptions {
    start: usize,
    first_end: usize,
    last_end: usize,
}

// === impl FreeStage ===

impl FreeStage {
    /// True if the other one has the same times, as equal rates do, and the same budget.
    fn is_like(&self, other: &Self) -> bool {
        self.budget_bytes == other.budget_bytes && Arc::ptr_eq(&self.times, &other.times)
    }
}

// === impl FreeLayers ===

impl<'a> FreeLayers<'a> {
    /// All layers but those of `taken`, which lie in order and do not overlap.
    pub(super) fn new(costs: &'a Costs, taken: &[LayerRange]) -> Self {
        let layers = costs.layers();
        let (mut next_free_start, mut last_end) = ((0..=layers).collect::<Vec<_>>(), vec![layers; layers + 1]);
        for range in taken.iter().rev() {
            let past = next_free_start[range.end() as usize];
            next_free_start[range.indices()].fill(past);
            last_end[..=range.start() as usize].fill(range.start() as usize);
        }
        Self { costs, next_free_start, last_end }
    }

    /// The first free run of layers from `layer` on, if there is one.
    pub(super) fn next_free(&self, layer: usize) -> Option<(usize, usize)> {
        let start = self.next_free_start[layer];
        (start < self.costs.layers()).then(|| (start, self.last_end[start]))
    }

    /// The last end that `free_stage` can reach from `start` within `most_ps`.
    fn reach(&self, free_stage: &FreeStage, start: usize, most_ps: u64) -> usize {
        self.furthest(start, |end| {
            free_stage.times.of(start, end) <= most_ps && self.costs.memory_bound(start, end) <= free_stage.budget_bytes
        })
    }

    /// The last end of a range from `start` that `fits`, provided no longer range fits than one that does not.
    fn furthest(&self, start: usize, fits: impl Fn(usize) -> bool) -> usize {
        let (mut can, mut cannot) = (start, self.last_end[start] + 1);
        while cannot - can > 1 {
            let middle = can.midpoint(cannot);
            if fits(middle) { can = middle } else { cannot = middle }
        }
        can
    }

    /// The layer that `free_stages` reach if none takes longer than `most_ps`.
    fn progress(&self, free_stages: &[FreeStage], most_ps: u64) -> usize {
        let (mut start, layers) = (self.next_free_start[0], self.costs.layers());
        for free_stage in free_stages {
            // Stages behind the last layer have nothing to take.
            if start == layers {
                break;
            }
            start = self.next_free_start[self.reach(free_stage, start, most_ps)];
        }
        start
    }

    /// The first layer that is left if stages with these budgets take as many as memory allows, one after the other.
    pub(super) fn first_left(&self, mut budgets: impl Iterator<Item = u64>) -> Option<usize> {
        let layers = self.costs.layers();
        let left = budgets.try_fold(self.next_free_start[0], |start, budget_bytes| {
            let end = self.furthest(start, |end| self.costs.memory_bound(start, end) <= budget_bytes);
            let left = self.next_free_start[end];
            // Stops as soon as all layers are given away.
            if left == layers { Err(layers) } else { Ok(left) }
        });
        let left = left.unwrap_or_else(|all| all);
        (left < layers).then_some(left)
    }

    /// The least time of the slowest free stage, in picoseconds. If no division fits, the first layer that is left.
    pub(super) fn slowest(&self, free_stages: &[FreeStage]) -> Result<u64, usize> {
        let layers = self.costs.layers();
        if let Some(left) = self.first_left(free_stages.iter().map(|free_stage| free_stage.budget_bytes)) {
            return Err(left);
        }
        let enough = free_stages.iter().map(|free_stage| free_stage.times.of(0, layers)).max().unwrap_or(0);
        let (mut least, mut most) = (0, enough);
        while least < most {
            let middle = least.midpoint(most);
            if self.progress(free_stages, middle) == layers { most = middle } else { least = middle + 1 }
        }
        Ok(least)
    }

    /// The most even division (the least sum of squared times) in which no free stage takes longer than `most_ps`.
    ///
    /// Works from the last free stage to the first. On a tie the earlier free stage works, so that a surplus one is the
    /// last. Takes free stages × layers × log(layers) steps; of equal stages in a row, those that change nothing more
    /// take none.
    pub(super) fn most_even(&self, free_stages: &[FreeStage], most_ps: u64) -> Option<Vec<Option<LayerRange>>> {
        let layers = self.costs.layers();
        let mut after: CostFrom = vec![None; layers + 1];
        after[layers] = Some(0);
        let mut ends: Vec<Rc<[usize]>> = Vec::with_capacity(free_stages.len());
        // The stage behind that changed no cost: one that is equal to it finds the same ends.
        let mut idle: Option<&FreeStage> = None;
        for free_stage in free_stages.iter().rev() {
            if let Some(same) = ends.last().filter(|_| idle.is_some_and(|idle| idle.is_like(free_stage))) {
                ends.push(same.clone());
                continue;
            }
            // The stages behind can begin at any layer after one at which they can begin. So from `open` on, every end
            // leads to the end of all layers.
            let open = (0..layers).find(|end| after[self.next_free_start[*end]].is_some()).unwrap_or(layers);
            let options = |start: usize| {
                let (first_end, last_end) = (open.max(start + 1), self.reach(free_stage, start, most_ps));
                (self.next_free_start[start] == start && first_end <= last_end).then_some(StartOptions {
                    start,
                    first_end,
                    last_end,
                })
            };
            let starts: Vec<_> = (0..layers).filter_map(options).collect();
            let ends_of_idle = (0..=layers).collect();
            let mut best_ends = BestEnds { free_stage, after: &after, ends: ends_of_idle, costs: after.clone() };
            best_ends.find(self, &starts, 0, layers);
            let BestEnds { ends: chosen, costs, .. } = best_ends;
            ends.push(chosen.into());
            idle = Some(free_stage).filter(|_| costs == after);
            after = costs;
        }
        after[self.next_free_start[0]]?;
        let mut start = self.next_free_start[0];
        let ranges = ends.iter().rev().map(|ends| {
            let range = LayerRange::new(start as u32, ends[start] as u32);
            start = self.next_free_start[ends[start]];
            range
        });
        Some(ranges.collect())
    }
}

// === impl BestEnds ===

impl BestEnds<'_> {
    /// Finds the best end for each of `starts`. Those ends lie between `least_end` and `most_end`.
    fn find(&mut self, free_layers: &FreeLayers<'_>, starts: &[StartOptions], least_end: usize, most_end: usize) {
        let Some((options, (before, behind))) = middle(starts) else { return };
        let ends = options.first_end.max(least_end)..=options.last_end.min(most_end);
        let cost = |end: usize| {
            let time = u128::from(self.free_stage.times.of(options.start, end));
            Some(self.after[free_layers.next_free_start[end]]?.saturating_add(time.saturating_mul(time)))
        };
        let best = ends.filter_map(|end| Some((cost(end)?, end))).min();
        let Some((cost, end)) = best else {
            self.find(free_layers, before, least_end, most_end);
            return self.find(free_layers, behind, least_end, most_end);
        };
        if self.after[options.start].is_none_or(|idle| cost <= idle) {
            self.costs[options.start] = Some(cost);
            self.ends[options.start] = end;
        }
        self.find(free_layers, before, least_end, end);
        self.find(free_layers, behind, end, most_end);
    }
}

/// The start in the middle, the starts before it and the starts behind it.
fn middle(starts: &[StartOptions]) -> Option<(StartOptions, (&[StartOptions], &[StartOptions]))> {
    let at = starts.len() / 2;
    Some((*starts.get(at)?, (&starts[..at], &starts[at + 1..])))
}
