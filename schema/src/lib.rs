//! Every type that leaves a process: ids, layer ranges, store records and their keys, link frames.
//!
//! This crate does no I/O and depends on neither etcd nor ZeroMQ. It only defines the meaning of the bytes.

pub mod frame;
mod id;
mod key;
mod layers;
mod protocol;
pub mod record;
mod size;

pub use id::{
    Attempt, ClusterName, Deployment, Epoch, Fingerprint, Generation, NameError, SequenceId, StageName, Step, TokenId,
};
pub use key::{ClaimId, Key, Keyspace, Lifetime, UnknownKey};
pub use layers::LayerRange;
pub use protocol::Protocol;
pub use size::{ByteSize, HumanBytes, SizeError};
