//! Own layers on disk: a machine that joins a cluster fetches the header of the model's files and the bytes of the
//! layers that it is given, and nothing else, from the machine that shares the cluster and from others that have them.
//!
//! Bytes travel in chunks, each checked against a manifest of hashes, and lie in sparse files beside a map of the
//! ranges that are there. Which layers a stage holds, and when, is not decided here.

mod activity;
mod byte_ranges;
mod client;
mod error;
mod fetch;
mod folder;
mod found_sources;
mod inventory;
mod limits;
mod loader;
mod manifest;
mod own_manifest;
mod pace;
mod port;
mod protocol;
mod service;
mod sources;
mod tls;

pub use activity::Activity;
pub use client::LayerClient;
pub use error::{LayersError, WrongChunk};
pub use fetch::LayerFetch;
pub use folder::PartialModel;
pub use found_sources::FoundSources;
pub use inventory::{Checked, PartialEntry, check_whole};
pub use loader::FetchingLoader;
pub use manifest::ChunkManifest;
pub use port::LayerPort;
pub(crate) use protocol::LAYERS_PROTOCOL;
pub use service::LayerService;
