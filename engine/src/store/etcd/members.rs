//! The endpoints of one store: calls go to one of them until it fails, then to the next.
//!
//! etcd-client's own balancing is not used, because it goes on sending calls to an endpoint that refuses connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Error, GetOptions, KvClient, LeaseClient, MaintenanceClient, WatchClient};
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tonic::Code;

use super::access::{EtcdAccess, EtcdLogin};
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

/// The key that is asked for to learn whether a store answers. It need not exist, and the user need not be allowed to
/// read it.
const PROBE_KEY: &str = "/baton/v1/";

/// The clients of one endpoint. Clones share the connection.
#[derive(Clone)]
pub(super) struct Member {
    /// Its index in the list.
    pub(super) at: usize,
    pub(super) kv: KvClient,
    pub(super) watch: WatchClient,
    pub(super) lease: LeaseClient,
    pub(super) maintenance: MaintenanceClient,
    login: Option<Login>,
}

/// The login at one endpoint. It happens before the first call, so that an endpoint that is down when a process starts
/// keeps nobody from the others.
#[derive(Clone)]
struct Login {
    client: Client,
    user: EtcdLogin,
    done: Arc<OnceCell<()>>,
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
    /// The user who logs in, for messages.
    user: Option<Arc<str>>,
    /// True if no certificate is shown to an endpoint with TLS.
    is_anonymous: bool,
}

// === impl Member ===

impl Member {
    /// Logs in, unless that was done or the store asks for no user. etcd-client logs in again by itself when the token
    /// is refused, as it is after its time and after etcd was started again.
    pub(super) async fn log_in(&self) -> Result<(), Error> {
        let Some(login) = &self.login else { return Ok(()) };
        let log_in = || async {
            let EtcdLogin { user, password } = login.user.clone();
            login.client.clone().update_user(Some((user, password))).await
        };
        login.done.get_or_try_init(log_in).await.map(|_| ())
    }

    /// Makes a call that changes nothing and that a majority of the members must answer.
    pub(super) async fn probe(&mut self) -> Result<(), Error> {
        match self.kv.get(PROBE_KEY, Some(GetOptions::new().with_count_only())).await {
            Err(Error::GRpcStatus(status)) if status.code() == Code::PermissionDenied => Ok(()),
            found => found.map(drop),
        }
    }

    /// Opens a stream only after a call whose token was taken: etcd does not say of a watch whether its token or its
    /// user is refused.
    pub(super) async fn refresh_token(&mut self) -> Result<(), Error> {
        if self.login.is_some() { self.probe().await } else { Ok(()) }
    }
}

// === impl Members ===

impl Members {
    /// Prepares connections. The first call opens them.
    pub(super) async fn new(access: &EtcdAccess) -> Result<Self, StoreError> {
        let endpoints = &access.endpoints;
        if endpoints.is_empty() {
            return Err(StoreError::Invalid { reason: "no endpoint was given; expected http://HOST:PORT".to_owned() });
        }
        let mut members = Vec::with_capacity(endpoints.len());
        for (at, endpoint) in endpoints.iter().enumerate() {
            let options = access.secure(endpoint, options())?;
            let client = Client::connect([endpoint], Some(options)).await.map_err(|error| StoreError::Invalid {
                reason: format!("{endpoint:?} cannot be used: {}; expected http(s)://HOST:PORT", innermost(&error)),
            })?;
            let login = access.login.clone();
            members.push(Member {
                at,
                kv: client.kv_client().max_decoding_message_size(REPLY_BYTES_MAX),
                watch: client.watch_client().max_decoding_message_size(REPLY_BYTES_MAX),
                lease: client.lease_client(),
                maintenance: client.maintenance_client(),
                login: login.map(|user| Login { client, user, done: Arc::default() }),
            });
        }
        let is_anonymous = access.tls.identity.is_none() && endpoints.iter().any(|url| EtcdAccess::is_tls(url));
        let user = access.login.as_ref().map(|login| login.user.as_str().into());
        let (names, members) = (endpoints.join(",").into(), members.into());
        Ok(Self { names, members, current: Arc::default(), user, is_anonymous })
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
            let member = self.members[at].clone();
            let logged_in = async {
                member.log_in().await.map_err(|error| (true, error))?;
                call(member).await.map_err(|error| (never_connected(&error), error))
            };
            let unsent = match timeout(CALL_TIMEOUT, logged_in).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err((unsent, error))) => {
                    failure = self.explain(&error);
                    unsent
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
        let reason = match tls_advice(&reason, self.is_anonymous) {
            Some(advice) => format!("{reason} ({advice})"),
            None => reason,
        };
        StoreError::Unavailable { endpoints: self.names.to_string(), reason }
    }

