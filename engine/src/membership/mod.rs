//! How a process sees its cluster and changes it: the only place where the store meets baton's records.

mod aside;
mod key_mark;
mod proof;
mod publisher;
mod recall;
mod strikes;
mod writes;

pub(crate) use aside::Aside;
pub(crate) use key_mark::mark_to_write;
pub use key_mark::{KeyAgreementError, KeyMismatch, agree_on_key};
pub use proof::mark_of;
pub(crate) use proof::{Identity, sign_gateway, sign_stage};
#[cfg(test)]
pub(crate) use publisher::Mirror;
pub use publisher::{Publisher, read_view};
#[cfg(test)]
pub(crate) use recall::Recall;
pub(crate) use strikes::Strikes;
pub(crate) use writes::put_back;
pub use writes::{
    claim, delete_pin, forget_starts, leave_claims, mark_claim, note, note_start, propose, put_pin, register_stage,
    report_stage, strike, write_gateway, write_model,
};
