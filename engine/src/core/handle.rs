//! The pipeline as the HTTP server uses it: a handle, and the thread behind it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prometheus::Registry;
use schema::record::GatewayRecord;
use schema::{Key, Keyspace, SequenceId};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{Span, info, info_span, warn};

use super::driver::{Driver, Parts, Submission};
use super::meter::{Meter, Rejections};
use super::scheduler::Scheduler;
use crate::generate::{Pipeline, PipelineStatus, Rejection, Request, SequenceReport, TokenEvent, TokenStream};
use crate::limits::{GATEWAYS_MAX, PIPELINE_WAIT_MAX, SHARE_SETTLE, STORE_RETRY, SUBMISSIONS_MAX};
use crate::link::{ClusterKey, Inbound, LinkError, Listen};
use crate::membership::{LoadReader, Publisher, restore, sign_gateway, write_gateway};
use crate::share::GatewayRegistration;
use crate::store::{Committed, LeaseGrant, LeaseId, Revision, SharedStore, StoreError};
use crate::view::ClusterView;

/// Events of a sequence that are no tokens: its beginning and its end.
const EVENTS_BESIDE_TOKENS: usize = 3;
/// Number of lease times for which a gateway waits for a slot: leases of crashed gateways may still hold some.
const SLOT_WAIT_LEASES: u32 = 3;

/// Settings of a gateway's pipeline.
#[derive(Debug)]
pub struct PipelineSettings {
    /// The cluster's keys.
    pub keyspace: Keyspace,
    /// Endpoint at which it takes sampled tokens.
    pub listen: Listen,
    /// Cluster key, needed for links to other hosts.
    pub key: Option<ClusterKey>,
    /// Its record. Endpoint, lease and share are filled in here.
    pub record: GatewayRecord,
    /// Time for which the store keeps a gateway that renews its lease no more.
    pub lease_ttl: Duration,
    /// True if it serves only a cluster that has no gateway yet.
    pub alone: bool,
    /// True if draft tokens are verified where stages would be idle.
    pub speculates: bool,
}

/// The state that a gateway needs to register, and to register again.
struct Registration {
    store: SharedStore,
    keyspace: Keyspace,
    secret: Option<ClusterKey>,
    record: GatewayRecord,
    views: watch::Receiver<Arc<ClusterView>>,
    lease_ttl: Duration,
    /// Receives each registration of the gateway.
    registrations: watch::Sender<Option<GatewayRegistration>>,
}

/// The outcome of one attempt to register.
enum RegistrationAttempt {
    /// It is registered, at this revision of the store.
    Done(GatewayRegistration, Revision),
    /// The attempt was refused, because another gateway's record has changed meanwhile.
    Conflict,
    /// All slots are taken.
    Full,
}

/// A gateway's registration in the store.
struct Registered {
    /// The lease under which its record lies.
    grant: LeaseGrant,
    registration: GatewayRegistration,
    /// The store's revision with the record.
    revision: Revision,
}

