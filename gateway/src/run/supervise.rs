//! The watch over the processes of a `baton up`: it prints that the cluster is ready, why it does not serve, and which
//! processes have ended.

use std::io::Write as _;
use std::time::Instant;

use engine::generate::Pipeline;
use engine::link::ClusterKey;
use engine::membership::Publisher;
use engine::report;
use engine::store::SharedStore;
use engine::view::ClusterView;
use schema::Keyspace;
use tracing::info;

use super::RunError;
use super::deployment_stages::DeploymentStages;
use super::deployments::OpenDeployment;
use super::gateway_server::GatewayServer;
use super::limits::GATEWAY_WAIT_MAX;
use super::load_bar::{LOOK_INTERVAL, LoadBar};
use super::model::Served;
use super::neighbour::Neighbour;
use super::reasons::Reasons;
use super::stop::Stop;
use crate::http::{TlsFiles, TlsSource};
use crate::settings::{HttpSettings, UpSettings};

/// The wait of a machine's further cluster for the gateway of its neighbour.
pub(super) struct Waiting<'a> {
    neighbour: &'a Neighbour,
    model: &'a str,
    started: Instant,
    /// The time until which it must have opened the cluster. `None` once it has.
    until: Option<Instant>,
    is_announced: bool,
}

/// Prints the ends of stages and the reasons why the cluster does not serve, for a machine that runs only stages.
pub(super) async fn supervise_stages(
    stages: &mut DeploymentStages<'_>,
    (store, keyspace, key): (&SharedStore, &Keyspace, Option<&ClusterKey>),
    mut neighbour: Option<Waiting<'_>>,
    stop: &Stop,
) -> Result<(), RunError> {
    let follow = |deployment| Publisher::start(store.clone(), keyspace.beside(deployment), key.cloned());
    let mut deployment = stages.serving();
    let mut publisher = follow(deployment).await?;
    let mut views = publisher.views();
    let mut reasons = Reasons::new(Instant::now());
    views.mark_changed();
    loop {
        if stages.serving() != deployment {
            deployment = stages.serving();
            publisher = follow(deployment).await?;
            views = publisher.views();
            views.mark_changed();
        }
        tokio::select! {
            () = stop.requested() => return Ok(()),
            line = stages.next_event() => print_line(&line),
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
        if stages.is_over() {
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

/// Prints that the cluster is ready and that processes have ended, until the order to stop.
pub(super) async fn supervise(
    server: &mut GatewayServer,
    stages: &mut DeploymentStages<'_>,
    settings: &UpSettings,
    etcd: &[String],
    started: Instant,
    stop: &Stop,
) -> Result<(), RunError> {
    for (name, pid) in stages.processes() {
        print_line(&format!("stage {name} is process {}", pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string())));
    }
    let mut open = server.open.borrow_and_update().clone();
    let mut statuses = open.pipeline.statuses();
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
            line = stages.next_event() => {
                bar.suspend(|| print_line(&line));
                if stages.is_over() && settings.etcd.is_none() {
                    return Err(RunError::NoStageLeft);
                }
            }
            Ok(()) = server.open.changed() => {
                open = server.open.borrow_and_update().clone();
                statuses = open.pipeline.statuses();
                statuses.mark_changed();
                was_serving = false;
            }
            changed = statuses.changed() => {
                changed.map_err(|_| RunError::CoreEnded)?;
                let status = statuses.borrow_and_update().clone();
                if status.serving && !was_serving {
                    bar.clear();
                    announce(&open, settings, etcd, first.then_some(started));
                    first = false;
                }
                was_serving = status.serving;
                reasons.update((!status.serving).then_some(status.reason.as_str()));
            }
            () = until(reasons.due()) => bar.suspend(|| print_reason(&mut reasons)),
            // Until the cluster serves for the first time, which Ctrl-C and `announce` end the bar for.
            _ = look.tick(), if first => bar.look(&open.pipeline.view()),
        }
    }
}

// === impl Waiting ===

impl<'a> Waiting<'a> {
    pub(super) fn new(neighbour: &'a Neighbour, served: &'a Served, started: Instant) -> Self {
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
fn announce(open: &OpenDeployment, settings: &UpSettings, etcd: &[String], started: Option<Instant>) {
    let view = open.pipeline.view();
    for claim in view.serving().map(|served| served.claims).unwrap_or_default() {
        let claim = &claim.value;
        let bytes = claim.weights_bytes as f64 / 1e6;
        print_line(&format!("stage {} holds layers {} ({bytes:.1} MB of weights)", claim.stage, claim.layers));
    }
    let Some(started) = started else { return print_line("serving again") };
    let own = view.gateways.values().find(|gateway| gateway.value.pid == std::process::id());
    let url = own.map(|gateway| gateway.value.url.clone()).unwrap_or_default();
    let model = &open.model.model.name;
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