    /// The user, for messages.
    pub(super) fn user(&self) -> String {
        self.user.as_deref().unwrap_or("without a name").to_owned()
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
            // The caller fills in what it asked for.
            Code::PermissionDenied => StoreError::Denied { user: self.user(), asked: String::new() },
            Code::Unauthenticated | Code::InvalidArgument
                if REFUSED_LOGINS.iter().any(|text| message.contains(text)) =>
            {
                StoreError::Login { user: self.user(), reason: login_advice(&message, self.user.is_some()) }
            }
            Code::FailedPrecondition if message.contains(AUTH_IS_OFF) => {
                StoreError::Login { user: self.user(), reason: login_advice(&message, true) }
            }
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::NotFound
            | Code::AlreadyExists
            | Code::Unauthenticated
            | Code::Unimplemented => StoreError::Invalid { reason: message },
            _ => self.unavailable(reason(error)),
        }
    }
}

/// etcd's texts for a call without a user, with a wrong one, or with a wrong password.
const REFUSED_LOGINS: [&str; 4] =
    ["authentication failed", "user name is empty", "user name not found", "invalid auth token"];

/// etcd's text for a login at an etcd that has authentication switched off.
const AUTH_IS_OFF: &str = "authentication is not enabled";

/// etcd's text, and what to do about it.
fn login_advice(message: &str, has_user: bool) -> String {
    let advice = match has_user {
        _ if message.contains(AUTH_IS_OFF) => "leave etcd_user out, or switch it on with `etcdctl auth enable`",
        true => "check etcd_user, and the password in etcd_password_file or BATON_ETCD_PASSWORD",
        false => "name a user with etcd_user, and its password in etcd_password_file or BATON_ETCD_PASSWORD",
    };
    format!("{message}; {advice}")
}

/// The texts of the kernel, hyper and h2 for a connection that the other end closed.
const ENDED_CONNECTIONS: [&str; 4] = ["broken pipe", "connection closed", "connection reset", "operation was canceled"];

/// The setting to look at after a handshake of TLS that failed for `reason`, in rustls's words.
fn tls_advice(reason: &str, is_anonymous: bool) -> Option<&'static str> {
    // A server without TLS answers in its own protocol, or closes the connection.
    if reason.contains("InvalidContentType") || reason.contains("tls handshake eof") {
        Some("it speaks no TLS: expected an http:// address")
    } else if reason.contains("fatal alert") && (reason.contains("Certificate") || reason.contains("UnknownCA")) {
        Some("it does not take this process's certificate: expected etcd_cert and etcd_key to be one of its authority")
    } else if is_anonymous && ENDED_CONNECTIONS.iter().any(|end| reason.to_lowercase().contains(end)) {
        // A server that wants a certificate says so in an alert, and one without TLS in its own protocol; both then
        // close the connection while the client still writes, so that the kernel often throws their words away.
        Some(
            "it may ask for a certificate: expected etcd_cert and etcd_key; \
             or it speaks no TLS: expected an http:// address",
        )
    } else if reason.to_lowercase().contains("certificate") {
        Some("expected etcd_ca to name the authority of its certificate, and the address to have a name that is in it")
    } else {
        None
    }
}

fn options() -> ConnectOptions {
    ConnectOptions::new()
        .with_auto_token_refresh(true)
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

/// The innermost cause of an error that may not be a status.
fn innermost(error: &Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.last().map_or_else(|| error.to_string(), ToString::to_string)
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
