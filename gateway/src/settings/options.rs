//! The settings as they were given, in groups. The same structs parse flags, environment variables and the settings
//! file.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use schema::record::KvType;
use schema::{ByteSize, ClusterName, StageName};
use serde::Deserialize;
use stages::device::DeviceChoice;

use super::address::{EtcdUrls, Host, SharePlace};
use super::resolved::defaults;
use super::secret::SecretText;
use crate::http::{Allowed, AllowedHost, AllowedOrigin, ModelAlias};

/// `*`, or the name of a cluster.
pub type ClusterChoice = Allowed<ClusterName>;

/// Defines a group of optional settings with a method `or` that fills its gaps from another source.
macro_rules! options {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: Option<$type>,)*
        }

        impl $name {
            /// These settings. A setting that was not given is taken from `other`.
            #[must_use]
            pub fn or(self, other: Self) -> Self {
                Self { $($field: self.$field.or(other.$field),)* }
            }
        }
    };
}

options! {
    /// Settings of every verb.
    GlobalOptions {
        /// Log filter for stderr: off, error, warn, info, debug, trace, or a tracing filter such as engine=debug
        #[arg(long, env = "BATON_LOG", value_name = "FILTER", global = true, help_heading = "Global options")]
        log: String,
        /// Form of the lines on stderr: text, or json for one object a line [default: text]
        #[arg(long, env = "BATON_LOG_FORMAT", value_name = "FORM", global = true, help_heading = "Global options")]
        #[arg(hide_possible_values = true)]
        log_format: LogFormat,
        /// Folder of model files [default: ~/.cache/baton, on macOS ~/Library/Caches/baton]
        #[arg(long, env = "BATON_CACHE", value_name = "DIR", global = true, help_heading = "Global options")]
        cache: PathBuf,
    }
}
options! {
    /// The cluster and its store.
    ClusterOptions {
        /// Name of the cluster: the store may hold several [default: home]
        #[arg(long, env = "BATON_CLUSTER", value_name = "NAME")]
        cluster: ClusterName,
        /// Addresses of etcd, with commas between them. Without it, `baton up` starts a store of its own
        /// [default: http://127.0.0.1:2379]
        #[arg(long, env = "BATON_ETCD", value_name = "URLS")]
        etcd: EtcdUrls,
        /// File with the certificates, in PEM form, of the authority that signed that of an https etcd
        /// [default: the public authorities]
        #[arg(long, env = "BATON_ETCD_CA", value_name = "PATH")]
        etcd_ca: PathBuf,
        /// File with the certificate, in PEM form, that this process shows to etcd
        #[arg(long, env = "BATON_ETCD_CERT", value_name = "PATH")]
        etcd_cert: PathBuf,
        /// File with the key of that certificate, in PEM form, which only its owner may read
        #[arg(long, env = "BATON_ETCD_KEY", value_name = "PATH")]
        etcd_key: PathBuf,
        /// User of etcd, where it asks for one
        #[arg(long, env = "BATON_ETCD_USER", value_name = "NAME")]
        etcd_user: String,
        /// File with the password of that user, which only its owner may read, unless BATON_ETCD_PASSWORD is set
        #[arg(long, env = "BATON_ETCD_PASSWORD_FILE", value_name = "PATH")]
        etcd_password_file: PathBuf,
    }
}
options! {
    /// Settings of a process that takes part in a cluster.
    MemberOptions {
        /// Host name or address at which other machines reach this one; without it, no other machine can
        #[arg(long, env = "BATON_ADVERTISE", value_name = "HOST")]
        advertise: Host,
        /// Interfaces at which other machines reach this one: all of them, or the one of the advertised address
        /// [default: one with --advertise, else all]
        #[arg(long, env = "BATON_INTERFACES", value_name = "WHICH")]
        interfaces: InterfaceChoice,
        /// File with the cluster key (see `baton key`), needed with --advertise unless BATON_CLUSTER_KEY is set
        #[arg(long, env = "BATON_CLUSTER_KEY_FILE", value_name = "PATH")]
        cluster_key_file: PathBuf,
        /// Lease time in seconds, after which a process without heartbeats counts as gone, 2 to 300 [default: 5]
        #[arg(long, env = "BATON_LEASE_TTL_S", value_name = "SECONDS")]
        lease_ttl_s: u64,
    }
}
options! {
    /// The model that the cluster is to serve, if this process is the first to name one.
    ModelOptions {
        /// A name of `baton models`, a .gguf file or a folder, hf:OWNER/REPO:QUANT or /FILE, https://…gguf, ollama:NAME
        #[arg(env = "BATON_MODEL", value_name = "MODEL")]
        model: String,
        /// Tokens of keys and values for all requests [default: what the smallest stage can hold, at least 8192]
        #[arg(long, env = "BATON_KV_TOKENS", value_name = "TOKENS")]
        kv_tokens: u32,
        /// Memory for keys and values of all layers of the model together, such as 2GiB, instead of --kv-tokens
        #[arg(long, env = "BATON_KV_MEMORY", value_name = "SIZE")]
        kv_memory: ByteSize,
        /// Number format of keys and values: f16, or q8_0, which takes about half as much memory [default: f16]
        #[arg(long, env = "BATON_KV_TYPE", value_name = "TYPE")]
        kv_type: KvType,
        /// Stages to wait for before the layers are divided [default: 1; `baton up`: --stages]
        #[arg(long, env = "BATON_STAGES_MIN", value_name = "N")]
        stages_min: u32,
    }
}
options! {
    /// The resources of a stage.
    ComputeOptions {
        /// Most memory a stage may use, such as 6GiB or 800MB [default: the memory that the machine can spare]
        #[arg(long, env = "BATON_MEMORY", value_name = "SIZE")]
        memory: ByteSize,
        /// Device that computes: auto, cpu, metal or cuda; auto is a GPU that computes rightly [default: auto]
        #[arg(long, env = "BATON_DEVICE", value_name = "DEVICE", value_parser = device)]
        device: DeviceChoice,
        /// Compute threads of a stage [default: the number of processors; `baton up`: each stage's share of them]
        #[arg(long, env = "BATON_THREADS", value_name = "N")]
        threads: u32,
        /// Processors left to other programs if --threads is not given; `baton up`: by all its stages together
        /// [default: 0]
        #[arg(long, env = "BATON_SPARE_CORES", value_name = "N")]
        spare_cores: u32,
    }
}
options! {
    /// Settings of `baton stage`.
    StageOptions {
        /// Name of this stage, unique in the cluster [default: the host's name]
        #[arg(long, env = "BATON_NAME", value_name = "NAME")]
        name: StageName,
    }
}
options! {
    /// Settings of the HTTP server.
    GatewayOptions {
        /// Address of the HTTP server [default: 127.0.0.1:8100]
        #[arg(long, env = "BATON_LISTEN", value_name = "ADDR")]
        listen: SocketAddr,
        /// File with API keys: NAME:SECRET or SECRET on each line, perhaps with limits; only its owner may read it.
        /// With a key, only its holders can use the API (/health stays open)
        #[arg(long, env = "BATON_API_KEY_FILE", value_name = "PATH")]
        api_key_file: PathBuf,
        /// Most requests per minute of each API key, 1 to 100000 [default: no limit]
        #[arg(long, env = "BATON_KEY_REQUESTS_PER_MINUTE", value_name = "N")]
        key_requests_per_minute: u32,
        /// Most requests of each API key at the same time, 1 to 1024 [default: no limit]
        #[arg(long, env = "BATON_KEY_CONCURRENT_REQUESTS", value_name = "N")]
        key_concurrent_requests: u32,
        /// Listen beyond this machine without an API key, so that everybody there can use the model
        #[arg(long, env = "BATON_INSECURE", value_name = "SWITCH", num_args = 0..=1, require_equals = true)]
        #[arg(default_missing_value = "on", hide_possible_values = true)]
        insecure: Switch,
        /// Serve https instead of http, with a self-signed certificate unless --tls-cert names another
        #[arg(long, env = "BATON_TLS", value_name = "SWITCH", num_args = 0..=1, require_equals = true)]
        #[arg(default_missing_value = "on", hide_possible_values = true)]
        tls: Switch,
        /// File with the certificate for https and those between it and its root, in PEM form
        #[arg(long, env = "BATON_TLS_CERT", value_name = "PATH")]
        tls_cert: PathBuf,
        /// File with the certificate's key, in PEM form, which only its owner may read
        #[arg(long, env = "BATON_TLS_KEY", value_name = "PATH")]
        tls_key: PathBuf,
        /// Longest time for a request, in seconds, 1 to 86400 [default: 600]
        #[arg(long, env = "BATON_REQUEST_DEADLINE_S", value_name = "SECONDS")]
        request_deadline_s: u64,
        /// Verify speculative tokens on stages that would idle, which does not change the answers: on or off
        /// [default: on]
        #[arg(long, env = "BATON_SPECULATION", value_name = "SWITCH", hide_possible_values = true)]
        speculation: Switch,
        /// Most tokens of a chat's answer if the request does not set max_tokens, 1 to 16777216 [default: 4096]
        #[arg(long, env = "BATON_DEFAULT_MAX_TOKENS", value_name = "TOKENS")]
        default_max_tokens: u32,
        /// Most responses that are kept in memory for previous_response_id, 0 to 65536 [default: 1024]
        #[arg(long, env = "BATON_STORED_RESPONSES", value_name = "N")]
        stored_responses: u32,
        /// Take the sampling that the model's file recommends where a request says nothing: on or off [default: on]
        #[arg(long, env = "BATON_GENERATION_CONFIG", value_name = "SWITCH", hide_possible_values = true)]
        generation_config: Switch,
        /// Take chat templates from requests (`chat_template`): whoever writes one can speak for the system
        #[arg(long, env = "BATON_TRUST_REQUEST_CHAT_TEMPLATE", value_name = "SWITCH")]
        #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "on", hide_possible_values = true)]
        trust_request_chat_template: Switch,
        /// Let requests write pins, as the dashboard does: on or off [default: on]
        #[arg(long, env = "BATON_WEB_PINS", value_name = "SWITCH", hide_possible_values = true)]
        web_pins: Switch,
        /// Let requests start drills, which kill or freeze a stage, as the dashboard does: on or off [default: off]
        #[arg(long, env = "BATON_WEB_DRILL", value_name = "SWITCH", hide_possible_values = true)]
        web_drill: Switch,
        /// Further names by which requests may call the model, with commas between them; * for any
        #[arg(long, env = "BATON_MODEL_ALIAS", value_name = "NAME", value_delimiter = ',')]
        model_alias: Vec<ModelAlias>,
        /// Further clusters of the same store whose models are served, too, with commas between them; * for all that
        /// have no gateway [default: * for the store that `baton up` starts, else none]
        #[arg(long, env = "BATON_CLUSTERS", value_name = "NAMES", value_delimiter = ',')]
        clusters: Vec<ClusterChoice>,
        /// Origins of web pages that may use the API, besides those of this machine, with commas between them; * for
        /// any
        #[arg(long, env = "BATON_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
        allow_origin: Vec<AllowedOrigin>,
        /// Host names that requests may use, besides those of the cluster's machines, with commas between them; * for
        /// any
        #[arg(long, env = "BATON_ALLOW_HOST", value_name = "HOST", value_delimiter = ',')]
        allow_host: Vec<AllowedHost>,
        /// Address of an OpenTelemetry collector for the spans of requests, such as http://127.0.0.1:4318 (if built in)
        #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
        otlp_endpoint: String,
    }
}
options! {
    /// Settings of `baton up`.
    UpOptions {
        /// Number of stage processes to start, 1 to 64 [default: 2]
        #[arg(long, env = "BATON_STAGES", value_name = "N")]
        stages: u32,
        /// Store to start if --etcd is not given: embedded, or etcd for this machine's own, which is started again when
        /// it ends and keeps its data in ~/.local/state/baton/clusters [default: embedded]
        #[arg(long, env = "BATON_STORE", value_name = "STORE", hide_possible_values = true)]
        store: StoreKind,
        /// Address of that store, loopback only [default: 127.0.0.1:2379]
        #[arg(long, env = "BATON_STORE_LISTEN", value_name = "ADDR")]
        store_listen: SocketAddr,
        /// Let other machines join with one line, which is printed: at this machine's address and port 7946 or the next
        /// free one, or at HOST, HOST:PORT or :PORT; the store is then kept in a file
        #[arg(long, env = "BATON_SHARE", value_name = "ADDR", num_args = 0..=1, require_equals = true)]
        #[arg(default_missing_value = "on")]
        share: SharePlace,
        /// Start a stage process again that a signal has ended (a crash, the system's memory killer): on or off
        /// [default: on]
        #[arg(long, env = "BATON_RESTART", value_name = "SWITCH", hide_possible_values = true)]
        restart: Switch,
    }
}

