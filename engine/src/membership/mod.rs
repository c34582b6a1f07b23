//! Follows a process's cluster in the store, and makes the transactions that change the cluster's records.

mod admission;
mod evictions;
mod key_mark;
mod loads;
mod proof;
mod publisher;
mod quarantine;
mod recall;
mod rollouts;
mod view_pace;
mod writes;

pub use admission::{AdmissionError, OtherProtocol, admit};
pub(crate) use evictions::Evictions;
pub use key_mark::KeyMismatch;
pub(crate) use key_mark::mark_to_write;
pub(crate) use loads::report_gateway_load;
pub use loads::{LoadReader, Loads, read_loads};
pub(crate) use loads::{load_interval, report_load};
pub use proof::mark_of;
pub(crate) use proof::{Identity, sign_gateway, sign_stage};
#[cfg(test)]
pub(crate) use publisher::Mirror;
pub use publisher::{Publisher, read_view};
pub(crate) use quarantine::Quarantine;
#[cfg(test)]
pub(crate) use recall::Recall;
pub use rollouts::{RolloutFollower, RolloutSeen, begin_rollout, delete_leftovers, read_rollout, settle_rollout};
pub(crate) use writes::restore;
pub use writes::{
    ClaimSeen, claim, clear_starts, count_start, delete_claims, delete_pin, evict, propose, put_pin, register_stage,
    replace_model, report_stage, update_claim, write_gateway, write_model, write_pin_statuses,
};
