//! The accept loop: admits connections, performs the handshake of TLS if there is a certificate, applies the timeouts
//! for heads and idle connections, and lets running requests end after the order to stop.
//!
//! It does not know the pages. Bytes that are not HTTP/1 get hyper's bare 400 or 431 without a body, because there is
//! no request that an answer could be written for.

mod admission;
pub(super) mod allowed;
mod bare_reply;
pub(super) mod body;
mod connection;
pub(super) mod host;
mod linger;
mod middleware;
pub(super) mod origin;
mod request_body;
mod stall_guard;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
pub(super) mod tls;
pub(super) mod tls_source;
mod tracked_body;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};
use warp::reply::Response;

use self::admission::Bounds;
use self::bare_reply::BareReply;
use self::connection::{ConnectionGuard, Connections, Eviction};
use self::request_body::RequestBody;
use self::stall_guard::StallGuard;
use self::tls::ServerTls;
use self::tracked_body::TrackedBody;
use crate::http::app_state::{AppState, Settings};
use crate::http::limits::{BARE_REPLY_TIMEOUT, HEAD_BYTES_MAX, HEADERS_MAX, OVERLOAD_REPLIES_MAX};
use crate::http::live::LiveFeed;
use crate::http::routes;

/// Pause after a failed accept. The usual reason is that no file descriptor is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the pages over `state` on `listener` until `shutdown` resolves. Then it accepts nothing new, and running
/// requests get `drain_time` to finish. With `tls` it serves https and no http.
pub async fn serve(
    listener: TcpListener,
    tls: Option<ServerTls>,
    state: Arc<AppState>,
    shutdown: impl Future<Output = ()>,
) {
    let settings = &state.settings;
    let tls = tls.map(Arc::new);
    let pages = TowerToHyperService::new(warp::service(routes::filter(&state)));
    let table = Connections::new(Bounds {
        connections_max: settings.connections_max,
        per_address_max: settings.connections_per_address_max,
        waiting_per_address_max: settings.waiting_per_address_max,
    });
    let overload_permits = Arc::new(Semaphore::new(OVERLOAD_REPLIES_MAX));
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut producer = JoinSet::new();
    producer.spawn(LiveFeed::run_first(state.models.firsts()));
    let mut shutdown = pin!(shutdown);
    let mut following_files = pin!(follow_files(tls.clone()));
    loop {
        let (stream, address) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            never = &mut following_files => match never {},
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &table) => accepted,
        };
        if let Some((guard, eviction)) = table.admit(address.ip()) {
            let connection = connection(stream, tls.clone(), pages.clone(), Arc::clone(&state), guard, stopped.clone());
            connections.spawn(until_evicted(connection, eviction));
        } else if let Ok(permit) = Arc::clone(&overload_permits).try_acquire_owned() {
            let refusal = refuse(stream, tls.clone());
            connections.spawn(async move {
                refusal.await;
                drop(permit);
            });
        }
    }
    drop(listener);
    info!(connections = connections.len(), "the HTTP server stops");
    state.models.all().iter().for_each(|model| model.live.close());
    stop.send_replace(true);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(settings.drain_time, all_ended).await.is_err() {
        warn!(connections = connections.len(), "requests still running are cut off");
        connections.shutdown().await;
    }
}

async fn accept(listener: &TcpListener, table: &Connections) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_client_abort(&error) => {}
            Err(error) => {
                let evicted = is_fd_exhausted(&error) && table.evict_one();
                warn!(%error, evicted, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// True if the client closed the connection before it was accepted. Such an error says nothing about this process.
fn is_client_abort(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

/// True if no file descriptor is free for the connection, in this process or in the system.
fn is_fd_exhausted(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Follows the changes of the certificate, if there is one.
async fn follow_files(tls: Option<Arc<ServerTls>>) -> Infallible {
    match tls {
        Some(tls) => tls.follow_files().await,
        None => std::future::pending().await,
    }
}

/// Tells a client that every connection is busy.
async fn refuse(stream: TcpStream, tls: Option<Arc<ServerTls>>) {
    let Some(tls) = tls else { return BareReply::Overload.send(stream).await };
    if let Ok(Ok(stream)) = tokio::time::timeout(BARE_REPLY_TIMEOUT, tls.accept(stream)).await {
        BareReply::Overload.send(stream).await;
    }
}

/// Serves a connection until it ends or the admission table evicts it.
async fn until_evicted(connection: impl Future<Output = ()>, eviction: Eviction) {
    tokio::select! {
        () = connection => {}
        () = eviction.wait() => debug!("a connection was evicted for another one"),
    }
}

/// Serves one connection, after its handshake if the server has TLS, until it ends or exceeds a bound, or until the
/// server stops and its request is answered.
async fn connection<S>(
    stream: TcpStream,
    tls: Option<Arc<ServerTls>>,
    pages: S,
    state: Arc<AppState>,
    guard: Arc<ConnectionGuard>,
    mut stopped: watch::Receiver<bool>,
) where
    S: Service<Request<RequestBody>, Response = Response, Error = Infallible, Future: Send> + Sync,
{
    // Tokens are small writes. They must not wait for each other.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        let socket = StallGuard::new(stream, state.settings.stall_time, Arc::clone(&guard));
        return serve_requests(socket, pages, state, guard, stopped).await;
    };
    let handshake = handshake(stream, &tls, &state.settings, &guard);
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(state.settings.head_time, handshake) => shaken,
        () = stop_requested(&mut stopped) => return,
    };
    match shaken {
        Ok(Ok(socket)) => serve_requests(socket, pages, state, guard, stopped).await,
        Ok(Err(error)) => debug!(%error, "a connection ended in its handshake"),
        Err(_) => debug!("a connection did not complete its handshake in time"),
    }
}

/// Performs the handshake of TLS on a connection. One that begins with http gets an answer that says so.
async fn handshake(
    stream: TcpStream,
    tls: &ServerTls,
    settings: &Settings,
    guard: &Arc<ConnectionGuard>,
) -> io::Result<tls::Secured<StallGuard>> {
    if tls::begins_as_plain_http(&stream).await? {
        BareReply::NotHttps.send(stream).await;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the client speaks http"));
    }
    tls.accept(StallGuard::new(stream, settings.stall_time, Arc::clone(guard))).await
}

/// Answers the requests of one connection.
async fn serve_requests<S>(
    socket: impl AsyncRead + AsyncWrite + Unpin,
    pages: S,
    state: Arc<AppState>,
    guard: Arc<ConnectionGuard>,
    mut stopped: watch::Receiver<bool>,
) where
    S: Service<Request<RequestBody>, Response = Response, Error = Infallible, Future: Send> + Sync,
{
    let (pages, state, settings) = (&pages, &*state, &state.settings);
    let service = service_fn(|request| {
        guard.request_started();
        let guard = Arc::clone(&guard);
        async move {
            let (response, permit) = middleware::answer(pages, state, &guard, request).await;
            Ok::<_, Infallible>(response.map(|body| TrackedBody::new(body, guard, permit)))
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.head_time)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service);
    let mut serving = pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop_requested(&mut stopped) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended early");
    }
}

/// Waits for the order to stop. The end of the accept loop counts as one.
async fn stop_requested(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