options! {
    /// The search of machines for each other.
    NetworkOptions {
        /// Announce shared clusters on the local network, and look for them there (multicast DNS): on or off
        /// [default: on]
        #[arg(long, env = "BATON_DISCOVERY", value_name = "SWITCH", hide_possible_values = true)]
        discovery: Switch,
    }
}

/// API keys on the command line. The settings file cannot have them, because other users may read it.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct ApiKeyOptions {
    /// API key, as NAME:SECRET or SECRET; several with commas between them. Other users of this machine can see it:
    /// BATON_API_KEY and --api-key-file hide it
    #[arg(long, value_name = "KEY")]
    pub api_key: Vec<SecretText>,
}

/// The options that all verbs of members share.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SharedOptions {
    /// `[cluster]`
    pub cluster: ClusterOptions,
    /// `[member]`
    pub member: MemberOptions,
    /// `[model]`
    pub model: ModelOptions,
}

/// The options of `baton up`.
#[derive(Debug)]
pub struct UpGroups<'a> {
    /// Those of all members.
    pub shared: SharedOptions,
    /// `[compute]`
    pub compute: &'a ComputeOptions,
    /// `[gateway]`
    pub gateway: &'a GatewayOptions,
    /// The API keys on the command line.
    pub keys: &'a ApiKeyOptions,
    /// `[up]`
    pub up: &'a UpOptions,
    /// `[network]`
    pub network: &'a NetworkOptions,
    /// `[global]`
    pub global: &'a GlobalOptions,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// A JSON object a line, for programs.
    Json,
}

// === impl NetworkOptions ===

impl NetworkOptions {
    /// True if clusters are announced and looked for.
    pub fn discovers(&self) -> bool {
        self.discovery.unwrap_or(defaults::DISCOVERY) == Switch::On
    }
}

// === impl LogFormat ===

impl LogFormat {
    /// The word of the setting.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// The store that `baton up` starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// The one in its own process.
    Embedded,
    /// A real etcd of one member.
    Etcd,
}

/// The interfaces at which a member takes frames of other machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InterfaceChoice {
    /// All of the machine's: others choose the best.
    All,
    /// That of the advertised address.
    One,
}

// === impl InterfaceChoice ===

impl InterfaceChoice {
    /// The word of the setting.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::One => "one",
        }
    }
}

/// A setting that is on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// The feature is on.
    On,
    /// The feature is off.
    Off,
}

/// The device of that name.
pub(crate) fn device(text: &str) -> Result<DeviceChoice, String> {
    stages::device::parse(text).map_err(|_| "expected auto, cpu, metal, cuda or sim".to_owned())
}
