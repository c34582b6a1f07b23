//! When the pipeline begins anew, what is sent into it, and who is accepted. Pure: views, frames and the time come in as
//! values; what is to be sent and told goes out as values. It knows neither links nor clients.

use std::sync::Arc;
use std::time::Instant;

use schema::frame::{Frame, Hop};
use schema::record::ClaimRecord;
use schema::{Epoch, Generation, Keyspace, SequenceId};
use tracing::{debug, info, warn};

use super::fault::Fault;
use super::scheduler::{Batch, Happened, Scheduler, Shape};
use super::sequence::StageLabel;
use crate::generate::{PipelineStatus, Rejection, Request};
use crate::limits::WAITING_MAX;
use crate::link::Absence;
use crate::membership::Strikes;
use crate::runner::KV_BLOCK_TOKENS;
use crate::store::Txn;
use crate::view::{ClusterView, Versioned};

/// The slot of the one gateway this version allows in a cluster.
pub(crate) const GATEWAY_SLOT: u32 = 0;
/// Epochs one registration of a gateway can begin; its registration's revision counts above them.
const EPOCHS_PER_REGISTRATION: u64 = 1 << 20;

/// The pipeline as the view shows it: equal values mean the same processes with the same keys and values.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    generation: Generation,
    claims: Vec<u64>,
    gateway: u64,
}

/// The head's state: the scheduler, and the pipeline it fills.
pub(crate) struct Conductor {
    scheduler: Scheduler,
    view: Arc<ClusterView>,
    /// Where this gateway takes tokens.
    endpoint: String,
    identity: Option<Identity>,
    epochs: u64,
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
    /// Without a pipeline, for the gateway that takes tokens at `endpoint`.
    pub(crate) fn new(scheduler: Scheduler, endpoint: String, view: Arc<ClusterView>) -> Self {
        Self {
            scheduler,
            view,
            endpoint,
            identity: None,
            epochs: 0,
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
        let registered = view.gateways.get(&GATEWAY_SLOT);
        let registered = registered.filter(|gateway| gateway.value.endpoint == self.endpoint);
        let seen = match (view.serving(), registered) {
            (Ok(served), Some(gateway)) => Some((served, gateway.mod_revision)),
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
            self.rebuild(seen.map(|(served, _)| served.claims).as_deref());
        }
        changed
    }

    /// Begins a new epoch over the pipeline of `claims`, or none.
    fn rebuild(&mut self, claims: Option<&[&Versioned<ClaimRecord>]>) {
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
            gateway: GATEWAY_SLOT,
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
        let Some(shape) = self.scheduler.shape() else {
            return Err(Rejection::NotServing { reason: self.status().reason });
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
        let happened = self.scheduler.expire(now);
        Arrival { happened, fault: self.scheduler.overdue(now), pause: false }
    }

    /// How things are; the rate is left to who has a clock.
    pub(crate) fn status(&self) -> PipelineStatus {
        let (reason, missing_layers) = match self.view.serving() {
            Ok(_) if self.identity.is_some() => (String::new(), Vec::new()),
            Ok(_) => ("another gateway serves this cluster, or this one is not registered".to_owned(), Vec::new()),
            Err(not) => (not.reason, not.missing.into_iter().map(Into::into).collect()),
        };
        let (running, waiting) = self.scheduler.load();
        let limit = self.view.model.as_ref().map_or(0, |model| model.value.context_tokens);
        let kv_tokens = self.scheduler.shape().map_or(0, |shape| shape.kv_blocks.saturating_mul(KV_BLOCK_TOKENS));
        PipelineStatus {
            serving: self.scheduler.shape().is_some(),
            reason,
            missing_layers,
            store_reachable: self.view.reachable,
            context_tokens: limit.min(kv_tokens),
            running,
            waiting,
            tokens_per_second: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use schema::record::{ClaimState, GatewayRecord, Placement, Shard};
    use schema::{LayerRange, StageName};

    use super::*;
    use crate::testing::{model, stage};

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
        let gateway = GatewayRecord {
            endpoint: "ipc:///head".to_owned(),
            url: String::new(),
            host: String::new(),
            pid: 1,
            version: String::new(),
        };
        let shards = vec![Shard { layers, stage: name.clone() }];
        ClusterView {
            reachable: true,
            model: Some(versioned(model(&[10; 4], 0))),
            placement: Some(versioned(Placement::new(Generation(1), shards).unwrap())),
            stages: [(name, versioned(stage(1000)))].into(),
            claims: [((Generation(1), 0), versioned(claim))].into(),
            gateways: [(GATEWAY_SLOT, versioned(gateway))].into(),
            ..ClusterView::default()
        }
    }

    #[test]
    fn an_absent_store_changes_nothing_but_what_it_said_last_counts() {
        let scheduler = Scheduler::new(false);
        let mut conductor = Conductor::new(scheduler, "ipc:///head".to_owned(), Arc::new(ClusterView::default()));
        assert!(conductor.see(Arc::new(view())) && conductor.status().serving);
        assert!(!conductor.see(Arc::new(ClusterView { reachable: false, ..view() })));
        assert!(conductor.status().serving);
        // The view in which the claim went is overtaken by the one that says that the store is away.
        let gone = ClusterView { reachable: false, claims: [].into(), ..view() };
        assert!(conductor.see(Arc::new(gone)));
        assert!(!conductor.status().serving);
    }
}
