//! The one thread that computes: it owns the shard and executes its orders one after the other. Once, while it has a
//! shard and no orders, it measures its speed, a few milliseconds at a time.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use schema::LayerRange;
use schema::frame::Hop;
use schema::record::KvRoom;
use tokio::sync::mpsc;

use super::done::{Done, Loaded, Stepped};
use super::read_ahead::ReadAhead;
use crate::limits::{PROBE_QUIET, STAGE_QUEUE_MAX};
use crate::link::bytes_to_activations;
use crate::runner::{LoadedShard, Loader, Runner, RunnerError, Work};

/// An order to the thread.
pub(crate) enum ComputeOrder {
    /// `number` identifies the order.
    Load {
        number: u64,
        layers: LayerRange,
        room: KvRoom,
        budget_bytes: u64,
    },
    Step {
        hop: Hop,
        activations: Bytes,
        arrived: Instant,
    },
    Unload,
}

/// The handle of the thread. Dropping it ends the thread after the current step.
pub(crate) struct Compute {
    orders: Option<SyncSender<ComputeOrder>>,
    thread: Option<JoinHandle<()>>,
    ahead: ReadAhead,
}

// === impl Compute ===

impl Compute {
    /// Starts the thread. Its outcomes come out of the receiver.
    pub(crate) fn start(loader: Arc<dyn Loader>) -> std::io::Result<(Self, mpsc::Receiver<Done>)> {
        let (orders, inbox) = sync_channel(STAGE_QUEUE_MAX);
        let (outbox, done) = mpsc::channel(STAGE_QUEUE_MAX);
        let ahead = ReadAhead::new(loader.clone(), outbox.clone());
        let work = move || run(loader, &inbox, &outbox);
        let thread = std::thread::Builder::new().name("compute".to_owned()).spawn(work)?;
        Ok((Self { orders: Some(orders), thread: Some(thread), ahead }, done))
    }

    pub(crate) fn load(&self, number: u64, layers: LayerRange, room: KvRoom, budget_bytes: u64) -> bool {
        self.order(ComputeOrder::Load { number, layers, room, budget_bytes })
    }

    /// Queues a micro-batch. Returns it if the queue is full.
    pub(crate) fn step(&self, hop: Hop, activations: Bytes) -> Result<(), Hop> {
        let Some(orders) = &self.orders else { return Err(hop) };
        match orders.try_send(ComputeOrder::Step { hop, activations, arrived: Instant::now() }) {
            Err(
                TrySendError::Full(ComputeOrder::Step { hop, .. })
                | TrySendError::Disconnected(ComputeOrder::Step { hop, .. }),
            ) => Err(hop),
            _ => Ok(()),
        }
    }

    /// Reads weights into memory in another thread, after fetching those of layers that are `claimed`.
    pub(crate) fn read_ahead(&self, number: u64, ranges: Vec<LayerRange>, bytes_max: u64, claimed: bool) {
        self.ahead.start(number, ranges, bytes_max, claimed);
    }

    pub(crate) fn unload(&self) -> bool {
        self.order(ComputeOrder::Unload)
    }

    fn order(&self, order: ComputeOrder) -> bool {
        let Some(orders) = &self.orders else { return false };
        match orders.try_send(order) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

impl Drop for Compute {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // It ends by itself once the channel of orders is closed. This does not wait for the current step.
            drop(thread);
        }
    }
}

fn run(loader: Arc<dyn Loader>, inbox: &Receiver<ComputeOrder>, outbox: &mpsc::Sender<Done>) {
    let mut worker = ComputeThread::new(loader);
    loop {
        let done = match worker.next(inbox) {
            NextOrder::ComputeOrder(order) => worker.perform(order),
            NextOrder::Idle => worker.probe(),
            NextOrder::End => return,
        };
        if done.is_some_and(|done| outbox.blocking_send(done).is_err()) {
            return;
        }
    }
}

/// The thread's state.
pub(crate) struct ComputeThread {
    loader: Arc<dyn Loader>,
    runner: Option<Box<dyn Runner>>,
    input: Vec<f32>,
    /// True if the device was measured. It is measured once for the process: figures that changed with every shard
    /// would make the planner move shards.
    probed: bool,
    /// Time without an order before the device is measured.
    idle_wait: Duration,
}

