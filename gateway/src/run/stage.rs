//! `baton stage`: one stage process.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use engine::membership::{Publisher, RolloutFollower, RolloutSeen, admit, read_view};
use engine::runner::Loader;
use engine::stage as stage_loop;
use engine::store::{EtcdStore, SharedStore};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use schema::{Deployment, Keyspace};
use stages::device::{self, DeviceSettings};
use stages::weights::{FileChanged, ModelFile, guard_against_truncation};
use tokio::sync::watch;
use tracing::{info, warn};

use super::RunError;
use super::limits::{OPEN_RETRY, RETIRED_POLL};
use super::model::agree;
use super::own_layers::OwnLayers;
use super::stop::Stop;
use crate::error_chain::chain;
use crate::settings::StageSettings;

/// Interval of the checks that the model file is still the same. Its weights are mapped, so a stage computes with
/// whatever is written into the file, which is worse than no stage. A check takes a microsecond.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Runs `baton stage` until the order to stop.
///
/// # Errors
/// [`RunError`] when it cannot start or cannot go on.
pub async fn stage(settings: StageSettings) -> Result<(), RunError> {
    let stop = Stop::listen(settings.follow_stdin)?;
    guard_against_truncation().map_err(|cause| RunError::Io { doing: "guard the mapped weights", cause })?;
    let store: SharedStore = Arc::new(EtcdStore::open(&settings.cluster.etcd).await?);
    let cluster = Keyspace::new(&settings.cluster.cluster);
    let follower = RolloutFollower::start(store.clone(), &cluster).await?;
    let process = StageProcess { settings, store, rollouts: follower.rollouts(), stop };
    match process.settings.deployment {
        Some(deployment) => process.serve(&cluster.beside(deployment), true, 0).await,
        None => process.follow(&cluster).await,
    }
}

/// A stage process, which serves one deployment, and a second one while the cluster changes its model.
struct StageProcess {
    settings: StageSettings,
    store: SharedStore,
    rollouts: watch::Receiver<RolloutSeen>,
    stop: Stop,
}

// === impl StageProcess ===

impl StageProcess {
    /// Serves the deployments that the rollout wants: the next one beside the one that requests get, and that one, if
    /// it was not served before, only after the others.
    async fn follow(&self, cluster: &Keyspace) -> Result<(), RunError> {
        let mut rollouts = self.rollouts.clone();
        let first = rollouts.borrow_and_update().rollout.serving();
        let mut served = BTreeSet::from([first]);
        let mut running = FuturesUnordered::new();
        running.push(self.serve_numbered(cluster, first, true, Duration::ZERO));
        loop {
            let rollout = rollouts.borrow_and_update().rollout;
            let is_next = |deployment| rollout.next() == Some(deployment);
            let new = rollout.wanted().find(|wanted| !served.contains(wanted));
            if let Some(new) = new.filter(|new| is_next(*new) || running.is_empty()) {
                served.insert(new);
                running.push(self.serve_numbered(cluster, new, false, Duration::ZERO));
            }
            tokio::select! {
                Some((deployment, outcome)) = running.next() => {
                    let is_asked = self.stop.is_requested();
                    match outcome {
                        Err(error) if is_next(deployment) && !is_asked => {
                            warn!(error = %chain(&error), "this machine does not serve the next model");
                            running.push(self.serve_numbered(cluster, deployment, false, OPEN_RETRY));
                            continue;
                        }
                        outcome => outcome?,
                    }
                    served.remove(&deployment);
                    // A deployment that ended by itself is over, and another one may wait for its memory.
                    if running.is_empty() && (is_asked || rollouts.borrow().rollout.wants(deployment)) {
                        return Ok(());
                    }
                }
                changed = rollouts.changed() => if changed.is_err() { std::future::pending::<()>().await },
                () = self.stop.requested(), if running.is_empty() => return Ok(()),
            }
        }
    }

    async fn serve_numbered(
        &self,
        cluster: &Keyspace,
        deployment: Deployment,
        is_first: bool,
        wait: Duration,
    ) -> (Deployment, Result<(), RunError>) {
        tokio::time::sleep(wait).await;
        let outcome = async {
            let held = self.held(cluster, deployment).await?;
            self.serve(&cluster.beside(deployment), is_first, held).await
        };
        (deployment, outcome.await)
    }

