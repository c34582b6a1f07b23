//! When the pipeline begins anew, what is sent into it, and who is accepted. Pure: views, frames and the time come in as
//! values; what is to be sent and told goes out as values. It knows neither links nor clients.

use std::sync::Arc;
use std::time::Instant;

use schema::frame::{Frame, Hop};
use schema::record::{ClaimRecord, GatewayRecord, Share};
use schema::{Epoch, Generation, Keyspace, SequenceId, Step};
use tracing::{debug, info, warn};

use super::fault::PipelineFault;
use super::holdings::Holdings;
use super::scheduler::{Batch, Happened, Scheduler, Shape};
use super::sequence::StageLabel;
use crate::generate::{PipelineStatus, Rejection, Request};
use crate::limits::{
    FUTILE_EPOCHS_FREE, FUTILE_PAUSE_MAX, FUTILE_PAUSE_MIN, SHARE_SETTLE, STORE_RETRY, TROUBLE_TOLD_AFTER, WAITING_MAX,
};
use crate::link::Unreachable;
use crate::membership::{Evictions, write_gateway};
use crate::report;
use crate::runner::KV_BLOCK_TOKENS;
use crate::share::{Move, Pool, Registered};
use crate::store::Txn;
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

/// The head's state: the scheduler, and the pipeline it fills.
pub(crate) struct Conductor {
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
    /// Why nothing comes through the pipeline at hand, as far as that is known.
    trouble: Option<String>,
    /// Epochs since a micro-batch came through one.
    futile_epochs: u32,
    /// Since when nothing has come through, as far as that was looked at.
    unproven_since: Option<Instant>,
    /// The moment the next epoch begins, after futile ones.
    resumes: Option<Instant>,
}

/// What came of a frame.
#[derive(Debug, Default)]
pub(crate) struct Arrival {
    /// For those who wait.
    pub(crate) happened: Happened,
    /// The pipeline lost its step: [`Conductor::recover`].
    pub(crate) fault: Option<PipelineFault>,
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
            registered: None,
            holdings: Holdings::default(),
            identity: None,
            epochs: 0,
            blocks_max: 0,
            wrote: None,
            first_endpoint: String::new(),
            evictions: Evictions::default(),
            trouble: None,
            futile_epochs: 0,
            unproven_since: None,
            resumes: None,
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

    /// This gateway is registered so from now on.
    pub(crate) fn enroll(&mut self, registered: Registered) {
        self.registered = Some(registered);
    }

