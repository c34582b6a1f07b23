//! When the pipeline begins anew, what is sent into it, and which requests are accepted: one entrance for everything that happens
//! to a gateway's pipeline, which answers with orders. Pure: it knows neither links nor clients.

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
use super::scheduler::{Batch, Happened, Scheduler, Shape};
use super::sequence::StageLabel;
use crate::generate::{Rejection, Request};
use crate::limits::{FUTILE_EPOCHS_FREE, FUTILE_PAUSE_MAX, FUTILE_PAUSE_MIN, REFUSAL_PAUSE, WAITING_MAX};
use crate::link::Unreachable;
use crate::membership::Evictions;
use crate::route::RouteEvent;
use crate::runner::KV_BLOCK_TOKENS;
use crate::share::{Pool, Registered};
use crate::view::{ClusterView, Versioned};

/// Epochs one registration of a gateway can begin; its registration's revision counts above them.
const EPOCHS_PER_REGISTRATION: u64 = 1 << 20;

/// The pipeline as the view shows it: equal values mean the same processes with the same keys and values.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    generation: Generation,
    /// Each claim's endpoint, and the number of the shard among those of its process.
    claims: Vec<(String, u64)>,
    /// The slot and the number of this gateway's registration. What it has of the blocks may change within it.
    gateway: (u32, u64),
}

/// A gateway's state: the scheduler, and the pipeline that it fills.
pub(crate) struct Conductor {
    keyspace: Keyspace,
    scheduler: Scheduler,
    view: Arc<ClusterView>,
    /// This gateway's newest registration.
    registered: Option<Registered>,
    holdings: Holdings,
    identity: Option<Identity>,
    epochs: u64,
    /// Every stage has so many blocks.
    blocks_max: u32,
    /// The last write about its share: at which revision of the view, and when.
    wrote: Option<(u64, Instant)>,
    first_endpoint: String,
    evictions: Evictions,
    is_writing_record: bool,
    is_writing_eviction: bool,
    /// Why nothing comes through the pipeline at hand, as far as that is known.
    trouble: Option<String>,
    /// Epochs since a micro-batch came through one.
    futile_epochs: u32,
    /// Since when nothing has come through, as far as that was looked at.
    unproven_since: Option<Instant>,
    /// The moment the next epoch begins, after futile ones.
    resumes: Option<Instant>,
    /// A refusal came: the moment at which the pipeline begins anew because of it. Views reach processes at different times,
    /// and what a stage does not see yet it will see soon.
    recovers: Option<(Instant, PipelineFault)>,
}

// === impl Conductor ===

