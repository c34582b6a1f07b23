//! `baton up`: a whole cluster on this machine, or this machine's part of one.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::core::PipelineError;
use engine::link::ClusterKey;
use engine::membership::{admit, read_rollout, read_view};
use engine::store::{EtcdAccess, EtcdStore, SharedStore};
use schema::Keyspace;
use tracing::warn;

use super::RunError;
use super::deployment_stages::{DeploymentStages, StagesOf};
use super::gateway_server::{GatewayParts, GatewayServer, HttpListener, listen};
use super::memory;
use super::model::{Served, agree, fetch};
use super::neighbour::Neighbour;
use super::own_store::OwnStore;
use super::share::{self, Prepared, Shared};
use super::stop::Stop;
use super::supervise::{Waiting, print_line, supervise, supervise_stages};
use crate::models;
use crate::running::{Grant, RunningFolder, UpLock, UpRecord};
use crate::settings::{ClusterChoice, OwnStoreSettings, UpSettings};

/// Time for running requests to finish after the order to stop: Ctrl-C must end everything in under two seconds.
const DRAIN_TIME: Duration = Duration::from_millis(500);

/// This process as a member of the cluster, before its gateway and its stages.
struct Member {
    store: SharedStore,
    keyspace: Keyspace,
    key: Option<ClusterKey>,
    /// The addresses of the store.
    etcd: Vec<String>,
    own_store: Option<OwnStore>,
    shared: Option<Shared>,
    neighbour: Option<Neighbour>,
    /// The HTTP port, unless a neighbour has it.
    listener: Option<HttpListener>,
    served: Served,
    started: Instant,
}

/// Runs `baton up` until the order to stop.
///
/// # Errors
/// [`RunError`] when it cannot start or cannot go on.
pub async fn up(mut settings: UpSettings) -> Result<(), RunError> {
    let stop = Stop::listen(false)?;
    let mut lock = enter(&settings);
    let Some(mut member) = Member::join(&mut settings, &mut lock, &stop).await? else { return Ok(()) };
    let outcome = member.serve(&settings, &mut lock, &stop).await;
    let Member { shared, own_store, .. } = member;
    if let Some(shared) = shared {
        shared.close().await;
    }
    if let Some(own_store) = own_store {
        own_store.shutdown().await;
    }
    outcome
}

/// The outcome of opening the gateway.
enum Opening {
    /// The order to stop came first.
    Stopped,
    /// Another process has the gateway.
    Neighbour,
    /// It is open, or cannot be opened.
    Done(Result<GatewayServer, RunError>),
}

/// Lets `baton stop` find this process.
fn enter(settings: &UpSettings) -> Option<UpLock> {
    let folder = RunningFolder::new(settings.state.as_deref()?);
    let host = stages::memory::machine().host;
    let entered = folder.enter(UpRecord::new(settings.cluster.clone(), std::process::id(), &host));
    entered.inspect_err(|error| warn!(%error, "`baton stop` will not find this process; Ctrl-C stops it")).ok()
}

/// Changes the record of this process, if it has one.
fn note(lock: &mut Option<UpLock>, change: impl FnOnce(&mut UpRecord)) {
    if let Some(lock) = lock
        && let Err(error) = lock.note(change)
    {
        warn!(%error, "`baton stop` and further clusters will not know all of this process");
    }
}

/// Fetches the model that the settings name, or the default one, and puts its path in the settings. `None` if `stop`
/// comes meanwhile.
async fn fetch_model(settings: &mut UpSettings, stop: &Stop) -> Result<Option<()>, RunError> {
    if settings.model.model.is_none() {
        settings.model.source = Some(models::DEFAULT.to_owned());
    }
    let Some(path) = fetch(settings.model.model.take(), &settings.cache, stop).await? else { return Ok(None) };
    settings.model.model = Some(path.to_string_lossy().into_owned());
    Ok(Some(()))
}

