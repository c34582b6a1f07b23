//! A connection's guard: it holds the connection's entry in the admission table from accept to drop, and sets its
//! phase as the parts of the connection (socket, request body, response body) report.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use super::admission::{Admission, Bounds, ConnectionId, Phase};

/// Dropping the sender evicts the connection that has the receiver.
type EvictionHandle = oneshot::Sender<Infallible>;

/// The admission table of one server, shared by its accept loop and its connections.
#[derive(Debug, Clone)]
pub(crate) struct Connections(Arc<Mutex<Admission<EvictionHandle>>>);

/// One connection's entry in the table. Dropping the guard removes the entry.
#[derive(Debug)]
pub(crate) struct ConnectionGuard {
    connections: Connections,
    id: ConnectionId,
    /// Set from the end of a response's body until the socket has flushed it.
    answered: AtomicBool,
    /// Set by bytes that belong to no request answered so far.
    unanswered_bytes: AtomicBool,
    /// Set when a response closes the connection before its request's body was read.
    unread_body: AtomicBool,
}

/// Resolves when the table evicts the connection.
#[derive(Debug)]
pub(crate) struct Eviction(oneshot::Receiver<Infallible>);

// === impl Connections ===

impl Connections {
    /// An empty table with `bounds`.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self(Arc::new(Mutex::new(Admission::new(bounds))))
    }

    /// Admits a connection from `address`. Without room for it, evicts a waiting connection. `None` rejects it,
    /// because all connections that it could replace are busy.
    pub(crate) fn admit(&self, address: IpAddr) -> Option<(Arc<ConnectionGuard>, Eviction)> {
        let (handle, evicted) = oneshot::channel();
        let (id, replaced) = self.lock().admit(address, Instant::now(), handle)?;
        drop(replaced);
        let guard = ConnectionGuard {
            connections: self.clone(),
            id,
            answered: AtomicBool::new(false),
            unanswered_bytes: AtomicBool::new(false),
            unread_body: AtomicBool::new(false),
        };
        Some((Arc::new(guard), Eviction(evicted)))
    }

    /// Evicts the waiting connection that is first in the table's order of eviction. False when all are busy.
    pub(crate) fn evict_one(&self) -> bool {
        let evicted = self.lock().evict_any();
        evicted.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Admission<EvictionHandle>> {
        // A poisoned lock can be used, because no method of the table leaves it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl ConnectionGuard ===

impl ConnectionGuard {
    /// Records that the socket has read bytes.
    pub(crate) fn bytes_received(&self) {
        self.unanswered_bytes.store(true, Relaxed);
    }

    /// Records that the head of a request is complete, so that its body is awaited.
    pub(crate) fn request_started(&self) {
        self.answered.store(false, Relaxed);
        self.unanswered_bytes.store(false, Relaxed);
        self.set_phase(Phase::Receiving);
    }

    /// Records that the body of the request is complete, so that the request is being answered.
    pub(crate) fn body_received(&self) {
        self.set_phase(Phase::Busy);
    }

    /// Records that the request is answered before its body was read. With `closes`, the response closes the
    /// connection.
    pub(crate) fn body_unread(&self, closes: bool) {
        self.unread_body.store(closes, Relaxed);
        self.set_phase(Phase::Busy);
    }

    /// Records that the rest of such a body was read and discarded.
    pub(crate) fn body_drained(&self) {
        self.unanswered_bytes.store(false, Relaxed);
    }

    /// Records that hyper has taken the response's body to its end.
    pub(crate) fn response_ended(&self) {
        self.answered.store(true, Relaxed);
        self.unanswered_bytes.store(false, Relaxed);
    }

    /// Records that the socket has flushed all bytes that hyper wrote. If a response has ended, the connection is idle.
    pub(crate) fn flushed(&self) {
        if self.answered.swap(false, Relaxed) {
            self.set_phase(Phase::Idle);
        }
    }

    /// True while the client may still be sending. Closing now would reset the connection before the client reads the
    /// response.
    pub(crate) fn must_linger(&self) -> bool {
        self.unread_body.load(Relaxed) || self.unanswered_bytes.load(Relaxed)
    }

    fn set_phase(&self, phase: Phase) {
        self.connections.lock().set_phase(self.id, phase, Instant::now());
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.connections.lock().remove(self.id);
    }
}

// === impl Eviction ===

impl Eviction {
    /// Waits until the connection is evicted.
    pub(crate) async fn wait(self) {
        // Nothing is ever sent. The wait ends when the sender is dropped.
        let _ = self.0.await;
    }
}
