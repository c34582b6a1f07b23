//! A simulated stage's compute thread: the real worker, which executes one order after the other in virtual time.

use std::collections::VecDeque;
use std::sync::Arc;

use super::environment::Environment;
use super::event::ProcessEvent;
use super::process_id::ProcessId;
use super::time::{MS, Moment, duration};
use crate::limits::STAGE_QUEUE_MAX;
use crate::runner::Loader;
use crate::stage::compute::{ComputeOrder, ComputeThread};
use crate::stage::done::Done;

/// Time that each row of a micro-batch takes.
const ROW: Moment = 40;

pub(super) struct Thread {
    process: ProcessId,
    worker: ComputeThread,
    /// Its time for the same work, as a multiple of the fastest stage's.
    pace: u64,
    /// Queued orders, each with the time at which it came.
    orders: VecDeque<(Moment, ComputeOrder)>,
    /// The outcome of the current order.
    at_work: Option<Option<Done>>,
}

// === impl Thread ===

impl Thread {
    pub(super) fn new(process: ProcessId, loader: Arc<dyn Loader>, pace: u64) -> Self {
        Self { process, worker: ComputeThread::new(loader), pace, orders: VecDeque::new(), at_work: None }
    }

    pub(super) fn is_full(&self) -> bool {
        self.orders.len() >= STAGE_QUEUE_MAX
    }

    pub(super) fn give(&mut self, order: ComputeOrder, env: &mut Environment) {
        self.orders.push_back((env.now, order));
        if self.at_work.is_none() {
            self.work(env);
        }
    }

    /// Executes the next order. The outcome is computed at once, and delivered when the order's time is over.
    fn work(&mut self, env: &mut Environment) {
        let Some((given, order)) = self.orders.pop_front() else { return };
        let takes = match &order {
            ComputeOrder::Load { .. } => env.rng.within(10 * MS..400 * MS),
            ComputeOrder::Step { hop, .. } => self.pace * (env.rng.within(2 * MS..4 * MS) + ROW * u64::from(hop.rows)),
            ComputeOrder::Unload => 1,
        };
        let mut done = self.worker.perform(order);
        if let Some(Done::Stepped(stepped)) = &mut done {
            stepped.compute = duration(takes);
            stepped.queue = duration(env.now - given);
        }
        self.at_work = Some(done);
        env.schedule(takes, self.process, ProcessEvent::ComputeDone);
    }

    /// The current order is done.
    pub(super) fn done(&mut self, env: &mut Environment) {
        if let Some(done) = self.at_work.take().flatten() {
            env.schedule(0, self.process, ProcessEvent::Computed(done));
        }
        self.work(env);
    }
}
