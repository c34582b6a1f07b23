//! A gateway's pipeline as a state machine: `handle` maps each event to orders. It decides when a new epoch begins,
//! which micro-batches are sent and which requests are accepted. Pure: it knows neither links nor clients.
//!
//! An epoch is one incarnation of the pipeline. It ends when the pipeline's stages change or a micro-batch is lost. The
//! next one computes all running sequences again from their tokens.

mod shares;
mod status;

use std::sync::Arc;
use std::time::Instant;

use schema::frame::{Frame, Hop};
use schema::record::{AdvertisedAddress, ClaimRecord, GatewayRecord, KvBlocks, KvKinds};
use schema::{Epoch, Generation, Keyspace, Step};
use tracing::{debug, info, warn};

use super::event::{Event, Order, Purpose};
use super::fault::PipelineFault;
use super::holdings::Holdings;
use super::scheduler::{Batch, Scheduler, SequenceEvents, Shape};
use super::sequence::StageLabel;
use crate::epochs;
use crate::generate::{Rejection, Request};
use crate::limits::{EPOCH_BACKOFF_FREE, EPOCH_BACKOFF_MAX, EPOCH_BACKOFF_MIN, REFUSAL_PAUSE, WAITING_MAX};
use crate::link::Unreachable;
use crate::membership::Evictions;
use crate::route::RouteEvent;
use crate::runner::KV_BLOCK_TOKENS;
use crate::share::{BlockSet, GatewayRegistration, Pool};
use crate::view::{ClusterView, Versioned};

/// The pipeline as the view shows it. If two are equal, they are of the same processes, which still have the same keys
/// and values in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    generation: Generation,
    /// The endpoint of each claim, and the number of shards that its process has loaded so far.
    claims: Vec<(String, u64)>,
    /// The slot and the number of this gateway's registration. Its share of the blocks is not part of the identity: it
    /// may change within one registration.
    gateway: (u32, u64),
}

/// A gateway's state: the scheduler, and the pipeline that it fills.
pub(crate) struct Conductor {
    keyspace: Keyspace,
    scheduler: Scheduler,
    view: Arc<ClusterView>,
    /// This gateway's newest registration.
    registered: Option<GatewayRegistration>,
    /// The addresses at which it takes frames. `None` as long as they are those of its registration.
    addresses: Option<Vec<AdvertisedAddress>>,
    /// This gateway's share of the blocks of keys and values.
    holdings: Holdings,
    /// The pipeline in use. `None` while the view shows none, or none that this gateway may use.
    identity: Option<Identity>,
    /// The number of the newest epoch.
    epochs: Epoch,
    /// The number of blocks of the stage that has the fewest, and that of each kind.
    kv_blocks: u32,
    blocks_max: KvBlocks,
    /// The time since when this gateway has needed less room for keys and values than its record says.
    needs_less_since: Option<Instant>,
    /// The last write of this gateway's record: the revision of the view that it was decided by, and its time.
    last_write: Option<(u64, Instant)>,
    first_endpoint: String,
    evictions: Evictions,
    is_writing_record: bool,
    is_writing_eviction: bool,
    /// The reason for which no micro-batch comes back through the current pipeline, if known.
    trouble: Option<String>,
    /// Number of epochs in a row that a fault ended before a micro-batch came back.
    failed_epochs: u32,
    /// The time at which this conductor first saw that no micro-batch has come back in the current epoch (see
    /// `lasting_trouble`).
    unproven_since: Option<Instant>,
    /// The time at which the next epoch begins, during the pause that follows several failed epochs.
    resumes_at: Option<Instant>,
    /// After a refusal: the time at which the next epoch begins, and the refusal as a fault. The conductor waits until
    /// then because views reach processes at different times: a stage may soon see a change that it does not see yet.
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
            addresses: None,
            holdings: Holdings::default(),
            identity: None,
            epochs: Epoch(0),
            kv_blocks: 0,
            blocks_max: KvBlocks::default(),
            needs_less_since: None,
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

