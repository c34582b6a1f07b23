//! Why a running verb ended badly.

use std::io;
use std::net::SocketAddr;

use engine::core::PipelineError;
use engine::link::LinkError;
use engine::membership::KeyAgreementError;
use engine::runner::KV_BLOCK_TOKENS;
use engine::stage::StageError;
use engine::store::StoreError;
use schema::Fingerprint;
use stages::weights::FileChanged;

use crate::models::ModelError;
use crate::text::TextError;

/// Why a running verb ended badly.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The coordination store.
    #[error("cannot use the coordination store")]
    Store(#[from] StoreError),
    /// Another cluster key than the cluster's.
    #[error("cannot take part in the cluster")]
    Key(#[from] KeyAgreementError),
    /// Getting the model's file.
    #[error("cannot get the model")]
    Model(#[from] ModelError),
    /// Reading the model's file.
    #[error("cannot read the model file {path}")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Too little for keys and values.
    #[error(
        "kv_memory is {found_bytes} bytes: expected at least the {block_bytes} bytes of one block of {KV_BLOCK_TOKENS} tokens"
    )]
    KvMemory {
        /// What was said.
        found_bytes: u64,
        /// What one block takes over all layers of the model.
        block_bytes: u64,
    },
    /// The model's file is not what it was.
    #[error(transparent)]
    Changed(#[from] FileChanged),
    /// The cluster serves something else.
    #[error(
        "the cluster serves {name} with fingerprint {expected}: {path} has {found}, so it is another file; \
             every machine needs the same one"
    )]
    OtherModel {
        /// The cluster's model.
        name: String,
        /// Its fingerprint.
        expected: Fingerprint,
        /// The local file.
        path: String,
        /// The local file's fingerprint.
        found: Fingerprint,
    },
    /// The cluster's model is not on this machine.
    #[error(
        "the cluster serves {name}, which is not in the cache of this machine: fetch it with `baton pull`, \
             or name the file's path"
    )]
    NotHere {
        /// The cluster's model.
        name: String,
    },
    /// Text.
    #[error("cannot use the model's vocabulary")]
    Text(#[from] TextError),
    /// The stage.
    #[error("cannot serve layers")]
    Stage(#[from] StageError),
    /// The head.
    #[error("cannot run the gateway")]
    Pipeline(#[from] PipelineError),
    /// Links.
    #[error("cannot open links")]
    Link(#[from] LinkError),
    /// A port that cannot be had.
    #[error("cannot listen on {address} for {what}: choose another address with {flag}")]
    Listen {
        /// What for.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// The flag that chooses another.
        flag: &'static str,
        /// The operating system's reason.
        #[source]
        cause: io::Error,
    },
    /// Something of the operating system's.
    #[error("cannot {doing}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The operating system's reason.
        #[source]
        cause: io::Error,
    },
    /// The head's thread is gone.
    #[error("the head of the pipeline has ended: its last words are in the log above")]
    HeadEnded,
    /// All stage processes ended by themselves.
    #[error("all stage processes have ended: what they said is above")]
    NoStageLeft,
}
