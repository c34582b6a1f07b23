//! A gateway's pipeline as a state machine: `handle` maps each event to orders. It decides when a new epoch begins,
//! which micro-batches are sent and which requests are accepted. Pure: it knows neither links nor clients.

mod shares;
mod status;

use std::sync::Arc;
use std::time::Instant;

use schema::frame::{Frame, Hop};
use schema::record::{ClaimRecord, GatewayRecord};
use schema::{Epoch, Generation, Keyspace, Step};
use tracing::{debug, info, warn};

use super::event::{Event, Order, Purpose};
use super::fault::PipelineFault;
use super::holdings::Holdings;
use super::scheduler::{Batch, Scheduler, SequenceEvents, Shape};
use super::sequence::StageLabel;
use crate::generate::{Rejection, Request};
use crate::limits::{EPOCH_BACKOFF_FREE, EPOCH_BACKOFF_MAX, EPOCH_BACKOFF_MIN, REFUSAL_PAUSE, WAITING_MAX};
use crate::link::Unreachable;
use crate::membership::Evictions;
use crate::route::RouteEvent;
use crate::runner::KV_BLOCK_TOKENS;
use crate::share::{GatewayRegistration, Pool};
use crate::view::{ClusterView, Versioned};

/// Epochs one registration of a gateway can begin; its registration's revision counts above them.
const EPOCHS_PER_REGISTRATION: u64 = 1 << 20;

/// The pipeline as the view shows it: equal values mean the same processes with the same keys and values.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    generation: Generation,
    /// Each claim's endpoint, and the number of loads of its process.
    claims: Vec<(String, u64)>,
    /// The slot and the number of this gateway's registration. Its share of the blocks may change within one
    /// registration.
    gateway: (u32, u64),
}

/// A gateway's state: the scheduler, and the pipeline that it fills.
pub(crate) struct Conductor {
    keyspace: Keyspace,
    scheduler: Scheduler,
    view: Arc<ClusterView>,
    /// This gateway's newest registration.
    registered: Option<GatewayRegistration>,
    holdings: Holdings,
    identity: Option<Identity>,
    epochs: u64,
    /// Number of blocks that every stage has.
    blocks_max: u32,
    /// The view's revision and the time of the last write of its record.
    last_write: Option<(u64, Instant)>,
    first_endpoint: String,
    evictions: Evictions,
    is_writing_record: bool,
    is_writing_eviction: bool,
    /// The reason for which nothing comes through the current pipeline, if known.
    trouble: Option<String>,
    /// Number of epochs since a micro-batch came through one.
    failed_epochs: u32,
    /// The time since which nothing has come through, as far as that was checked.
    unproven_since: Option<Instant>,
    /// The time at which the next epoch begins, after futile ones.
    resumes_at: Option<Instant>,
    /// The time of the next epoch after a refusal, and the fault. The wait is there because views reach processes at
    /// different times: a stage may see soon what it does not see yet.
    recovery: Option<(Instant, PipelineFault)>,
}

// === impl Conductor ===

impl Conductor {
    /// A conductor without a pipeline, for a gateway that is not registered.
    pub(crate) fn new(keyspace: Keyspace, scheduler: Scheduler, view: Arc<ClusterView>) -> Self {
        Self {
            keyspace,
            scheduler,
            view,
            registered: None,
            holdings: Holdings::default(),
            identity: None,
            epochs: 0,
            blocks_max: 0,
            last_write: None,
            first_endpoint: String::new(),
            evictions: Evictions::default(),
            is_writing_record: false,
            is_writing_eviction: false,
            trouble: None,
            failed_epochs: 0,
            unproven_since: None,
            resumes_at: None,
            recovery: None,
        }
    }

    pub(crate) fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    #[cfg(test)]
    pub(crate) fn view(&self) -> &ClusterView {
        &self.view
    }

    /// The time at which it needs [`Event::Wake`], if it waits for one.
    pub(crate) fn wakes_at(&self) -> Option<Instant> {
        self.recovery.as_ref().map(|(at, _)| *at)
    }