impl Conductor {
    /// Without a pipeline, for a gateway that is not registered.
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
            wrote: None,
            first_endpoint: String::new(),
            evictions: Evictions::default(),
            is_writing_record: false,
            is_writing_eviction: false,
            trouble: None,
            futile_epochs: 0,
            unproven_since: None,
            resumes: None,
            recovers: None,
        }
    }

    pub(crate) fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    #[cfg(test)]
    pub(crate) fn view(&self) -> &ClusterView {
        &self.view
    }

    /// The moment at which it wants [`Event::Wake`], if it waits for one.
    pub(crate) fn wakes_at(&self) -> Option<Instant> {
        self.recovers.as_ref().map(|(at, _)| *at)
    }

    /// Takes one event in; the orders are to be carried out in their order. What goes to stages comes first: they wait for it.
    pub(crate) fn handle(&mut self, event: Event, now: Instant) -> Vec<Order> {
        let mut orders = Vec::new();
        let mut after = Vec::new();
        let mut writes = false;
        match event {
            Event::Viewed(view) => {
                if self.see(view) {
                    self.recovers = None;
                    orders.push(Order::BeginAnew(None));
                }
                writes = true;
            }
            Event::Registered(registered) => {
                self.registered = Some(registered);
                let view = self.view.clone();
                return self.handle(Event::Viewed(view), now);
            }
            Event::Arrived(frame) => self.arrived(frame, &mut after, &mut orders, now),
            Event::Route(event) => self.routed(event, &mut orders, now),
            Event::Submitted { ticket, mut request } => {
                let answer = self.judge(&request).map(|room| {
                    request.tokens_max = request.tokens_max.min(room);
                    self.scheduler.admit(request, now)
                });
                orders.push(Order::Reply { ticket, answer });
            }
            Event::Left(id) => self.scheduler.cancel(id),
            Event::Written(Purpose::Record) => self.is_writing_record = false,
            Event::Written(Purpose::Eviction) => self.is_writing_eviction = false,
            Event::Tick => {
                self.use_gains(now);
                if self.resumes.is_some_and(|resumes| resumes <= now) {
                    self.begin_epoch();
                }
                after.extend(tell(self.scheduler.expire(now)));
                if let Some(fault) = self.scheduler.overdue(now).filter(|_| self.recovers.is_none()) {
                    orders.extend(self.recover(fault, now));
                }
                writes = true;
            }
            Event::Wake => {}
        }
        if let Some((_, fault)) = self.recovers.take_if(|(at, _)| *at <= now) {
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

    /// A frame came. `after`: what is told of it once the stages have their next work.
    fn arrived(&mut self, frame: Frame, after: &mut Vec<Order>, orders: &mut Vec<Order>, now: Instant) {
        match frame {
            // Of an epoch that is about to end: its sequences are computed again.
            _ if self.recovers.is_some() => {}
            Frame::Tokens(tokens) => match self.scheduler.complete(&tokens, now) {
                Ok(happened) => {
                    if self.scheduler.is_proven() {
                        (self.trouble, self.futile_epochs) = (None, 0);
                    }
                    after.push(Order::Returned(tokens));
                    after.extend(tell(happened));
                }
                Err(fault) => orders.extend(self.recover(fault, now)),
            },
            Frame::Refusal(refusal) => {
                let Some((fault, happened)) = self.scheduler.refused(&refusal) else { return };
                // Of the gateway that had this slot before, perhaps in a store that has lost its data since.
                self.epochs = self.epochs.max(refusal.epoch_known.0);
                after.extend(tell(happened));
                self.recovers = Some((now + REFUSAL_PAUSE, fault));
            }
            Frame::Hop(_) => debug!("a hop came to the gateway: dropped"),
        }
    }

    /// Something became of a frame, or of the connection, to the first stage.
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
                if let Some(fault) = fault.filter(|_| self.recovers.is_none()) {
                    orders.extend(self.recover(fault, now));
                }
            }
        }
    }

    /// Takes the newest view in and begins anew if the pipeline is another one now; says whether it is.
    fn see(&mut self, view: Arc<ClusterView>) -> bool {
        self.view = view;
        let view = self.view.clone();
        let registered = self.registered.and_then(|own| Some((own, own.find(&view)?)));
        let usable = self.holdings.see(registered.map(|(own, gateway)| ((own.slot, own.number), gateway.value.share)));
        if let (Some(pool), Some((own, record))) = (self.pool(), registered) {
            self.holdings.is_complete |=
                !usable.is_empty() && record.value.share.count() >= pool.fair(&view.gateway_shares(), own.slot);
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
            (self.trouble, self.futile_epochs, self.resumes) = (None, 0, None);
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
        // Whoever has the slot next registers at a higher revision than any that this gateway's record had.
        let revision = self.own_record().map_or(0, |gateway| gateway.mod_revision);
        self.epochs = (self.epochs + 1).max(revision * EPOCHS_PER_REGISTRATION);
        let label = |claim: &&Versioned<ClaimRecord>| StageLabel {
            stage: claim.value.stage.to_string(),
            layers: claim.value.layers.into(),
        };
        self.first_endpoint = claims.first().map(|claim| claim.value.endpoint.clone()).unwrap_or_default();
        self.resumes = None;
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

    /// Begins a new epoch over the same pipeline; after several that nothing came through, not at once.
    fn recover(&mut self, fault: PipelineFault, now: Instant) -> Option<Order> {
        self.recovers = None;
        warn!(%fault, "the pipeline lost its step; computing running sequences again");
        self.futile_epochs = if self.scheduler.is_proven() { 0 } else { self.futile_epochs + 1 };
        self.trouble = Some(self.in_words(&fault));
        match self.futile_epochs.checked_sub(FUTILE_EPOCHS_FREE) {
            None | Some(0) => self.begin_epoch(),
            Some(more) => {
                let pause = FUTILE_PAUSE_MIN * (1 << (more - 1).min(8));
                self.resumes = Some(now + pause.min(FUTILE_PAUSE_MAX));
                self.rebuild(None);
            }
        }
        Some(Order::BeginAnew(Some(fault)))
    }

    fn begin_epoch(&mut self) {
        self.resumes = None;
        let view = self.view.clone();
        let claims = view.serving().ok().map(|served| served.claims).filter(|_| self.identity.is_some());
        self.rebuild(claims.as_deref());
    }

    /// Evicts the first stage, since frames cannot be brought to where it should take them.
    fn evict(&mut self, found: &Unreachable, now: Instant) -> Option<Order> {
        if self.is_writing_eviction {
            return None;
        }
        let Registered { slot, lease, .. } = self.registered?;
        let by = (format!("gateway {slot}"), lease);
        let txn = self.evictions.evict(&self.keyspace, &self.view, found, by, now)?;
        info!(endpoint = found.endpoint, cause = found.cause, "the first stage cannot be reached: evicting it");
        self.is_writing_eviction = true;
        Some(Order::Commit(Purpose::Eviction, txn))
    }

    /// The next micro-batch, if there is one to send, and where it goes.
    fn next_hop(&mut self, now: Instant) -> Option<Order> {
        if self.recovers.is_some() {
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

    /// How many tokens may follow the prompt, if the request is accepted.
    pub(crate) fn judge(&self, request: &Request) -> Result<u32, Rejection> {
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

fn tell(happened: Happened) -> impl Iterator<Item = Order> {
    happened.into_iter().map(|(id, event)| Order::Tell(id, event))
}

#[cfg(test)]
mod tests;
