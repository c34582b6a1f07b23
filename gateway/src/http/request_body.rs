//! A request's body that reports its end to the connection's guard.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::connection::ConnectionGuard;

/// A request's body on its way to the page that reads it.
pub(crate) struct RequestBody {
    incoming: Incoming,
    guard: Arc<ConnectionGuard>,
}

// === impl RequestBody ===

impl RequestBody {
    /// Reports the end of `incoming` to `guard`.
    pub(crate) fn new(incoming: Incoming, guard: &Arc<ConnectionGuard>) -> Self {
        if incoming.is_end_stream() {
            guard.body_received();
        }
        Self { incoming, guard: Arc::clone(guard) }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        if frame.is_none() || self.incoming.is_end_stream() {
            self.guard.body_received();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
