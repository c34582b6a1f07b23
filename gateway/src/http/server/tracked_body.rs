//! A response's body that reports its end to the connection's guard, and holds the permit of its request until then.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Body, Frame, SizeHint};

use super::connection::ConnectionGuard;
use crate::http::auth::Permit;

/// `body`, sent over the connection of `guard`.
pub(crate) struct TrackedBody<B> {
    body: B,
    guard: Arc<ConnectionGuard>,
    _permit: Option<Permit>,
}

// === impl TrackedBody ===

impl<B> TrackedBody<B> {
    /// Reports the end of `body` to `guard`, and drops `permit` then.
    pub(crate) fn new(body: B, guard: Arc<ConnectionGuard>, permit: Option<Permit>) -> Self {
        Self { body, guard, _permit: permit }
    }
}

impl<B: Body + Unpin> Body for TrackedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for TrackedBody<B> {
    fn drop(&mut self) {
        // hyper drops a body once it has taken all of it.
        self.guard.response_ended();
    }
}
