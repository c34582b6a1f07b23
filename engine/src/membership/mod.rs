//! How a process sees its cluster and changes it: the only place where the store meets baton's records.

mod aside;
mod publisher;
mod strikes;
mod writes;

pub(crate) use aside::Aside;
#[cfg(test)]
pub(crate) use publisher::Mirror;
pub use publisher::{Publisher, read_view};
pub(crate) use strikes::Strikes;
pub use writes::{
    claim, delete_pin, forget_starts, leave_claims, mark_claim, note, note_start, propose, put_pin, register_stage,
    report_stage, strike, write_gateway, write_model,
};
