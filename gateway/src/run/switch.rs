//! `baton switch`: changes the model of a cluster that serves. It writes the order and watches it being carried out:
//! the members follow the store, so the change goes on if this process ends.

use std::sync::Arc;
use std::time::Instant;

use engine::membership::{
    RolloutFollower, RolloutSeen, begin_rollout, delete_leftovers, read_rollout, read_view, settle_rollout,
};
use engine::report;
use engine::store::{Committed, EtcdStore, SharedStore};
use schema::record::{ModelRecord, Rollout};
use schema::{ClusterName, Deployment, Keyspace};
use stages::weights::ModelFile;
use tokio::sync::watch;

use super::RunError;
use super::limits::{RETIRED_POLL, SWITCH_HINT_AFTER, SWITCH_POLL, TIDY_WAIT_MAX};
use super::model::{describe, fetch, open};
use super::reasons::Reasons;
use super::stop::Stop;
use super::supervise::print_line;
use crate::models;
use crate::settings::SwitchSettings;

/// The order of the old model's end and the new one's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwitchWay {
    /// The new one is loaded beside the old one.
    Beside,
    /// The old one ends first.
    StopFirst,
    /// The change that is under way is given up.
    Cancel,
}

/// The reason for which a cluster does not change its model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SwitchError {
    /// No model is named.
    #[error("no model is named: expected one, as in `baton switch qwen3-4b`, or --cancel")]
    NoModel,
    /// Nobody serves the cluster.
    #[error(
        "no gateway serves cluster {cluster}, so no model is to be changed: `baton up MODEL` starts it with another"
    )]
    NoGateway {
        /// The cluster.
        cluster: ClusterName,
    },
    /// It has that model already.
    #[error("cluster {cluster} serves that very file already, as {name}")]
    Same {
        /// The cluster.
        cluster: ClusterName,
        /// The model's name.
        name: String,
    },
    /// Another change is under way.
    #[error(
        "cluster {cluster} is changing its model already: wait for that, or give it up with `baton switch --cancel`"
    )]
    UnderWay {
        /// The cluster.
        cluster: ClusterName,
    },
    /// No change is under way.
    #[error("cluster {cluster} is not changing its model")]
    NotUnderWay {
        /// The cluster.
        cluster: ClusterName,
    },
    /// Somebody else changed the rollout.
    #[error("another process changed the rollout of cluster {cluster} meanwhile: `baton status` shows what it serves")]
    Overtaken {
        /// The cluster.
        cluster: ClusterName,
    },
}

/// The store and the keys of the cluster that changes its model.
struct Switching {
    store: SharedStore,
    cluster: Keyspace,
    stop: Stop,
}

/// Changes the model of the cluster, and waits until requests get the new one. Ctrl-C ends the wait, not the change.
///
/// # Errors
/// [`RunError`] if the store or the model cannot be read, or [`SwitchError`].
pub async fn switch(settings: SwitchSettings, way: SwitchWay) -> Result<(), RunError> {
    let stop = Stop::listen(false)?;
    let store: SharedStore = Arc::new(EtcdStore::open(&settings.cluster.etcd).await?);
    let cluster = Keyspace::new(&settings.cluster.cluster);
    let switching = Switching { store, cluster, stop };
    match way {
        SwitchWay::Cancel => switching.cancel().await,
        SwitchWay::Beside => switching.change(settings, false).await,
        SwitchWay::StopFirst => switching.change(settings, true).await,
    }
}

// === impl Switching ===

impl Switching {
    fn name(&self) -> ClusterName {
        self.cluster.cluster().clone()
    }

    async fn cancel(&self) -> Result<(), RunError> {
        let seen = read_rollout(&*self.store, &self.cluster).await?;
        if seen.rollout.next().is_none() {
            return Err(SwitchError::NotUnderWay { cluster: self.name() }.into());
        }
        let settled = self.store.commit(settle_rollout(&self.cluster, seen.rollout.serving(), seen)).await?;
        if settled == Committed::Refused {
            return Err(SwitchError::Overtaken { cluster: self.name() }.into());
        }
        print_line(&format!("cluster {} keeps its model", self.name()));
        self.tidy(Rollout::settled(seen.rollout.serving())).await
    }

    async fn change(&self, mut settings: SwitchSettings, stop_first: bool) -> Result<(), RunError> {
        let cluster = self.name();
        let model = settings.model.model.take().ok_or(SwitchError::NoModel)?;
        // The old model is looked at before minutes are spent on fetching the new one.
        let (seen, old) = self.present().await?;
        let Some(path) = fetch(Some(model), &settings.cache, &self.stop).await? else { return Ok(()) };
        let file = open(&path)?;
        if *file.fingerprint() == old.fingerprint {
            return Err(SwitchError::Same { cluster, name: old.name }.into());
        }
        settings.model.stages_min = settings.stages_min.unwrap_or(old.stages_min);
        let record = describe(&file, &settings.model)?;
        self.note(&file, &settings);
        let (next, rollouts) = self.begin(&record, seen, stop_first).await?;
        let began = Instant::now();
        if !self.until_served(&next, rollouts, stop_first).await? {
            print_line("the change goes on; `baton switch --cancel` gives it up while the old model still serves");
            return Ok(());
        }
        let (name, before, seconds) = (&record.name, &old.name, began.elapsed().as_secs_f64());
        print_line(&format!(
            "cluster {cluster} serves {name} after {seconds:.1} s; what still runs on {before} ends there"
        ));
        self.tidy(Rollout::settled(next.deployment())).await
    }

