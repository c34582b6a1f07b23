//! The rollout of a cluster in the store: read once, followed, and changed by transactions.
//!
//! Members decide by it alone which deployments they serve, so that a process that was killed finds its place again.

use std::collections::BTreeMap;
use std::convert::Infallible;

use schema::record::{ModelRecord, Rollout};
use schema::{Deployment, Key, Keyspace};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::writes::{as_seen, put};
use crate::limits::STORE_RETRY;
use crate::store::limits::TXN_WRITES_MAX;
use crate::store::{Change, Compare, Entry, Revision, SharedStore, Snapshot, Store, StoreError, Txn, Write};

/// A rollout and the revision of its key. `None` if the store has none, which means the first deployment alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RolloutSeen {
    /// The rollout.
    pub rollout: Rollout,
    /// The revision of its key.
    pub mod_revision: Option<u64>,
}

/// Follows the rollout of a cluster. Stops when dropped.
#[derive(Debug)]
pub struct RolloutFollower {
    seen: watch::Receiver<RolloutSeen>,
    task: JoinHandle<()>,
}

fn parse(entry: &Entry) -> Result<RolloutSeen, StoreError> {
    let rollout = serde_json::from_slice(&entry.value).map_err(|error| {
        let reason = format!("{error}; expected one such as {{\"serving\":0}}");
        StoreError::Unusable { key: entry.key.clone(), reason }
    })?;
    Ok(RolloutSeen { rollout, mod_revision: Some(entry.mod_revision.0) })
}

/// Reads the rollout of the cluster of `keyspace`.
///
/// # Errors
/// [`StoreError`] if the store does not answer or the value cannot be used.
pub async fn read_rollout(store: &dyn Store, keyspace: &Keyspace) -> Result<RolloutSeen, StoreError> {
    Ok(read(store, keyspace).await?.0)
}

async fn read(store: &dyn Store, keyspace: &Keyspace) -> Result<(RolloutSeen, Revision), StoreError> {
    let key = keyspace.beside(Deployment::FIRST).name(&Key::Rollout);
    let snapshot: Snapshot = store.read(&key).await?;
    let seen = snapshot.get(&key).map(parse).transpose()?.unwrap_or_default();
    Ok((seen, snapshot.revision))
}

/// Makes the deployment of `next`, whose model is `model`, the one that takes the place of the one that serves. With
/// `at_once` it does so now, and otherwise once it serves. Provided the rollout is as it was `seen` and the deployment
/// is new.
///
/// # Errors
/// [`RolloutError`](schema::record::RolloutError) if `next` serves already.
pub fn begin_rollout(
    next: &Keyspace,
    model: &ModelRecord,
    seen: RolloutSeen,
    at_once: bool,
) -> Result<Txn, schema::record::RolloutError> {
    let changing = seen.rollout.with_next(next.deployment())?;
    let rollout = if at_once { Rollout::settled(next.deployment()) } else { changing };
    let cluster = next.beside(Deployment::FIRST);
    let compares = vec![
        as_seen(&cluster, &Key::Rollout, seen.mod_revision),
        Compare::NothingUnder { prefix: next.prefix().to_owned() },
    ];
    let writes = vec![put(&cluster, &Key::Rollout, &rollout, None), put(next, &Key::Model, model, None)];
    Ok(Txn { compares, writes })
}

/// Ends a rollout: from now on members serve `deployment` alone. Provided the rollout is as it was `seen`.
pub fn settle_rollout(keyspace: &Keyspace, deployment: Deployment, seen: RolloutSeen) -> Txn {
    let cluster = keyspace.beside(Deployment::FIRST);
    let rollout = Rollout::settled(deployment);
    Txn {
        compares: vec![as_seen(&cluster, &Key::Rollout, seen.mod_revision)],
        writes: vec![put(&cluster, &Key::Rollout, &rollout, None)],
    }
}

/// Deletes what deployments that no member serves have left in `snapshot`, which is one of the cluster's whole prefix.
/// `None` if there is nothing. Keys of the cluster as a whole stay.
pub fn delete_leftovers(keyspace: &Keyspace, snapshot: &Snapshot, rollout: Rollout) -> Option<Txn> {
    let cluster = keyspace.beside(Deployment::FIRST);
    let members = |owner: &Keyspace| ["stages/", "gateways/"].map(|folder| format!("{}{folder}", owner.prefix()));
    let is_live = |owner: &Keyspace| {
        let members = members(owner);
        snapshot.entries.iter().any(|entry| members.iter().any(|folder| entry.key.starts_with(folder)))
    };
    let is_leftover = |owner: &Keyspace, key: &str| match owner.parse(key) {
        Ok(Key::Model | Key::Placement | Key::Pin(_) | Key::PinStatus(_)) => true,
        Ok(Key::KeyMark) => owner.deployment() != Deployment::FIRST,
        _ => false,
    };
    let mut over: BTreeMap<Deployment, Keyspace> = BTreeMap::new();
    let mut writes = Vec::new();
    for Entry { key, .. } in &snapshot.entries {
        let owner = cluster.owner(key);
        if !rollout.wants(owner.deployment()) && is_leftover(&owner, key) && !is_live(&owner) {
            writes.push(Write::Delete { key: key.clone() });
            over.insert(owner.deployment(), owner);
        }
    }
    writes.truncate(TXN_WRITES_MAX);
    let compares = over.values().flat_map(members).map(|prefix| Compare::NothingUnder { prefix }).collect();
    (!writes.is_empty()).then_some(Txn { compares, writes })
}

