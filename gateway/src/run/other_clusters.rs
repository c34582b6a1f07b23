//! The further clusters of a gateway: it follows their stages in the store, opens a cluster when its first stage comes,
//! and closes it when it has been without a stage for a while.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use engine::limits::STORE_RETRY;
use engine::membership::{RolloutFollower, read_view};
use engine::store::StoreError;
use futures::future::{OptionFuture, join_all};
use schema::{ClusterName, Keyspace};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::info;

use super::deployments::{Deployments, OpenDeployment};
use super::limits::{OPEN_RETRY, STAGELESS_TIME_MAX};
use super::model_files::ModelFiles;
use super::served_cluster::ClusterOpener;
use super::store_clusters::StoreClusters;
use super::supervise::print_line;
use crate::error_chain::chain;
use crate::http::AppState;
use crate::settings::ClusterChoice;

/// The parts with which further clusters are served.
pub(super) struct OtherClusters {
    pub(super) opener: Arc<ClusterOpener>,
    pub(super) state: Arc<AppState>,
    /// The clusters that are chosen.
    pub(super) wanted: Vec<ClusterChoice>,
    /// The files of their models.
    pub(super) files: Arc<ModelFiles>,
}

/// A cluster that is served.
struct Open {
    current: watch::Receiver<Arc<OpenDeployment>>,
    /// The task that follows the changes of its model.
    following: AbortHandle,
    /// The time since which it has no stage.
    stageless_since: Option<Instant>,
}

/// A cluster that could not be opened.
struct Refused {
    reason: String,
    at: Instant,
}

/// The clusters below one prefix of the store.
#[derive(Default)]
struct Following {
    open: BTreeMap<ClusterName, Open>,
    refused: BTreeMap<ClusterName, Refused>,
}

// === impl OtherClusters ===

impl OtherClusters {
    /// Serves what comes, for ever.
    pub(super) async fn follow(&self) -> Infallible {
        // With names, each cluster's own prefix: a user of the store may be allowed to read no more than that.
        let any = self.wanted.iter().any(|wanted| matches!(wanted, ClusterChoice::Any));
        let prefixes: Vec<_> = if any {
            vec![Keyspace::ALL_CLUSTERS.to_owned()]
        } else {
            let names = self.wanted.iter().filter_map(ClusterChoice::named);
            names.map(|name| format!("{}{name}/", Keyspace::ALL_CLUSTERS)).collect()
        };
        join_all(prefixes.iter().map(|prefix| self.follow_prefix(prefix))).await;
        // Without any to follow, too.
        std::future::pending().await
    }

    async fn follow_prefix(&self, prefix: &str) -> Infallible {
        let mut following = Following::default();
        loop {
            let Err(error) = self.follow_once(prefix, &mut following).await;
            // What is open stays open: its core and its stages go on without the store.
            info!(prefix, %error, "the clusters of the store are looked for again");
            tokio::time::sleep(STORE_RETRY).await;
        }
    }

    async fn follow_once(&self, prefix: &str, following: &mut Following) -> Result<Infallible, StoreError> {
        let snapshot = self.opener.store.read(prefix).await?;
        let mut clusters = StoreClusters::new(&snapshot.entries);
        let mut watch = self.opener.store.watch(prefix, snapshot.revision).await?;
        loop {
            self.close_stageless(&clusters, following);
            self.open_new(&clusters, following).await;
            let due: OptionFuture<_> = following.due().map(tokio::time::sleep_until).into();
            tokio::select! {
                changes = watch.next() => clusters.apply(&changes?),
                Some(()) = due => {}
            }
        }
    }