    /// The rollout and the model that requests get, of a cluster that may change it.
    async fn present(&self) -> Result<(RolloutSeen, ModelRecord), RunError> {
        let cluster = self.name();
        let seen = read_rollout(&*self.store, &self.cluster).await?;
        if seen.rollout.next().is_some() {
            return Err(SwitchError::UnderWay { cluster }.into());
        }
        let view = read_view(&self.store, &self.cluster.beside(seen.rollout.serving()), None).await?;
        match view.model {
            Some(model) if !view.gateways.is_empty() => Ok((seen, model.value)),
            _ => Err(SwitchError::NoGateway { cluster }.into()),
        }
    }

    /// Lets this machine's members find a file that no other process knows the path of.
    fn note(&self, file: &ModelFile, settings: &SwitchSettings) {
        if let Err(error) = models::note_path(file.path(), file.fingerprint(), &settings.cache) {
            tracing::warn!(%error, "members on this machine may not find the model's file");
        }
    }

    /// Writes the order. Returns the keys of the new deployment, and the rollouts from then on.
    async fn begin(
        &self,
        record: &ModelRecord,
        seen: RolloutSeen,
        stop_first: bool,
    ) -> Result<(Keyspace, RolloutFollower), RunError> {
        let snapshot = self.store.read(self.cluster.prefix()).await?;
        let used = snapshot.entries.iter().map(|entry| self.cluster.owner(&entry.key).deployment());
        let next = used.chain([seen.rollout.serving()]).max().unwrap_or(Deployment::FIRST).next();
        let next = self.cluster.beside(next);
        let overtaken = || SwitchError::Overtaken { cluster: self.name() };
        let txn = begin_rollout(&next, record, seen, stop_first).map_err(|_| overtaken())?;
        if self.store.commit(txn).await? == Committed::Refused {
            return Err(overtaken().into());
        }
        Ok((next, RolloutFollower::start(self.store.clone(), &self.cluster).await?))
    }

    /// Waits until requests get the deployment of `next` and it serves, and prints what it waits for. False if the
    /// order to stop comes first.
    async fn until_served(
        &self,
        next: &Keyspace,
        follower: RolloutFollower,
        stop_first: bool,
    ) -> Result<bool, RunError> {
        let rollouts: watch::Receiver<RolloutSeen> = follower.rollouts();
        let (began, mut reasons, mut is_hinted) = (Instant::now(), Reasons::new(Instant::now()), stop_first);
        loop {
            let rollout = rollouts.borrow().rollout;
            if !rollout.wants(next.deployment()) {
                return Err(SwitchError::Overtaken { cluster: self.name() }.into());
            }
            let view = read_view(&self.store, next, None).await?;
            let serving = report::serving(&view).map(drop);
            if serving.is_ok() && rollout.serving() == next.deployment() {
                return Ok(true);
            }
            reasons.update(serving.err().map(|not| not.reason).as_deref());
            if let Some(reason) = reasons.take(Instant::now()) {
                print_line(&format!("not serving yet: {reason}"));
            }
            if !is_hinted && began.elapsed() > SWITCH_HINT_AFTER {
                is_hinted = true;
                print_line(
                    "if the machines cannot hold both models: `baton switch --cancel`, then `baton switch MODEL \
                     --stop-first`",
                );
            }
            tokio::select! {
                () = self.stop.requested() => return Ok(false),
                () = tokio::time::sleep(SWITCH_POLL) => {}
            }
        }
    }

    /// Deletes what the old deployment leaves, once its members have ended, if that is soon. Otherwise the next change
    /// does it.
    async fn tidy(&self, rollout: Rollout) -> Result<(), RunError> {
        let until = Instant::now() + TIDY_WAIT_MAX;
        while Instant::now() < until {
            let snapshot = self.store.read(self.cluster.prefix()).await?;
            let is_over = |key: &str| !rollout.wants(self.cluster.owner(key).deployment());
            if let Some(txn) = delete_leftovers(&self.cluster, &snapshot, rollout) {
                self.store.commit(txn).await?;
            } else if !snapshot.entries.iter().any(|entry| entry.lease.is_some() && is_over(&entry.key)) {
                break;
            }
            tokio::select! {
                () = self.stop.requested() => break,
                () = tokio::time::sleep(RETIRED_POLL) => {}
            }
        }
        Ok(())
    }
}