    /// The memory that this stage may come to use in the deployment that requests get, in bytes.
    async fn held(&self, cluster: &Keyspace, deployment: Deployment) -> Result<u64, RunError> {
        let serving = self.rollouts.borrow().rollout.serving();
        if serving == deployment {
            return Ok(0);
        }
        let view = read_view(&self.store, &cluster.beside(serving), None).await?;
        let own = view.claims.values().filter(|claim| claim.value.stage == self.settings.name);
        Ok(own.map(|claim| claim.value.memory_bound_bytes).max().unwrap_or(0))
    }

    /// Serves the deployment of `keyspace` until the order to stop, or until it is wanted no more. The model that the
    /// process was started with is that of the first one. `held` bytes of memory are kept by another one.
    async fn serve(&self, keyspace: &Keyspace, is_first: bool, held: u64) -> Result<(), RunError> {
        let (store, stop) = (self.store.clone(), &self.stop);
        let mut settings = self.settings.clone();
        if !is_first {
            (settings.model.model, settings.model.source) = (None, None);
        }
        let key = settings.member.cluster_key.as_ref().map(|key| key.of_cluster(&settings.cluster.cluster));
        admit(&store, keyspace, key.as_ref()).await?;
        let publisher = Publisher::start(store.clone(), keyspace.clone(), key.clone()).await?;
        let own = OwnLayers::open(&store, keyspace, &publisher, &settings, stop).await?;
        let served = match &own {
            Some(own) => own.served.clone(),
            None => match agree(&store, keyspace, &settings.model, &settings.cache, stop).await? {
                Some(served) => served,
                None => return Ok(()),
            },
        };
        info!(model = served.record.name, file = %served.file.path().display(), "the model is agreed on");
        let settings_of_device = DeviceSettings {
            device: settings.compute.device,
            threads: NonZeroUsize::new(settings.compute.threads).unwrap_or(NonZeroUsize::MIN),
            budget_bytes: beside(settings.compute.memory_budget_bytes, held),
            has_weights: own.is_none(),
        };
        let mut loader: Arc<dyn Loader> =
            device::loader(served.file.clone(), settings_of_device).map(Arc::from).map_err(|cause| RunError::File {
                path: served.file.path().display().to_string(),
                cause: Box::new(cause),
            })?;
        if let Some(own) = &own {
            loader = own.loader(loader);
        }
        let member = settings.member;
        let listen = member.listen(key.clone())?;
        let loop_settings = stage_loop::StageSettings {
            keyspace: keyspace.clone(),
            name: settings.name,
            listen,
            key,
            lease_ttl: member.lease_ttl,
            fingerprint: served.record.fingerprint.clone(),
        };
        let mut changed = None;
        // A signal drains the stage: it serves on until others have taken over its layers. It ends at once when the
        // process that started it has ended or closes its standard input, when the model file has changed, or when no
        // gateway needs its deployment.
        let stop_now = async {
            tokio::select! {
                () = stop.stdin_closed() => {}
                () = self.retired(keyspace) => {}
                found = file_changed(&served.file) => changed = Some(found),
            }
        };
        stage_loop::run(store, publisher, loop_settings, loader, stop.requested(), stop_now).await?;
        // A stage whose file has changed does not drain, because it has no use for the rest of the old contents. It has
        // revoked its lease all the same, so the others know at once that it is gone.
        changed.map_or(Ok(()), |found| Err(found.into()))
    }

    /// Resolves when the rollout has no use for the deployment of `keyspace` and no gateway is registered there.
    async fn retired(&self, keyspace: &Keyspace) {
        let mut rollouts = self.rollouts.clone();
        loop {
            if rollouts.wait_for(|seen| !seen.rollout.wants(keyspace.deployment())).await.is_err() {
                std::future::pending::<()>().await;
            }
            // Without the key, so that a gateway counts with a proof or without.
            let view = read_view(&self.store, keyspace, None).await;
            if view.is_ok_and(|view| view.gateways.is_empty()) {
                return;
            }
            tokio::time::sleep(RETIRED_POLL).await;
        }
    }
}

/// The budget of a stage beside another one of this process, which keeps `held` bytes.
fn beside(budget: Option<u64>, held: u64) -> Option<u64> {
    if held == 0 {
        return budget;
    }
    // The system counts the other one's mapped weights and unused keys and values as available.
    let whole = budget.unwrap_or_else(|| stages::memory::machine().memory_available_bytes);
    Some(whole.saturating_sub(held))
}

/// Resolves when the model file has changed.
async fn file_changed(file: &ModelFile) -> FileChanged {
    let mut checks = tokio::time::interval(POLL_INTERVAL);
    loop {
        checks.tick().await;
        if let Err(found) = file.check_unchanged() {
            return found;
        }
    }
}