    /// This gateway's record as the store shows it.
    fn own_record(&self) -> Option<&Versioned<GatewayRecord>> {
        self.registered.as_ref()?.find(&self.view)
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
        if wrote || !self.view.reachable || !self.view.recalled.is_empty() {
            return None;
        }
        let view = self.view.clone();
        let (Registered { lease, slot, .. }, pool) = (self.registered?, self.pool()?);
        let own = self.own_record()?.clone();
        let trouble = self.lasting_trouble(now);
        if trouble.is_some() != own.value.trouble.is_some() {
            self.wrote = Some((self.view.revision, now));
            let record = GatewayRecord { trouble, ..own.value };
            return Some(write_gateway(keyspace, slot, &record, &view.gateway_revisions(), lease));
        }
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

    /// Why nothing comes through a pipeline that the store shows as whole, once that has lasted.
    fn lasting_trouble(&mut self, now: Instant) -> Option<String> {
        if self.identity.is_none() || self.scheduler.is_proven() {
            self.unproven_since = None;
            return None;
        }
        let since = *self.unproven_since.get_or_insert(now);
        (now >= since + TROUBLE_TOLD_AFTER).then(|| self.why_unproven())
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
        let own = self.registered.zip(self.own_record());
        let Some((pool, (registered, own))) = self.pool().zip(own) else { return total };
        let fair = pool.fair(&self.view.gateway_shares(), registered.slot);
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
    pub(crate) fn recover(&mut self, fault: &PipelineFault, now: Instant) {
        warn!(%fault, "the pipeline lost its step; computing running sequences again");
        self.futile_epochs = if self.scheduler.is_proven() { 0 } else { self.futile_epochs + 1 };
        self.trouble = Some(self.in_words(fault));
        match self.futile_epochs.checked_sub(FUTILE_EPOCHS_FREE) {
            None | Some(0) => self.begin_epoch(),
            Some(more) => {
                let pause = FUTILE_PAUSE_MIN * (1 << (more - 1).min(8));
                self.resumes = Some(now + pause.min(FUTILE_PAUSE_MAX));
                self.rebuild(None);
            }
        }
    }

    fn begin_epoch(&mut self) {
        self.resumes = None;
        let view = self.view.clone();
        let claims = view.serving().ok().map(|served| served.claims).filter(|_| self.identity.is_some());
        self.rebuild(claims.as_deref());
    }

    /// A fault as a clause for people: between whom it happened, as far as that is known, and why.
    fn in_words(&self, fault: &PipelineFault) -> String {
        let stages: Vec<_> = self.view.serving().map(|served| served.claims).unwrap_or_default();
        let names: Vec<_> = stages.iter().map(|claim| claim.value.stage.as_str()).collect();
        let gateway = self.registered.map_or(0, |own| own.slot);
        match fault {
            PipelineFault::Refused { stage, reason, .. } => format!("stage {stage} says that {reason}"),
            PipelineFault::Broken(_) => {
                format!(
                    "the link from gateway {gateway} to {} broke",
                    names.first().copied().unwrap_or("the first stage")
                )
            }
            other => format!("{other}, on the way from gateway {gateway} through stages {} and back", names.join(", ")),
        }
    }

    /// Frames cannot be brought to the first stage.
    pub(crate) fn cannot_reach_first(&mut self, endpoint: &str, cause: &str) {
        let stage = self.view.claims.values().rev().find(|claim| claim.value.endpoint == endpoint);
        let stage = stage.map_or("the first stage".to_owned(), |claim| format!("stage {}", claim.value.stage));
        let gateway = self.registered.map_or(0, |own| own.slot);
        self.trouble = Some(format!("gateway {gateway} cannot reach {stage} at {endpoint}: {cause}"));
    }

    /// Why nothing comes through a pipeline that the store shows as whole.
    fn why_unproven(&self) -> String {
        let claims = self.view.serving().map(|served| served.claims).unwrap_or_default();
        let told = claims.iter().find_map(|claim| {
            let stage = &claim.value.stage;
            let trouble = self.view.stages.get(stage)?.value.trouble.as_ref()?;
            Some(format!("stage {stage} says that {trouble}"))
        });
        let on_its_way = || {
            let names: Vec<_> = claims.iter().map(|claim| claim.value.stage.as_str()).collect();
            format!("the first micro-batch is still on its way through stages {} and back", names.join(", "))
        };
        let why = told.or_else(|| self.trouble.clone()).unwrap_or_else(on_its_way);
        format!("every layer is held, and no micro-batch comes through: {why}")
    }

    /// Evictions the first stage off, since frames cannot be brought to where it should take them.
    pub(crate) fn evict(&mut self, keyspace: &Keyspace, found: &Unreachable, now: Instant) -> Option<Txn> {
        let Registered { slot, lease, .. } = self.registered?;
        let by = (format!("gateway {slot}"), lease);
        let txn = self.evictions.evict(keyspace, &self.view, found, by, now);
        if txn.is_some() {
            info!(endpoint = found.endpoint, cause = found.cause, "the first stage cannot be reached: evicting it");
        }
        txn
    }

    /// The first stage took a frame.
    pub(crate) fn reached_first(&mut self) {
        self.evictions.reached();
    }

    /// The link to the first stage has ended; a fault if micro-batches were sent over it that did not come back.
    pub(crate) fn link_broke(&self) -> Option<PipelineFault> {
        self.scheduler.oldest_in_flight().map(PipelineFault::Broken)
    }

    /// The next micro-batch, if there is one to send, and where it goes.
    pub(crate) fn next_hop(&mut self, now: Instant) -> Option<(&str, Hop)> {
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
        Some((&self.first_endpoint, hop))
    }

    /// What comes of a frame.
    pub(crate) fn arrived(&mut self, frame: &Frame, now: Instant) -> Arrival {
        match frame {
            Frame::Tokens(tokens) => match self.scheduler.complete(tokens, now) {
                Ok(happened) => {
                    if self.scheduler.is_proven() {
                        (self.trouble, self.futile_epochs) = (None, 0);
                    }
                    Arrival { happened, ..Arrival::default() }
                }
                Err(fault) => Arrival { fault: Some(fault), ..Arrival::default() },
            },
            Frame::Refusal(refusal) => match self.scheduler.refused(refusal) {
                Some((fault, happened)) => {
                    // Of the gateway that had this slot before, perhaps in a store that has lost its data since.
                    self.epochs = self.epochs.max(refusal.epoch_known.0);
                    Arrival { happened, fault: Some(fault), pause: true }
                }
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
        if self.resumes.is_some_and(|resumes| resumes <= now) {
            self.begin_epoch();
        }
        let happened = self.scheduler.expire(now);
        Arrival { happened, fault: self.scheduler.overdue(now), pause: false }
    }

    /// How things are; the rate is left to who has a clock.
    pub(crate) fn status(&self) -> PipelineStatus {
        let (reason, missing_layers) = match report::serving(&self.view) {
            Ok(_) if self.scheduler.is_proven() => (String::new(), Vec::new()),
            Ok(_) if self.identity.is_some() => (self.why_unproven(), Vec::new()),
            Ok(_) if self.own_record().is_some() => {
                ("other gateways have all room for keys and values, and give none up yet".to_owned(), Vec::new())
            }
            Ok(_) => ("this gateway is not registered".to_owned(), Vec::new()),
            Err(not) => (not.reason, not.missing.into_iter().map(Into::into).collect()),
        };
        let (running, waiting) = self.scheduler.load();
        let limit = self.view.model.as_ref().map_or(0, |model| model.value.context_tokens);
        let kv_tokens = self.blocks_for_one().saturating_mul(KV_BLOCK_TOKENS);
        PipelineStatus {
            serving: self.scheduler.is_proven(),
            reason,
            missing_layers,
            store_reachable: self.view.reachable,
            store_alarms: self.view.store_alarms.clone(),
            store_oddity: report::oddity(&self.view),
            context_tokens: limit.min(kv_tokens),
            running,
            waiting,
            tokens_per_second: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use schema::frame::Tokens;
    use schema::record::{ClaimState, Placement, Shard};
    use schema::{LayerRange, StageName};

    use super::*;
    use crate::store::LeaseId;
    use crate::testing::{claim_of, gateway, model, stage};

    const LEASE: LeaseId = LeaseId(77);
    const REGISTERED: Registered = Registered { number: 1, slot: 0, lease: LEASE, former: None };

    fn versioned<T>(value: T) -> Versioned<T> {
        Versioned { value, mod_revision: 7 }
    }

    /// One stage that serves everything, and this gateway.
    fn view() -> ClusterView {
        let (name, layers) = ("a".parse::<StageName>().unwrap(), LayerRange::new(0, 4).unwrap());
        let shard = Shard { layers, stage: name.clone() };
        let claim = claim_of(&shard, "ipc:///stage", ClaimState::Serving);
        let gateway = gateway(&LEASE.to_string(), Share::of(0..32));
        let shards = vec![shard];
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

    /// Has the micro-batch that shows that the pipeline is one come through it.
    fn come_through(conductor: &mut Conductor) {
        let now = Instant::now();
        let (_, hop) = conductor.next_hop(now).expect("an empty micro-batch");
        assert_eq!((hop.step, hop.rows), (Step(0), 0));
        let Hop { generation, epoch, step, .. } = hop;
        let tokens = Tokens { generation, epoch, step, chosen: Vec::new(), spent: Vec::new() };
        assert!(conductor.arrived(&Frame::Tokens(tokens), now).fault.is_none());
    }

    #[test]
    fn an_absent_store_changes_nothing_but_what_it_said_last_counts() {
        let scheduler = Scheduler::new(false);
        let mut conductor = Conductor::new(scheduler, Arc::new(ClusterView::default()));
        conductor.enroll(REGISTERED);
        assert!(conductor.see(Arc::new(view())) && !conductor.status().serving, "nothing came through");
        come_through(&mut conductor);
        assert!(conductor.status().serving);
        assert!(!conductor.see(Arc::new(ClusterView { reachable: false, ..view() })));
        assert!(conductor.status().serving);
        // The view in which the claim went is overtaken by the one that says that the store is away.
        let gone = ClusterView { reachable: false, claims: [].into(), ..view() };
        assert!(conductor.see(Arc::new(gone)));
        assert!(!conductor.status().serving);
    }
}
