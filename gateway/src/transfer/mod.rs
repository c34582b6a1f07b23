//! The transfer of a cluster from one store to another: a document of its keys, made at one revision of the one store,
//! and the single transaction that brings what is permanent of it into the other.
//!
//! Keys of living members are never brought over: members write them where they are.

mod document;
mod error;
mod export;
mod import;
pub mod limits;
mod record;

pub use document::{ClusterDocument, KeptKey, LeftOut, MemberKey};
pub use error::TransferError;
pub use export::export;
pub use import::{Imported, import};