/// The store to use: the configured one, or one of this process, which is kept in `file` if it is embedded and there is
/// one.
async fn open_store(settings: &UpSettings, file: Option<&Path>) -> Result<(Option<OwnStore>, EtcdAccess), RunError> {
    if let Some(etcd) = &settings.etcd {
        return Ok((None, etcd.clone()));
    }
    let store = OwnStore::open(settings, file).await?;
    let access = store.access();
    Ok((Some(store), access))
}

// === impl Member ===

impl Member {
    /// Opens the ports and the store, and agrees with the cluster on its model. `None` if `stop` comes meanwhile.
    async fn join(settings: &mut UpSettings, lock: &mut Option<UpLock>, stop: &Stop) -> Result<Option<Self>, RunError> {
        let neighbour = Neighbour::find(settings);
        if let Some(neighbour) = &neighbour {
            neighbour.complete(settings)?;
            note(lock, |record| record.neighbour = Some(neighbour.pid()));
        }
        let had_key = settings.member.cluster_key.is_some();
        // The model is fetched before the start time is taken, because fetching may take minutes. A store that is new
        // and a start that names no model mean the default one.
        let keeps_store = settings.share.is_some() || settings.own_store != OwnStoreSettings::Embedded;
        let is_new = settings.etcd.is_none() && !keeps_store;
        if is_new || settings.model.model.is_some() {
            let Some(()) = fetch_model(settings, stop).await? else { return Ok(None) };
        }
        let prepared = share::prepare(settings).await?;
        let started = Instant::now();
        let listener = match &neighbour {
            None => Some(listen(&settings.http, &settings.member).await?),
            Some(_) => None,
        };
        if let Some((certificate, fingerprint)) = listener.as_ref().and_then(HttpListener::certificate) {
            print_line(&format!("https with the certificate {}\n  SHA-256 {fingerprint}", certificate.display()));
        }
        let (own_store, access) = open_store(settings, prepared.as_ref().map(Prepared::store).as_deref()).await?;
        let store: SharedStore = Arc::new(EtcdStore::open(&access).await?);
        let etcd = access.endpoints;
        if own_store.is_some() {
            note(lock, |record| {
                record.embedded_store.clone_from(&etcd);
                record.made_key = prepared.is_some() && !had_key;
            });
        }
        let cluster = Keyspace::new(&settings.cluster);
        let keyspace = cluster.beside(read_rollout(&*store, &cluster).await?.rollout.serving());
        let key = settings.member.cluster_key.as_ref().map(|key| key.of_cluster(&settings.cluster));
        admit(&store, &keyspace, key.as_ref()).await?;
        if let Some(neighbour) = &neighbour {
            neighbour.left(&store, &keyspace).await?;
        }
        if settings.model.model.is_none() && read_view(&store, &keyspace, key.as_ref()).await?.model.is_none() {
            let Some(()) = fetch_model(settings, stop).await? else { return Ok(None) };
        }
        let mut shared = match (prepared, &own_store) {
            (Some(prepared), Some(own)) => Some(prepared.open(own, store.clone(), &cluster, settings).await?),
            _ => None,
        };
        let agreed = agree(&store, &keyspace, &settings.model, &settings.cache, stop).await?;
        let Some(served) = agreed else { return Ok(None) };
        note(lock, |record| record.model_file = Some(served.file.path().to_owned()));
        if let Some(shared) = &mut shared {
            shared.offer(&served.file, &settings.cache);
            shared.announce(&settings.cluster, &served.record.name);
        }
        Ok(Some(Self { store, keyspace, key, etcd, own_store, shared, neighbour, listener, served, started }))
    }

