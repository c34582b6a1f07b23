//! Errors that end `baton up`, `baton stage` or `baton gateway`.

use std::io;
use std::net::SocketAddr;

use engine::core::PipelineError;
use engine::link::LinkError;
use engine::membership::AdmissionError;
use engine::runner::KV_BLOCK_TOKENS;
use engine::stage::StageError;
use engine::store::{DiskError, StoreError};
use schema::ClusterName;
use stages::weights::FileChanged;

use super::limits::GATEWAY_WAIT_MAX;
use super::other_model::OtherModel;
use super::switch::SwitchError;
use crate::etcd_process::EtcdProcessError;
use crate::http::TlsError;
use crate::models::ModelError;
use crate::running::MemoryPromised;
use crate::text::TextError;

/// Errors that end `baton up`, `baton stage` or `baton gateway`.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The coordination store cannot be used.
    #[error("cannot use the coordination store")]
    Store(#[from] StoreError),
    /// The cluster does not admit this process.
    #[error("cannot take part in the cluster")]
    Admission(#[from] AdmissionError),
    /// Getting the model's file failed.
    #[error("cannot get the model")]
    Model(#[from] ModelError),
    /// Reading the model's file failed.
    #[error("cannot read the model file {path}")]
    File {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is too little memory for keys and values.
    #[error(
        "kv_memory is {found_bytes} bytes: expected at least the {block_bytes} bytes of one block of {KV_BLOCK_TOKENS} \
         tokens"
    )]
    KvMemory {
        /// The configured memory, in bytes.
        found_bytes: u64,
        /// Size of one block over all layers of the model, in bytes.
        block_bytes: u64,
    },
    /// The model's file has changed since it was opened.
    #[error(transparent)]
    Changed(#[from] FileChanged),
    /// The cluster does not change its model.
    #[error(transparent)]
    Switch(#[from] SwitchError),
    /// The cluster serves another model file.
    #[error(transparent)]
    OtherModel(#[from] Box<OtherModel>),
    /// Other clusters of this machine may come to take the memory.
    #[error("cannot start the stages")]
    MemoryPromised(#[from] MemoryPromised),
    /// The cluster's model is not on this machine.
    #[error(
        "the cluster serves {name}, which is not in the cache of this machine: fetch it with `baton pull`, \
             or name the file's path"
    )]
    NotHere {
        /// The cluster's model.
        name: String,
    },
    /// The process with the HTTP server uses a store that this one does not know.
    #[error(
        "cluster {cluster} serves at {address} already, with a store that was given to it: give the same --etcd, so \
         that its gateway serves this cluster, too, or another --listen for a gateway of its own"
    )]
    NeighbourStore {
        /// The cluster of that process.
        cluster: ClusterName,
        /// The address of its HTTP server.
        address: SocketAddr,
    },
    /// The HTTP server of the other process is more open than this one was to be.
    #[error(
        "cluster {cluster} serves at {address} already, without {lacking}: start that one with it, too, or give \
         another --listen for a gateway of its own"
    )]
    NeighbourOpen {
        /// The cluster of that process.
        cluster: ClusterName,
        /// The address of its HTTP server.
        address: SocketAddr,
        /// The protection that it lacks.
        lacking: &'static str,
    },
    /// The process with the HTTP server has ended.
    #[error(
        "the `baton up` of cluster {cluster} (process {pid}) has ended, and with it the HTTP server of this cluster: \
         start it again without that one"
    )]
    NeighbourEnded {
        /// The cluster of that process.
        cluster: ClusterName,
        /// That process.
        pid: u32,
    },
    /// The process with the HTTP server does not serve this cluster.
    #[error(
        "the gateway of cluster {neighbour} (process {pid}) has not opened this cluster within {} s: its output says \
         why; another --listen gives this cluster a gateway of its own",
        GATEWAY_WAIT_MAX.as_secs()
    )]
    NoGateway {
        /// The cluster of that process.
        neighbour: ClusterName,
        /// That process.
        pid: u32,
    },
    /// The model's vocabulary cannot be used.
    #[error("cannot use the model's vocabulary")]
    Text(#[from] TextError),
    /// The stage failed.
    #[error("cannot serve layers")]
    Stage(#[from] StageError),
    /// The gateway's pipeline failed.
    #[error("cannot run the gateway")]
    Pipeline(#[from] PipelineError),
    /// Opening links failed.
    #[error("cannot open links")]
    Link(#[from] LinkError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for {what}: choose another address with {flag}")]
    Listen {
        /// The service that was to listen on the address.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// The flag that chooses another address.
        flag: &'static str,
        /// The operating system's reason.
        #[source]
        cause: io::Error,
    },
    /// The etcd of `baton up` did not start.
    #[error("cannot start etcd, as --store etcd asks for")]
    Etcd(#[from] EtcdProcessError),
    /// The store's file cannot be used.
    #[error("cannot open the embedded store")]
    Disk(#[from] DiskError),
    /// The cluster cannot be shared at the address.
    #[error("cannot share the cluster at {address}: choose another place with --share=HOST:PORT")]
    Share {
        /// The address.
        address: String,
        /// The operating system's reason.
        #[source]
        cause: io::Error,
    },
    /// It is not known where other machines reach this one.
    #[error("cannot tell at which address other machines reach this one: expected --share=HOST or --advertise HOST")]
    ShareHost,
    /// The shared port cannot be given a certificate.
    #[error("cannot make the certificate of the shared port: {reason}")]
    Certificate {
        /// The reason.
        reason: String,
    },
    /// The files of the cluster cannot be used.
    #[cfg(feature = "tls")]
    #[error("cannot share the cluster")]
    Folder(#[from] crate::share::FolderError),
    /// A token cannot be made.
    #[cfg(feature = "tls")]
    #[error("cannot make a token")]
    Token(#[from] crate::share::TokenStoreError),
    /// The certificate of the HTTP server cannot be used.
    #[error("cannot serve https")]
    Tls(#[from] TlsError),
    /// An operation of the operating system failed.
    #[error("cannot {doing}")]
    Io {
        /// The operation.
        doing: &'static str,
        /// The operating system's reason.
        #[source]
        cause: io::Error,
    },
    /// The thread of the gateway's core has ended.
    #[error("the gateway's core has ended: see the log above")]
    CoreEnded,
    /// All stage processes ended by themselves.
    #[error("all stage processes have ended: see their output above")]
    NoStageLeft,
}