/// The reason for which a gateway's pipeline could not start.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The store refused or is away.
    #[error("cannot join the cluster")]
    Store(#[from] StoreError),
    /// Tokens cannot be taken.
    #[error("cannot open the gateway's endpoint")]
    Link(#[from] LinkError),
    /// There are as many gateways as there may be.
    #[error("{GATEWAYS_MAX} gateways serve this cluster already: expected fewer")]
    Full,
    /// Another gateway serves the cluster, and this one was to be the only one.
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
    #[error("cannot start the pipeline's thread")]
    Thread(#[source] std::io::Error),
}

/// A running pipeline. Dropping it stops the thread. Running sequences then end with a failure.
#[derive(Debug)]
pub struct PipelineHandle {
    submissions: mpsc::Sender<Submission>,
    status: watch::Receiver<PipelineStatus>,
    sequences: watch::Receiver<Arc<[SequenceReport]>>,
    views: watch::Receiver<Arc<ClusterView>>,
    metrics: Registry,
    rejections: Rejections,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    lease: tokio::task::JoinHandle<()>,
    loads: LoadReader,
    _publisher: Publisher,
}

// === impl PipelineHandle ===

impl PipelineHandle {
    /// Registers the gateway and starts its loop.
    ///
    /// # Errors
    /// [`PipelineError`] if the store is away, if the endpoint cannot be opened, if there are too many gateways, or if
    /// there is one though this is to be alone.
    pub async fn start(store: SharedStore, settings: PipelineSettings) -> Result<Self, PipelineError> {
        let PipelineSettings { keyspace, listen, key, mut record, lease_ttl, alone, speculates } = settings;
        let publisher = Publisher::start(store.clone(), keyspace.clone(), key.clone()).await?;
        let views = publisher.views();
        let (ready, bound) = oneshot::channel();
        let (submissions, inbox) = mpsc::channel(SUBMISSIONS_MAX);
        let (status_out, status) = watch::channel(PipelineStatus::default());
        let (sequences_out, sequences) = watch::channel(Arc::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let metrics = Registry::new();
        let meter = Meter::new(&metrics);
        let rejections = meter.rejections().clone();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(PipelineError::Thread)?;
        let (registrations, driver_registrations) = watch::channel(None);
        let (driver_views, secret) = (views.clone(), key.clone());
        let (driver_store, driver_keyspace) = (store.clone(), keyspace.clone());
        let work = move || {
            runtime.block_on(async move {
                let inbound = match Inbound::bind(listen).await {
                    Ok(inbound) => inbound,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                let mut addresses = inbound.addresses().await;
                if ready.send(Ok((inbound.endpoint().to_owned(), addresses.newest()))).is_ok() {
                    let driver = Driver::new(Parts {
                        store: driver_store,
                        keyspace: driver_keyspace,
                        views: driver_views,
                        inbound,
                        addresses,
                        submissions: inbox,
                        status: status_out,
                        sequences: sequences_out,
                        key,
                        registrations: driver_registrations,
                        scheduler: Scheduler::new(speculates),
                        meter,
                    });
                    driver.run(async { drop(stopped.await) }).await;
                }
            });
        };
        let thread = std::thread::Builder::new().name("core".to_owned()).spawn(work).map_err(PipelineError::Thread)?;
        let gone = || PipelineError::Thread(std::io::Error::other("the thread ended before it was ready"));
        (record.endpoint, record.addresses) = bound.await.map_err(|_| gone())??;
        let loads = LoadReader::start(store.clone(), keyspace.clone(), views.clone());
        let registration =
            Registration { store, keyspace, secret, record, views: views.clone(), lease_ttl, registrations };
        let registered = registration.register(alone).await?;
        let lease = tokio::spawn(registration.keep_registered(registered));
        let (stop, thread) = (Some(stop), Some(thread));
        Ok(Self {
            submissions,
            status,
            sequences,
            views,
            metrics,
            rejections,
            stop,
            thread,
            lease,
            loads,
            _publisher: publisher,
        })
    }

    /// Waits until `deadline` for a pipeline whose layers are changing hands, so that clients do not notice it.
    async fn wait_for_pipeline(&self, deadline: tokio::time::Instant) {
        let mut statuses = self.status.clone();
        if self.views.borrow().placement.is_some() {
            let _ = tokio::time::timeout_at(deadline, statuses.wait_for(|status| status.serving)).await;
        }
    }

    /// Submits a request once.
    async fn submit(
        &self,
        request: Request,
        events: mpsc::Sender<TokenEvent>,
        span: Span,
    ) -> Result<SequenceId, Rejection> {
        let (answer, verdict) = oneshot::channel();
        let stopping = || Rejection::NotServing { reason: "the server is stopping".to_owned() };
        self.submissions.send(Submission { request, events, answer, span }).await.map_err(|_| stopping())?;
        verdict.await.map_err(|_| stopping())?
    }

    /// The pipeline's status as it changes.
    pub fn statuses(&self) -> watch::Receiver<PipelineStatus> {
        self.status.clone()
    }
}

impl Drop for PipelineHandle {
    fn drop(&mut self) {
        self.lease.abort();
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[async_trait::async_trait]
impl Pipeline for PipelineHandle {
    async fn generate(&self, request: Request) -> Result<TokenStream, Rejection> {
        // Room for every event of the sequence: a slow reader never blocks the core.
        let scored = if request.tokens.scores_prompt { request.prompt.len() } else { 0 };
        let (events, receiver) = mpsc::channel(request.tokens_max as usize + scored + EVENTS_BESIDE_TOKENS);
        let deadline = tokio::time::Instant::now() + PIPELINE_WAIT_MAX;
        // Signed numbers: traces have no unsigned ones.
        let (prompt_tokens, tokens_max) = (request.prompt.len() as i64, i64::from(request.tokens_max));
        let span = info_span!("sequence", prompt_tokens, tokens_max);
        loop {
            self.wait_for_pipeline(deadline).await;
            match self.submit(request.clone(), events.clone(), span.clone()).await {
                // A new epoch began between the check and the request.
                Err(Rejection::NotServing { .. })
                    if tokio::time::Instant::now() < deadline && self.views.borrow().placement.is_some() => {}
                outcome => return outcome.map(|id| TokenStream::new(id.0, receiver)),
            }
        }
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
        let view = self.views.borrow().clone();
        self.loads.add_to(view)
    }

    fn sequences(&self) -> Arc<[SequenceReport]> {
        self.sequences.borrow().clone()
    }
}

// === impl Registration ===

impl Registration {
    /// Takes a lease and registers under it. With `alone`, waits for another gateway's lease to run out.
    async fn register(&self, alone: bool) -> Result<Registered, PipelineError> {
        let started = Instant::now();
        let grant = self.store.lease(self.lease_ttl).await?;
        loop {
            let view = self.views.borrow().clone();
            let holder = view.gateways.values().next().filter(|_| alone).map(|holder| &holder.value);
            let attempt = if holder.is_none() {
                self.register_under(&view, None, grant.id()).await?
            } else {
                RegistrationAttempt::Full
            };
            match attempt {
                RegistrationAttempt::Done(registration, revision) => {
                    return Ok(Registered { grant, registration, revision });
                }
                // Somebody was faster: what they wrote is on its way.
                RegistrationAttempt::Conflict => tokio::time::sleep(SHARE_SETTLE).await,
                RegistrationAttempt::Full if started.elapsed() > SLOT_WAIT_LEASES * self.lease_ttl => {
                    return Err(holder.map_or(PipelineError::Full, |GatewayRecord { url, pid, host, .. }| {
                        PipelineError::Taken { url: url.clone(), pid: *pid, host: host.clone() }
                    }));
                }
                RegistrationAttempt::Full => tokio::time::sleep(STORE_RETRY).await,
            }
        }
    }

    /// Registers under `lease` in the slot that `view` leaves to a gateway that was registered as `own` before.
    async fn register_under(
        &self,
        view: &ClusterView,
        own: Option<GatewayRegistration>,
        lease: LeaseId,
    ) -> Result<RegistrationAttempt, StoreError> {
        let Some((registered, share)) = GatewayRegistration::next(view, own, lease) else {
            return Ok(RegistrationAttempt::Full);
        };
        let slot = registered.slot;
        let mut record = GatewayRecord { share, ..self.record.clone() };
        sign_gateway(&mut record, self.secret.as_ref(), &self.keyspace.name(&Key::Gateway(slot)), lease);
        let txn = write_gateway(&self.keyspace, slot, &record, &view.gateway_revisions(), lease);
        let Committed::Applied { revision } = self.store.commit(txn).await? else {
            return Ok(RegistrationAttempt::Conflict);
        };
        info!(slot, share = %share, "registered");
        if own.is_none_or(|own| own.number != registered.number) {
            // The stages refuse frames of a gateway that their view does not show yet.
            tokio::time::sleep(SHARE_SETTLE).await;
        }
        self.registrations.send_replace(Some(registered));
        Ok(RegistrationAttempt::Done(registered, revision))
    }

    /// Keeps the gateway registered: registers it again whenever its lease is lost or the store has lost its record.
    async fn keep_registered(self, registered: Registered) {
        let Registered { mut grant, registration: mut own, mut revision } = registered;
        let mut views = self.views.clone();
        loop {
            let is_lost = |view: &Arc<ClusterView>| {
                let is_later = view.revision >= revision.0 || view.recalled.contains_key(&Key::Gateway(own.slot));
                view.reachable && ((is_later && own.is_lost(view)) || needs_rewrite(view))
            };
            let view = tokio::select! {
                () = grant.lost() => None,
                view = views.wait_for(is_lost) => match view {
                    Ok(view) => Some(view.clone()),
                    Err(_) => return,
                },
            };
            let outcome = match view {
                None => {
                    warn!("the gateway's lease is lost: registering again");
                    self.store.lease(self.lease_ttl).await.map(|next| grant = next)
                }
                Some(view) => self.rewrite_lost(&view).await,
            };
            let view = views.borrow_and_update().clone();
            let attempt = match outcome {
                Ok(()) if own.is_lost(&view) || grant.id() != own.lease => {
                    self.register_under(&view, Some(own), grant.id()).await
                }
                Ok(()) => Ok(RegistrationAttempt::Conflict),
                Err(error) => Err(error),
            };
            match attempt {
                Ok(RegistrationAttempt::Done(registered, at)) => (own, revision) = (registered, at),
                Ok(RegistrationAttempt::Conflict | RegistrationAttempt::Full) => tokio::time::sleep(SHARE_SETTLE).await,
                Err(error) => {
                    warn!(%error, "cannot register yet");
                    tokio::time::sleep(STORE_RETRY).await;
                    if let StoreError::LeaseGone { .. } = error
                        && let Ok(next) = self.store.lease(self.lease_ttl).await
                    {
                        grant = next;
                    }
                }
            }
        }
    }

    /// Writes the model and the placement again, if the store has lost them.
    async fn rewrite_lost(&self, view: &ClusterView) -> Result<(), StoreError> {
        let lost = |key: Key| view.recalled.get(&key).map(|instead| (key, *instead));
        let model = view.model.as_ref().zip(lost(Key::Model));
        let model = model.map(|(model, (key, instead))| restore(&self.keyspace, &key, &model.value, instead, None));
        let placement = view.placement.as_ref().zip(lost(Key::Placement));
        let placement =
            placement.map(|(placed, (key, instead))| restore(&self.keyspace, &key, &placed.value, instead, None));
        for txn in model.into_iter().chain(placement) {
            self.store.commit(txn).await?;
        }
        Ok(())
    }
}

/// True if the store has lost a record that every member writes again.
fn needs_rewrite(view: &ClusterView) -> bool {
    view.recalled.keys().any(|key| matches!(key, Key::Model | Key::Placement))
}
