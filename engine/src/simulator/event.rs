//! The events of a simulation, as data. It does not know when they happen or who handles them.

use std::sync::Arc;

use super::fault::Fault;
use super::network::{Parcel, Target};
use super::process_id::ProcessId;
use super::store::{StoreRequest, StoreResponse};
use crate::link::Message;
use crate::stage::done::Done;
use crate::stage::member::Purpose;
use crate::store::LeaseId;
use crate::view::ClusterView;

/// An event of the simulation.
pub(super) enum Event {
    /// An event of a process, if it is still the same incarnation.
    Process(ProcessId, u32, ProcessEvent),
    /// A frame arrives at the end of a link.
    Arrives(Parcel),
    /// The heartbeat timeout of a link, if nothing came over it meanwhile.
    Missed(u64),
    /// A request arrives at the store.
    Asked(ProcessId, u32, Call, StoreRequest),
    /// The store's response arrives.
    Answered(ProcessId, u32, Call, StoreResponse),
    /// A new view arrives at a process.
    Shown(ProcessId, u32, Arc<ClusterView>, u64),
    /// A process notices that the store is away, or that it is back.
    Notices(ProcessId, u32, StoreNotice),
    Fault(Fault),
    /// The store expires leases.
    Expires,
    /// A client sends its request, or sends it again.
    Submits(usize),
    /// A client closes its stream.
    Leaves(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreNotice {
    Away,
    Back,
}

/// The purpose of a request to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// Joining, for the `.0`th time.
    Join(u64),
    Register(u64),
    Renewal {
        lease: LeaseId,
    },
    /// The `number`th write of a stage.
    Write {
        number: u64,
        purpose: Purpose,
    },
    /// A gateway evicts a stage that is gone.
    Eviction,
    /// A gateway's record is written.
    Record,
    /// A record that the store has lost is written again.
    Rewrite,
    Revocation,
    /// A stage's load is written.
    Load,
}

/// An event of a process.
pub(super) enum ProcessEvent {
    /// It begins to join, for the first time or again.
    Joins,
    /// It tries again to register, in joining for the `.0`th time.
    Registers(u64),
    Answered {
        call: Call,
        response: StoreResponse,
    },
    /// The time to renew the lease has come.
    Renews,
    Ticks,
    /// The view has changed.
    Sees,
    Receives(Message),
    /// One of its links has ended.
    LinkEnded {
        target: Target,
        link: u64,
    },
    /// The compute thread has finished its current order.
    ComputeDone,
    Computed(Done),
    /// A dial was answered, or timed out.
    Dialled {
        target: Target,
        number: u64,
    },
    /// The time that the conductor waits for has come.
    Wakes,
    Submits(usize),
}
