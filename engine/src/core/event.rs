//! The closed lists of what a gateway's [`Conductor`](super::conductor::Conductor) learns and of what it orders. The loop of a
//! real gateway and the simulator's feed the same events and carry out the same orders.

use std::sync::Arc;

use schema::SequenceId;
use schema::frame::{Frame, Hop, Tokens};

use super::fault::PipelineFault;
use crate::generate::{Rejection, Request, TokenEvent};
use crate::route::RouteEvent;
use crate::share::Registered;
use crate::store::Txn;
use crate::view::ClusterView;

/// Everything that can happen to a gateway's pipeline.
#[derive(Debug)]
pub(crate) enum Event {
    /// The newest view of the cluster.
    Viewed(Arc<ClusterView>),
    /// The gateway's newest registration.
    Registered(Registered),
    Arrived(Frame),
    /// On the way to the first stage.
    Route(RouteEvent),
    /// A request; the answer to it carries the same `ticket`.
    Submitted {
        ticket: u64,
        request: Request,
    },
    /// The receiver of a sequence's tokens is gone.
    Left(SequenceId),
    /// A write came to its end, well or not.
    Written(Purpose),
    /// A moment has passed.
    Tick,
    /// The moment of [`Conductor::wakes_at`](super::conductor::Conductor::wakes_at) has come.
    Wake,
}

/// What a conductor wants done.
#[derive(Debug)]
pub(crate) enum Order {
    /// Send a micro-batch to the first stage.
    Send { endpoint: String, hop: Hop },
    /// A new epoch begins, after a fault or in another pipeline: close the connection to the first stage.
    BeginAnew(Option<PipelineFault>),
    /// A micro-batch came back whole.
    Returned(Tokens),
    /// Answer a request: its sequence, or the reason for rejecting it.
    Reply { ticket: u64, answer: Result<SequenceId, Rejection> },
    /// Tell the receiver of a sequence's tokens.
    Tell(SequenceId, TokenEvent),
    /// Write this to the store, beside the loop. There is never a second one of a purpose before [`Event::Written`].
    Commit(Purpose, Txn),
}

/// The purpose of a store write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The gateway's record: its share of the keys and values, and its trouble.
    Record,
    /// The first stage, which cannot be reached, is evicted.
    Eviction,
}