    /// The time at which the caller must feed [`Event::Wake`], if any.
    pub(crate) fn wakes_at(&self) -> Option<Instant> {
        self.recovery.as_ref().map(|(at, _)| *at)
    }

    /// Handles one event. The caller executes the orders one after the other. Those that send micro-batches come before
    /// those that deliver results and write the gateway's record, because stages wait for micro-batches.
    pub(crate) fn handle(&mut self, event: Event, now: Instant) -> Vec<Order> {
        let mut orders = Vec::new();
        let mut after = Vec::new();
        let mut may_write_record = false;
        match event {
            Event::ViewChanged(view) => {
                if self.follow(view) {
                    self.recovery = None;
                    orders.push(Order::NewEpoch(None));
                }
                may_write_record = true;
            }
            Event::Registered(registered) => {
                self.registered = Some(registered);
                let view = self.view.clone();
                return self.handle(Event::ViewChanged(view), now);
            }
            Event::AddressesChanged(addresses) => {
                self.addresses = Some(addresses);
                may_write_record = true;
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
            Event::Written(Purpose::Bookkeeping) => {}
            Event::Tick => {
                self.use_gains(now);
                if self.resumes_at.is_some_and(|at| at <= now) {
                    self.begin_epoch();
                }
                after.extend(deliver(self.scheduler.expire(now)));
                if let Some(fault) = self.scheduler.overdue(now).filter(|_| self.recovery.is_none()) {
                    orders.push(self.recover(fault, now));
                }
                after.extend(self.forget_evictions(now));
                may_write_record = true;
            }
            Event::Wake => {}
        }
        if let Some((_, fault)) = self.recovery.take_if(|(at, _)| *at <= now) {
            orders.push(self.recover(fault, now));
        }
        while let Some(order) = self.next_hop(now) {
            orders.push(order);
        }
        orders.extend(after);
        if may_write_record || self.is_giving() {
            orders.extend(self.write_record(now));
        }
        orders
    }

    /// Handles a frame. `orders` gets what must be done before the next micro-batches are sent, `after` the rest.
    fn arrived(&mut self, frame: Frame, after: &mut Vec<Order>, orders: &mut Vec<Order>, now: Instant) {
        match frame {
            // After a refusal the epoch is about to end, and its sequences are computed again.
            _ if self.recovery.is_some() => {}
            Frame::Tokens(tokens) => match self.scheduler.complete(&tokens, now) {
                Ok(events) => {
                    if self.scheduler.is_proven() {
                        (self.trouble, self.failed_epochs) = (None, 0);
                    }
                    after.push(Order::Returned(tokens));
                    after.extend(deliver(events));
                }
                Err(fault) => orders.push(self.recover(fault, now)),
            },
            Frame::Refusal(refusal) => {
                let Some((fault, events)) = self.scheduler.refused(&refusal) else { return };
                // If the stage knows a higher epoch, it is from the gateway that had this slot before. It can be higher
                // than this one's if the store has lost its data since, and counts revisions from the start again.
                if refusal.epoch_known <= epochs::newest_followed(self.epochs) {
                    self.epochs = self.epochs.max(refusal.epoch_known);
                } else {
                    warn!(slot = refusal.slot, epoch = %refusal.epoch_known, "a stage names an epoch of no store");
                }
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
            // The frame is not sent again. Its timeout or the end of the first stage's lease begins a new epoch.
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
                    orders.push(self.recover(fault, now));
                }
            }
        }
    }