/// The thread's next action.
enum NextOrder {
    ComputeOrder(ComputeOrder),
    /// There is no order, and the device is not measured yet.
    Idle,
    End,
}

// === impl ComputeThread ===

impl ComputeThread {
    pub(crate) fn new(loader: Arc<dyn Loader>) -> Self {
        Self { loader, runner: None, input: Vec::new(), probed: false, idle_wait: PROBE_QUIET }
    }

    /// Waits for an order, but only briefly while the device is still to be measured.
    fn next(&mut self, inbox: &Receiver<ComputeOrder>) -> NextOrder {
        let order = if self.runner.is_some() && !self.probed {
            inbox.recv_timeout(self.idle_wait)
        } else {
            inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match order {
            Ok(order) => {
                self.idle_wait = PROBE_QUIET;
                NextOrder::ComputeOrder(order)
            }
            Err(RecvTimeoutError::Timeout) => NextOrder::Idle,
            Err(RecvTimeoutError::Disconnected) => NextOrder::End,
        }
    }

    /// Executes an order. Returns the outcome, if the loop waits for one.
    pub(crate) fn perform(&mut self, order: ComputeOrder) -> Option<Done> {
        match order {
            ComputeOrder::Unload => {
                self.runner = None;
                None
            }
            ComputeOrder::Load { number, layers, room, budget_bytes } => {
                self.runner = None; // The old range goes first: together they may exceed the budget.
                let shard = self.loader.load(layers, room, budget_bytes).map(|shard| {
                    let LoadedShard { runner, weights_bytes, copied_bytes, kv_blocks } = shard;
                    self.runner = Some(runner);
                    Loaded { weights_bytes, copied_bytes, kv_blocks }
                });
                Some(Done::Loaded { number, shard })
            }
            ComputeOrder::Step { hop, activations, arrived } => {
                Some(Done::Stepped(Box::new(self.step(hop, &activations, arrived))))
            }
        }
    }

    fn step(&mut self, hop: Hop, activations: &Bytes, arrived: Instant) -> Stepped {
        let started = Instant::now();
        bytes_to_activations(activations, &mut self.input);
        let output = match &mut self.runner {
            Some(_) if hop.rows == 0 => Ok(None),
            Some(runner) => runner.step(Work { slices: &hop.slices, activations: &self.input }).map(Some),
            None => Err(RunnerError::Device("no shard is loaded".to_owned())),
        };
        let compute = started.elapsed();
        let queue = started.saturating_duration_since(arrived);
        Stepped { hop, output, compute, queue }
    }

    /// Measures for a moment. Returns the speeds after the last measurement.
    fn probe(&mut self) -> Option<Done> {
        let runner = self.runner.as_mut()?;
        self.idle_wait = Duration::ZERO;
        let speed = runner.probe()?;
        self.probed = true;
        Some(Done::Probed { speed })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use schema::record::{FormatSpeed, KvType, MemoryUse, Speeds, StageRecord};
    use schema::{Epoch, Generation, Step};

    use super::*;
    use crate::runner::{LoadError, Output};
    use crate::testing;

    const MOMENT: Duration = Duration::from_millis(4);
    /// Number of moments that measuring takes here: longer than any test waits.
    const MOMENTS: usize = 10_000;

    /// Doubles its input. Measures for `moments` moments and counts them in `measured`.
    struct Doubling {
        measured: Arc<AtomicUsize>,
        moments: usize,
    }

    impl Runner for Doubling {
        fn step(&mut self, work: Work<'_>) -> Result<Output, RunnerError> {
            Ok(Output::Activations(work.activations.iter().map(|value| value * 2.0).collect()))
        }

        fn probe(&mut self) -> Option<Speeds> {
            std::thread::sleep(MOMENT);
            (self.measured.fetch_add(1, Ordering::SeqCst) + 1 >= self.moments).then(speeds)
        }
    }

    impl Loader for Doubling {
        fn memory_bound(&self, _: LayerRange, _: KvRoom) -> u64 {
            0
        }

        fn load(&self, _: LayerRange, _: KvRoom, _: u64) -> Result<LoadedShard, LoadError> {
            let runner = Box::new(Self { measured: self.measured.clone(), moments: self.moments });
            Ok(LoadedShard { runner, weights_bytes: 1, copied_bytes: 0, kv_blocks: 1 })
        }

        fn read_ahead(&self, _layers: LayerRange, bytes_max: u64, _wanted: &dyn Fn() -> bool) -> u64 {
            bytes_max.min(10)
        }

        fn describe(&self) -> StageRecord {
            testing::stage(1)
        }

        fn memory(&self) -> MemoryUse {
            MemoryUse::default()
        }
    }

    fn speeds() -> Speeds {
        let speed = FormatSpeed { bytes_per_second: 5, multiplications_per_second: 6 };
        Speeds::from([("Q4_1".to_owned(), speed)])
    }

    fn start(moments: usize) -> (Compute, mpsc::Receiver<Done>, Arc<AtomicUsize>) {
        let measured = Arc::new(AtomicUsize::new(0));
        let (compute, done) = Compute::start(Arc::new(Doubling { measured: measured.clone(), moments })).unwrap();
        load(&compute);
        (compute, done, measured)
    }

    fn load(compute: &Compute) {
        assert!(compute.load(1, LayerRange::new(0, 1).unwrap(), KvRoom { tokens: 32, kv_type: KvType::F16 }, u64::MAX));
    }

    fn step(compute: &Compute) {
        let hop = Hop {
            generation: Generation(1),
            epoch: Epoch(1),
            step: Step(0),
            slot: 0,
            gateway: 0,
            rows: 1,
            hidden: 1,
            slices: Vec::new(),
            spent: Vec::new(),
        };
        compute.step(hop, crate::link::activations_to_bytes(&[21.0])).unwrap();
    }

    #[tokio::test]
    async fn work_that_comes_during_a_measurement_waits_a_moment_at_most() {
        let (compute, mut done, measured) = start(MOMENTS);
        assert!(matches!(done.recv().await, Some(Done::Loaded { .. })));
        for _ in 0..3 {
            let before = measured.load(Ordering::SeqCst);
            while measured.load(Ordering::SeqCst) < before + 2 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let at_order = measured.load(Ordering::SeqCst);
            step(&compute);
            let Some(Done::Stepped(stepped)) = done.recv().await else { panic!("no step") };
            // The current moment when the step was ordered, and one that may have begun between the count and the
            // order.
            let moments = measured.load(Ordering::SeqCst) - at_order;
            assert!(moments <= 2, "the step waited for {moments} moments");
            assert_eq!(stepped.output.unwrap(), Some(Output::Activations(vec![42.0])));
            // A thread that has work is not measured for a while.
            let after = measured.load(Ordering::SeqCst);
            tokio::time::sleep(PROBE_QUIET / 3).await;
            assert_eq!(measured.load(Ordering::SeqCst), after, "measured between two steps");
        }
    }

    #[tokio::test]
    async fn the_device_is_measured_once_and_only_with_a_shard() {
        let (compute, mut done, measured) = start(3);
        assert!(matches!(done.recv().await, Some(Done::Loaded { .. })));
        assert_eq!(measured.load(Ordering::SeqCst), 0, "measured before it could be ready");
        assert!(compute.unload());
        tokio::time::sleep(2 * PROBE_QUIET).await;
        assert_eq!(measured.load(Ordering::SeqCst), 0, "measured without a shard");
        load(&compute);
        assert!(matches!(done.recv().await, Some(Done::Loaded { .. })));
        let Some(Done::Probed { speed }) = done.recv().await else { panic!("not measured") };
        assert_eq!(speed, speeds());
        load(&compute);
        assert!(matches!(done.recv().await, Some(Done::Loaded { .. })));
        tokio::time::sleep(2 * PROBE_QUIET).await;
        assert_eq!(measured.load(Ordering::SeqCst), 3, "measured again");
    }
}