    /// Opens the clusters that have a stage and are not open, unless that has just failed.
    async fn open_new(&self, clusters: &StoreClusters, following: &mut Following) {
        let Following { open, refused } = following;
        refused.retain(|cluster, _| clusters.is_live(cluster));
        for cluster in clusters.live().filter(|cluster| self.state.models.first().cluster != **cluster) {
            let is_waiting = refused.get(cluster).is_some_and(|refused| refused.at.elapsed() < OPEN_RETRY);
            if open.contains_key(cluster) || is_waiting {
                continue;
            }
            match self.open(cluster).await {
                Ok(opened) => {
                    print_line(&format!("cluster {cluster} is served here, too: {}", opened.name()));
                    refused.remove(cluster);
                    open.insert(cluster.clone(), opened);
                }
                Err(reason) => {
                    let refusal = Refused { reason, at: Instant::now() };
                    let before = refused.insert(cluster.clone(), refusal);
                    let reason = &refused[cluster].reason;
                    if before.is_none_or(|before| before.reason != *reason) {
                        print_line(&format!("cluster {cluster} is not served here: {reason}"));
                    }
                }
            }
        }
    }

    async fn open(&self, cluster: &ClusterName) -> Result<Open, String> {
        let (store, key) = (&self.opener.store, self.opener.key(cluster));
        let follower = RolloutFollower::start(store.clone(), &Keyspace::new(cluster)).await;
        let follower = follower.map_err(|error| chain(&error))?;
        let deployment = follower.rollouts().borrow().rollout.serving();
        let keyspace = Keyspace::of(cluster, deployment);
        self.check(&keyspace).await?;
        let found = self.files.served(store, &keyspace, key.as_ref()).await?;
        // Before the gateway registers, because its registration is seen by all members.
        self.state.models.check(cluster, &found.record.name).map_err(|refused| refused.to_string())?;
        let opened = self.opener.open(&keyspace, &found, false).await.map_err(|error| chain(&error))?;
        let opened = OpenDeployment::new(deployment, opened, false);
        self.state.models.add(opened.model.clone()).map_err(|refused| refused.to_string())?;
        let open = watch::Sender::new(Arc::new(opened));
        let current = open.subscribe();
        let deployments = Deployments {
            opener: self.opener.clone(),
            state: self.state.clone(),
            files: self.files.clone(),
            cluster: cluster.clone(),
            is_first: false,
            alone: false,
            open,
        };
        let following = tokio::spawn(deployments.follow(follower)).abort_handle();
        Ok(Open { current, following, stageless_since: None })
    }

    /// Checks that the cluster is one for this gateway.
    async fn check(&self, keyspace: &Keyspace) -> Result<(), String> {
        let cluster = keyspace.cluster();
        // Without the key, so that whoever is there counts, with a proof or without.
        let view = read_view(&self.opener.store, keyspace, None).await.map_err(|error| chain(&error))?;
        let is_named = self.wanted.iter().any(|wanted| wanted.named() == Some(cluster.as_str()));
        if let Some(gateway) = view.gateways.values().next().filter(|_| !is_named) {
            return Err(format!("the gateway at {} serves it", gateway.value.url));
        }
        // A mark of this gateway's key would lock out members that have none.
        if self.opener.key(cluster).is_some() && view.key_mark.is_none() {
            return Err("its members have no cluster key, and this gateway has one: give them the same".to_owned());
        }
        Ok(())
    }

    /// Closes the clusters that have had no stage for a while.
    fn close_stageless(&self, clusters: &StoreClusters, following: &mut Following) {
        let now = Instant::now();
        for (cluster, open) in &mut following.open {
            open.stageless_since = if clusters.is_live(cluster) { None } else { open.stageless_since.or(Some(now)) };
        }
        let state = &self.state;
        following.open.retain(|cluster, open| {
            let is_over = open.stageless_since.is_some_and(|since| now.duration_since(since) >= STAGELESS_TIME_MAX);
            if is_over {
                print_line(&format!("cluster {cluster} is served here no more: no stage of it is left"));
                state.models.remove(cluster);
            }
            !is_over
        });
    }
}

// === impl Open ===

impl Open {
    /// The name of its model.
    fn name(&self) -> String {
        self.current.borrow().model.model.name.clone()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.following.abort();
        self.current.borrow().closable.close();
    }
}

// === impl Following ===

impl Following {
    /// The time of the next decision, if the store says nothing before.
    fn due(&self) -> Option<Instant> {
        let closings = self.open.values().filter_map(|open| Some(open.stageless_since? + STAGELESS_TIME_MAX));
        closings.chain(self.refused.values().map(|refused| refused.at + OPEN_RETRY)).min()
    }
}