    /// Takes over the newest view: the pipeline and this gateway's share. If the pipeline has changed, begins a new
    /// epoch and returns true. If only parts of the share are lost, preempts the sequences in their blocks.
    fn follow(&mut self, view: Arc<ClusterView>) -> bool {
        self.view = view;
        let view = self.view.clone();
        let registered = self.registered.and_then(|own| Some((own, own.find(&view)?)));
        let usable_share =
            self.holdings.follow(registered.map(|(own, gateway)| ((own.slot, own.number), gateway.value.share)));
        if let (Some(pool), Some((own, record))) = (self.pool(), registered) {
            self.holdings.is_complete |= !usable_share.is_empty()
                && record.value.share.count() >= pool.fair_parts(&view.gateway_shares(), own.slot);
        }
        // The stages that serve, and this gateway's registration: `None` unless the gateway may use them.
        let pipeline = match (view.serving(), registered) {
            (Ok(served), Some((own, _))) if self.holdings.is_complete => Some((served, (own.slot, own.number))),
            _ => None,
        };
        let identity = pipeline.as_ref().map(|(served, gateway)| Identity {
            generation: served.generation,
            claims: served.claims.iter().map(|claim| (claim.value.endpoint.clone(), claim.value.loads)).collect(),
            gateway: *gateway,
        });
        let changed = identity != self.identity;
        if changed {
            self.identity = identity;
            (self.trouble, self.failed_epochs, self.resumes_at) = (None, 0, None);
            self.holdings.used = usable_share;
            self.rebuild(pipeline.map(|(served, _)| served.claims).as_deref());
        } else if let Some(pool) = self.pool() {
            let lost = self.holdings.used.without(usable_share);
            if !lost.is_empty() {
                self.scheduler.lose(&pool.blocks(lost));
                self.holdings.used = self.holdings.used.without(lost);
            }
        }
        changed
    }

    /// This gateway's record as the view shows it.
    fn own_record(&self) -> Option<&Versioned<GatewayRecord>> {
        self.registered.as_ref()?.find(&self.view)
    }

    /// The kinds of the model's layers.
    fn kv_kinds(&self) -> KvKinds {
        self.view.model.as_ref().map(|model| model.value.kv_kinds()).unwrap_or_default()
    }

    /// The blocks of the stages in use.
    fn pool(&self) -> Option<Pool> {
        self.view.model.as_ref().map(|model| Pool::new(&model.value, self.kv_blocks))
    }

    /// Ends the epoch, and begins a new one over the pipeline of `claims` in the scheduler. Without `claims`, sequences
    /// wait until there is one.
    fn rebuild(&mut self, claims: Option<&[&Versioned<ClaimRecord>]>) {
        let Some((identity, claims)) = self.identity.as_ref().zip(claims) else {
            info!("the pipeline is interrupted; sequences wait");
            self.holdings.given_before = Step(0);
            return self.scheduler.rebuild(None);
        };
        // The next gateway in this slot registers at a higher revision than any that this gateway's record had, so its
        // epochs are higher.
        let revision = self.own_record().map_or(0, |gateway| gateway.mod_revision);
        self.epochs = self.epochs.next().max(epochs::first(revision));
        let label = |claim: &&Versioned<ClaimRecord>| StageLabel {
            stage: claim.value.stage.to_string(),
            layers: claim.value.layers.into(),
        };
        self.first_endpoint = claims.first().map(|claim| claim.value.endpoint.clone()).unwrap_or_default();
        self.resumes_at = None;
        let kinds = self.kv_kinds();
        self.kv_blocks = claims.iter().map(|claim| claim.value.kv_blocks).min().unwrap_or(0);
        self.blocks_max = kinds.pool(self.kv_blocks.saturating_mul(KV_BLOCK_TOKENS));
        let own_blocks = self.pool().map(|pool| pool.blocks(self.holdings.used)).unwrap_or_default();
        let BlockSet { full, window } = own_blocks.below(self.blocks_max);
        self.holdings.given_before = Step(0);
        let shape = Shape {
            generation: identity.generation,
            epoch: self.epochs,
            stages: claims.iter().map(label).collect(),
            kinds,
            blocks: full.into_iter().collect(),
            window_blocks: window.into_iter().collect(),
            hidden: self.view.model.as_ref().map_or(0, |model| model.value.hidden),
            bidirectional: self.view.model.as_ref().is_some_and(|model| model.value.bidirectional),
        };
        let stages = shape.stages.len();
        info!(generation = %shape.generation, epoch = %shape.epoch, stages, "the pipeline is complete");
        self.scheduler.rebuild(Some(shape));
    }

