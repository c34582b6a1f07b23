//! A stage process: joins the cluster, claims the shard that the placement gives it, loads it, and computes the
//! micro-batches that come in.
//!
//! One loop, one closed list of events. `Member` maps each event to orders: it asks `decide` about the cluster and
//! `FrameGate` about frames. The arithmetic runs on the thread behind `Compute`. Store writes run next to the loop, one
//! at a time, so that an absent store never holds up a frame.

pub(crate) mod compute;
pub(crate) mod done;
mod frame_gate;
mod gateways;
pub(crate) mod held;
pub(crate) mod member;
mod memory_sampler;
mod read_ahead;
mod serve;
mod stability;
mod starts;
mod usage;
mod watchdog;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schema::{Fingerprint, Keyspace, StageName};
use tracing::{info, warn};

use crate::limits::STORE_RETRY;
use crate::link::{ClusterKey, Inbound, LinkError, Listen};
use crate::membership::{KeyMismatch, Publisher};
use crate::runner::Loader;
use crate::store::{Committed, LeaseGrant, SharedStore, StoreError};

/// Number of lease times for which a stage waits for its own name to be free: a crashed predecessor's lease may
/// still hold it, and leases stretch when the store's leader changes.
const NAME_WAIT_LEASES: u32 = 3;

/// Settings of a stage process.
#[derive(Debug)]
pub struct StageSettings {
    /// The cluster's keys.
    pub keyspace: Keyspace,
    /// The stage's name.
    pub name: StageName,
    /// Endpoint at which it takes frames.
    pub listen: Listen,
    /// Cluster key, needed for links to other hosts.
    pub key: Option<ClusterKey>,
    /// Time for which the store keeps a stage that renews its lease no more.
    pub lease_ttl: Duration,
    /// The model file it loads from.
    pub fingerprint: Fingerprint,
}

/// The reason for which a stage could not go on.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The store refused, or it is away at the start.
    #[error("cannot join the cluster")]
    Store(#[from] StoreError),
    /// Frames cannot be taken.
    #[error("cannot open the stage's endpoint")]
    Link(#[from] LinkError),
    /// Another process has the name.
    #[error("the name {name} is taken by {holder}: choose another with --name, or stop that process")]
    NameTaken {
        /// The name.
        name: StageName,
        /// Host and process of its holder.
        holder: String,
    },
    /// The cluster serves another file.
    #[error("the cluster serves another file by now, called {found}: start the stage again with that one")]
    ModelChanged {
        /// The other file's name.
        found: String,
    },
    /// Another cluster key, or one where there is none.
    #[error(transparent)]
    Key(#[from] KeyMismatch),
    /// The compute thread has ended.
    #[error("the compute thread ended: the reason is in the log above")]
    ComputeEnded,
    /// The compute thread has been at one micro-batch for too long.
    #[error(
        "the compute thread has been at one micro-batch for {} s and counts as hanging: the device, its driver or the \
         disk of the model file does not answer",
        .0.as_secs()
    )]
    ComputeHangs(Duration),
    /// The compute thread could not be started.
    #[error("cannot start the compute thread")]
    Thread(#[source] std::io::Error),
}

/// The reason for which serving under one lease ended.
enum Ending {
    Stopped,
    Evicted,
    /// The store has lost its data, and the lease with it. The stage still holds its shard.
    Forgotten,
}

/// Runs a stage of the cluster that `publisher` follows, until `stop` resolves, or until, after `drain` has resolved,
/// others have taken over its layers. That takes at most [`DRAIN_MAX`](crate::limits::DRAIN_MAX).
///
/// # Errors
/// [`StageError`] if it cannot join or cannot compute any more.
pub async fn run(
    store: SharedStore,
    publisher: Publisher,
    settings: StageSettings,
    loader: Arc<dyn Loader>,
    drain: impl Future<Output = ()>,
    stop: impl Future<Output = ()>,
) -> Result<(), StageError> {
    tokio::pin!(drain, stop);
    let inbound = Inbound::bind(settings.listen.clone()).await?;
    let own = (inbound.interface().await, inbound.addresses().await);
    let mut stage = serve::Stage::new(store.clone(), settings, publisher.views(), inbound, own, loader)?;
    let view = publisher.views().borrow().clone();
    let wait = starts::record_start(&store, stage.keyspace(), stage.name(), &view).await?;
    let starts_now = tokio::select! {
        () = &mut stop => false,
        () = &mut drain => false,
        () = tokio::time::sleep(wait) => true,
    };
    if starts_now {
        serve(&store, &mut stage, drain, stop).await?;
    }
    starts::clear(&store, stage.keyspace(), stage.name()).await;
    Ok(())
}

/// Joins and serves, again after each lost lease, until it is to stop.
async fn serve<D, S>(
    store: &SharedStore,
    stage: &mut serve::Stage,
    mut drain: Pin<&mut D>,
    mut stop: Pin<&mut S>,
) -> Result<(), StageError>
where
    D: Future<Output = ()>,
    S: Future<Output = ()>,
{
    loop {
        let joined = tokio::select! {
            () = &mut stop => return Ok(()),
            () = &mut drain => return Ok(()),
            joined = join(store, stage) => joined,
        };
        let lease = match joined {
            Ok(lease) => lease,
            Err(StageError::Store(error)) if stage.has_served() => {
                warn!(%error, "cannot join again yet");
                tokio::time::sleep(STORE_RETRY).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        info!(stage = %stage.name(), endpoint = stage.endpoint(), "joined");
        match stage.serve(lease, &mut drain, &mut stop).await? {
            Ending::Stopped => return Ok(()),
            Ending::Evicted if stage.is_draining() => return Ok(()),
            Ending::Forgotten => warn!("the store has lost its data: joining again with what is held"),
            Ending::Evicted => warn!("the lease is lost: dropping all keys and values and joining anew"),
        }
    }
}

/// Takes a lease and puts the stage's record under it.
async fn join(store: &SharedStore, stage: &mut serve::Stage) -> Result<LeaseGrant, StageError> {
    let (started, mut is_reported) = (Instant::now(), false);
    let lease = store.lease(stage.lease_ttl()).await?;
    loop {
        let txn = stage.registration(lease.id());
        if let Committed::Applied { .. } = store.commit(txn).await? {
            return Ok(lease);
        }
        let (stage_name, wait_max) = (stage.name().clone(), NAME_WAIT_LEASES * stage.lease_ttl());
        if let Some(holder) = stage.holder_of_name().filter(|_| !std::mem::replace(&mut is_reported, true)) {
            warn!(stage = %stage_name, holder, ?wait_max, "this name is taken: waiting for it to come free");
        }
        if started.elapsed() > NAME_WAIT_LEASES * stage.lease_ttl() {
            let holder = stage.holder_of_name().unwrap_or_else(|| "a process that is gone by now".to_owned());
            return Err(StageError::NameTaken { name: stage.name().clone(), holder });
        }
        tokio::time::sleep(STORE_RETRY).await;
    }
}
