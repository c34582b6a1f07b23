//! What was said about each setting, in groups. The same structs read flags, environment and file.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use schema::record::{DeviceKind, KvType};
use schema::{ByteSize, ClusterName, StageName};
use serde::Deserialize;

use super::address::{EtcdUrls, Host};
use crate::http::{AllowedHost, AllowedOrigin};

/// Defines a group of settings that can each be unsaid, and how two sources of it are laid over one another.
macro_rules! choices {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: Option<$type>,)*
        }

        impl $name {
            /// These choices; where nothing was said, those of `other`.
            #[must_use]
            pub fn or(self, other: Self) -> Self {
                Self { $($field: self.$field.or(other.$field),)* }
            }
        }
    };
}

choices! {
    /// For every verb.
    GlobalChoices {
        /// What to log to stderr: off, error, warn, info, debug, trace, or a tracing filter such as engine=debug
        #[arg(long, env = "BATON_LOG", value_name = "FILTER", global = true, help_heading = "Global options")]
        log: String,
        /// Folder of model files [default: ~/.cache/baton, on macOS ~/Library/Caches/baton]
        #[arg(long, env = "BATON_CACHE", value_name = "DIR", global = true, help_heading = "Global options")]
        cache: PathBuf,
    }
}
choices! {
    /// Which cluster, and the store it meets in.
    ClusterChoices {
        /// Name of the cluster: the store may hold several [default: home]
        #[arg(long, env = "BATON_CLUSTER", value_name = "NAME")]
        cluster: ClusterName,
        /// Where etcd answers, several with commas between them; `baton up` without it serves a store of its own [default: http://127.0.0.1:2379]
        #[arg(long, env = "BATON_ETCD", value_name = "URLS")]
        etcd: EtcdUrls,
    }
}
choices! {
    /// For a process that takes part in a cluster.
    MemberChoices {
        /// Name or address by which the other machines reach this one; without it only this machine can
        #[arg(long, env = "BATON_ADVERTISE", value_name = "HOST")]
        advertise: Host,
        /// File with the cluster key, which `baton key` makes; or set BATON_CLUSTER_KEY. Needed with --advertise
        #[arg(long, env = "BATON_CLUSTER_KEY_FILE", value_name = "PATH")]
        cluster_key_file: PathBuf,
        /// Seconds after which a silent process counts as gone, 2 to 300 [default: 5]
        #[arg(long, env = "BATON_LEASE_TTL_S", value_name = "SECONDS")]
        lease_ttl_s: u64,
    }
}
choices! {
    /// What the cluster is to serve, if this process is the first to say so.
    ModelChoices {
        /// A name of `baton models`, the path of a .gguf file, or hf:OWNER/REPO/FILE.gguf
        #[arg(env = "BATON_MODEL", value_name = "MODEL")]
        model: String,
        /// Tokens of keys and values that every stage makes room for, all requests together [default: 8192]
        #[arg(long, env = "BATON_KV_TOKENS", value_name = "TOKENS")]
        kv_tokens: u32,
        /// Memory for keys and values of all layers of the model together, such as 2GiB, in the place of --kv-tokens
        #[arg(long, env = "BATON_KV_MEMORY", value_name = "SIZE")]
        kv_memory: ByteSize,
        /// What keys and values are kept as: f16, or q8_0, which takes about half as much memory [default: f16]
        #[arg(long, env = "BATON_KV_TYPE", value_name = "TYPE")]
        kv_type: KvType,
        /// Stages to wait for before the layers are divided [default: 1; `baton up`: --stages]
        #[arg(long, env = "BATON_STAGES_MIN", value_name = "N")]
        stages_min: u32,
    }
}
choices! {
    /// What a stage may use.
    ComputeChoices {
        /// Most memory a stage may use, such as 6GiB or 800MB [default: what the machine has to spare]
        #[arg(long, env = "BATON_MEMORY", value_name = "SIZE")]
        memory: ByteSize,
        /// What to compute on: cpu, metal or cuda (the last two when built in) [default: cpu]
        #[arg(long, env = "BATON_DEVICE", value_name = "DEVICE", value_parser = device)]
        device: DeviceKind,
        /// Compute threads of a stage [default: the processors; `baton up`: its share of them]
        #[arg(long, env = "BATON_THREADS", value_name = "N")]
        threads: u32,
        /// Processors to leave to others when nothing is said of threads; `baton up`: by all its stages together [default: 0]
        #[arg(long, env = "BATON_SPARE_CORES", value_name = "N")]
        spare_cores: u32,
    }
}
choices! {
    /// For `baton stage`.
    StageChoices {
        /// Name of this stage, unique in the cluster [default: the host's name]
        #[arg(long, env = "BATON_NAME", value_name = "NAME")]
        name: StageName,
    }
}
choices! {
    /// For the HTTP door.
    GatewayChoices {
        /// Where HTTP clients are served [default: 127.0.0.1:8100]
        #[arg(long, env = "BATON_LISTEN", value_name = "ADDR")]
        listen: SocketAddr,
        /// Longest a request may take, in seconds, 1 to 86400 [default: 600]
        #[arg(long, env = "BATON_REQUEST_DEADLINE_S", value_name = "SECONDS")]
        request_deadline_s: u64,
        /// Whether stages that would idle verify guesses at the next tokens; the answers are the same: on or off [default: on]
        #[arg(long, env = "BATON_SPECULATION", value_name = "SWITCH", hide_possible_values = true)]
        speculation: Switch,
        /// Most tokens of a chat's answer when its request does not say (max_tokens), 1 to 16777216 [default: 4096]
        #[arg(long, env = "BATON_DEFAULT_MAX_TOKENS", value_name = "TOKENS")]
        default_max_tokens: u32,
        /// Web pages that may use the API beside those of this machine, several with commas between them; * for any
        #[arg(long, env = "BATON_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
        allow_origin: Vec<AllowedOrigin>,
        /// Host names by which clients may ask beside those of the cluster's machines, several with commas; * for any
        #[arg(long, env = "BATON_ALLOW_HOST", value_name = "HOST", value_delimiter = ',')]
        allow_host: Vec<AllowedHost>,
        /// Where a collector of OpenTelemetry takes the spans of requests, such as http://127.0.0.1:4318 (when built in)
        #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
        otlp_endpoint: String,
    }
}
choices! {
    /// For `baton up`.
    UpChoices {
        /// How many stage processes to start, 1 to 64 [default: 2]
        #[arg(long, env = "BATON_STAGES", value_name = "N")]
        stages: u32,
        /// Where the embedded store answers when no --etcd is given; loopback only [default: 127.0.0.1:2379]
        #[arg(long, env = "BATON_STORE_LISTEN", value_name = "ADDR")]
        store_listen: SocketAddr,
    }
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// It is done.
    On,
    /// It is not.
    Off,
}

fn device(text: &str) -> Result<DeviceKind, String> {
    match text {
        "cpu" => Ok(DeviceKind::Cpu),
        "metal" => Ok(DeviceKind::Metal),
        "cuda" => Ok(DeviceKind::Cuda),
        _ => Err("expected cpu, metal or cuda".to_owned()),
    }
}

/// The word that [`device`] reads.
pub(super) fn device_word(device: DeviceKind) -> &'static str {
    match device {
        DeviceKind::Cpu => "cpu",
        DeviceKind::Metal => "metal",
        DeviceKind::Cuda => "cuda",
    }
}