    /// Ends the epoch because of `fault` and begins a new one over the same pipeline. If more than
    /// [`EPOCH_BACKOFF_FREE`] epochs in a row ended before a micro-batch came back, the new one begins only after a
    /// pause: first [`EPOCH_BACKOFF_MIN`], then twice as long each time, up to [`EPOCH_BACKOFF_MAX`].
    fn recover(&mut self, fault: PipelineFault, now: Instant) -> Order {
        self.recovery = None;
        warn!(%fault, "the epoch failed; computing running sequences again");
        self.failed_epochs = if self.scheduler.is_proven() { 0 } else { self.failed_epochs + 1 };
        self.trouble = Some(self.fault_text(&fault));
        match self.failed_epochs.checked_sub(EPOCH_BACKOFF_FREE) {
            None | Some(0) => self.begin_epoch(),
            Some(over) => {
                let pause = EPOCH_BACKOFF_MIN * (1 << (over - 1).min(8));
                self.resumes_at = Some(now + pause.min(EPOCH_BACKOFF_MAX));
                self.rebuild(None);
            }
        }
        Order::NewEpoch(Some(fault))
    }

    /// Begins a new epoch over the stages that serve, at once.
    fn begin_epoch(&mut self) {
        self.resumes_at = None;
        let view = self.view.clone();
        let claims = view.serving().ok().map(|served| served.claims).filter(|_| self.identity.is_some());
        self.rebuild(claims.as_deref());
    }

    /// The write that evicts the first stage, because frames cannot reach its endpoint. `None` if such a write is
    /// pending, if this gateway is not registered, or if [`Evictions`] forbids it.
    fn evict(&mut self, found: &Unreachable, now: Instant) -> Option<Order> {
        if self.is_writing_eviction {
            return None;
        }
        let GatewayRegistration { slot, lease, .. } = self.registered?;
        let by = format!("gateway {slot}");
        let txn = self.evictions.evict(&self.keyspace, &self.view, found, by, lease, now)?;
        info!(endpoint = found.endpoint, cause = found.cause, "the first stage cannot be reached: evicting it");
        self.is_writing_eviction = true;
        Some(Order::Commit(Purpose::Eviction, txn))
    }

    /// The write that deletes this gateway's old eviction records, if there are any.
    fn forget_evictions(&mut self, now: Instant) -> Option<Order> {
        let by = format!("gateway {}", self.registered.filter(|_| self.view.reachable)?.slot);
        let txn = self.evictions.forget(&self.keyspace, &self.view, &by, now)?;
        Some(Order::Commit(Purpose::Bookkeeping, txn))
    }

    /// The order to send the next micro-batch, if there is one. An empty one that proves that the pipeline works goes
    /// first. The hop has slot 0 and no activations, because the first stage gets token ids.
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

    /// Maximum number of tokens that may follow the prompt, or the reason for rejecting the request.
    pub(crate) fn check(&self, request: &Request) -> Result<u32, Rejection> {
        if !self.scheduler.is_proven() {
            return Err(Rejection::NotServing { reason: self.status().reason });
        }
        if request.pooling.is_none() && self.scheduler.is_bidirectional() {
            return Err(Rejection::EmbedsOnly);
        }
        let (_, waiting) = self.scheduler.load();
        if waiting >= WAITING_MAX {
            return Err(Rejection::Busy { waiting });
        }
        let context_tokens = self.context_tokens();
        let prompt_tokens = u32::try_from(request.prompt.len()).unwrap_or(u32::MAX);
        let room = context_tokens.saturating_sub(prompt_tokens);
        // A prompt that is embedded may fill the context.
        let fits = if request.pooling.is_some() { prompt_tokens <= context_tokens } else { room > 0 };
        if prompt_tokens == 0 || !fits {
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