    /// Handles one event. The caller executes the orders one after the other. Micro-batches come first, because stages
    /// wait for them.
    pub(crate) fn handle(&mut self, event: Event, now: Instant) -> Vec<Order> {
        let mut orders = Vec::new();
        let mut after = Vec::new();
        let mut writes = false;
        match event {
            Event::ViewChanged(view) => {
                if self.follow(view) {
                    self.recovery = None;
                    orders.push(Order::NewEpoch(None));
                }
                writes = true;
            }
            Event::Registered(registered) => {
                self.registered = Some(registered);
                let view = self.view.clone();
                return self.handle(Event::ViewChanged(view), now);
            }
            Event::Arrived(frame) => self.arrived(frame, &mut after, &mut orders, now),
            Event::Route(event) => self.routed(event, &mut orders, now),
            Event::Submitted { ticket, mut request } => {
                let answer = self.check(&request).map(|room| {
                    request.tokens_max = request.tokens_max.min(room);
                    self.scheduler.admit(request, now)
                });
                orders.push(Order::Reply { ticket, answer });
            }
            Event::Cancelled(id) => self.scheduler.cancel(id),
            Event::Written(Purpose::Record) => self.is_writing_record = false,
            Event::Written(Purpose::Eviction) => self.is_writing_eviction = false,
            Event::Tick => {
                self.use_gains(now);
                if self.resumes_at.is_some_and(|at| at <= now) {
                    self.begin_epoch();
                }
                after.extend(deliver(self.scheduler.expire(now)));
                if let Some(fault) = self.scheduler.overdue(now).filter(|_| self.recovery.is_none()) {
                    orders.extend(self.recover(fault, now));
                }
                writes = true;
            }
            Event::Wake => {}
        }
        if let Some((_, fault)) = self.recovery.take_if(|(at, _)| *at <= now) {
            orders.extend(self.recover(fault, now));
        }
        while let Some(order) = self.next_hop(now) {
            orders.push(order);
        }
        orders.extend(after);
        if writes || self.is_giving() {
            orders.extend(self.write_record(now));
        }
        orders
    }

    /// Handles a frame. `after` collects the orders that come after the next micro-batches.
    fn arrived(&mut self, frame: Frame, after: &mut Vec<Order>, orders: &mut Vec<Order>, now: Instant) {
        match frame {
            // A frame of an epoch that is about to end: its sequences are computed again.
            _ if self.recovery.is_some() => {}
            Frame::Tokens(tokens) => match self.scheduler.complete(&tokens, now) {
                Ok(events) => {
                    if self.scheduler.is_proven() {
                        (self.trouble, self.failed_epochs) = (None, 0);
                    }
                    after.push(Order::Returned(tokens));
                    after.extend(deliver(events));
                }
                Err(fault) => orders.extend(self.recover(fault, now)),
            },
            Frame::Refusal(refusal) => {
                let Some((fault, events)) = self.scheduler.refused(&refusal) else { return };
                // The known epoch is of the gateway that had this slot before, perhaps in a store that has lost its
                // data since.
                self.epochs = self.epochs.max(refusal.epoch_known.0);
                after.extend(deliver(events));
                self.recovery = Some((now + REFUSAL_PAUSE, fault));
            }
            Frame::Hop(_) => debug!("a hop came to the gateway: dropped"),
        }
    }

    /// Handles the outcome of a frame to the first stage, or the end of the connection.
    fn routed(&mut self, event: RouteEvent, orders: &mut Vec<Order>, now: Instant) {
        match event {
            RouteEvent::Sent { .. } => self.evictions.reached(),
            // Not sent again: its timeout, or the first stage's lease, begins a new epoch.
            RouteEvent::Unsent { endpoint, cause, found, .. } => {
                warn!(endpoint, cause, "cannot reach the first stage");
                self.cannot_reach_first(&endpoint, &cause);
                orders.extend(found.and_then(|found| self.evict(&found, now)));
            }
            RouteEvent::Gone(found) => {
                self.cannot_reach_first(&found.endpoint, &found.cause);
                orders.extend(self.evict(&found, now));
            }
            RouteEvent::Broke { endpoint, failed } => {
                let fault = self.scheduler.oldest_in_flight().map(PipelineFault::Broken);
                if let Some(cause) = failed {
                    self.cannot_reach_first(&endpoint, &cause);
                }
                if let Some(fault) = fault.filter(|_| self.recovery.is_none()) {
                    orders.extend(self.recover(fault, now));
                }
            }
        }
    }

