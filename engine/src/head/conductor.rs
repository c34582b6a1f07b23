//! When the pipeline begins anew, what is sent into it, and who is accepted. Pure: views, frames and the time come in as
//! values; what is to be sent and told goes out as values. It knows neither links nor clients.

use std::sync::Arc;
use std::time::Instant;

use schema::frame::{Frame, Hop};
use schema::record::{ClaimRecord, GatewayRecord, Share};
use schema::{Epoch, Generation, Keyspace, SequenceId, Step};
use tracing::{debug, info, warn};

use super::fault::Fault;
use super::holdings::Holdings;
use super::scheduler::{Batch, Happened, Scheduler, Shape};
use super::sequence::StageLabel;
use crate::generate::{PipelineStatus, Rejection, Request};
use crate::limits::{SHARE_SETTLE, STORE_RETRY, WAITING_MAX};
use crate::link::Absence;
use crate::membership::{Strikes, write_gateway};
use crate::report;
use crate::runner::KV_BLOCK_TOKENS;
use crate::share::{Move, Pool};
use crate::store::{LeaseId, Txn};
use crate::view::{ClusterView, Versioned};

/// Epochs one registration of a gateway can begin; its registration's revision counts above them.
const EPOCHS_PER_REGISTRATION: u64 = 1 << 20;

/// The pipeline as the view shows it: equal values mean the same processes with the same keys and values.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    generation: Generation,
    claims: Vec<u64>,
    /// The slot and the lease of this gateway's registration. What it has of the blocks may change within it.
    gateway: (u32, LeaseId),
}

/// The head's state: the scheduler, and the pipeline it fills.
pub(crate) struct Conductor {
    scheduler: Scheduler,
    view: Arc<ClusterView>,
    /// The lease of this gateway's newest registration.
    lease: Option<LeaseId>,
    holdings: Holdings,
    identity: Option<Identity>,
    epochs: u64,
    /// Every stage has so many blocks.
    blocks_max: u32,
    /// The last write about its share: at which revision of the view, and when.
    wrote: Option<(u64, Instant)>,
    first_endpoint: String,
    strikes: Strikes,
}

/// What came of a frame.
#[derive(Debug, Default)]
pub(crate) struct Arrival {
    /// For those who wait.
    pub(crate) happened: Happened,
    /// The pipeline lost its step: [`Conductor::recover`].
    pub(crate) fault: Option<Fault>,
    /// Whether that has to wait: views reach processes at different times, and what a stage does not see yet it will see
    /// soon.
    pub(crate) pause: bool,
}

// === impl Conductor ===

impl Conductor {
    /// Without a pipeline, for a gateway that is not registered.
    pub(crate) fn new(scheduler: Scheduler, view: Arc<ClusterView>) -> Self {
        Self {
            scheduler,
            view,
            lease: None,
            holdings: Holdings::default(),
            identity: None,
            epochs: 0,
            blocks_max: 0,
            wrote: None,
            first_endpoint: String::new(),
            strikes: Strikes::default(),
        }
    }

    pub(crate) fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    #[cfg(test)]
    pub(crate) fn view(&self) -> &ClusterView {
        &self.view
    }

