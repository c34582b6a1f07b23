//! The closed lists of the events and orders of a gateway's pipeline. The loop of a real gateway and that of the
//! simulator feed the same events to a [`Conductor`](super::conductor::Conductor) and execute the same orders.

use std::sync::Arc;

use schema::SequenceId;
use schema::frame::{Frame, Hop, Tokens};
use schema::record::AdvertisedAddress;

use super::fault::PipelineFault;
use crate::generate::{Rejection, Request, TokenEvent};
use crate::route::RouteEvent;
use crate::share::GatewayRegistration;
use crate::store::Txn;
use crate::view::ClusterView;

/// An event of a gateway's pipeline.
#[derive(Debug)]
pub(crate) enum Event {
    /// The newest view of the cluster.
    ViewChanged(Arc<ClusterView>),
    /// The gateway's newest registration.
    Registered(GatewayRegistration),
    /// The gateway takes frames at these addresses now.
    AddressesChanged(Vec<AdvertisedAddress>),
    Arrived(Frame),
    /// An event of the route to the first stage.
    Route(RouteEvent),
    /// A request. The reply to it carries the same `ticket`.
    Submitted {
        ticket: u64,
        request: Request,
    },
    /// The receiver of a sequence's tokens is gone.
    Cancelled(SequenceId),
    /// A write has ended, successfully or not.
    Written(Purpose),
    /// A tick of the timer.
    Tick,
    /// The time of [`Conductor::wakes_at`](super::conductor::Conductor::wakes_at) has come.
    Wake,
}

/// An order of a conductor.
#[derive(Debug)]
pub(crate) enum Order {
    /// Send a micro-batch to the first stage.
    Send { endpoint: String, hop: Hop },
    /// A new epoch begins, after a fault or in another pipeline: close the connection to the first stage.
    NewEpoch(Option<PipelineFault>),
    /// A micro-batch came back whole.
    Returned(Tokens),
    /// Answer a request: its sequence, or the reason for rejecting it.
    Reply { ticket: u64, answer: Result<SequenceId, Rejection> },
    /// Deliver an event to the receiver of a sequence's tokens.
    Deliver(SequenceId, TokenEvent),
    /// Write this to the store without blocking the loop. There is never a second write of the same purpose before
    /// [`Event::Written`].
    Commit(Purpose, Txn),
}

/// The purpose of a store write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The gateway's record: its share of the keys and values, and its trouble.
    Record,
    /// The first stage, which cannot be reached, is evicted.
    Eviction,
    /// Old eviction records are deleted.
    Bookkeeping,
}
