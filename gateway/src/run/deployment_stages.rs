//! The stage processes of a `baton up`, by deployment: those of the next model start beside the old ones, which end by
//! themselves once no gateway needs them.

use std::collections::BTreeMap;
use std::path::Path;

use engine::link::ClusterKey;
use engine::membership::{RolloutFollower, RolloutSeen, read_view};
use engine::store::SharedStore;
use futures::future::OptionFuture;
use schema::{Deployment, Keyspace, StageName};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;

use super::RunError;
use super::children::Children;
use super::limits::OPEN_RETRY;
use super::memory;
use super::model::Served;
use super::model_files::ModelFiles;
use crate::error_chain::chain;
use crate::running::{Grant, RunningFolder, UpLock};
use crate::settings::UpSettings;

/// The cluster that the stages are members of.
pub(super) struct StagesOf<'a> {
    pub(super) settings: &'a UpSettings,
    pub(super) store: &'a SharedStore,
    pub(super) key: Option<&'a ClusterKey>,
    /// The addresses of the store.
    pub(super) etcd: &'a [String],
    /// The folder of the processes' sockets.
    pub(super) folder: &'a Path,
}

/// The stage processes.
pub(super) struct DeploymentStages<'a> {
    of: StagesOf<'a>,
    files: ModelFiles,
    lock: Option<&'a mut UpLock>,
    _follower: RolloutFollower,
    rollouts: watch::Receiver<RolloutSeen>,
    children: Children,
    /// The memory that the stages of each deployment may come to take.
    promised: BTreeMap<Deployment, u64>,
    refused: Option<Refused>,
}

/// A deployment whose stages could not be started.
struct Refused {
    deployment: Deployment,
    reason: String,
    at: Instant,
}

/// The memory that stage `name` may use in the deployment of `keyspace`, by its claim.
async fn claimed(store: &SharedStore, keyspace: &Keyspace, name: &StageName) -> Result<u64, RunError> {
    let view = read_view(store, keyspace, None).await?;
    let own = view.claims.values().filter(|claim| claim.value.stage == *name);
    Ok(own.map(|claim| claim.value.memory_bound_bytes).max().unwrap_or(0))
}

// === impl DeploymentStages ===

impl<'a> DeploymentStages<'a> {
    /// Starts the stages of `served`, the model of the deployment of `keyspace`, with the memory that is granted.
    pub(super) async fn start(
        of: StagesOf<'a>,
        keyspace: &Keyspace,
        served: &Served,
        grant: Grant,
        lock: Option<&'a mut UpLock>,
    ) -> Result<Self, RunError> {
        let StagesOf { settings, store, folder, .. } = &of;
        let follower = RolloutFollower::start((*store).clone(), keyspace).await?;
        let running = settings.state.as_deref().map(RunningFolder::new);
        let mut stages = Self {
            files: ModelFiles { cache: settings.cache.clone(), running },
            lock,
            rollouts: follower.rollouts(),
            _follower: follower,
            children: Children::new(settings.stage_environment(), folder, settings.restarts)?,
            promised: BTreeMap::new(),
            refused: None,
            of,
        };
        stages.add(keyspace.deployment(), served, grant)?;
        Ok(stages)
    }

    /// The names and process ids of the running stages.
    pub(super) fn processes(&self) -> impl Iterator<Item = (&StageName, Option<u32>)> {
        self.children.processes()
    }

    /// The deployment that requests get.
    pub(super) fn serving(&self) -> Deployment {
        self.rollouts.borrow().rollout.serving()
    }

    /// True if no stage is left, and none will be started again.
    pub(super) fn is_over(&self) -> bool {
        self.children.is_empty() && self.promised.contains_key(&self.serving())
    }

    /// Starts what the rollout wants, and returns a line about the next change of the processes. Cancel-safe.
    pub(super) async fn next_event(&mut self) -> String {
        loop {
            if let Some(line) = self.start_wanted().await {
                return line;
            }
            let retry: OptionFuture<_> =
                self.refused.as_ref().map(|refused| tokio::time::sleep_until(refused.at + OPEN_RETRY)).into();
            tokio::select! {
                event = self.children.next_event() => return event.to_string(),
                // It is pending for ever once its sender is gone, which the follower is not.
                Ok(()) = self.rollouts.changed() => {}
                Some(()) = retry => {}
            }
        }
    }

