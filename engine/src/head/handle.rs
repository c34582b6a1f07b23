//! The head as the doors see it: a handle, and the thread behind it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prometheus::Registry;
use schema::Keyspace;
use schema::record::GatewayRecord;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, info_span, warn};

use super::driver::{Driver, Parts, Submission};
use super::meter::{Meter, Rejections};
use super::scheduler::Scheduler;
use crate::generate::{Generation, Pipeline, PipelineStatus, Rejection, Request};
use crate::limits::{GATEWAYS_MAX, PIPELINE_PATIENCE, SHARE_SETTLE, STORE_RETRY, SUBMISSIONS_MAX};
use crate::link::{ClusterKey, Inbound, LinkError, Listen};
use crate::membership::{Publisher, write_gateway};
use crate::share::{first_free, newcomer};
use crate::store::{Committed, LeaseGrant, LeaseId, SharedStore, StoreError};
use crate::view::ClusterView;

/// Events of a sequence that are no tokens: its beginning, its end.
const EVENTS_BESIDE_TOKENS: usize = 3;
/// For how many leases a gateway waits for a slot: crashed predecessors' may still hold some.
const SLOT_PATIENCE_LEASES: u32 = 3;

/// What a gateway's head is told.
#[derive(Debug)]
pub struct HeadSettings {
    /// The cluster's keys.
    pub keyspace: Keyspace,
    /// Where it takes sampled tokens.
    pub listen: Listen,
    /// What lets it talk to other hosts.
    pub key: Option<ClusterKey>,
    /// Its record; endpoint, lease and share are filled in here.
    pub record: GatewayRecord,
    /// How long the store keeps the gateway when it falls silent.
    pub lease_ttl: Duration,
    /// Whether it serves only a cluster that has no gateway yet.
    pub alone: bool,
    /// Whether guesses at the next tokens are verified where stages would have nothing to do.
    pub speculates: bool,
}

/// What a gateway needs to register, and to register again.
struct Registration {
    store: SharedStore,
    keyspace: Keyspace,
    record: GatewayRecord,
    views: watch::Receiver<Arc<ClusterView>>,
    lease_ttl: Duration,
    /// Hears of each lease under which the gateway is registered.
    leases: watch::Sender<Option<LeaseId>>,
}

