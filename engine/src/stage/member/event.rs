//! The closed lists of a stage's events and orders. The loop of a real stage and that of the simulator feed the same
//! events to a [`Member`](super::Member) and execute the same orders.

use std::sync::Arc;

use bytes::Bytes;
use schema::frame::{Frame, Hop};
use schema::record::{AdvertisedAddress, KvRoom, LinkReport, MemoryUse};
use schema::{ClaimId, LayerRange};

use crate::link::Message;
use crate::route::RouteEvent;
use crate::stage::done::Done;
use crate::store::{Committed, LeaseId, StoreError, Txn};
use crate::view::ClusterView;

/// An event of a stage.
#[derive(Debug)]
pub(crate) enum Event {
    /// The stage's record is in the store under this lease.
    Joined(LeaseId),
    /// The lease is lost, or is about to be revoked. `is_forgotten`: it was lost with all of the store's data, so that
    /// the shard is of use under the next lease.
    LeaseLost {
        is_forgotten: bool,
    },
    /// The newest view of the cluster.
    ViewChanged(Arc<ClusterView>),
    Arrived(Message),
    /// A frame that cannot be read, with the reason.
    Unreadable(String),
    /// The compute thread, or the thread that reads ahead, has finished an order.
    Done(Done),
    /// The compute thread has no room for this micro-batch.
    Overloaded(Hop),
    /// The compute thread takes no order to load.
    LoadRefused,
    /// A write has ended.
    Written(Purpose, Result<Committed, StoreError>),
    /// An event of the route to the next stage.
    Downstream(RouteEvent),
    /// An event of the route to the gateway in a slot.
    Upstream(u32, RouteEvent),
    /// The addresses at which other machines reach the stage have changed.
    Addresses(Vec<AdvertisedAddress>),
    /// The addresses of its peers, as it finds them, have changed.
    Links(Vec<LinkReport>),
    /// A tick of the timer, with the memory that the process uses.
    Tick(MemoryUse),
    /// The process is to stop once others have taken over its layers.
    Drain,
}

/// An order of a member.
#[derive(Debug)]
pub(crate) enum Order {
    /// Write this to the store without blocking the loop. There is never a second write before [`Event::Written`].
    Commit(Purpose, Txn),
    /// Write the stage's load to the store, beside other writes and without a report of the outcome. A write of it that
    /// is still under way may be given up.
    ReportLoad(Txn),
    /// Load a shard in place of the current one. The result has the same `number`.
    Load { number: u64, layers: LayerRange, room: KvRoom, budget_bytes: u64 },
    /// Read the weights of these layers into memory, at most `bytes_max`, without blocking the loop. Those of `claimed`
    /// layers are fetched first where they are elsewhere. The result has the same `number`. It replaces an earlier
    /// order to read.
    ReadAhead { number: u64, ranges: Vec<LayerRange>, bytes_max: u64, claimed: bool },
    /// Drop the shard.
    Unload,
    /// Close the connection to the next stage: the frames that wait for it are out of date.
    Disconnect,
    /// Compute a micro-batch.
    Compute(Hop, Bytes),
    /// Send a micro-batch on to the next stage.
    Forward { endpoint: String, hop: Hop, activations: Bytes },
    /// Answer a gateway.
    Answer { gateway: u32, endpoint: String, frame: Frame },
    /// End the process: nothing is left to hand over, or no stage took it in time.
    Stop,
}

/// The purpose of a store write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Registration,
    Proposal,
    /// Statuses of pins are written, or old evictions deleted.
    Bookkeeping,
    Claim(ClaimId),
    ClaimUpdate,
    StaleClaims,
    Eviction,
    Report,
    UrgentReport,
    /// A record that the store has lost is written again.
    Rewrite,
}
