//! The deployments of a cluster that a gateway has open: it opens the next one beside the one that requests get, lets
//! it take its place once it serves, and closes the old one after its last request.

use std::convert::Infallible;
use std::sync::Arc;

use engine::core::PipelineHandle;
use engine::generate::PipelineStatus;
use engine::limits::STORE_RETRY;
use engine::membership::{RolloutFollower, RolloutSeen, settle_rollout};
use futures::future::OptionFuture;
use schema::{ClusterName, Deployment, Keyspace};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tracing::{info, warn};

use super::closable_pipeline::ClosablePipeline;
use super::limits::{CLOSE_POLL, OPEN_RETRY};
use super::model_files::ModelFiles;
use super::served_cluster::{ClusterOpener, OpenedCluster};
use super::supervise::print_line;
use crate::error_chain::chain;
use crate::http::{AppState, LiveFeed, ServedModel};

/// Follows the rollout of one cluster.
pub(super) struct Deployments {
    pub(super) opener: Arc<ClusterOpener>,
    pub(super) state: Arc<AppState>,
    pub(super) files: Arc<ModelFiles>,
    pub(super) cluster: ClusterName,
    /// True if it is the server's first cluster, whose live picture the server makes itself.
    pub(super) is_first: bool,
    /// True if this must be the only gateway of the cluster.
    pub(super) alone: bool,
    /// The deployment that requests get.
    pub(super) open: watch::Sender<Arc<OpenDeployment>>,
}

/// A deployment in which the gateway is registered.
pub(super) struct OpenDeployment {
    pub(super) deployment: Deployment,
    pub(super) pipeline: Arc<PipelineHandle>,
    pub(super) closable: Arc<ClosablePipeline>,
    pub(super) model: Arc<ServedModel>,
    /// The task that makes the live picture for dashboards. `None` if the server makes it.
    feed: Option<AbortHandle>,
}

/// A deployment that could not be opened.
struct Refused {
    deployment: Deployment,
    reason: String,
    at: Instant,
}

/// The deployments beside the open one.
#[derive(Default)]
struct Beside {
    next: Option<OpenDeployment>,
    refused: Option<Refused>,
    /// Those whose last requests still run.
    closing: JoinSet<()>,
}

/// True if no request runs or waits.
fn is_idle(status: &PipelineStatus) -> bool {
    status.running == 0 && status.waiting == 0
}

// === impl OpenDeployment ===

impl OpenDeployment {
    /// `opened`, with a pipeline for requests that can be closed under them, and with a live picture for dashboards
    /// unless the server makes it.
    pub(super) fn new(deployment: Deployment, opened: OpenedCluster, is_first: bool) -> Self {
        let OpenedCluster { pipeline, mut model } = opened;
        let closable = Arc::new(ClosablePipeline::new(model.cluster.clone(), pipeline.clone()));
        model.pipeline = closable.clone();
        let model = Arc::new(model);
        let shown = model.clone();
        let feed = (!is_first).then(|| tokio::spawn(async move { LiveFeed::run(&shown).await }).abort_handle());
        Self { deployment, pipeline, closable, model, feed }
    }

    /// Resolves when its stages serve.
    async fn serves(&self) {
        if self.pipeline.statuses().wait_for(|status| status.serving).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn end_feed(&self) {
        if let Some(feed) = &self.feed {
            feed.abort();
            self.model.live.close();
        }
    }

    /// Keeps the pipeline until its last request has ended.
    async fn close(self: Arc<Self>) {
        self.end_feed();
        let mut statuses = self.pipeline.statuses();
        // A request that has just come holds the model before it is among the waiting ones.
        while statuses.wait_for(is_idle).await.is_ok() && Arc::strong_count(&self.model) > 1 {
            tokio::time::sleep(CLOSE_POLL).await;
        }
        info!(deployment = %self.deployment, "the last request of the old model has ended");
    }
}

impl Drop for OpenDeployment {
    fn drop(&mut self) {
        self.end_feed();
    }
}

// === impl Deployments ===

impl Deployments {
    /// Follows the cluster's changes of its model, for ever.
    pub(super) async fn follow(self, follower: RolloutFollower) -> Infallible {
        let mut rollouts = follower.rollouts();
        let mut beside = Beside::default();
        loop {
            let seen = *rollouts.borrow_and_update();
            self.follow_once(seen, &mut beside).await;
            let retry: OptionFuture<_> =
                beside.refused.as_ref().map(|refused| tokio::time::sleep_until(refused.at + OPEN_RETRY)).into();
            let is_due = seen.rollout.next().is_some();
            let serves: OptionFuture<_> = beside.next.as_ref().filter(|_| is_due).map(OpenDeployment::serves).into();
            tokio::select! {
                changed = rollouts.changed() => if changed.is_err() { std::future::pending::<()>().await },
                Some(()) = serves => {
                    self.settle(seen, &beside).await;
                    // The change comes from the store. A store that is away is not asked again at once.
                    let _ = tokio::time::timeout(STORE_RETRY, rollouts.changed()).await;
                }
                Some(()) = retry => {}
                Some(_) = beside.closing.join_next() => {}
            }
        }
    }

