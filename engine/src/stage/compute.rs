//! The one thread that computes: it owns the shard and does what it is told, in order.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use schema::frame::Hop;
use schema::{Generation, LayerRange};
use tokio::sync::mpsc;

use crate::limits::STAGE_QUEUE_MAX;
use crate::link::bytes_to_activations;
use crate::runner::{LoadError, LoadedShard, Loader, Output, Runner, RunnerError, Work};

/// What the thread is told to do.
enum Order {
    Load { generation: Generation, layers: LayerRange, kv_tokens: u32, budget_bytes: u64 },
    Step { hop: Hop, activations: Bytes, arrived: Instant },
    Unload,
}

/// What it did.
#[derive(Debug)]
pub(super) enum Done {
    /// A shard was loaded, or not.
    Loaded { generation: Generation, shard: Result<Loaded, LoadError> },
    /// A micro-batch was computed, or not.
    Stepped(Box<Stepped>),
}

/// A shard that was loaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loaded {
    pub(super) weights_bytes: u64,
    pub(super) kv_blocks: u32,
}

/// A micro-batch that was computed, or not.
#[derive(Debug)]
pub(super) struct Stepped {
    pub(super) hop: Hop,
    pub(super) output: Result<Output, RunnerError>,
    pub(super) compute: Duration,
    pub(super) queue: Duration,
    pub(super) weights_resident_bytes: Option<u64>,
}

/// The way to the thread. Dropping it ends the thread after the step at hand.
#[derive(Debug)]
pub(super) struct Compute {
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

// === impl Compute ===

impl Compute {
    /// Starts the thread; what it did comes out of the receiver.
    pub(super) fn start(loader: Arc<dyn Loader>) -> std::io::Result<(Self, mpsc::Receiver<Done>)> {
        let (orders, inbox) = sync_channel(STAGE_QUEUE_MAX);
        let (outbox, done) = mpsc::channel(STAGE_QUEUE_MAX);
        let work = move || run(&*loader, &inbox, &outbox);
        let thread = std::thread::Builder::new().name("compute".to_owned()).spawn(work)?;
        Ok((Self { orders: Some(orders), thread: Some(thread) }, done))
    }

    pub(super) fn load(&self, generation: Generation, layers: LayerRange, kv_tokens: u32, budget_bytes: u64) -> bool {
        self.order(Order::Load { generation, layers, kv_tokens, budget_bytes })
    }

    /// Queues a micro-batch; `false` when the queue is full.
    #[must_use]
    pub(super) fn step(&self, hop: Hop, activations: Bytes) -> bool {
        self.order(Order::Step { hop, activations, arrived: Instant::now() })
    }

    pub(super) fn unload(&self) -> bool {
        self.order(Order::Unload)
    }

    fn order(&self, order: Order) -> bool {
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

fn run(loader: &dyn Loader, inbox: &Receiver<Order>, outbox: &mpsc::Sender<Done>) {
    let mut runner: Option<Box<dyn Runner>> = None;
    let mut input = Vec::new();
    let mut measured = Instant::now();
    while let Ok(order) = inbox.recv() {
        let done = match order {
            Order::Unload => {
                runner = None;
                continue;
            }
            Order::Load { generation, layers, kv_tokens, budget_bytes } => {
                runner = None; // The old range goes before the new one comes: together they may be over the budget.
                let shard = loader.load(layers, kv_tokens, budget_bytes).map(|shard| {
                    let LoadedShard { runner: loaded, weights_bytes, kv_blocks } = shard;
                    runner = Some(loaded);
                    Loaded { weights_bytes, kv_blocks }
                });
                Done::Loaded { generation, shard }
            }
            Order::Step { hop, activations, arrived } => {
                let started = Instant::now();
                bytes_to_activations(&activations, &mut input);
                let output = match &mut runner {
                    Some(runner) => runner.step(Work { slices: &hop.slices, activations: &input }),
                    None => Err(RunnerError::Device("no shard is loaded".to_owned())),
                };
                let compute = started.elapsed();
                let measure = measured.elapsed() >= crate::limits::REPORT_EVERY;
                let weights_resident_bytes = runner.as_ref().filter(|_| measure).map(|runner| {
                    measured = Instant::now();
                    runner.weights_resident_bytes()
                });
                let queue = started.saturating_duration_since(arrived);
                Done::Stepped(Box::new(Stepped { hop, output, compute, queue, weights_resident_bytes }))
            }
        };
        if outbox.blocking_send(done).is_err() {
            return;
        }
    }
}
