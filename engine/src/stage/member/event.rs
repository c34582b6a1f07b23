//! The closed lists of what a stage's [`Member`](super::Member) learns and of what it orders. The loop of a real stage and the
//! simulator's feed the same events and carry out the same orders.

use std::sync::Arc;

use bytes::Bytes;
use schema::frame::{Frame, Hop};
use schema::record::{KvRoom, MemoryUse};
use schema::{Generation, LayerRange};

use crate::link::Message;
use crate::route::RouteEvent;
use crate::stage::compute::Done;
use crate::store::{Committed, LeaseId, StoreError, Txn};
use crate::view::ClusterView;

/// Everything that can happen to a stage.
#[derive(Debug)]
pub(crate) enum Event {
    /// The stage's record is in the store under this lease.
    Joined(LeaseId),
    /// The lease is gone, or is about to be given back. `is_forgotten`: it went with all of the store's data, so that what is
    /// held is of use under the next lease.
    LeaseLost {
        is_forgotten: bool,
    },
    /// The newest view of the cluster.
    Viewed(Arc<ClusterView>),
    Arrived(Message),
    /// A frame that cannot be read, and why.
    Unreadable(String),
    /// The compute thread, or the reader beside it, has done something.
    Done(Done),
    /// The compute thread has no room for this micro-batch.
    Overloaded(Hop),
    /// The compute thread takes no order to load.
    LoadRefused,
    /// A write came to its end.
    Written(Purpose, Result<Committed, StoreError>),
    /// On the way to the next stage.
    Downstream(RouteEvent),
    /// On the way to the gateway in a slot.
    Upstream(u32, RouteEvent),
    /// A moment has passed; the process uses so much memory.
    Tick(MemoryUse),
    /// The process is to stop when others have taken over what it holds.
    Drain,
}

/// What a member wants done.
#[derive(Debug)]
pub(crate) enum Order {
    /// Write this to the store, beside the loop. There is never a second one before [`Event::Written`].
    Commit(Purpose, Txn),
    /// Load a shard in place of the one that is there; `number` comes back with it.
    Load { number: u64, layers: LayerRange, room: KvRoom, budget_bytes: u64 },
    /// Read the weights of these layers into memory, at most so many bytes, beside the loop; `number` comes back with it.
    /// An earlier order to read is void.
    ReadAhead { number: u64, ranges: Vec<LayerRange>, bytes_max: u64 },
    /// Let go of the shard.
    Unload,
    /// Close the connection to the next stage: what waits for it is of the past.
    Disconnect,
    /// Compute a micro-batch.
    Compute(Hop, Bytes),
    /// Send a micro-batch on to the next stage.
    Forward { endpoint: String, hop: Hop, activations: Bytes },
    /// Answer a gateway.
    Answer { gateway: u32, endpoint: String, frame: Frame },
    /// End the process: nothing is left to hand over, or nobody took it in time.
    Stop,
}

/// The purpose of a store write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Registration,
    Proposal,
    Note,
    Claim(Generation, u32),
    Mark,
    Leave,
    Eviction,
    Report,
    Leaving,
    /// Something that the store has lost is written again.
    Heal,
}
