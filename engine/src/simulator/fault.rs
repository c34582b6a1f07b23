//! The faults that a seed can have, as data. It knows neither when they happen nor what they do.

use super::network::FrameFaults;
use super::pin::{PinTarget, PinValue};
use super::process_id::ProcessId;
use super::time::Moment;

/// A fault, or its end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// A process starts, unless it runs.
    Starts(ProcessId),
    /// It crashes.
    Crashes(ProcessId),
    /// It stops in good order, and revokes its lease.
    Stops(ProcessId),
    /// It freezes until it thaws.
    Freezes(ProcessId),
    Thaws(ProcessId),
    /// The store answers no process.
    StoreGoes,
    /// It is back. With `with_leases` it has kept all leases meanwhile.
    StoreComes {
        with_leases: bool,
    },
    /// A process does not reach the store.
    StoreCut(ProcessId),
    StoreMended(ProcessId),
    /// Nothing passes from one process to another.
    Cut {
        from: ProcessId,
        to: ProcessId,
        until: Moment,
    },
    /// Breaks a link.
    Breaks(u64),
    /// An operator revokes a lease.
    Revoked(ProcessId),
    /// An operator deletes all claims.
    ClaimsDeleted,
    /// The store comes back without its data.
    StoreEmptied,
    /// An operator deletes a value, or overwrites it with nonsense.
    Corrupted {
        choice: u64,
        deletes: bool,
    },
    /// A user without the cluster key writes the record of a stage.
    Forged,
    /// No other process completes a handshake with this one.
    Barred(ProcessId),
    Unbarred(ProcessId),
    /// A gateway is inspected: if it is healthy, it gets a request.
    Inspected(ProcessId),
    /// A request that was sent to a healthy gateway after the faults must be done by now.
    MustBeDone(usize),
    /// An operator puts a pin.
    Pinned(PinTarget, PinValue),
    Unpinned(PinTarget),
    /// Frames meet faults that a real link does not have.
    FrameFaults(FrameFaults),
    /// The faults end.
    End,
}

// === impl Fault ===

impl Fault {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Starts(_) => "a process started",
            Self::Crashes(process) if process.is_gateway() => "the gateway crashed",
            Self::Crashes(_) => "a stage crashed",
            Self::Stops(_) => "a stage stopped",
            Self::Freezes(process) if process.is_gateway() => "the gateway froze",
            Self::Freezes(_) => "a stage froze",
            Self::Thaws(_) => "a process thawed",
            Self::StoreGoes => "the store went away",
            Self::StoreComes { .. } => "the store came back",
            Self::StoreCut(_) => "a process was cut off from the store",
            Self::StoreMended(_) => "a process found the store again",
            Self::Cut { .. } => "a link was cut",
            Self::Breaks(_) => "a link broke",
            Self::Revoked(_) => "a lease was revoked",
            Self::ClaimsDeleted => "claims were deleted",
            Self::StoreEmptied => "the store lost its data",
            Self::Corrupted { deletes: true, .. } => "a value was deleted",
            Self::Corrupted { .. } => "a value was corrupted",
            Self::Forged => "a record was forged",
            Self::Barred(_) => "a process was barred",
            Self::Unbarred(_) => "a process was unbarred",
            Self::Inspected(_) => "a gateway was inspected",
            Self::MustBeDone(_) => "a request was checked",
            Self::Pinned(..) => "a pin was put",
            Self::Unpinned(_) => "a pin was deleted",
            Self::FrameFaults(_) => "frames met faults",
            Self::End => "the faults ended",
        }
    }
}
