//! The store at the other end of a connection: a real etcd, or the embedded server.

mod access;
mod lease;
mod members;
mod watch;

use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    AlarmAction, AlarmType, GetOptions, KeyValue, PutOptions, SortOrder, SortTarget, TxnOp, WatchOptions,
};

pub use self::access::{EtcdAccess, EtcdLogin, EtcdTls};
use self::lease::EtcdRenewal;
use self::members::{Member, Members, Repeat};
use self::watch::EtcdWatch;
use super::{
    Committed, Compare, Entry, LeaseGrant, LeaseId, Revision, Snapshot, Store, StoreError, Txn, Watch, Write, limits,
};

/// A client of a real etcd or of the embedded server. Clones share the connections.
#[derive(Clone)]
pub struct EtcdStore {
    members: Members,
}

// === impl EtcdStore ===

impl EtcdStore {
    /// Connects to a store without TLS and login, and checks that it answers.
    pub async fn connect(endpoints: &[String]) -> Result<Self, StoreError> {
        Self::open(&EtcdAccess::plain(endpoints)).await
    }

    /// Connects to a store and checks that it answers.
    pub async fn open(access: &EtcdAccess) -> Result<Self, StoreError> {
        let members = Members::new(access).await?;
        // The first call opens the connection. So one call is made here, and a wrong address is noticed at once.
        let probe = || members.call(Repeat::Freely, |mut member: Member| async move { member.probe().await });
        match probe().await {
            // On a link that loses packets a connection may take longer than its time: once more costs nothing where
            // it was refused.
            Err(StoreError::Unavailable { .. }) => probe().await?,
            found => found?,
        }
        Ok(Self { members })
    }

    /// Reads all entries whose keys start with one of `prefixes`, as they were at one revision.
    pub async fn read_together(&self, prefixes: &[&str]) -> Result<Snapshot, StoreError> {
        let mut all = Snapshot::default();
        for prefix in prefixes {
            let found = self.read_at(prefix, all.revision).await?;
            if all.revision == Revision(0) {
                all.revision = found.revision;
            }
            all.entries.extend(found.entries);
        }
        all.entries.sort_by(|one, other| one.key.as_bytes().cmp(other.key.as_bytes()));
        Ok(all)
    }

    /// Reads all entries whose keys start with `prefix`, as they were at a revision: at 0, as they are now. The
    /// snapshot has the revision of now in either case.
    async fn read_at(&self, prefix: &str, at: Revision) -> Result<Snapshot, StoreError> {
        let options = GetOptions::new().with_prefix().with_sort(SortTarget::Key, SortOrder::Ascend);
        let options = options.with_revision(number(at));
        let get = |mut member: Member| {
            let options = options.clone();
            async move { member.kv.get(prefix, Some(options)).await }
        };
        let reply = self.members.call(Repeat::Freely, get).await.map_err(|error| error.on(|| reading(prefix)))?;
        let revision = reply.header().map_or(Revision(0), |header| revision(header.revision()));
        Ok(Snapshot { revision, entries: reply.kvs().iter().filter_map(entry).collect() })
    }
}