    /// Follows the newest view. Begins a new epoch and returns true if the pipeline has changed.
    fn follow(&mut self, view: Arc<ClusterView>) -> bool {
        self.view = view;
        let view = self.view.clone();
        let registered = self.registered.and_then(|own| Some((own, own.find(&view)?)));
        let usable =
            self.holdings.follow(registered.map(|(own, gateway)| ((own.slot, own.number), gateway.value.share)));
        if let (Some(pool), Some((own, record))) = (self.pool(), registered) {
            self.holdings.is_complete |=
                !usable.is_empty() && record.value.share.count() >= pool.fair_parts(&view.gateway_shares(), own.slot);
        }
        let seen = match (view.serving(), registered) {
            (Ok(served), Some((own, _))) if self.holdings.is_complete => Some((served, (own.slot, own.number))),
            _ => None,
        };
        let identity = seen.as_ref().map(|(served, gateway)| Identity {
            generation: served.generation,
            claims: served.claims.iter().map(|claim| (claim.value.endpoint.clone(), claim.value.loads)).collect(),
            gateway: *gateway,
        });
        let changed = identity != self.identity;
        if changed {
            self.identity = identity;
            (self.trouble, self.failed_epochs, self.resumes_at) = (None, 0, None);
            self.holdings.used = usable;
            self.rebuild(seen.map(|(served, _)| served.claims).as_deref());
        } else if let Some(pool) = self.pool() {
            let lost = self.holdings.used.without(usable);
            if !lost.is_empty() {
                self.scheduler.lose(&pool.blocks(lost).collect());
                self.holdings.used = self.holdings.used.without(lost);
            }
        }
        changed
    }

    /// This gateway's record as the store shows it.
    fn own_record(&self) -> Option<&Versioned<GatewayRecord>> {
        self.registered.as_ref()?.find(&self.view)
    }

    fn pool(&self) -> Option<Pool> {
        self.view.model.as_ref().map(|model| Pool::new(&model.value))
    }

    /// Begins a new epoch over the pipeline of `claims`, or none.
    fn rebuild(&mut self, claims: Option<&[&Versioned<ClaimRecord>]>) {
        let Some((identity, claims)) = self.identity.as_ref().zip(claims) else {
            info!("the pipeline is interrupted; sequences wait");
            self.holdings.given_before = Step(0);
            return self.scheduler.rebuild(None);
        };
        // The next gateway in this slot registers at a higher revision than any that this gateway's record had.
        let revision = self.own_record().map_or(0, |gateway| gateway.mod_revision);
        self.epochs = (self.epochs + 1).max(revision * EPOCHS_PER_REGISTRATION);
        let label = |claim: &&Versioned<ClaimRecord>| StageLabel {
            stage: claim.value.stage.to_string(),
            layers: claim.value.layers.into(),
        };
        self.first_endpoint = claims.first().map(|claim| claim.value.endpoint.clone()).unwrap_or_default();
        self.resumes_at = None;
        self.blocks_max = claims.iter().map(|claim| claim.value.kv_blocks).min().unwrap_or(0);
        let own = self.pool().into_iter().flat_map(|pool| pool.blocks(self.holdings.used));
        let blocks = own.filter(|block| *block < self.blocks_max).collect();
        self.holdings.given_before = Step(0);
        let shape = Shape {
            generation: identity.generation,
            epoch: Epoch(self.epochs),
            stages: claims.iter().map(label).collect(),
            blocks,
        };
        info!(generation = %shape.generation, epoch = %shape.epoch, stages = shape.stages.len(), "the pipeline is complete");
        self.scheduler.rebuild(Some(shape));
    }

