//! The endpoints of one store: calls go to one of them until it fails, then to the next.
//!
//! etcd-client's own balancing is not used, because it goes on sending calls to an endpoint that refuses connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Error, KvClient, LeaseClient, MaintenanceClient, WatchClient};
use tokio::time::timeout;
use tonic::Code;

use crate::store::{LeaseId, StoreError};

/// Longest time for a call: longer than an election of etcd's leader takes, short enough to try again within a lease.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest time for opening a connection. On the local network it takes a millisecond.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Interval between pings on the connection, which reveal a server that hangs: on an open watch nothing else does.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Longest time for the answer to a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// Most bytes in one reply: several times the capacity of the in-memory store, and a bound on the replies of a real
/// etcd.
const REPLY_BYTES_MAX: usize = 64 << 20;

/// The clients of one endpoint. Clones share the connection.
#[derive(Clone)]
pub(super) struct Member {
    /// Its index in the list.
    pub(super) at: usize,
    pub(super) kv: KvClient,
    pub(super) watch: WatchClient,
    pub(super) lease: LeaseClient,
    pub(super) maintenance: MaintenanceClient,
}

/// The rule for repeating a call whose outcome is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Always: it changes nothing, or nothing that stays.
    Freely,
    /// Only if it surely did not reach the store.
    IfUnsent,
}

/// All endpoints of a store.
#[derive(Clone)]
pub(super) struct Members {
    /// The endpoints, for messages.
    names: Arc<str>,
    members: Arc<[Member]>,
    current: Arc<AtomicUsize>,
}

// === impl Members ===

impl Members {
    /// Prepares connections. The first call opens them.
    pub(super) async fn new(endpoints: &[String]) -> Result<Self, StoreError> {
        if endpoints.is_empty() {
            return Err(StoreError::Invalid { reason: "no endpoint was given; expected http://HOST:PORT".to_owned() });
        }
        let mut members = Vec::with_capacity(endpoints.len());
        for (at, endpoint) in endpoints.iter().enumerate() {
            let client = Client::connect([endpoint], Some(options())).await.map_err(|error| StoreError::Invalid {
                reason: format!("{endpoint:?} is no endpoint: {error}; expected http://HOST:PORT"),
            })?;
            members.push(Member {
                at,
                kv: client.kv_client().max_decoding_message_size(REPLY_BYTES_MAX),
                watch: client.watch_client().max_decoding_message_size(REPLY_BYTES_MAX),
                lease: client.lease_client(),
                maintenance: client.maintenance_client(),
            });
        }
        Ok(Self { names: endpoints.join(",").into(), members: members.into(), current: Arc::default() })
    }

    pub(super) fn names(&self) -> &str {
        &self.names
    }

    /// The member that calls go to now.
    pub(super) fn current(&self) -> Member {
        self.members[self.at()].clone()
    }

    /// Runs a call on one member with a time limit. If it fails and `repeat` allows it, runs it on the next member.
    pub(super) async fn call<T, Call, Reply>(&self, repeat: Repeat, call: Call) -> Result<T, StoreError>
    where
        Call: Fn(Member) -> Reply,
        Reply: Future<Output = Result<T, Error>>,
    {
        let mut failure = self.unavailable("no endpoint".to_owned());
        for _ in 0..self.members.len() {
            let at = self.at();
            let unsent = match timeout(CALL_TIMEOUT, call(self.members[at].clone())).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(error)) => {
                    failure = self.explain(&error);
                    never_connected(&error)
                }
                Err(_) => {
                    failure = self.unavailable(format!("no answer within {} s", CALL_TIMEOUT.as_secs()));
                    false
                }
            };
            if !matches!(failure, StoreError::Unavailable { .. }) {
                break;
            }
            self.fail_over(at);
            if repeat == Repeat::IfUnsent && !unsent {
                break;
            }
        }
        Err(failure)
    }

    pub(super) fn unavailable(&self, reason: String) -> StoreError {
        StoreError::Unavailable { endpoints: self.names.to_string(), reason }
    }

    fn at(&self) -> usize {
        self.current.load(Ordering::Relaxed) % self.members.len()
    }

    /// Sends calls to the next member after member `at` failed one. Of several calls that failed on one member, the
    /// first moves on and the others find it done.
    pub(super) fn fail_over(&self, at: usize) {
        let next = (at + 1) % self.members.len();
        let _ = self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Translates an error of etcd-client into one for the callers of this store.
    fn explain(&self, error: &Error) -> StoreError {
        let Error::GRpcStatus(status) = error else { return self.unavailable(reason(error)) };
        let message = status.message().to_owned();
        match status.code() {
            // The caller fills in the lease.
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

fn options() -> ConnectOptions {
    ConnectOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_keep_alive(PING_INTERVAL, PING_TIMEOUT)
        .with_keep_alive_while_idle(true)
        .with_tcp_keepalive(Duration::from_secs(10))
        // A member that is cut off from the others then returns an error, instead of serving a watch on which nothing
        // ever happens.
        .with_require_leader(true)
}

/// The innermost cause, because tonic's own text is no more than "transport error".
pub(super) fn reason(error: &Error) -> String {
    let Error::GRpcStatus(status) = error else { return error.to_string() };
    chain(status).last().map_or_else(|| status.message().to_owned(), ToString::to_string)
}

/// True if the call failed for want of a connection, so that it cannot have reached the store.
fn never_connected(error: &Error) -> bool {
    let Error::GRpcStatus(status) = error else { return false };
    chain(status).any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused)
    })
}

/// The causes of a status, from the outermost in.
fn chain(status: &tonic::Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(status), |cause| cause.source())
}