    async fn follow_once(&self, seen: RolloutSeen, beside: &mut Beside) {
        let serving = seen.rollout.serving();
        if self.open.borrow().deployment != serving {
            match self.opened(serving, beside).await {
                Some(opened) => self.take_over(opened, beside),
                None => return,
            }
        }
        match seen.rollout.next() {
            Some(next) => beside.next = self.opened(next, beside).await,
            None => beside.next = None,
        }
    }

    /// `deployment`, open: the one beside, or a new one. `None` if it cannot be opened now.
    async fn opened(&self, deployment: Deployment, beside: &mut Beside) -> Option<OpenDeployment> {
        if let Some(there) = beside.next.take().filter(|there| there.deployment == deployment) {
            return Some(there);
        }
        let before = beside.refused.take().filter(|refused| refused.deployment == deployment);
        if let Some(before) = before.as_ref().filter(|before| before.at.elapsed() < OPEN_RETRY) {
            let Refused { deployment, reason, at } = before;
            beside.refused = Some(Refused { deployment: *deployment, reason: reason.clone(), at: *at });
            return None;
        }
        match self.open(deployment).await {
            Ok(opened) => Some(opened),
            Err(reason) => {
                if before.is_none_or(|before| before.reason != reason) {
                    print_line(&format!("deployment {deployment} of {} is not served here: {reason}", self.cluster));
                }
                beside.refused = Some(Refused { deployment, reason, at: Instant::now() });
                None
            }
        }
    }

    async fn open(&self, deployment: Deployment) -> Result<OpenDeployment, String> {
        let keyspace = Keyspace::of(&self.cluster, deployment);
        let key = self.opener.key(&self.cluster);
        let served = self.files.served(&self.opener.store, &keyspace, key.as_ref()).await?;
        let mut opened = self.opener.open(&keyspace, &served, self.alone).await.map_err(|error| chain(&error))?;
        let open = self.open.borrow().clone();
        opened.model.drills.clone_from(&open.model.drills);
        let before = &open.model.model.name;
        print_line(&format!("{} is to take the place of {before} in cluster {}", served.record.name, self.cluster));
        Ok(OpenDeployment::new(deployment, opened, self.is_first))
    }

    /// Requests get `opened` from now on.
    fn take_over(&self, opened: OpenDeployment, beside: &mut Beside) {
        let (old, opened) = (self.open.borrow().clone(), Arc::new(opened));
        match self.state.models.replace(opened.model.clone()) {
            Ok(_) => {
                let (name, before) = (&opened.model.model.name, &old.model.model.name);
                print_line(&format!("cluster {} serves {name}; what still runs on {before} ends there", self.cluster));
            }
            Err(refused) => warn!(%refused, "requests keep the old model, whose stages end"),
        }
        self.open.send_replace(opened);
        beside.closing.spawn(old.close());
    }

    /// Makes the next deployment, which serves, the one that requests get, in all gateways.
    async fn settle(&self, seen: RolloutSeen, beside: &Beside) {
        let Some(next) = &beside.next else { return };
        let txn = settle_rollout(&Keyspace::new(&self.cluster), next.deployment, seen);
        if let Err(error) = self.opener.store.commit(txn).await {
            warn!(%error, "the new model serves, and the store cannot be told");
        }
    }
}