    /// Begins a new epoch over the same pipeline. After several epochs that nothing came through, it waits first.
    fn recover(&mut self, fault: PipelineFault, now: Instant) -> Option<Order> {
        self.recovery = None;
        warn!(%fault, "the pipeline lost its step; computing running sequences again");
        self.failed_epochs = if self.scheduler.is_proven() { 0 } else { self.failed_epochs + 1 };
        self.trouble = Some(self.fault_text(&fault));
        match self.failed_epochs.checked_sub(EPOCH_BACKOFF_FREE) {
            None | Some(0) => self.begin_epoch(),
            Some(more) => {
                let pause = EPOCH_BACKOFF_MIN * (1 << (more - 1).min(8));
                self.resumes_at = Some(now + pause.min(EPOCH_BACKOFF_MAX));
                self.rebuild(None);
            }
        }
        Some(Order::NewEpoch(Some(fault)))
    }

    fn begin_epoch(&mut self) {
        self.resumes_at = None;
        let view = self.view.clone();
        let claims = view.serving().ok().map(|served| served.claims).filter(|_| self.identity.is_some());
        self.rebuild(claims.as_deref());
    }

    /// Evicts the first stage, because frames cannot reach its endpoint.
    fn evict(&mut self, found: &Unreachable, now: Instant) -> Option<Order> {
        if self.is_writing_eviction {
            return None;
        }
        let GatewayRegistration { slot, lease, .. } = self.registered?;
        let by = (format!("gateway {slot}"), lease);
        let txn = self.evictions.evict(&self.keyspace, &self.view, found, by, now)?;
        info!(endpoint = found.endpoint, cause = found.cause, "the first stage cannot be reached: evicting it");
        self.is_writing_eviction = true;
        Some(Order::Commit(Purpose::Eviction, txn))
    }

    /// The order to send the next micro-batch, if there is one.
    fn next_hop(&mut self, now: Instant) -> Option<Order> {
        if self.recovery.is_some() {
            return None;
        }
        let proof = self.scheduler.proof(now).map(|step| Batch { step, slices: Vec::new() });
        let Batch { step, slices } = proof.or_else(|| self.scheduler.next_batch(now))?;
        let shape = self.scheduler.shape()?;
        let rows = slices.iter().map(|slice| slice.count).sum();
        let hop = Hop {
            generation: shape.generation,
            gateway: self.identity.as_ref()?.gateway.0,
            epoch: shape.epoch,
            step,
            slot: 0,
            rows,
            hidden: 0,
            slices,
            spent: Vec::new(),
        };
        Some(Order::Send { endpoint: self.first_endpoint.clone(), hop })
    }

    /// Most tokens that may follow the prompt, or the reason for rejecting the request.
    pub(crate) fn check(&self, request: &Request) -> Result<u32, Rejection> {
        if !self.scheduler.is_proven() {
            return Err(Rejection::NotServing { reason: self.status().reason });
        }
        let (_, waiting) = self.scheduler.load();
        if waiting >= WAITING_MAX {
            return Err(Rejection::Busy { waiting });
        }
        let model_context = self.view.model.as_ref().map_or(0, |model| model.value.context_tokens);
        let context_tokens = model_context.min(self.blocks_for_one().saturating_mul(KV_BLOCK_TOKENS));
        let prompt_tokens = u32::try_from(request.prompt.len()).unwrap_or(u32::MAX);
        let room = context_tokens.saturating_sub(prompt_tokens);
        if prompt_tokens == 0 || room == 0 {
            return Err(Rejection::TooLong { context_tokens, prompt_tokens });
        }
        Ok(room)
    }
}

fn deliver(events: SequenceEvents) -> impl Iterator<Item = Order> {
    events.into_iter().map(|(id, event)| Order::Deliver(id, event))
}

#[cfg(test)]
mod tests;