    /// Asks all stages to end, and waits until they have.
    pub(super) async fn stop(&mut self) {
        self.children.stop().await;
    }

    /// Starts the stages of the deployments that are wanted. Those of the next one start beside the others, those of
    /// the one that requests get only after the others have ended, because it may be that both do not fit.
    async fn start_wanted(&mut self) -> Option<String> {
        self.release();
        let rollout = self.rollouts.borrow_and_update().rollout;
        let is_waiting = |deployment: Deployment| Some(deployment) != rollout.next() && !self.children.is_empty();
        let new = rollout.wanted().find(|deployment| !self.promised.contains_key(deployment))?;
        if is_waiting(new) {
            return None;
        }
        let before = self.refused.take().filter(|refused| refused.deployment == new);
        if let Some(before) = before.as_ref().filter(|before| before.at.elapsed() < OPEN_RETRY) {
            self.refused = Some(Refused { deployment: new, reason: before.reason.clone(), at: before.at });
            return None;
        }
        let reason = match self.start_one(new).await {
            Ok(line) => return Some(line),
            Err(reason) => reason,
        };
        let line = format!(
            "no stage is started here for the next model: {reason} (`baton switch --cancel` gives the change up, \
             --stop-first ends the old model first)"
        );
        let is_known = before.is_some_and(|before| before.reason == reason);
        self.refused = Some(Refused { deployment: new, reason, at: Instant::now() });
        (!is_known).then_some(line)
    }

    async fn start_one(&mut self, deployment: Deployment) -> Result<String, String> {
        let StagesOf { settings, store, key, .. } = &self.of;
        let keyspace = Keyspace::of(&settings.cluster, deployment);
        let served = self.files.served(store, &keyspace, *key).await?;
        let grant = self.grant(&served).await.map_err(|error| chain(&error))?;
        self.add(deployment, &served, grant).map_err(|error| chain(&error))?;
        Ok(format!("{} stages start with {}", self.of.settings.stage_names.len(), served.record.name))
    }

    /// The memory for the stages of `served` beside that of the deployments that still run.
    async fn grant(&mut self, served: &Served) -> Result<Grant, RunError> {
        let StagesOf { settings, store, .. } = &self.of;
        let held = self.promised.values().sum();
        let Some(told) = settings.compute.memory_budget_bytes else {
            return memory::promise(settings, &served.record, self.lock.as_deref_mut(), held);
        };
        // One stage of each name may use as much as it was told, for all models together.
        let mut claimed_most = 0;
        for deployment in self.promised.keys() {
            let keyspace = Keyspace::of(&settings.cluster, *deployment);
            for name in &settings.stage_names {
                claimed_most = claimed_most.max(claimed(store, &keyspace, name).await?);
            }
        }
        Ok(Grant { budget: told.saturating_sub(claimed_most), promised: 0 })
    }

    fn add(&mut self, deployment: Deployment, served: &Served, grant: Grant) -> Result<(), RunError> {
        let Grant { budget, promised } = grant;
        info!(%deployment, budget, promised, "memory of the stages, in bytes: the most of each, and of all together");
        let StagesOf { settings, etcd, .. } = &self.of;
        let arguments = |name| settings.stage_arguments(name, served.file.path(), etcd, deployment, budget);
        let stages = settings.stage_names.iter().map(|name| (name.clone(), arguments(name)));
        self.children.add(deployment, stages)?;
        self.promised.insert(deployment, promised);
        Ok(())
    }

    /// Gives back the memory of deployments whose stages have all ended and are wanted no more.
    fn release(&mut self) {
        let rollout = self.rollouts.borrow().rollout;
        let (children, before) = (&self.children, self.promised.len());
        self.promised.retain(|deployment, _| rollout.wants(*deployment) || children.has(*deployment));
        if self.promised.len() < before
            && let Some(lock) = self.lock.as_deref_mut()
        {
            let held = self.promised.values().sum();
            if let Err(error) = lock.note(|record| record.memory_promised_bytes = held) {
                info!(%error, "the memory that is free again cannot be noted");
            }
        }
    }
}