/// Why a head could not start.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// The store refused or is away.
    #[error("cannot join the cluster")]
    Store(#[from] StoreError),
    /// Tokens cannot be taken.
    #[error("cannot open the gateway's endpoint")]
    Link(#[from] LinkError),
    /// There are as many gateways as there may be.
    #[error("{GATEWAYS_MAX} gateways serve this cluster already: expected fewer")]
    Full,
    /// Another gateway serves the cluster, where this one was to be the only one.
    #[error("a gateway at {url} serves this cluster already (process {pid} on {host})")]
    Taken {
        /// Its address.
        url: String,
        /// Its process.
        pid: u32,
        /// Its host.
        host: String,
    },
    /// The thread or its runtime could not be started.
    #[error("cannot start the head's thread")]
    Thread(#[source] std::io::Error),
}

/// A running head. Dropping it stops the thread; running sequences then end with a failure.
#[derive(Debug)]
pub struct Head {
    submissions: mpsc::Sender<Submission>,
    status: watch::Receiver<PipelineStatus>,
    views: watch::Receiver<Arc<ClusterView>>,
    metrics: Registry,
    rejections: Rejections,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    lease: tokio::task::JoinHandle<()>,
    _publisher: Publisher,
}

// === impl Head ===

impl Head {
    /// Registers the gateway and starts its loop.
    ///
    /// # Errors
    /// [`HeadError`] when the store is away, the endpoint cannot be opened, or there are too many gateways, or one where this is to be alone.
    pub async fn start(store: SharedStore, settings: HeadSettings) -> Result<Self, HeadError> {
        let HeadSettings { keyspace, listen, key, mut record, lease_ttl, alone, speculates } = settings;
        let publisher = Publisher::start(store.clone(), keyspace.clone()).await?;
        let views = publisher.views();
        let (ready, bound) = oneshot::channel();
        let (submissions, inbox) = mpsc::channel(SUBMISSIONS_MAX);
        let (status_out, status) = watch::channel(PipelineStatus::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let metrics = Registry::new();
        let meter = Meter::new(&metrics);
        let rejections = meter.rejections().clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(HeadError::Thread)?;
        let (leases, driver_leases) = watch::channel(None);
        let driver_views = views.clone();
        let (driver_store, driver_keyspace) = (store.clone(), keyspace.clone());
        let work = move || {
            runtime.block_on(async move {
                let inbound = match Inbound::bind(listen).await {
                    Ok(inbound) => inbound,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                let endpoint = inbound.endpoint().to_owned();
                if ready.send(Ok(endpoint)).is_ok() {
                    let driver = Driver::new(Parts {
                        store: driver_store,
                        keyspace: driver_keyspace,
                        views: driver_views,
                        inbound,
                        submissions: inbox,
                        status: status_out,
                        key,
                        leases: driver_leases,
                        scheduler: Scheduler::new(speculates),
                        meter,
                    });
                    driver.run(async { drop(stopped.await) }).await;
                }
            });
        };
        let thread = std::thread::Builder::new().name("head".to_owned()).spawn(work).map_err(HeadError::Thread)?;
        let gone = || HeadError::Thread(std::io::Error::other("the thread ended before it was ready"));
        record.endpoint = bound.await.map_err(|_| gone())??;
        let registration = Registration { store, keyspace, record, views: views.clone(), lease_ttl, leases };
        let grant = registration.register(alone).await?;
        let lease = tokio::spawn(registration.stay(grant));
        let (stop, thread) = (Some(stop), Some(thread));
        Ok(Self { submissions, status, views, metrics, rejections, stop, thread, lease, _publisher: publisher })
    }

    /// Waits for a pipeline whose layers are changing hands, but not for long: clients need not know of it.
    async fn pipeline_at_hand(&self) {
        let mut statuses = self.status.clone();
        if self.views.borrow().placement.is_some() {
            let serving = statuses.wait_for(|status| status.serving);
            let _ = tokio::time::timeout(PIPELINE_PATIENCE, serving).await;
        }
    }

    /// The pipeline's status as it changes.
    pub fn statuses(&self) -> watch::Receiver<PipelineStatus> {
        self.status.clone()
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        self.lease.abort();
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[async_trait::async_trait]
impl Pipeline for Head {
    async fn generate(&self, request: Request) -> Result<Generation, Rejection> {
        // Room for every event of the sequence: a slow reader never holds up the head.
        let (events, receiver) = mpsc::channel(request.tokens_max as usize + EVENTS_BESIDE_TOKENS);
        let (answer, verdict) = oneshot::channel();
        self.pipeline_at_hand().await;
        let stopping = || Rejection::NotServing { reason: "the server is stopping".to_owned() };
        // Signed numbers: traces know no others.
        let (prompt_tokens, tokens_max) = (request.prompt.len() as i64, i64::from(request.tokens_max));
        let span = info_span!("sequence", prompt_tokens, tokens_max);
        self.submissions.send(Submission { request, events, answer, span }).await.map_err(|_| stopping())?;
        verdict.await.map_err(|_| stopping())??;
        Ok(Generation::new(receiver))
    }

    fn refused(&self, rejection: &Rejection) {
        self.rejections.count(rejection);
    }

    fn status(&self) -> PipelineStatus {
        self.status.borrow().clone()
    }

    fn metrics(&self) -> Registry {
        self.metrics.clone()
    }

    fn view(&self) -> Arc<ClusterView> {
        self.views.borrow().clone()
    }
}

// === impl Registration ===

impl Registration {
    /// Takes a lease and the first free slot, with a share of what belongs to nobody; waits for crashed predecessors' leases to
    /// run out when there is none, or, where it is to be `alone`, when there is another gateway.
    async fn register(&self, alone: bool) -> Result<LeaseGrant, HeadError> {
        let started = Instant::now();
        let grant = self.store.lease(self.lease_ttl).await?;
        loop {
            let view = self.views.borrow().clone();
            let holder = view.gateways.values().next().filter(|_| alone).map(|holder| &holder.value);
            if let Some(slot) = first_free(&view).filter(|_| holder.is_none()) {
                let (lease, share) = (grant.id().to_string(), newcomer(&view, slot));
                let record = GatewayRecord { lease, share, ..self.record.clone() };
                let txn = write_gateway(&self.keyspace, slot, &record, &view.gateway_revisions(), grant.id());
                if let Committed::Applied { .. } = self.store.commit(txn).await? {
                    info!(slot, share = %share, "registered");
                    // The stages refuse what comes from a gateway they have not heard of.
                    tokio::time::sleep(SHARE_SETTLE).await;
                    self.leases.send_replace(Some(grant.id()));
                    return Ok(grant);
                }
                // Somebody was faster: what they wrote is on its way.
                tokio::time::sleep(SHARE_SETTLE).await;
            } else if started.elapsed() > SLOT_PATIENCE_LEASES * self.lease_ttl {
                return Err(holder.map_or(HeadError::Full, |GatewayRecord { url, pid, host, .. }| HeadError::Taken {
                    url: url.clone(),
                    pid: *pid,
                    host: host.clone(),
                }));
            } else {
                tokio::time::sleep(STORE_RETRY).await;
            }
        }
    }

    /// Registers again whenever the lease is lost.
    async fn stay(self, mut grant: LeaseGrant) {
        loop {
            grant.lost().await;
            warn!("the gateway's lease is lost; registering again");
            grant = loop {
                match self.register(false).await {
                    Ok(grant) => break grant,
                    Err(error) => warn!(%error, "cannot register yet"),
                }
                tokio::time::sleep(STORE_RETRY).await;
            };
            info!("registered again");
        }
    }
}