// === impl RolloutFollower ===

impl RolloutFollower {
    /// Reads the rollout of the cluster of `keyspace` once and follows it from there.
    ///
    /// # Errors
    /// [`StoreError`] if the first read fails. Later the last rollout stays, whatever happens to the store.
    pub async fn start(store: SharedStore, keyspace: &Keyspace) -> Result<Self, StoreError> {
        let keyspace = keyspace.beside(Deployment::FIRST);
        let (seen, revision) = read(&*store, &keyspace).await?;
        let (publish, rollouts) = watch::channel(seen);
        let task = tokio::spawn(async move {
            let mut revision = revision;
            loop {
                let Err(error) = follow(&store, &keyspace, &publish, revision).await;
                info!(%error, "the rollout is read again");
                tokio::time::sleep(STORE_RETRY).await;
                if let Ok((seen, read_at)) = read(&*store, &keyspace).await {
                    revision = read_at;
                    take(&store, &keyspace, &publish, seen).await;
                }
            }
        });
        Ok(Self { seen: rollouts, task })
    }

    /// A receiver of the rollouts.
    pub fn rollouts(&self) -> watch::Receiver<RolloutSeen> {
        self.seen.clone()
    }
}

impl Drop for RolloutFollower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(
    store: &SharedStore,
    keyspace: &Keyspace,
    publish: &watch::Sender<RolloutSeen>,
    after: Revision,
) -> Result<Infallible, StoreError> {
    let key = keyspace.name(&Key::Rollout);
    let mut watch = store.watch(&key, after).await?;
    loop {
        for change in watch.next().await? {
            match change {
                Change::Put(entry) if entry.key == key => match parse(&entry) {
                    Ok(seen) => take(store, keyspace, publish, seen).await,
                    Err(error) => warn!(%error, "the rollout stays as it was"),
                },
                Change::Deleted { key: deleted, .. } if deleted == key => {
                    take(store, keyspace, publish, RolloutSeen::default()).await;
                }
                Change::Put(_) | Change::Deleted { .. } => {}
            }
        }
    }
}

