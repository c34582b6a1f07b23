//! A dial of a simulated process, and the frames that wait for it. It does not know how it ends: see `route`.

use std::collections::VecDeque;

use bytes::Bytes;
use schema::frame::Frame;

/// A dial that has no answer yet.
pub(super) struct Dial {
    pub(super) number: u64,
    pub(super) endpoint: String,
    /// True if it has no frame to send and only finds out if the peer is gone.
    pub(super) is_redial: bool,
    pub(super) waiting: VecDeque<WaitingFrame>,
}

/// A frame that waits to be sent.
pub(super) struct WaitingFrame {
    pub(super) endpoint: String,
    pub(super) frame: Frame,
    pub(super) activations: Bytes,
}