    /// Opens the gateway, unless another process has it, then starts the stages, and supervises both until `stop`.
    async fn serve(&mut self, settings: &UpSettings, lock: &mut Option<UpLock>, stop: &Stop) -> Result<(), RunError> {
        let folder = tempfile::Builder::new().prefix("baton-up-").tempdir();
        let folder = folder.map_err(|cause| RunError::Io { doing: "make a folder for sockets", cause })?;
        let grant = memory::promise(settings, &self.served.record, lock.as_mut(), 0)?;
        match self.open_gateway(settings, stop).await {
            Opening::Stopped => Ok(()),
            Opening::Neighbour => self.run_stages(settings, lock, grant, folder.path(), stop).await,
            Opening::Done(Ok(server)) => {
                note(lock, |record| {
                    record.http = Some(server.address);
                    record.asks_key = !settings.http.keys.is_empty();
                    record.speaks_https = settings.http.tls.is_some();
                });
                self.run_gateway(server, settings, lock, grant, folder.path(), stop).await
            }
            Opening::Done(Err(RunError::Pipeline(PipelineError::Taken { url, .. }))) if settings.etcd.is_some() => {
                print_line(&format!(
                    "the gateway at {url} serves this cluster; this machine adds its stages, Ctrl-C takes them away"
                ));
                self.run_stages(settings, lock, grant, folder.path(), stop).await
            }
            Opening::Done(Err(error)) => Err(error),
        }
    }

    /// Opens the gateway. It opens before the stages start: if this process found out only afterwards that another one
    /// serves the cluster, layers would move twice.
    async fn open_gateway(&mut self, settings: &UpSettings, stop: &Stop) -> Opening {
        let Some(listener) = self.listener.take() else { return Opening::Neighbour };
        let clusters = settings.http.clusters.clone();
        let gateway = GatewayParts {
            member: &settings.member,
            http: &settings.http,
            drain_time: DRAIN_TIME,
            alone: true,
            clusters: clusters.unwrap_or_else(|| self.own_store.iter().map(|_| ClusterChoice::Any).collect()),
            cache: &settings.cache,
            state: settings.state.as_deref(),
        };
        let store = self.store.clone();
        let opening = GatewayServer::open(store, &self.keyspace, &self.served, gateway, listener, stop);
        tokio::select! {
            () = stop.requested() => Opening::Stopped,
            opened = opening => Opening::Done(opened),
        }
    }

    /// Starts the stages for the gateway of this process, and supervises both until `stop`.
    async fn run_gateway(
        &self,
        mut server: GatewayServer,
        settings: &UpSettings,
        lock: &mut Option<UpLock>,
        grant: Grant,
        folder: &Path,
        stop: &Stop,
    ) -> Result<(), RunError> {
        if let Some(shared) = &self.shared {
            shared.spare(server.open.clone());
        }
        let mut stages = self.start_stages(settings, lock, grant, folder).await?;
        let outcome = supervise(&mut server, &mut stages, settings, &self.etcd, self.started, stop).await;
        stop.request();
        server.closed().await;
        stages.stop().await;
        outcome
    }

    /// Starts the stages for another process's gateway, and supervises them until `stop`.
    async fn run_stages(
        &self,
        settings: &UpSettings,
        lock: &mut Option<UpLock>,
        grant: Grant,
        folder: &Path,
        stop: &Stop,
    ) -> Result<(), RunError> {
        let mut stages = self.start_stages(settings, lock, grant, folder).await?;
        let Self { store, keyspace, key, neighbour, served, started, .. } = self;
        let waiting = neighbour.as_ref().map(|neighbour| Waiting::new(neighbour, served, *started));
        let cluster = (store, keyspace, key.as_ref());
        let outcome = supervise_stages(&mut stages, cluster, waiting, stop).await;
        stages.stop().await;
        outcome
    }

    async fn start_stages<'a>(
        &'a self,
        settings: &'a UpSettings,
        lock: &'a mut Option<UpLock>,
        grant: Grant,
        folder: &'a Path,
    ) -> Result<DeploymentStages<'a>, RunError> {
        let Self { store, key, etcd, .. } = self;
        let of = StagesOf { settings, store, key: key.as_ref(), etcd, folder };
        DeploymentStages::start(of, &self.keyspace, &self.served, grant, lock.as_mut()).await
    }
}
