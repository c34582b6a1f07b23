//! The one thread that computes: it owns the shard and does what it is told, in order. Once, when it has a shard and
//! nothing to do, it measures how fast it is, a few milliseconds at a time.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use schema::LayerRange;
use schema::frame::Hop;
use schema::record::{KvRoom, Speeds};
use tokio::sync::mpsc;

use super::read_ahead::ReadAhead;
use crate::limits::{PROBE_QUIET, STAGE_QUEUE_MAX};
use crate::link::bytes_to_activations;
use crate::runner::{LoadError, LoadedShard, Loader, Output, Runner, RunnerError, Work};

/// What the thread is told to do.
pub(crate) enum ComputeOrder {
    /// `number` tells which order it was.
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

/// What it did.
#[derive(Debug)]
pub(crate) enum Done {
    /// A shard was loaded, or not.
    Loaded { number: u64, shard: Result<Loaded, LoadError> },
    /// A micro-batch was computed, or not.
    Stepped(Box<Stepped>),
    /// Weights were read into memory, beside the thread.
    ReadAhead { number: u64 },
    /// The device was measured.
    Probed { speed: Speeds },
}

/// A shard that was loaded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loaded {
    pub(crate) weights_bytes: u64,
    pub(crate) kv_blocks: u32,
}

/// A micro-batch that was computed, or not.
#[derive(Debug)]
pub(crate) struct Stepped {
    pub(crate) hop: Hop,
    /// `None` of a micro-batch without rows, which no runner sees.
    pub(crate) output: Result<Option<Output>, RunnerError>,
    pub(crate) compute: Duration,
    pub(crate) queue: Duration,
}

/// The way to the thread. Dropping it ends the thread after the step at hand.
pub(crate) struct Compute {
    orders: Option<SyncSender<ComputeOrder>>,
    thread: Option<JoinHandle<()>>,
    ahead: ReadAhead,
}

// === impl Compute ===

impl Compute {
    /// Starts the thread; what it did comes out of the receiver.
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

    /// Queues a micro-batch; gives it back when the queue is full.
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

    /// Reads weights into memory beside the thread.
    pub(crate) fn read_ahead(&self, number: u64, ranges: Vec<LayerRange>, bytes_max: u64) {
        self.ahead.start(number, ranges, bytes_max);
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
            // It ends by itself when its orders do; a step at hand is not waited for.
            drop(thread);
        }
    }
}

fn run(loader: Arc<dyn Loader>, inbox: &Receiver<ComputeOrder>, outbox: &mpsc::Sender<Done>) {
    let mut worker = ComputeThread::new(loader);
    loop {
        let done = match worker.next(inbox) {
            NextOrder::ComputeOrder(order) => worker.perform(order),
            NextOrder::Quiet => worker.probe(),
            NextOrder::End => return,
        };
        if done.is_some_and(|done| outbox.blocking_send(done).is_err()) {
            return;
        }
    }
}

/// What the thread has.
pub(crate) struct ComputeThread {
    loader: Arc<dyn Loader>,
    runner: Option<Box<dyn Runner>>,
    input: Vec<f32>,
    /// Whether the device was measured. Once for the process: figures that changed with every shard would have shards
    /// moved about.
    probed: bool,
    /// How long there must be no order before the device is measured.
    quiet_wait: Duration,
}

/// What the thread does next.
enum NextOrder {
    ComputeOrder(ComputeOrder),
    /// Nobody wants anything, and the device is not measured yet.
    Quiet,
    End,
}

// === impl ComputeThread ===

impl ComputeThread {
    pub(crate) fn new(loader: Arc<dyn Loader>) -> Self {
        Self { loader, runner: None, input: Vec::new(), probed: false, quiet_wait: PROBE_QUIET }
    }

    /// Waits for an order; while there is a device to measure, not for long.
    fn next(&mut self, inbox: &Receiver<ComputeOrder>) -> NextOrder {
        let order = if self.runner.is_some() && !self.probed {
            inbox.recv_timeout(self.quiet_wait)
        } else {
            inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match order {
            Ok(order) => {
                self.quiet_wait = PROBE_QUIET;
                NextOrder::ComputeOrder(order)
            }
            Err(RecvTimeoutError::Timeout) => NextOrder::Quiet,
            Err(RecvTimeoutError::Disconnected) => NextOrder::End,
        }
    }

    /// Does what is ordered; says what came of it, if somebody waits for that.
    pub(crate) fn perform(&mut self, order: ComputeOrder) -> Option<Done> {
        match order {
            ComputeOrder::Unload => {
                self.runner = None;
                None
            }
            ComputeOrder::Load { number, layers, room, budget_bytes } => {
                self.runner = None; // The old range goes before the new one comes: together they may be over the budget.
                let shard = self.loader.load(layers, room, budget_bytes).map(|shard| {
                    let LoadedShard { runner, weights_bytes, kv_blocks } = shard;
                    self.runner = Some(runner);
                    Loaded { weights_bytes, kv_blocks }
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

    /// Measures for a moment; what was found, when that was the last one.
    fn probe(&mut self) -> Option<Done> {
        let runner = self.runner.as_mut()?;
        self.quiet_wait = Duration::ZERO;
        let speed = runner.probe()?;
        self.probed = true;
        Some(Done::Probed { speed })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use schema::record::{FormatSpeed, MemoryUse, StageRecord};
    use schema::{Epoch, Generation, Step};

    use schema::record::KvType;

    use super::*;
    use crate::testing;

    const MOMENT: Duration = Duration::from_millis(4);
    /// Moments that measuring takes here: longer than any test waits.
    const MOMENTS: usize = 10_000;

    /// Doubles what it gets; measures for `moments` moments and counts them in `measured`.
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
            Ok(LoadedShard { runner, weights_bytes: 1, kv_blocks: 1 })
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
    async fn work_that_comes_while_the_device_is_measured_waits_for_a_moment_at_most() {
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
            // The moment at hand when the step was ordered, and one that may have begun between the look and the order.
            let moments = measured.load(Ordering::SeqCst) - at_order;
            assert!(moments <= 2, "the step waited for {moments} moments");
            assert_eq!(stepped.output.unwrap(), Some(Output::Activations(vec![42.0])));
            // Who has work is left alone for a while.
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
