//! `baton up`: a whole cluster on this machine, or this machine's part of one.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::core::PipelineError;
use engine::generate::Pipeline;
use engine::membership::{Publisher, admit, read_view};
use engine::report;
use engine::store::{EtcdAccess, EtcdStore, SharedStore};
use engine::view::ClusterView;
use schema::Keyspace;
use tracing::{info, warn};

use super::RunError;
use super::children::Children;
use super::gateway_server::{GatewayParts, GatewayServer, HttpListener, listen};
use super::limits::GATEWAY_WAIT_MAX;
use super::load_bar::{LOOK_INTERVAL, LoadBar};
use super::model::{Served, agree, fetch};
use super::neighbour::Neighbour;
use super::own_store::OwnStore;
use super::reasons::Reasons;
use super::share::{self, Prepared};
use super::stop::Stop;
use crate::http::{TlsFiles, TlsSource};
use crate::models;
use crate::running::{RunningFolder, UpLock, UpRecord};
use crate::settings::{ClusterChoice, HttpSettings, OwnStoreSettings, UpSettings};

/// Time for running requests to finish after the order to stop: Ctrl-C must end everything in under two seconds.
const DRAIN_TIME: Duration = Duration::from_millis(500);

/// Runs `baton up` until the order to stop.
///
/// # Errors
/// [`RunError`] when it cannot start or cannot go on.
pub async fn up(mut settings: UpSettings) -> Result<(), RunError> {
    let stop = Stop::listen(false)?;
    let mut lock = enter(&settings);
    let neighbour = Neighbour::find(&settings);
    if let Some(neighbour) = &neighbour {
        neighbour.complete(&mut settings)?;
        note(&mut lock, |record| record.neighbour = Some(neighbour.pid()));
    }
    let had_key = settings.member.cluster_key.is_some();
    // The model is fetched before the start time is taken, because fetching may take minutes. A store that is new and a
    // start that names no model mean the default one.
    let keeps_store = settings.share.is_some() || settings.own_store != OwnStoreSettings::Embedded;
    let is_new = settings.etcd.is_none() && !keeps_store;
    if is_new || settings.model.model.is_some() {
        let Some(()) = fetch_model(&mut settings, &stop).await? else { return Ok(()) };
    }
    let prepared = share::prepare(&mut settings).await?;
    let started = Instant::now();
    let listener = match &neighbour {
        None => Some(listen(&settings.http, &settings.member).await?),
        Some(_) => None,
    };
    if let Some((certificate, fingerprint)) = listener.as_ref().and_then(HttpListener::certificate) {
        print_line(&format!("https with the certificate {}\n  SHA-256 {fingerprint}", certificate.display()));
    }
    let (own_store, access) = open_store(&settings, prepared.as_ref().map(Prepared::store).as_deref()).await?;
    let store: SharedStore = Arc::new(EtcdStore::open(&access).await?);
    let etcd = access.endpoints;
    if own_store.is_some() {
        note(&mut lock, |record| {
            record.embedded_store.clone_from(&etcd);
            record.made_key = prepared.is_some() && !had_key;
        });
    }
    let keyspace = Keyspace::new(&settings.cluster);
    let key = settings.member.cluster_key.as_ref().map(|key| key.of_cluster(&settings.cluster));
    admit(&store, &keyspace, key.as_ref()).await?;
    if let Some(neighbour) = &neighbour {
        neighbour.left(&store, &keyspace).await?;
    }
    if settings.model.model.is_none() && read_view(&store, &keyspace, key.as_ref()).await?.model.is_none() {
        let Some(()) = fetch_model(&mut settings, &stop).await? else { return Ok(()) };
    }
    let mut shared = match (prepared, &own_store) {
        (Some(prepared), Some(own)) => Some(prepared.open(own, store.clone(), &keyspace, &settings).await?),
        _ => None,
    };
    let Some(served) = agree(&store, &keyspace, &settings.model, &settings.cache, &stop).await? else { return Ok(()) };
    note(&mut lock, |record| record.model_file = Some(served.file.path().to_owned()));
    if let Some(shared) = &mut shared {
        shared.offer(&served.file, &settings.cache);
        shared.announce(&settings.cluster, &served.record.name);
    }
    let folder = tempfile::Builder::new().prefix("baton-up-").tempdir();
    let folder = folder.map_err(|cause| RunError::Io { doing: "make a folder for sockets", cause })?;
    let clusters = settings.http.clusters.clone();
    let gateway = GatewayParts {
        member: &settings.member,
        http: &settings.http,
        drain_time: DRAIN_TIME,
        alone: true,
        clusters: clusters.unwrap_or_else(|| own_store.iter().map(|_| ClusterChoice::Any).collect()),
        cache: &settings.cache,
        state: settings.state.as_deref(),
    };
    // The gateway opens before the stages start. If this process found out only afterwards that another gateway serves
    // the cluster, layers would move twice.
    let opened = match listener {
        None => Opening::Neighbour,
        Some(listener) => {
            let opening = GatewayServer::open(store.clone(), &settings.cluster, &served, gateway, listener, &stop);
            tokio::select! {
                () = stop.requested() => Opening::Stopped,
                opened = opening => Opening::Done(opened),
            }
        }
    };
    let outcome = match opened {
        Opening::Stopped => Ok(()),
        Opening::Neighbour => {
            let cluster = Publisher::start(store, keyspace, key).await?;
            let mut children = start_children(&mut settings, &served, &etcd, folder.path())?;
            let neighbour = neighbour.as_ref().map(|neighbour| Waiting::new(neighbour, &served, started));
            let outcome = supervise_stages(&mut children, &cluster, neighbour, &stop).await;
            children.stop().await;
            outcome
        }
        Opening::Done(Ok(server)) => {
            note(&mut lock, |record| {
                record.http = Some(server.address);
                record.asks_key = !settings.http.keys.is_empty();
                record.speaks_https = settings.http.tls.is_some();
            });
            if let Some(shared) = &shared {
                shared.spare(server.pipeline.clone());
            }
            let mut children = start_children(&mut settings, &served, &etcd, folder.path())?;
            let outcome = supervise(&server, &mut children, &served, &settings, &etcd, started, &stop).await;
            stop.request();
            server.closed().await;
            children.stop().await;
            outcome
        }
        Opening::Done(Err(RunError::Pipeline(PipelineError::Taken { url, .. }))) if settings.etcd.is_some() => {
            print_line(&format!(
                "the gateway at {url} serves this cluster; this machine adds its stages, Ctrl-C takes them away"
            ));
            let cluster = Publisher::start(store, keyspace, key).await?;
            let mut children = start_children(&mut settings, &served, &etcd, folder.path())?;
            let outcome = supervise_stages(&mut children, &cluster, None, &stop).await;
            children.stop().await;
            outcome
        }
        Opening::Done(Err(error)) => Err(error),
    };
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

/// The wait of a machine's further cluster for the gateway of its neighbour.
struct Waiting<'a> {
    neighbour: &'a Neighbour,
    model: &'a str,
    started: Instant,
    /// The time until which it must have opened the cluster. `None` once it has.
    until: Option<Instant>,
    is_announced: bool,
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

/// Starts the stage processes. They share the machine's available memory equally, unless a budget was configured.
fn start_children(
    settings: &mut UpSettings,
    served: &Served,
    etcd: &[String],
    folder: &Path,
) -> Result<Children, RunError> {
    let share = stages::memory::machine().memory_available_bytes / settings.stage_names.len() as u64;
    settings.compute.memory_budget_bytes.get_or_insert(share);
    let arguments = |name| settings.stage_arguments(name, served.file.path(), etcd);
    let stages = settings.stage_names.iter().map(|name| (name.clone(), arguments(name)));
    Children::start(stages, settings.stage_environment(), folder, settings.restarts)
}

/// Prints the ends of stages and the reasons why the cluster does not serve, for a machine that runs only stages.
async fn supervise_stages(
    children: &mut Children,
    cluster: &Publisher,
    mut neighbour: Option<Waiting<'_>>,
    stop: &Stop,
) -> Result<(), RunError> {
    let mut views = cluster.views();
    let mut reasons = Reasons::new(Instant::now());
    views.mark_changed();
    loop {
        tokio::select! {
            () = stop.requested() => return Ok(()),
            event = children.next_event() => print_line(&event.to_string()),
            Ok(()) = views.changed() => {
                let view = views.borrow_and_update().clone();
                if let Some(waiting) = &mut neighbour {
                    waiting.look(&view);
                }
                reasons.update(report::serving(&view).err().map(|not| not.reason).as_deref());
            }
            () = until(reasons.due()) => print_reason(&mut reasons),
            error = failed(neighbour.as_ref()) => return Err(error),
        }
        if children.is_empty() {
            return Err(RunError::NoStageLeft);
        }
    }
}

/// Resolves when a machine's further cluster has no gateway: the neighbour does not open it, or has ended.
async fn failed(waiting: Option<&Waiting<'_>>) -> RunError {
    let Some(Waiting { neighbour, until: time, .. }) = waiting else { return std::future::pending().await };
    let (cluster, pid) = (neighbour.cluster().clone(), neighbour.pid());
    tokio::select! {
        () = neighbour.ended() => RunError::NeighbourEnded { cluster, pid },
        () = until(*time) => RunError::NoGateway { neighbour: cluster, pid },
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

/// Prints that the cluster is ready and that processes have ended, until the order to stop.
async fn supervise(
    server: &GatewayServer,
    children: &mut Children,
    served: &Served,
    settings: &UpSettings,
    etcd: &[String],
    started: Instant,
    stop: &Stop,
) -> Result<(), RunError> {
    for (name, pid) in children.processes() {
        print_line(&format!("stage {name} is process {}", pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string())));
    }
    let mut statuses = server.pipeline.statuses();
    let mut reasons = Reasons::new(Instant::now());
    let mut was_serving = false;
    let mut first = true;
    let bar = LoadBar::new();
    let mut look = tokio::time::interval(LOOK_INTERVAL);
    statuses.mark_changed();
    loop {
        tokio::select! {
            () = stop.requested() => {
                bar.clear();
                return Ok(());
            }
            event = children.next_event() => {
                bar.suspend(|| print_line(&event.to_string()));
                if children.is_empty() && settings.etcd.is_none() {
                    return Err(RunError::NoStageLeft);
                }
            }
            changed = statuses.changed() => {
                changed.map_err(|_| RunError::CoreEnded)?;
                let status = statuses.borrow_and_update().clone();
                if status.serving && !was_serving {
                    bar.clear();
                    announce(server, served, settings, etcd, first.then_some(started));
                    first = false;
                }
                was_serving = status.serving;
                reasons.update((!status.serving).then_some(status.reason.as_str()));
            }
            () = until(reasons.due()) => bar.suspend(|| print_reason(&mut reasons)),
            // Until the cluster serves for the first time, which Ctrl-C and `announce` end the bar for.
            _ = look.tick(), if first => bar.look(&server.pipeline.view()),
        }
    }
}

// === impl Waiting ===

impl<'a> Waiting<'a> {
    fn new(neighbour: &'a Neighbour, served: &'a Served, started: Instant) -> Self {
        let until = Some(Instant::now() + GATEWAY_WAIT_MAX);
        Self { neighbour, model: &served.record.name, started, until, is_announced: false }
    }

    /// Takes notice of the cluster, and prints once where it serves.
    fn look(&mut self, view: &ClusterView) {
        let gateway = view.gateways.values().find(|gateway| gateway.value.pid == self.neighbour.pid());
        let Some(gateway) = gateway else { return };
        self.until = None;
        if !self.is_announced && report::serving(view).is_ok() {
            self.is_announced = true;
            print_line(&format!(
                "ready after {:.2} s: {} on {}, the gateway of cluster {}, which serves both; Ctrl-C takes this one \
                 away",
                self.started.elapsed().as_secs_f64(),
                self.model,
                gateway.value.url,
                self.neighbour.cluster(),
            ));
        }
    }
}

/// The options by which `curl` trusts the certificate and sends a key, with a space before each.
fn curl_options(http: &HttpSettings) -> String {
    let certificate = match &http.tls {
        Some(TlsSource::SelfSigned { folder }) => {
            format!(" --cacert '{}'", TlsFiles::self_signed(folder).certificate.display())
        }
        // An authority that the system knows has signed it, or one that the operator knows.
        Some(TlsSource::Files(_)) | None => String::new(),
    };
    let key = if http.keys.is_empty() { "" } else { " -H \"authorization: Bearer $SECRET\"" };
    certificate + key
}

/// Prints the layers of each stage and, the first time, commands to use the cluster.
fn announce(server: &GatewayServer, served: &Served, settings: &UpSettings, etcd: &[String], started: Option<Instant>) {
    let view = server.pipeline.view();
    for claim in view.serving().map(|served| served.claims).unwrap_or_default() {
        let claim = &claim.value;
        let bytes = claim.weights_bytes as f64 / 1e6;
        print_line(&format!("stage {} holds layers {} ({bytes:.1} MB of weights)", claim.stage, claim.layers));
    }
    let Some(started) = started else { return print_line("serving again") };
    let own = view.gateways.values().find(|gateway| gateway.value.pid == std::process::id());
    let url = own.map(|gateway| gateway.value.url.clone()).unwrap_or_default();
    let model = &served.record.name;
    let (etcd, options) = (etcd.join(","), curl_options(&settings.http));
    print_line(&format!(
        "ready after {:.2} s: {model} on {url}, Ctrl-C stops\n\n  \
         baton status --etcd {etcd}\n\n  \
         curl{options} {url}/v1/chat/completions -H 'content-type: application/json' -d \
         '{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"What is the capital of France? \
         Answer in one word.\"}}],\"temperature\":0}}'\n\n  \
         etcdctl --endpoints {etcd} get --prefix /baton/v1/{}/\n",
        started.elapsed().as_secs_f64(),
        settings.cluster,
    ));
}

/// Resolves at `time`. Never resolves without one.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// Prints the reason why the cluster does not serve, if one is due.
fn print_reason(reasons: &mut Reasons) {
    if let Some(reason) = reasons.take(Instant::now()) {
        print_line(&format!("not serving: {reason}"));
    }
}

/// Prints a line for people, and logs its beginning for `baton logs`. A closed stdout is no reason to stop serving.
pub(super) fn print_line(line: &str) {
    info!("{}", line.lines().next().unwrap_or_default());
    let _ = writeln!(std::io::stdout(), "{line}");
}