    /// Takes the newest view in and begins anew if the pipeline is another one now; says whether it is.
    pub(crate) fn see(&mut self, view: Arc<ClusterView>) -> bool {
        self.view = view;
        let view = self.view.clone();
        let registered = registered(&view, self.lease);
        let usable = self.holdings.see(registered.map(|(slot, gateway)| (slot, gateway.value.share)), self.lease);
        if let (Some(pool), Some((slot, own))) = (self.pool(), registered) {
            self.holdings.is_complete |=
                !usable.is_empty() && own.value.share.count() >= pool.fair(&view.gateway_shares(), slot);
        }
        let seen = match (view.serving(), registered) {
            (Ok(served), Some((slot, _))) if self.holdings.is_complete => {
                self.lease.map(|lease| (served, (slot, lease)))
            }
            _ => None,
        };
        let identity = seen.as_ref().map(|(served, gateway)| Identity {
            generation: served.generation,
            claims: served.claims.iter().map(|claim| claim.mod_revision).collect(),
            gateway: *gateway,
        });
        let changed = identity != self.identity;
        if changed {
            self.identity = identity;
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

    /// This gateway is registered under `lease` from now on.
    pub(crate) fn enroll(&mut self, lease: LeaseId) {
        self.lease = Some(lease);
    }

    fn pool(&self) -> Option<Pool> {
        self.view.model.as_ref().map(|model| Pool::new(&model.value))
    }

    /// Whether blocks are given up and the store does not say so yet.
    pub(crate) fn is_giving(&self) -> bool {
        !self.holdings.given.is_empty()
    }

    /// What to write about this gateway's share, if there is something to write: what it gives up, once nothing is on its way
    /// any more that uses it, or what it takes of what belongs to nobody.
    pub(crate) fn next_write(&mut self, keyspace: &Keyspace, now: Instant) -> Option<Txn> {
        let wrote = self.wrote.is_some_and(|(revision, at)| revision == self.view.revision && now < at + STORE_RETRY);
        if wrote || !self.view.reachable {
            return None;
        }
        let view = self.view.clone();
        let (lease, pool) = (self.lease?, self.pool()?);
        let (slot, own) = registered(&view, self.lease)?;
        let mut share = own.value.share;
        if !self.is_giving() {
            match pool.decide(&view.gateway_shares(), slot) {
                Move::Stay => return None,
                Move::Give(count) => self.give(pool, share, count),
                Move::Take(parts) => share = share.and(parts),
            }
        }
        if !self.scheduler.has_returned(self.holdings.given_before) {
            return None;
        }
        share = share.without(self.holdings.given);
        if share == own.value.share {
            return None;
        }
        info!(slot, share = %share, "another share of the keys and values");
        self.wrote = Some((self.view.revision, now));
        let record = GatewayRecord { share, ..own.value.clone() };
        Some(write_gateway(keyspace, slot, &record, &view.gateway_revisions(), lease))
    }

    /// Gives up so many parts of `share`, those first that the fewest sequences own something of. Less, when what is left
    /// would be too little for the longest sequence: it must come to its end.
    fn give(&mut self, pool: Pool, share: Share, count: u32) {
        let needed = self.scheduler.blocks_needed();
        let mut left = pool.blocks(share).count() as u32;
        let mut parts: Vec<u32> = share.parts().rev().collect();
        parts.sort_by_key(|part| self.scheduler.owned_among(pool.blocks_of(*part)));
        let affordable = |part: &u32| {
            left -= pool.blocks_of(*part).len() as u32;
            left >= needed
        };
        let given = Share::of(parts.into_iter().take(count as usize).take_while(affordable));
        self.scheduler.lose(&pool.blocks(given).collect());
        self.holdings.used = self.holdings.used.without(given);
        self.holdings.given = given;
        self.holdings.given_before = self.scheduler.next_step();
    }

    /// Uses what has become this gateway's, when the stages have had time to hear of it.
    fn use_gains(&mut self, now: Instant) {
        let Some(pool) = self.pool().filter(|_| self.identity.is_some()) else { return };
        let gained = self.holdings.usable().without(self.holdings.used);
        if gained.is_empty() {
            self.holdings.gains_from = None;
        } else if *self.holdings.gains_from.get_or_insert(now + SHARE_SETTLE) <= now {
            self.scheduler.gain(pool.blocks(gained).filter(|block| *block < self.blocks_max));
            self.holdings.used = self.holdings.used.and(gained);
        }
    }

    /// How many blocks one sequence may have: no more than this gateway will keep when others have got their shares.
    fn blocks_for_one(&self) -> u32 {
        let total = self.scheduler.total_blocks() as u32;
        let own = registered(&self.view, self.lease);
        let Some((pool, (slot, own))) = self.pool().zip(own) else { return total };
        let fair = pool.fair(&self.view.gateway_shares(), slot);
        if own.value.share.count() > fair { total.min(pool.blocks_at_least(fair)) } else { total }
    }

    /// Begins a new epoch over the pipeline of `claims`, or none.
    fn rebuild(&mut self, claims: Option<&[&Versioned<ClaimRecord>]>) {
        let Some((identity, claims)) = self.identity.as_ref().zip(claims) else {
            info!("the pipeline is interrupted; sequences wait");
            self.holdings.given_before = Step(0);
            return self.scheduler.rebuild(None);
        };
        // Whoever has the slot next registers at a higher revision than any that this gateway's record had.
        let revision = registered(&self.view, self.lease).map_or(0, |(_, gateway)| gateway.mod_revision);
        self.epochs = (self.epochs + 1).max(revision * EPOCHS_PER_REGISTRATION);
        let label = |claim: &&Versioned<ClaimRecord>| StageLabel {
            stage: claim.value.stage.to_string(),
            layers: claim.value.layers.into(),
        };
        self.first_endpoint = claims.first().map(|claim| claim.value.endpoint.clone()).unwrap_or_default();
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

    /// Begins a new epoch over the same pipeline.
    pub(crate) fn recover(&mut self, fault: &Fault) {
        warn!(%fault, "the pipeline lost its step; computing running sequences again");
        let view = self.view.clone();
        let claims = view.serving().ok().map(|served| served.claims).filter(|_| self.identity.is_some());
        self.rebuild(claims.as_deref());
    }

    /// Strikes the first stage off, since nobody is at the endpoint where it should be.
    pub(crate) fn strike(&mut self, keyspace: &Keyspace, deserted: (&str, Absence), now: Instant) -> Option<Txn> {
        let txn = self.strikes.strike(keyspace, &self.view, deserted, now);
        if txn.is_some() {
            info!(endpoint = deserted.0, absence = ?deserted.1, "nobody is where the first stage should be: striking it off");
        }
        txn
    }

    /// The first stage took a frame.
    pub(crate) fn reached_first(&mut self) {
        self.strikes.reached();
    }

    /// The link to the first stage has ended; a fault if micro-batches were sent over it that did not come back.
    pub(crate) fn link_broke(&self) -> Option<Fault> {
        self.scheduler.oldest_in_flight().map(Fault::Broken)
    }

    /// The next micro-batch, if there is one to send, and where it goes.
    pub(crate) fn next_hop(&mut self, now: Instant) -> Option<(&str, Hop)> {
        let Batch { step, slices } = self.scheduler.next_batch(now)?;
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
        Some((&self.first_endpoint, hop))
    }

    /// What comes of a frame.
    pub(crate) fn arrived(&mut self, frame: &Frame, now: Instant) -> Arrival {
        match frame {
            Frame::Tokens(tokens) => match self.scheduler.complete(tokens, now) {
                Ok(happened) => Arrival { happened, ..Arrival::default() },
                Err(fault) => Arrival { fault: Some(fault), ..Arrival::default() },
            },
            Frame::Refusal(refusal) => match self.scheduler.refused(refusal) {
                Some((fault, happened)) => Arrival { happened, fault: Some(fault), pause: true },
                None => Arrival::default(),
            },
            Frame::Hop(_) => {
                debug!("a hop came to the gateway: dropped");
                Arrival::default()
            }
        }
    }

    /// How many tokens may follow the prompt, if the request is accepted.
    pub(crate) fn judge(&self, request: &Request) -> Result<u32, Rejection> {
        if self.scheduler.shape().is_none() {
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

    /// Admits a request that was judged to have `room`.
    pub(crate) fn admit(&mut self, mut request: Request, room: u32, now: Instant) -> SequenceId {
        request.tokens_max = request.tokens_max.min(room);
        self.scheduler.admit(request, now)
    }

    /// Forgets a sequence.
    pub(crate) fn cancel(&mut self, id: SequenceId) {
        self.scheduler.cancel(id);
    }

    /// Ends what is late; a fault when a micro-batch is.
    pub(crate) fn tick(&mut self, now: Instant) -> Arrival {
        self.use_gains(now);
        let happened = self.scheduler.expire(now);
        Arrival { happened, fault: self.scheduler.overdue(now), pause: false }
    }

    /// How things are; the rate is left to who has a clock.
    pub(crate) fn status(&self) -> PipelineStatus {
        let (reason, missing_layers) = match report::serving(&self.view) {
            Ok(_) if self.identity.is_some() => (String::new(), Vec::new()),
            Ok(_) if registered(&self.view, self.lease).is_some() => {
                ("other gateways have all room for keys and values, and give none up yet".to_owned(), Vec::new())
            }
            Ok(_) => ("this gateway is not registered".to_owned(), Vec::new()),
            Err(not) => (not.reason, not.missing.into_iter().map(Into::into).collect()),
        };
        let (running, waiting) = self.scheduler.load();
        let limit = self.view.model.as_ref().map_or(0, |model| model.value.context_tokens);
        let kv_tokens = self.blocks_for_one().saturating_mul(KV_BLOCK_TOKENS);
        PipelineStatus {
            serving: self.scheduler.shape().is_some(),
            reason,
            missing_layers,
            store_reachable: self.view.reachable,
            store_alarms: self.view.store_alarms.clone(),
            context_tokens: limit.min(kv_tokens),
            running,
            waiting,
            tokens_per_second: 0.0,
        }
    }
}

/// The slot and the record of the gateway that lives under `lease`.
fn registered(view: &ClusterView, lease: Option<LeaseId>) -> Option<(u32, &Versioned<GatewayRecord>)> {
    let lease = lease?.to_string();
    let found = view.gateways.iter().find(|(_, gateway)| gateway.value.lease == lease)?;
    Some((*found.0, found.1))
}

#[cfg(test)]
mod tests {
    use schema::record::{ClaimState, Placement, Shard};
    use schema::{LayerRange, StageName};

    use super::*;
    use crate::testing::{gateway, model, stage};

    const LEASE: LeaseId = LeaseId(77);

    fn versioned<T>(value: T) -> Versioned<T> {
        Versioned { value, mod_revision: 7 }
    }

    /// One stage that serves everything, and this gateway.
    fn view() -> ClusterView {
        let (name, layers) = ("a".parse::<StageName>().unwrap(), LayerRange::new(0, 4).unwrap());
        let claim = ClaimRecord {
            stage: name.clone(),
            layers,
            endpoint: "ipc:///stage".to_owned(),
            state: ClaimState::Serving,
            memory_bound_bytes: 0,
            weights_bytes: 0,
            kv_blocks: 1,
            kv_block_tokens: 32,
        };
        let gateway = gateway(&LEASE.to_string(), Share::of(0..32));
        let shards = vec![Shard { layers, stage: name.clone() }];
        ClusterView {
            reachable: true,
            model: Some(versioned(model(&[10; 4], 0))),
            placement: Some(versioned(Placement::new(Generation(1), shards).unwrap())),
            stages: [(name, versioned(stage(1000)))].into(),
            claims: [((Generation(1), 0), versioned(claim))].into(),
            gateways: [(0, versioned(gateway))].into(),
            ..ClusterView::default()
        }
    }

    #[test]
    fn an_absent_store_changes_nothing_but_what_it_said_last_counts() {
        let scheduler = Scheduler::new(false);
        let mut conductor = Conductor::new(scheduler, Arc::new(ClusterView::default()));
        conductor.enroll(LEASE);
        assert!(conductor.see(Arc::new(view())) && conductor.status().serving);
        assert!(!conductor.see(Arc::new(ClusterView { reachable: false, ..view() })));
        assert!(conductor.status().serving);
        // The view in which the claim went is overtaken by the one that says that the store is away.
        let gone = ClusterView { reachable: false, claims: [].into(), ..view() };
        assert!(conductor.see(Arc::new(gone)));
        assert!(!conductor.status().serving);
    }
}
