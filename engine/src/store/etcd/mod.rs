//! The store at the other end of a connection: a real etcd, or the embedded server.

mod lease;
mod watch;

use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    Client, ConnectOptions, Error, GetOptions, KeyValue, KvClient, LeaseClient, PutOptions, SortOrder, SortTarget,
    TxnOp, WatchClient, WatchOptions,
};
use tokio::time::{Instant, timeout};
use tonic::Code;

use self::lease::EtcdRenewal;
use self::watch::EtcdWatch;
use super::{
    Committed, Compare, Entry, LeaseGrant, LeaseId, Revision, Snapshot, Store, StoreError, Txn, Watch, Write, limits,
};

/// How long a call may take: longer than an election of etcd's leader takes, short enough to try again within a lease.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// How long opening a connection may take; on the local network it takes a millisecond.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Pings on the connection, so that a server that hangs is noticed: the only sign of it on an open watch.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// How long a ping may stay unanswered.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// Most bytes taken in one reply: ten times what baton keeps under all its keys.
const REPLY_BYTES_MAX: usize = 64 << 20;

/// A client of a real etcd or of the embedded server; clones share the connection.
#[derive(Clone)]
pub struct EtcdStore {
    endpoints: Endpoints,
    kv: KvClient,
    watch: WatchClient,
    lease: LeaseClient,
}

/// Where the store is, for messages.
#[derive(Debug, Clone)]
struct Endpoints(String);

// === impl EtcdStore ===

impl EtcdStore {
    /// Connects to a store and checks that it answers. `endpoints` are URLs such as `http://127.0.0.1:2379`.
    pub async fn connect(endpoints: &[String]) -> Result<Self, StoreError> {
        let options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_keep_alive(PING_INTERVAL, PING_TIMEOUT)
            .with_keep_alive_while_idle(true)
            .with_tcp_keepalive(Duration::from_secs(10));
        let names = Endpoints(endpoints.join(","));
        let client = Client::connect(endpoints, Some(options))
            .await
            .map_err(|error| StoreError::Invalid { reason: format!("{} is no list of endpoints: {error}", names.0) })?;
        let store = Self {
            endpoints: names,
            kv: client.kv_client().max_decoding_message_size(REPLY_BYTES_MAX),
            watch: client.watch_client().max_decoding_message_size(REPLY_BYTES_MAX),
            lease: client.lease_client(),
        };
        // A balanced channel connects when it is first used: ask something, so that a wrong address is noticed here.
        let mut kv = store.kv.clone();
        store.endpoints.call(kv.get("\0", Some(GetOptions::new().with_count_only()))).await?;
        Ok(store)
    }
}

impl std::fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdStore").field("endpoints", &self.endpoints.0).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn read(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        let options = GetOptions::new().with_sort(SortTarget::Key, SortOrder::Ascend);
        let mut kv = self.kv.clone();
        let reply = self.endpoints.call(kv.get(prefix, Some(options.with_prefix()))).await?;
        let revision = reply.header().map_or(Revision(0), |header| revision(header.revision()));
        Ok(Snapshot { revision, entries: reply.kvs().iter().filter_map(entry).collect() })
    }

    async fn commit(&self, txn: Txn) -> Result<Committed, StoreError> {
        check_size(&txn)?;
        let lease = txn.writes.iter().find_map(|write| match write {
            Write::Put { lease, .. } => *lease,
            Write::Delete { .. } => None,
        });
        let request = etcd_client::Txn::new()
            .when(txn.compares.into_iter().map(compare).collect::<Vec<_>>())
            .and_then(txn.writes.into_iter().map(operation).collect::<Vec<_>>());
        let mut kv = self.kv.clone();
        let reply = self.endpoints.call(kv.txn(request)).await.map_err(|error| match (error, lease) {
            (StoreError::LeaseGone { .. }, Some(id)) => StoreError::LeaseGone { id },
            (error, _) => error,
        })?;
        let revision = reply.header().map_or(Revision(0), |header| revision(header.revision()));
        Ok(if reply.succeeded() { Committed::Applied { revision } } else { Committed::Refused })
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        let from = number(after).saturating_add(1);
        let options = WatchOptions::new().with_start_revision(from);
        let mut client = self.watch.clone();
        let stream = self.endpoints.call(client.watch(prefix, Some(options.with_prefix()))).await?;
        Ok(Watch::new(EtcdWatch::new(self.endpoints.clone(), stream)))
    }

    async fn lease(&self, ttl: Duration) -> Result<LeaseGrant, StoreError> {
        let mut client = self.lease.clone();
        let asked_at = Instant::now();
        let reply = self.endpoints.call(client.grant(super::lease::whole_seconds(ttl), None)).await?;
        let granted = Duration::from_secs(reply.ttl().unsigned_abs());
        Ok(LeaseGrant::new(LeaseId(reply.id()), granted, asked_at, EtcdRenewal::new(client, reply.id(), granted)))
    }
}

// === impl Endpoints ===

impl Endpoints {
    /// Runs a call with a time limit and says in our words what went wrong.
    async fn call<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, StoreError> {
        match timeout(CALL_TIMEOUT, call).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(self.explain(&error)),
            Err(_) => Err(self.unavailable(format!("no answer within {} s", CALL_TIMEOUT.as_secs()))),
        }
    }

    fn unavailable(&self, reason: String) -> StoreError {
        StoreError::Unavailable { endpoints: self.0.clone(), reason }
    }

    fn explain(&self, error: &Error) -> StoreError {
        let Error::GRpcStatus(status) = error else { return self.unavailable(reason(error)) };
        let message = status.message().to_owned();
        match status.code() {
            Code::NotFound if message.contains("lease") => StoreError::LeaseGone { id: LeaseId(0) },
            Code::ResourceExhausted => StoreError::Full { reason: message },
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented => StoreError::Invalid { reason: message },
            _ => self.unavailable(reason(error)),
        }
    }
}

/// The innermost cause: tonic's own text is "transport error" and no more.
fn reason(error: &Error) -> String {
    let Error::GRpcStatus(status) = error else { return error.to_string() };
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}

// --- Between the store's values and etcd-client's ---

fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or(0))
}

fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

/// None for a key that is not text: others may put such keys, this store's callers do not see them.
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
    }
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

/// Checked on this side too: etcd counts the encoded request, and its answer to a far larger one is a broken stream.
fn check_size(txn: &Txn) -> Result<(), StoreError> {
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
