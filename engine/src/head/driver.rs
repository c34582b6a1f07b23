//! The head's loop: the scheduler's decisions, sent and received.
//!
//! It runs on a thread of its own with a runtime of its own, so that neither a slow client nor a long prompt being
//! tokenised holds up a micro-batch.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use schema::frame::{Frame, Hop};
use schema::record::{ClaimRecord, GatewayRecord};
use schema::{Epoch, Generation, SequenceId};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{Span, debug, info, warn};

use super::fault::Fault;
use super::meter::{Heard, Meter};
use super::scheduler::{Batch, Happened, Scheduler, Shape};
use super::sequence::StageLabel;
use crate::generate::{Event as SequenceEvent, Failure, PipelineStatus, Rejection, Request};
use crate::limits::{HEAD_TICK, REFUSAL_PAUSE, WAITING_MAX};
use crate::link::{ClusterKey, Inbound, LinkError, Message};
use crate::route::Route;
use crate::runner::KV_BLOCK_TOKENS;
use crate::view::{ClusterView, Versioned};

/// The slot of the one gateway this version allows in a cluster.
pub(super) const GATEWAY_SLOT: u32 = 0;
/// Epochs one registration of a gateway can begin; its registration's revision counts above them.
const EPOCHS_PER_REGISTRATION: u64 = 1 << 20;

/// A request on its way in.
pub(super) struct Submission {
    pub(super) request: Request,
    pub(super) events: mpsc::Sender<SequenceEvent>,
    pub(super) answer: oneshot::Sender<Result<(), Rejection>>,
    /// From here to the last event.
    pub(super) span: Span,
}

/// What a driver is put together from.
pub(super) struct Parts {
    pub(super) views: watch::Receiver<Arc<ClusterView>>,
    pub(super) inbound: Inbound,
    pub(super) submissions: mpsc::Receiver<Submission>,
    pub(super) status: watch::Sender<PipelineStatus>,
    pub(super) key: Option<ClusterKey>,
    pub(super) name: GatewayRecord,
    pub(super) scheduler: Scheduler,
    pub(super) meter: Meter,
}

/// The pipeline as the view shows it: equal values mean the same processes with the same keys and values.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    generation: Generation,
    claims: Vec<u64>,
    gateway: u64,
}

/// The head's state beside the scheduler's.
pub(super) struct Driver {
    scheduler: Scheduler,
    views: watch::Receiver<Arc<ClusterView>>,
    view: Arc<ClusterView>,
    inbound: Inbound,
    submissions: mpsc::Receiver<Submission>,
    status: watch::Sender<PipelineStatus>,
    route: Route,
    first_endpoint: String,
    identity: Option<Identity>,
    epochs: u64,
    listeners: HashMap<SequenceId, Listener>,
    rate: Rate,
    meter: Meter,
    name: GatewayRecord,
}

/// Who waits for a sequence.
struct Listener {
    events: mpsc::Sender<SequenceEvent>,
    heard: Heard,
    span: Span,
}

/// Tokens made lately.
struct Rate {
    since: Instant,
    tokens: u64,
    per_second: f64,
}

/// Everything that can happen to the head.
enum Event {
    Submitted(Submission),
    Arrived(Result<Message, LinkError>),
    ViewChanged,
    Tick,
    Stop,
}

// === impl Driver ===