/// Publishes `seen`. A rollout that was lost is written again, because members of a later deployment would end if they
/// believed that only the first one is wanted.
async fn take(store: &SharedStore, keyspace: &Keyspace, publish: &watch::Sender<RolloutSeen>, seen: RolloutSeen) {
    let known = publish.borrow().rollout;
    if seen.mod_revision.is_some() || known == seen.rollout {
        publish.send_if_modified(|last| std::mem::replace(last, seen) != seen);
        return;
    }
    let txn = Txn {
        compares: vec![as_seen(keyspace, &Key::Rollout, None)],
        writes: vec![put(keyspace, &Key::Rollout, &known, None)],
    };
    match store.commit(txn).await {
        // Whether this process or another wrote it, it comes as a change.
        Ok(_) => info!(?known, "the store has lost the rollout: it is written again"),
        Err(error) => warn!(%error, "the store has lost the rollout, and it cannot be written again"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use schema::StageName;

    use super::*;
    use crate::store::{Committed, MemoryStore};

    fn keyspace() -> Keyspace {
        Keyspace::new(&"home".parse().unwrap())
    }

    fn model() -> ModelRecord {
        ModelRecord::new("small", vec![1; 2])
    }

    async fn begin(store: &SharedStore, number: u32, at_once: bool) -> Committed {
        let seen = read_rollout(&**store, &keyspace()).await.unwrap();
        let next = keyspace().beside(Deployment(number));
        store.commit(begin_rollout(&next, &model(), seen, at_once).unwrap()).await.unwrap()
    }

    fn is_applied(committed: &Committed) -> bool {
        matches!(committed, Committed::Applied { .. })
    }

    #[tokio::test]
    async fn a_rollout_begins_with_a_new_deployment_and_ends_once() {
        let store: SharedStore = Arc::new(MemoryStore::new());
        assert_eq!(read_rollout(&*store, &keyspace()).await.unwrap(), RolloutSeen::default());
        assert!(is_applied(&begin(&store, 1, false).await));
        let seen = read_rollout(&*store, &keyspace()).await.unwrap();
        assert_eq!((seen.rollout.serving(), seen.rollout.next()), (Deployment::FIRST, Some(Deployment(1))));
        let settle = |to| settle_rollout(&keyspace(), to, seen);
        assert!(is_applied(&store.commit(settle(Deployment(1))).await.unwrap()));
        // Whoever saw the same rollout and comes later changes nothing, and nobody brings a deployment twice.
        assert!(!is_applied(&store.commit(settle(Deployment::FIRST)).await.unwrap()));
        let later = read_rollout(&*store, &keyspace()).await.unwrap();
        assert_eq!(later.rollout, Rollout::settled(Deployment(1)));
        assert!(begin_rollout(&keyspace().beside(Deployment(1)), &model(), later, true).is_err());
        assert!(is_applied(&begin(&store, 2, true).await));
        assert!(is_applied(&begin(&store, 3, false).await));
        assert!(!is_applied(&begin(&store, 1, false).await));
    }

    #[tokio::test]
    async fn a_deployment_that_is_over_leaves_nothing_and_one_with_a_member_all() {
        let store: SharedStore = Arc::new(MemoryStore::new());
        let stage: StageName = "a".parse().unwrap();
        let (first, third) = (keyspace(), keyspace().beside(Deployment(3)));
        let keys = [
            first.name(&Key::Model),
            first.name(&Key::Pin(stage.clone())),
            first.name(&Key::KeyMark),
            first.name(&Key::Token("7f3a90c1".parse().unwrap())),
            third.name(&Key::KeyMark),
            third.name(&Key::Placement),
        ];
        let put = |key: &String| Write::Put { key: key.clone(), value: b"{}".to_vec(), lease: None };
        store.commit(Txn { compares: vec![], writes: keys.iter().map(put).collect() }).await.unwrap();
        begin(&store, 4, true).await;
        let seen = read_rollout(&*store, &first).await.unwrap();
        let member = third.name(&Key::Stage(stage));
        store.commit(Txn { compares: vec![], writes: vec![put(&member)] }).await.unwrap();
        let snapshot = || async { store.read(first.prefix()).await.unwrap() };
        let txn = delete_leftovers(&third, &snapshot().await, seen.rollout).unwrap();
        assert_eq!(txn.writes, [&keys[0], &keys[1]].map(|key| Write::Delete { key: key.clone() }));
        assert!(is_applied(&store.commit(txn).await.unwrap()));
        let gone = Txn { compares: vec![], writes: vec![Write::Delete { key: member.clone() }] };
        store.commit(gone).await.unwrap();
        let txn = delete_leftovers(&third, &snapshot().await, seen.rollout).unwrap();
        assert_eq!(txn.writes.len(), 2);
        // A member that comes meanwhile keeps its deployment.
        store.commit(Txn { compares: vec![], writes: vec![put(&member)] }).await.unwrap();
        assert!(!is_applied(&store.commit(txn).await.unwrap()));
        assert_eq!(delete_leftovers(&third, &snapshot().await, seen.rollout), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_sees_changes_and_writes_a_lost_rollout_again() {
        let store: SharedStore = Arc::new(MemoryStore::new());
        let follower = RolloutFollower::start(store.clone(), &keyspace().beside(Deployment(1))).await.unwrap();
        let mut rollouts = follower.rollouts();
        begin(&store, 1, true).await;
        let is_one = |seen: &RolloutSeen| seen.rollout == Rollout::settled(Deployment(1));
        let before = *rollouts.wait_for(is_one).await.unwrap();
        let key = keyspace().name(&Key::Rollout);
        let put = |value: &str| Write::Put { key: key.clone(), value: value.into(), lease: None };
        for write in [put("{\"serving\":1,\"next\":1}"), Write::Delete { key: key.clone() }] {
            store.commit(Txn { compares: vec![], writes: vec![write] }).await.unwrap();
        }
        let is_again = |seen: &RolloutSeen| seen.mod_revision > before.mod_revision;
        let again = tokio::time::timeout(Duration::from_secs(5), rollouts.wait_for(is_again)).await.unwrap().unwrap();
        assert!(is_one(&again));
        let error = store.commit(Txn { compares: vec![], writes: vec![put("nonsense")] }).await;
        assert!(error.is_ok());
        let unusable = read_rollout(&*store, &keyspace()).await.unwrap_err().to_string();
        assert!(unusable.contains("/baton/v1/home/rollout cannot be used"), "{unusable}");
    }
}