impl std::fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdStore").field("endpoints", &self.members.names()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn read(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        self.read_at(prefix, Revision(0)).await
    }

    async fn commit(&self, txn: Txn) -> Result<Committed, StoreError> {
        check_size(&txn)?;
        let lease = txn.writes.iter().find_map(|write| match write {
            Write::Put { lease, .. } => *lease,
            Write::Delete { .. } => None,
        });
        let keys = written_keys(&txn);
        let request = etcd_client::Txn::new()
            .when(txn.compares.into_iter().map(compare).collect::<Vec<_>>())
            .and_then(operations(txn.writes));
        let commit = |mut member: Member| {
            let request = request.clone();
            async move { member.kv.txn(request).await }
        };
        let reply = self.members.call(Repeat::IfUnsent, commit).await.map_err(|error| match (error, lease) {
            (StoreError::LeaseGone { .. }, Some(id)) => StoreError::LeaseGone { id },
            (error, _) => error.on(|| writing(&keys)),
        })?;
        let revision = reply.header().map_or(Revision(0), |header| revision(header.revision()));
        Ok(if reply.succeeded() { Committed::Applied { revision } } else { Committed::Refused })
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        let from = number(after).saturating_add(1);
        let options = WatchOptions::new().with_prefix().with_start_revision(from);
        let watch = |mut member: Member| {
            let options = options.clone();
            async move {
                member.refresh_token().await?;
                Ok((member.watch.watch(prefix, Some(options)).await?, member.at))
            }
        };
        let (stream, at) = self.members.call(Repeat::Freely, watch).await?;
        Ok(Watch::new(EtcdWatch::new(self.members.clone(), at, stream, prefix)))
    }

    async fn lease(&self, ttl: Duration) -> Result<LeaseGrant, StoreError> {
        let seconds = super::lease::whole_seconds(ttl);
        // If a lease is granted twice, one is renewed and the other expires.
        let grant = |mut member: Member| async move { member.lease.grant(seconds, None).await };
        let reply = self.members.call(Repeat::Freely, grant).await;
        let reply = reply.map_err(|error| error.on(|| "grant leases".to_owned()))?;
        let granted = Duration::from_secs(reply.ttl().unsigned_abs());
        let renewal = EtcdRenewal::new(self.members.clone(), reply.id(), granted);
        Ok(LeaseGrant::new(LeaseId(reply.id()), granted, renewal))
    }

    async fn alarms(&self) -> Result<Vec<String>, StoreError> {
        let ask =
            |mut member: Member| async move { member.maintenance.alarm(AlarmAction::Get, AlarmType::None, None).await };
        match self.members.call(Repeat::Freely, ask).await {
            Ok(reply) => Ok(reply.alarms().iter().map(|alarm| alarm_text(alarm.alarm())).collect()),
            // The embedded server has no alarms, and a user of less rights need not see them.
            Err(StoreError::Invalid { .. } | StoreError::Denied { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

// --- The rights that a call needs, for the sentence that names the missing one ---

/// The prefix that a role is given whose user writes `key`: that of its cluster.
fn prefix_of(key: &str) -> &str {
    // "/baton/v1/<cluster>/…" has four slashes up to there.
    key.match_indices('/').nth(3).map_or(key, |(at, _)| &key[..=at])
}

/// The right to read the keys under `prefix`.
pub(super) fn reading(prefix: &str) -> String {
    format!("read {prefix}: its role needs `etcdctl role grant-permission ROLE readwrite --prefix=true {prefix}`")
}

/// The right to write `keys`.
fn writing(keys: &[String]) -> String {
    let (key, prefix) = keys.first().map_or(("", ""), |key| (key.as_str(), prefix_of(key)));
    format!("write {key}: its role needs `etcdctl role grant-permission ROLE readwrite --prefix=true {prefix}`")
}

/// The keys that a transaction writes.
fn written_keys(txn: &Txn) -> Vec<String> {
    let written = txn.writes.iter().map(|write| match write {
        Write::Put { key, .. } | Write::Delete { key } => key.clone(),
    });
    written.collect()
}

// --- Between the store's values and etcd-client's ---

fn alarm_text(alarm: AlarmType) -> String {
    let text = match alarm {
        AlarmType::Nospace => {
            "the store has no room and takes no writes: nobody can join or take layers over until its disk has room \
             or, for etcd, until it is compacted, defragmented, and `etcdctl alarm disarm` is given"
        }
        AlarmType::Corrupt => "the store reports that a member's data is corrupt",
        AlarmType::None => "the store raises an alarm",
    };
    text.to_owned()
}

fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or(0))
}

fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

/// `None` for a key that is not text. Other clients may write such keys, but callers of this store do not see them.
fn entry(found: &KeyValue) -> Option<Entry> {
    Some(Entry {
        key: found.key_str().ok()?.to_owned(),
        value: found.value().to_vec(),
        mod_revision: revision(found.mod_revision()),
        lease: (found.lease() != 0).then_some(LeaseId(found.lease())),
    })
}

fn compare(compare: Compare) -> etcd_client::Compare {
    use etcd_client::{Compare as Condition, CompareOp};
    match compare {
        Compare::Absent { key } => Condition::create_revision(key, CompareOp::Equal, 0),
        Compare::Present { key } => Condition::create_revision(key, CompareOp::Greater, 0),
        Compare::Unchanged { key, mod_revision } => {
            Condition::mod_revision(key, CompareOp::Equal, number(mod_revision))
        }
        Compare::NothingUnder { prefix } => Condition::create_revision(prefix, CompareOp::Equal, 0).with_prefix(),
    }
}

/// The steps of a transaction. More of them than one level takes go into nested transactions, which are a part of it.
fn operations(mut writes: Vec<Write>) -> Vec<TxnOp> {
    if writes.len() <= limits::TXN_OPS_MAX {
        return writes.into_iter().map(operation).collect();
    }
    let mut groups = Vec::new();
    while !writes.is_empty() {
        let rest = writes.split_off(writes.len().min(limits::TXN_GROUP_WRITES_MAX));
        let group = std::mem::replace(&mut writes, rest).into_iter().map(operation).collect::<Vec<_>>();
        groups.push(TxnOp::txn(etcd_client::Txn::new().and_then(group)));
    }
    groups
}

fn operation(write: Write) -> TxnOp {
    match write {
        Write::Put { key, value, lease } => {
            let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
            TxnOp::put(key, value, options)
        }
        Write::Delete { key } => TxnOp::delete(key, None),
    }
}

/// The size is checked on this side too: etcd counts the encoded request, and answers a far larger one with a broken
/// stream.
fn check_size(txn: &Txn) -> Result<(), StoreError> {
    let (writes, most) = (txn.writes.len(), limits::TXN_WRITES_MAX);
    if writes > most {
        return Err(StoreError::Invalid {
            reason: format!("a transaction of {writes} writes; at most {most} are taken"),
        });
    }
    let bytes: usize = txn
        .writes
        .iter()
        .map(|write| match write {
            Write::Put { key, value, .. } => key.len() + value.len(),
            Write::Delete { key } => key.len(),
        })
        .sum();
    if bytes > limits::REQUEST_BYTES_MAX {
        let most = limits::REQUEST_BYTES_MAX;
        return Err(StoreError::Invalid {
            reason: format!("a transaction of {bytes} bytes; at most {most} are taken"),
        });
    }
    Ok(())
}