impl Driver {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { views, inbound, submissions, status, key, name, scheduler, meter } = parts;
        let view = views.borrow().clone();
        Self {
            scheduler,
            views,
            view,
            inbound,
            submissions,
            status,
            route: Route::new(key),
            first_endpoint: String::new(),
            identity: None,
            epochs: 0,
            listeners: HashMap::new(),
            rate: Rate { since: Instant::now(), tokens: 0, per_second: 0.0 },
            meter,
            name,
        }
    }

    /// Runs until `stop` resolves or every handle is gone.
    pub(super) async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut tick = tokio::time::interval(HEAD_TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.see();
        loop {
            self.send_batches().await;
            let event = tokio::select! {
                // Biased: what is done makes room for what is new.
                biased;
                () = &mut stop => Event::Stop,
                message = self.inbound.receive() => Event::Arrived(message),
                Ok(()) = self.views.changed() => Event::ViewChanged,
                submission = self.submissions.recv() => submission.map_or(Event::Stop, Event::Submitted),
                _ = tick.tick() => Event::Tick,
            };
            match event {
                Event::Arrived(Ok(message)) => self.arrived(message).await,
                Event::Arrived(Err(error)) if error.is_about_one_message() => warn!(%error, "a frame was refused"),
                Event::Arrived(Err(error)) => break warn!(%error, "no more tokens can be taken: the gateway must go"),
                Event::ViewChanged => self.see(),
                Event::Submitted(submission) => self.submit(submission),
                Event::Tick => self.tick(),
                Event::Stop => break,
            }
        }
        for listener in self.listeners.values() {
            let _ = listener.events.try_send(SequenceEvent::Failed(Failure::Stopping));
        }
    }

    /// Takes the newest view in and rebuilds the pipeline if it is another one now.
    fn see(&mut self) {
        self.view = self.views.borrow_and_update().clone();
        let view = self.view.clone();
        let registered = view.gateways.get(&GATEWAY_SLOT);
        let registered = registered.filter(|gateway| gateway.value.endpoint == self.name.endpoint);
        let seen = match (view.serving(), registered) {
            (Ok(claims), Some(gateway)) => Some((claims, gateway.mod_revision)),
            // The store forgets a gateway or a claim before its process does; without word of it nothing is changed.
            _ if !view.reachable => return self.publish(),
            _ => None,
        };
        let identity = seen.as_ref().zip(view.placement.as_ref()).map(|((claims, gateway), placement)| Identity {
            generation: placement.value.generation(),
            claims: claims.iter().map(|claim| claim.mod_revision).collect(),
            gateway: *gateway,
        });
        if identity != self.identity {
            self.identity = identity;
            self.meter.began_anew(None);
            self.rebuild(seen.map(|(claims, _)| claims).as_deref());
        }
        self.publish();
    }

    /// Begins a new epoch over the pipeline of `claims`, or none.
    fn rebuild(&mut self, claims: Option<&[&Versioned<ClaimRecord>]>) {
        self.route.reset();
        let Some((identity, claims)) = self.identity.as_ref().zip(claims) else {
            info!("the pipeline is interrupted; sequences wait");
            return self.scheduler.rebuild(None);
        };
        self.epochs = (self.epochs + 1).max(identity.gateway * EPOCHS_PER_REGISTRATION);
        let label = |claim: &&Versioned<ClaimRecord>| StageLabel {
            stage: claim.value.stage.to_string(),
            layers: claim.value.layers.into(),
        };
        self.first_endpoint = claims.first().map(|claim| claim.value.endpoint.clone()).unwrap_or_default();
        let shape = Shape {
            generation: identity.generation,
            epoch: Epoch(self.epochs),
            stages: claims.iter().map(label).collect(),
            kv_blocks: claims.iter().map(|claim| claim.value.kv_blocks).min().unwrap_or(0),
        };
        info!(generation = %shape.generation, epoch = %shape.epoch, stages = shape.stages.len(), "the pipeline is complete");
        self.scheduler.rebuild(Some(shape));
    }

    /// Begins a new epoch over the same pipeline.
    fn recover(&mut self, fault: &Fault) {
        warn!(%fault, "the pipeline lost its step; computing running sequences again");
        self.meter.began_anew(Some(fault));
        let view = self.view.clone();
        let claims = view.serving().ok().filter(|_| self.identity.is_some());
        self.rebuild(claims.as_deref());
    }

    async fn send_batches(&mut self) {
        while let Some(batch) = self.scheduler.next_batch(Instant::now()) {
            let (step, sequences) = (batch.step.0, batch.slices.len());
            let Some(hop) = self.hop(batch) else { return };
            self.meter.sent(step, hop.rows, sequences, Instant::now());
            let frame = Frame::Hop(hop);
            if let Err(error) = self.route.send(&self.first_endpoint, &frame, Bytes::new()).await {
                // Not resent: its deadline, or the first stage's lease, begins a new epoch.
                warn!(%error, "cannot reach the first stage");
                return;
            }
        }
    }

    fn hop(&self, batch: Batch) -> Option<Hop> {
        let shape = self.scheduler.shape()?;
        let rows = batch.slices.iter().map(|slice| slice.count).sum();
        Some(Hop {
            generation: shape.generation,
            gateway: GATEWAY_SLOT,
            epoch: shape.epoch,
            step: batch.step,
            slot: 0,
            rows,
            hidden: 0,
            slices: batch.slices,
            spent: Vec::new(),
        })
    }

    async fn arrived(&mut self, message: Message) {
        match message.frame {
            Frame::Tokens(tokens) => match self.scheduler.complete(&tokens, Instant::now()) {
                Ok(happened) => {
                    let labels = self.scheduler.shape().map_or(&[][..], |shape| &shape.stages);
                    self.meter.returned(&tokens, labels, Instant::now());
                    self.tell(happened);
                }
                Err(fault) => self.recover(&fault),
            },
            Frame::Refusal(refusal) => {
                if let Some((fault, happened)) = self.scheduler.refused(&refusal) {
                    self.tell(happened);
                    // Views reach processes at different times: what a stage does not see yet it will see soon.
                    tokio::time::sleep(REFUSAL_PAUSE).await;
                    self.recover(&fault);
                }
            }
            Frame::Hop(_) => debug!("a hop came to the gateway: dropped"),
        }
    }

    /// Passes events on. Whoever does not listen any more is cancelled.
    fn tell(&mut self, happened: Happened) {
        let now = Instant::now();
        for (id, event) in happened {
            let last = matches!(event, SequenceEvent::Finished { .. } | SequenceEvent::Failed(_));
            self.rate.tokens += u64::from(matches!(event, SequenceEvent::Token { .. }));
            let Some(listener) = self.listeners.get_mut(&id) else { continue };
            self.meter.told(&event, &mut listener.heard, now);
            if last {
                listener.span.in_scope(|| debug!(sequence = %id, ?event, "ended"));
            }
            // The channel has room for every event of the sequence, so only a closed one refuses.
            let gone = listener.events.try_send(event).is_err();
            if gone && !last {
                self.meter.left(&listener.heard, now);
                self.scheduler.cancel(id);
            }
            if gone || last {
                self.listeners.remove(&id);
            }
        }
    }

    fn submit(&mut self, submission: Submission) {
        let Submission { mut request, events, answer, span } = submission;
        let verdict = self.judge(&request).inspect_err(|rejection| self.meter.rejected(rejection));
        let room = verdict.as_ref().ok().copied();
        if let (Ok(()), Some(room)) = (answer.send(verdict.map(drop)), room) {
            request.tokens_max = request.tokens_max.min(room);
            let now = Instant::now();
            let heard = Heard::new(request.prompt.len(), now);
            let id = self.scheduler.admit(request, now);
            self.listeners.insert(id, Listener { events, heard, span });
        }
    }

    /// How many tokens may follow the prompt, if the request is accepted.
    fn judge(&self, request: &Request) -> Result<u32, Rejection> {
        let Some(shape) = self.scheduler.shape() else {
            let reason = self.status.borrow().reason.clone();
            return Err(Rejection::NotServing { reason });
        };
        let (_, waiting) = self.scheduler.load();
        if waiting >= WAITING_MAX {
            return Err(Rejection::Busy { waiting });
        }
        let model_context = self.view.model.as_ref().map_or(0, |model| model.value.context_tokens);
        let context_tokens = model_context.min(shape.kv_blocks.saturating_mul(KV_BLOCK_TOKENS));
        let prompt_tokens = u32::try_from(request.prompt.len()).unwrap_or(u32::MAX);
        let room = context_tokens.saturating_sub(prompt_tokens);
        if prompt_tokens == 0 || room == 0 {
            return Err(Rejection::TooLong { context_tokens, prompt_tokens });
        }
        Ok(room)
    }

    fn tick(&mut self) {
        let now = Instant::now();
        let gone = self.listeners.extract_if(|_, listener| listener.events.is_closed());
        for (id, listener) in gone {
            self.meter.left(&listener.heard, now);
            self.scheduler.cancel(id);
        }
        let happened = self.scheduler.expire(now);
        self.tell(happened);
        if let Some(fault) = self.scheduler.overdue(now) {
            self.recover(&fault);
        }
        self.publish();
    }

    fn publish(&mut self) {
        let elapsed = self.rate.since.elapsed();
        if elapsed >= Duration::from_secs(1) {
            let per_second = self.rate.tokens as f64 / elapsed.as_secs_f64();
            self.rate = Rate { since: Instant::now(), tokens: 0, per_second };
        }
        let (reason, missing_layers) = match self.view.serving() {
            Ok(_) if self.identity.is_some() => (String::new(), Vec::new()),
            Ok(_) => ("another gateway serves this cluster, or this one is not registered".to_owned(), Vec::new()),
            Err(not) => (not.reason, not.missing.into_iter().map(Into::into).collect()),
        };
        let (running, waiting) = self.scheduler.load();
        let limit = self.view.model.as_ref().map_or(0, |model| model.value.context_tokens);
        let kv_tokens = self.scheduler.shape().map_or(0, |shape| shape.kv_blocks.saturating_mul(KV_BLOCK_TOKENS));
        let status = PipelineStatus {
            serving: self.scheduler.shape().is_some(),
            reason,
            missing_layers,
            store_reachable: self.view.reachable,
            context_tokens: limit.min(kv_tokens),
            running,
            waiting,
            tokens_per_second: self.rate.per_second,
        };
        self.meter.look(&self.scheduler, &status);
        self.status.send_if_modified(|last| (*last != status).then(|| *last = status).is_some());
    }
}
