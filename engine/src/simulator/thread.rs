//! A simulated stage's compute thread: the real worker, which does one thing after the other and takes its time.

use std::collections::VecDeque;
use std::sync::Arc;

use super::surroundings::{Happening, MS, Moment, Party, Surroundings, duration};
use crate::limits::STAGE_QUEUE_MAX;
use crate::runner::Loader;
use crate::stage::compute::{ComputeOrder, ComputeThread, Done};

/// Time that each row of a micro-batch takes.
const ROW: Moment = 40;

pub(super) struct Thread {
    party: Party,
    worker: ComputeThread,
    /// How many times longer than the fastest it takes to compute.
    pace: u64,
    /// What it is to do, and since when.
    orders: VecDeque<(Moment, ComputeOrder)>,
    /// What it does now, as it will come out.
    at_work: Option<Option<Done>>,
}

// === impl Thread ===

impl Thread {
    pub(super) fn new(party: Party, loader: Arc<dyn Loader>, pace: u64) -> Self {
        Self { party, worker: ComputeThread::new(loader), pace, orders: VecDeque::new(), at_work: None }
    }

    pub(super) fn is_full(&self) -> bool {
        self.orders.len() >= STAGE_QUEUE_MAX
    }

    pub(super) fn give(&mut self, order: ComputeOrder, around: &mut Surroundings) {
        self.orders.push_back((around.now, order));
        if self.at_work.is_none() {
            self.work(around);
        }
    }

    /// Does the next thing; what comes of it is known at once, and told when its time is over.
    fn work(&mut self, around: &mut Surroundings) {
        let Some((given, order)) = self.orders.pop_front() else { return };
        let takes = match &order {
            ComputeOrder::Load { .. } => around.dice.within(10 * MS..400 * MS),
            ComputeOrder::Step { hop, .. } => {
                self.pace * (around.dice.within(2 * MS..4 * MS) + ROW * u64::from(hop.rows))
            }
            ComputeOrder::Unload => 1,
        };
        let mut done = self.worker.perform(order);
        if let Some(Done::Stepped(stepped)) = &mut done {
            stepped.compute = duration(takes);
            stepped.queue = duration(around.now - given);
        }
        self.at_work = Some(done);
        around.happens(takes, self.party, Happening::ComputeDone);
    }

    /// What it was at is done.
    pub(super) fn done(&mut self, around: &mut Surroundings) {
        if let Some(done) = self.at_work.take().flatten() {
            around.happens(0, self.party, Happening::Computed(done));
        }
        self.work(around);
    }
}
