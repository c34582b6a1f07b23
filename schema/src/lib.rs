//! Every type that leaves a process: ids, layer ranges, store records and their keys, link frames.
//!
//! This crate does no I/O and knows neither etcd nor ZeroMQ; it only says what the bytes mean.

pub mod frame;
mod id;
mod key;
mod layers;
pub mod record;
mod size;

pub use id::{Attempt, ClusterName, Epoch, Fingerprint, Generation, NameError, SequenceId, StageName, Step};
pub use key::{Key, Keyspace, UnknownKey};
pub use layers::LayerRange;
pub use size::{ByteSize, HumanBytes, SizeError};
