//! A stage process: joins the cluster, claims what the placement gives it, loads it, and computes what comes in.
//!
//! One loop, one closed list of events. What follows from an event is decided by `Member`, which asks `decide` about the
//! cluster and `FrameGate` about frames; the arithmetic runs on the thread behind `Compute`; store writes run beside the
//! loop, one at a time, so that an absent store never holds up a frame.

pub(crate) mod compute;
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

/// For how many leases a stage waits for its own name to be free: a crashed predecessor's may still hold it, and leases
/// stretch when the store's leader changes.
const NAME_PATIENCE_LEASES: u32 = 3;

/// What a stage process is told.
#[derive(Debug)]
pub struct StageSettings {
    /// The cluster's keys.
    pub keyspace: Keyspace,
    /// The stage's name.
    pub name: StageName,
    /// Where it takes frames.
    pub listen: Listen,
    /// What lets it talk to other hosts.
    pub key: Option<ClusterKey>,
    /// How long the store keeps the stage when it falls silent.
    pub lease_ttl: Duration,
    /// The model file it loads from.
    pub fingerprint: Fingerprint,
}

/// Why a stage could not go on.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The store refused or is away at the start.
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
    /// The compute thread is gone.
    #[error("the compute thread ended: its last words are in the log above")]
    ComputeEnded,
    /// It does not get on.
    #[error(
        "the compute thread has been at one micro-batch for {} s and is taken for hanging: the device, its driver or the disk \
         of the model file does not answer",
        .0.as_secs()
    )]
    ComputeHangs(Duration),
    /// It could not be started.
    #[error("cannot start the compute thread")]
    Thread(#[source] std::io::Error),
}

/// How serving under one lease ended.
enum Ending {
    Stopped,
    Evicted,
    /// The store has lost its data, and the lease with it; what is held is still held.
    Forgotten,
}

/// Runs a stage until `stop` resolves, or until others have taken over what it holds after `drain` has: at most
/// [`DRAIN_MAX`](crate::limits::DRAIN_MAX) later.
///
/// # Errors
/// [`StageError`] when it cannot join or cannot compute any more.
pub async fn run(
    store: SharedStore,
    settings: StageSettings,
    loader: Arc<dyn Loader>,
    drain: impl Future<Output = ()>,
    stop: impl Future<Output = ()>,
) -> Result<(), StageError> {
    tokio::pin!(drain, stop);
    let publisher = Publisher::start(store.clone(), settings.keyspace.clone(), settings.key.clone()).await?;
    let inbound = Inbound::bind(settings.listen.clone()).await?;
    let mut stage = serve::Stage::new(store.clone(), settings, publisher.views(), inbound, loader)?;
    let view = publisher.views().borrow().clone();
    let wait = starts::begin(&store, stage.keyspace(), stage.name(), &view).await?;
    let waits = tokio::select! {
        () = &mut stop => false,
        () = &mut drain => false,
        () = tokio::time::sleep(wait) => true,
    };
    if waits {
        serve(&store, &mut stage, drain, stop).await?;
    }
    starts::end(&store, stage.keyspace(), stage.name()).await;
    Ok(())
}

/// Joins and serves, again and again, until it is to stop.
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
    let (started, mut told) = (Instant::now(), false);
    let lease = store.lease(stage.lease_ttl()).await?;
    loop {
        let txn = stage.registration(lease.id());
        if let Committed::Applied { .. } = store.commit(txn).await? {
            return Ok(lease);
        }
        let (stage_name, patience) = (stage.name().clone(), NAME_PATIENCE_LEASES * stage.lease_ttl());
        if let Some(holder) = stage.holder_of_name().filter(|_| !std::mem::replace(&mut told, true)) {
            warn!(stage = %stage_name, holder, ?patience, "this name is taken: waiting for it to come free");
        }
        if started.elapsed() > NAME_PATIENCE_LEASES * stage.lease_ttl() {
            let holder = stage.holder_of_name().unwrap_or_else(|| "a process that is gone by now".to_owned());
            return Err(StageError::NameTaken { name: stage.name().clone(), holder });
        }
        tokio::time::sleep(STORE_RETRY).await;
    }
}
