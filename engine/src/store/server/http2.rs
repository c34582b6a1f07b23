//! The listening port: accepts clients that speak HTTP/2, a bounded number at a time, and bounds the memory of each.
//!
//! This module knows nothing of etcd. A client that sends anything else gets one line of explanation.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tracing::debug;

use super::accept::accept;
use super::connections::{Calls, Connections};
use super::service::Service;

/// Most connections at a time: one or two per process of the cluster, and those of operators' tools. One more closes
/// one that has no call; members always have streams.
pub(super) const CONNECTIONS_MAX: usize = 128;

/// Most calls and streams at a time on one connection: a process has a handful.
const STREAMS_PER_CONNECTION_MAX: u32 = 64;

/// Largest header block of a call, in bytes: a real one has under 500.
const HEADER_BYTES_MAX: u32 = 8 << 10;

/// Bytes that a client may have in flight on one stream, and on a connection, before they are read.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;

/// Longest time for the first 24 bytes of a new connection.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval between pings on a quiet connection, and the longest time for their answer: a peer that is gone frees its
/// place.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The first bytes of every HTTP/2 connection (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The answer to every other client.
const EXPLANATION: &str =
    "this port is baton's coordination store: it speaks etcd's gRPC API over HTTP/2; use etcdctl\n";

/// Accepts connections until the future is dropped, which closes all of them.
pub(super) async fn serve(listener: TcpListener, service: Arc<Service>) {
    let connections = Connections::new(CONNECTIONS_MAX);
    accept(listener, "the embedded store", |stream, _| {
        // Small replies should not wait for more to send. If the option cannot be set, that costs only time.
        let _ = stream.set_nodelay(true);
        Some(serve_one_of(connections.clone(), stream, service.clone()))
    })
    .await;
}

/// Serves a connection as one of `connections`, if they have room.
pub(super) async fn serve_one_of<S>(connections: Connections, stream: S, service: Arc<Service>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(mut connection) = connections.admit() else {
        return debug!("connection refused: {CONNECTIONS_MAX} have calls");
    };
    tokio::select! {
        () = serve_connection(stream, service, connection.calls()) => {}
        () = connection.closed() => debug!("a connection closed for others"),
    }
}

/// Serves one connection, from its first byte to its last. Its calls are noted in `calls`.
async fn serve_connection<S>(mut stream: S, service: Arc<Service>, calls: Calls)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match timeout(PREFACE_TIMEOUT, speaks_http2(&mut stream)).await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => return reject(stream).await,
        Ok(Err(_)) | Err(_) => return,
    }
    let answer = service_fn(move |request| {
        let (service, call) = (service.clone(), calls.begin());
        async move { Ok::<_, std::convert::Infallible>(service.answer(request, call).await) }
    });
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(Prefaced { stream, replayed: 0 }), answer)
        .await;
    if let Err(error) = served {
        debug!(%error, "connection to the embedded store broke");
    }
}

/// Reads the first bytes as long as they are those of HTTP/2. True if all of them are.
async fn speaks_http2<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<bool> {
    let mut read = [0; PREFACE.len()];
    let mut len = 0;
    while len < PREFACE.len() {
        match stream.read(&mut read[len..]).await? {
            0 => return Ok(false),
            more => len += more,
        }
        if read[..len] != PREFACE[..len] {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Answers a peer that speaks another protocol, in HTTP/1, which it most likely speaks.
async fn reject<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let reply = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{}",
        EXPLANATION.len(),
        EXPLANATION
    );
    let reply_and_drain = async {
        stream.write_all(reply.as_bytes()).await?;
        stream.shutdown().await?;
        // Closing with input unread would reset the connection and take the reply with it.
        let mut rest = [0; 1024];
        for _ in 0..64 {
            if stream.read(&mut rest).await? == 0 {
                break;
            }
        }
        io::Result::Ok(())
    };
    // A peer that does not read the answer needs no handling.
    let _ = timeout(Duration::from_secs(1), reply_and_drain).await;
}

/// A connection whose first bytes were read already. Those bytes are known, so reading returns them again.
struct Prefaced<S> {
    stream: S,
    replayed: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefaced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let left = &PREFACE[self.replayed..];
        if left.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, into);
        }
        let part = left.len().min(into.remaining());
        into.put_slice(&left[..part]);
        self.replayed += part;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefaced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
