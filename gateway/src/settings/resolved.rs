//! The resolved and checked settings, from flags, environment, file and defaults.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schema::record::KvType;
use schema::{ClusterName, Deployment, StageName};
use stages::device::DeviceChoice;

use super::address::{Host, SharePlace};
use super::api_keys::{self, ApiKeysError, KeyFile};
use super::client::ClientSettings;
use super::environment::Environment;
use super::etcd::{self, EtcdSettingsError};
use super::host;
use super::options::{
    ApiKeyOptions, ClusterChoice, ClusterOptions, ComputeOptions, GatewayOptions, GlobalOptions, InterfaceChoice,
    LogFormat, MemberOptions, ModelOptions, SharedOptions, StageOptions, StoreKind, Switch, UpGroups,
};
use super::secret::{SecretError, read_key};
use crate::http::{
    AllowedHost, AllowedOrigin, CONCURRENT_REQUESTS_MAX, KeyLimits, KeyRing, ModelAlias, REQUESTS_PER_MINUTE_MAX,
    TlsFiles, TlsSource,
};
use crate::models::Cache;
use engine::link::{ClusterKey, LinkError, Listen};
use engine::store::EtcdAccess;

/// Most tokens of keys and values. More than 16 million tokens of the smallest model fill any machine.
pub(crate) const KV_TOKENS_MAX: u32 = 1 << 24;

/// The values of settings that were not given.
pub mod defaults {
    /// `[cluster] cluster`
    pub const CLUSTER: &str = "home";
    /// `[cluster] etcd`
    pub const ETCD: &str = "http://127.0.0.1:2379";
    /// `[member] lease_ttl_s`: short enough to detect a fault soon, and long enough to survive a short pause of the
    /// machine.
    pub const LEASE_TTL_S: u64 = 5;
    /// The least that `[model] kv_tokens` is if it is not given: room for a few conversations at a time on a small
    /// machine.
    pub const KV_TOKENS: u32 = 8192;
    /// `[model] kv_type`: f16 loses nothing, and a user who lacks memory can choose q8_0.
    pub const KV_TYPE: super::KvType = super::KvType::F16;
    /// `[model] stages_min`
    pub const STAGES_MIN: u32 = 1;
    /// `[compute] spare_cores`: none, because the runtime sleeps while threads compute, and its share of a core is
    /// small.
    pub const SPARE_CORES: u32 = 0;
    /// `[global] log_format`
    pub const LOG_FORMAT: super::LogFormat = super::LogFormat::Text;
    /// `[gateway] listen`
    pub const LISTEN: &str = "127.0.0.1:8100";
    /// `[gateway] request_deadline_s`: enough for a long answer of a large model on a slow machine.
    pub const REQUEST_DEADLINE_S: u64 = 600;
    /// `[gateway] speculation`: on, because speculative tokens are sent only if they are expected to save time.
    pub const SPECULATION: super::Switch = super::Switch::On;
    /// `[gateway] generation_config`: on, as with vLLM, because answers of many models are poor without it.
    pub const GENERATION_CONFIG: super::Switch = super::Switch::On;
    /// `[gateway] web_pins`: on, because a pin over HTTP needs what every request needs, and comes from pages of this
    /// server only.
    pub const WEB_PINS: super::Switch = super::Switch::On;
    /// `[gateway] web_drill`: off, because a drill disturbs a stage that serves.
    pub const WEB_DRILL: super::Switch = super::Switch::Off;
    /// `[gateway] default_max_tokens`
    pub const DEFAULT_MAX_TOKENS: u32 = crate::http::DEFAULT_MAX_TOKENS;
    /// `[gateway] stored_responses`
    pub const STORED_RESPONSES: u32 = crate::http::STORED_RESPONSES_MAX;
    /// `[up] stages`
    pub const STAGES: u32 = 2;
    /// `[up] store_listen`: the address that etcdctl uses by default.
    pub const STORE_LISTEN: &str = "127.0.0.1:2379";
    /// `[network] discovery`: on, because only a shared cluster is announced, and a token decides who joins which.
    pub const DISCOVERY: super::Switch = super::Switch::On;
    /// `[up] store`: the one that needs nothing installed.
    pub const STORE: super::StoreKind = super::StoreKind::Embedded;
    /// `[up] restart`: on, because nobody else starts these processes again.
    pub const RESTART: super::Switch = super::Switch::On;
}

/// The cluster and the way to its store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSettings {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// The way to the store.
    pub etcd: EtcdAccess,
    /// The cluster key with which a client checks members' proofs, if one was given.
    pub client_key: Option<ClusterKey>,
    /// Settings of a client that asks a gateway of the cluster.
    pub client: ClientSettings,
}

/// Settings of a process that takes part in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSettings {
    /// Host name or address by which other machines reach this one. If it is `None` or loopback, only this machine can
    /// reach the process.
    pub advertise: Option<Host>,
    /// The interfaces at which they reach it then.
    pub interfaces: InterfaceChoice,
    /// The key that encrypts links between machines. Always present if `advertise` is not loopback.
    pub cluster_key: Option<ClusterKey>,
    /// Lease time, after which the store removes the records of a process that sends no heartbeat.
    pub lease_ttl: Duration,
}

/// The model that the cluster is to serve, if this process is the first to name one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSettings {
    /// The model as it was given, before it is resolved. `None` for the cluster's model.
    pub model: Option<String>,
    /// The model as it was given, if other machines can fetch it by that name.
    pub source: Option<String>,
    /// True if a model that is not here is fetched by the name in the cluster's record.
    pub fetches: bool,
    /// Room for keys and values.
    pub kv: KvSize,
    /// Number format of keys and values.
    pub kv_type: KvType,
    /// Number of stages to wait for before the first placement.
    pub stages_min: u32,
}

/// The requested room for keys and values, in tokens or in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvSize {
    /// As many as the smallest stage can hold, and at least [`defaults::KV_TOKENS`].
    Memory,
    /// Room for this many tokens on every stage.
    Tokens(u32),
    /// This many bytes over all layers of the model.
    Bytes(u64),
}

/// The resources of one stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComputeSettings {
    /// Most memory, in bytes. `None` derives it from the memory of the machine.
    pub memory_budget_bytes: Option<u64>,
    /// The device that computes.
    pub device: DeviceChoice,
    /// Number of compute threads.
    pub threads: usize,
}

/// Settings of the HTTP server and of the gateway's pipeline behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// Address of the HTTP server.
    pub listen: SocketAddr,
    /// API keys. Without any, everybody who reaches the server can use it.
    pub keys: KeyRing,
    /// The file that some of them come from.
    pub key_file: Option<KeyFile>,
    /// The certificate of https. Without one, the server speaks http.
    pub tls: Option<TlsSource>,
    /// Longest time for a request.
    pub request_deadline: Duration,
    /// True if speculative tokens are verified on stages that would otherwise idle.
    pub speculates: bool,
    /// Most tokens of a chat's answer if the request does not set a limit.
    pub default_max_tokens: u32,
    /// Most responses that are kept for `previous_response_id`.
    pub stored_responses: u32,
    /// True if the sampling that the model's file recommends counts where a request says nothing.
    pub uses_generation_config: bool,
    /// True if requests may bring a chat template of their own.
    pub trusts_request_chat_template: bool,
    /// True if requests may write pins.
    pub takes_web_pins: bool,
    /// True if requests may start drills.
    pub runs_web_drills: bool,
    /// Further names by which requests may call the model.
    pub model_aliases: Vec<ModelAlias>,
    /// Further clusters of the store that are served, too. `None` if the settings do not say.
    pub clusters: Option<Vec<ClusterChoice>>,
    /// Origins of web pages that may use the API, besides those of this machine.
    pub allowed_origins: Vec<AllowedOrigin>,
    /// Host names that requests may use, besides those of the cluster's machines.
    pub allowed_hosts: Vec<AllowedHost>,
}

/// Settings of `baton stage`.
#[derive(Debug, Clone)]
pub struct StageSettings {
    /// The cluster to join.
    pub cluster: ClusterSettings,
    /// Settings of the process as a member.
    pub member: MemberSettings,
    /// The model to serve.
    pub model: ModelSettings,
    /// The resources of the stage.
    pub compute: ComputeSettings,
    /// The stage's name.
    pub name: StageName,
    /// The cache of model files.
    pub cache: Cache,
    /// True if the stage stops at the end of standard input.
    pub follow_stdin: bool,
    /// The only deployment of the cluster that it serves. `None` for those that the cluster's rollout names.
    pub deployment: Option<Deployment>,
}

/// Settings of `baton switch`.
#[derive(Debug, Clone)]
pub struct SwitchSettings {
    /// The cluster.
    pub cluster: ClusterSettings,
    /// The model to change to.
    pub model: ModelSettings,
    /// Number of stages to wait for. `None` for as many as the present model waited for.
    pub stages_min: Option<u32>,
    /// The cache of model files.
    pub cache: Cache,
}

/// Settings of `baton gateway`.
#[derive(Debug, Clone)]
pub struct GatewaySettings {
    /// The cluster to join.
    pub cluster: ClusterSettings,
    /// Settings of the process as a member.
    pub member: MemberSettings,
    /// The model to serve.
    pub model: ModelSettings,
    /// Settings of the HTTP server.
    pub http: HttpSettings,
    /// The cache of model files.
    pub cache: Cache,
    /// The folder of this user's state, if there is one.
    pub state: Option<PathBuf>,
}

/// The place at which a cluster is shared with other machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareSettings {
    /// The host at which they reach this machine. `None` to find out.
    pub host: Option<String>,
    /// The port. `None` for the usual one, or the next that is free.
    pub port: Option<u16>,
    /// The folder of this user's state.
    pub state: PathBuf,
    /// True if the cluster is announced on the local network.
    pub announces: bool,
}

/// The store that `baton up` starts if it is to join no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnStoreSettings {
    /// The embedded one.
    Embedded,
    /// A real etcd.
    Etcd {
        /// The folder of its data.
        folder: PathBuf,
    },
}

/// Settings of `baton up`.
#[derive(Debug, Clone)]
pub struct UpSettings {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// The way to the store to join. `None` starts one.
    pub etcd: Option<EtcdAccess>,
    /// The store to start then.
    pub own_store: OwnStoreSettings,
    /// The settings that it comes from, for the stage processes.
    pub cluster_options: ClusterOptions,
    /// Present if other machines may join.
    pub share: Option<ShareSettings>,
    /// The folder of this user's state, if there is one.
    pub state: Option<PathBuf>,
    /// Address of the store that is started. Loopback.
    pub store_listen: SocketAddr,
    /// Settings of the processes as members.
    pub member: MemberSettings,
    /// The model to serve. `stages_min` is the number of stages unless it was set.
    pub model: ModelSettings,
    /// The resources of each stage.
    pub compute: ComputeSettings,
    /// The names of the stages to start: `<host>-1`, `<host>-2`, …
    pub stage_names: Vec<StageName>,
    /// True if a stage that a signal has ended is started again.
    pub restarts: bool,
    /// Settings of the HTTP server.
    pub http: HttpSettings,
    /// The cache of model files.
    pub cache: Cache,
    /// The settings file that was named, which the stage processes read too.
    pub config: Option<PathBuf>,
    /// Log filter of the stage processes.
    pub log: String,
    /// The form of their log lines.
    pub log_format: LogFormat,
}

/// The reason that settings are refused.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A number is outside its range.
    #[error("{name} is {found}: expected {min} to {max}")]
    Range {
        /// The setting.
        name: &'static str,
        /// The given value.
        found: u64,
        /// The least allowed value.
        min: u64,
        /// The greatest allowed value.
        max: u64,
    },
    /// Other machines could join the links, because there is no cluster key.
    #[error(
        "{host} can be reached by other machines, and links between machines need a cluster key: make one with \
         `baton key`, keep it in a file, and name that with --cluster-key-file on every machine"
    )]
    KeyMissing {
        /// The advertised host.
        host: String,
    },
    /// Other machines could use the model, because there is no API key.
    #[error(
        "the HTTP server is to listen on {listen}, where other machines reach it, and there is no API key: expected a \
         key (--api-key-file, BATON_API_KEY or --api-key; `baton key` prints a secret), a loopback address, or \
         --insecure to let everybody there use the model"
    )]
    ApiKeyMissing {
        /// The given address.
        listen: SocketAddr,
    },
    /// A limit for API keys is given, and there is no key.
    #[error("{name} limits API keys, and there is none: expected a key (--api-key-file, BATON_API_KEY or --api-key)")]
    LimitWithoutKey {
        /// The setting.
        name: &'static str,
    },
    /// The API keys are unusable.
    #[error("the API keys cannot be used")]
    ApiKeys(#[from] ApiKeysError),
    /// The key that a client is to send is unusable.
    #[error("BATON_API_KEY cannot be sent: expected visible ASCII characters")]
    ClientKey,
    /// Only one of certificate and key is given, or both although TLS is off.
    #[error("{found}: expected tls_cert and tls_key together, and tls not off")]
    TlsPair {
        /// The settings that were given.
        found: &'static str,
    },
    /// There is no folder for a self-signed certificate.
    #[error("there is no folder for a self-signed certificate: expected HOME to be set, or --tls-cert and --tls-key")]
    Data,
    /// The build does not support TLS.
    #[error("this baton was built without TLS: build it with `--features tls`, or leave tls and tls_cert unset")]
    NoTls,
    /// Other machines could use the embedded store.
    #[error(
        "the store is to listen on {found}: expected a loopback address, other machines join by --share, or use a \
         real etcd (--etcd)"
    )]
    StoreListen {
        /// The given address.
        found: SocketAddr,
    },
    /// The build does not support the device.
    #[error("this baton was built without {found}: build it with `--features {found}`, or use --device cpu")]
    Device {
        /// The device.
        found: &'static str,
    },
    /// The collector's address is not an http address.
    #[error(
        "otlp_endpoint is {found:?}: expected http://<host>:<port>, with a path where the collector wants one; this \
         baton speaks http to it, not https"
    )]
    OtlpEndpoint {
        /// The given address.
        found: String,
    },
    /// The room for keys and values is given twice, in tokens and in bytes.
    #[error("kv_tokens is {tokens} and kv_memory is {bytes} bytes: expected at most one of them")]
    KvRoom {
        /// The given number of tokens.
        tokens: u32,
        /// The given number of bytes.
        bytes: u64,
    },
    /// The threads are given twice, as `threads` and as `spare_cores`.
    #[error(
        "threads is {threads} and spare_cores is {spare_cores}: expected at most one of them; `--spare-cores 0` takes \
         one in the settings file or the environment back"
    )]
    Threads {
        /// The given number of compute threads.
        threads: u32,
        /// The given number of processors to leave to other programs.
        spare_cores: u32,
    },
    /// The store that other machines are to share is not this process's.
    #[error("share is given beside etcd: expected one of them, because machines join an etcd by its own address")]
    ShareWithEtcd,
    /// A store is to be started, and another one to be joined.
    #[error(
        "store is etcd beside the addresses of an etcd (--etcd): expected one of them, because it starts an etcd of \
         this machine's own"
    )]
    StoreWithEtcd,
    /// There is no folder for the files of a cluster.
    #[error("there is no folder for the files of a cluster: expected HOME or XDG_STATE_HOME to be set")]
    State,
    /// The store cannot be reached as the settings say.
    #[error("cannot use the settings of the store")]
    Etcd(#[from] EtcdSettingsError),
    /// There is no folder for model files.
    #[error("there is no folder for model files: expected HOME to be set, or --cache DIR")]
    Cache,
    /// The cluster key is unusable.
    #[error("the cluster key cannot be used")]
    Key(#[from] SecretError),
}

// === impl settings ===

impl ClusterSettings {
    /// The cluster's name.
    pub fn name(options: &ClusterOptions) -> ClusterName {
        cluster_name(options.cluster.clone())
    }

    /// Resolves the settings, without the key of a client.
    ///
    /// # Errors
    /// [`SettingsError::Etcd`] if the settings of the store contradict each other or a file of theirs is unusable.
    pub fn new(options: &ClusterOptions, environment: &Environment) -> Result<Self, SettingsError> {
        let etcd = etcd::access(options, environment)?;
        Ok(Self { cluster: Self::name(options), etcd, client_key: None, client: ClientSettings::default() })
    }

    /// Resolves the settings of a process that only reads or changes the store. It checks proofs with the key from the
    /// environment or from the key file of the settings file, and may ask a gateway.
    ///
    /// # Errors
    /// [`SettingsError`] if a key is unusable.
    pub fn for_client(
        options: &ClusterOptions,
        member: &MemberOptions,
        environment: &Environment,
    ) -> Result<Self, SettingsError> {
        let settings = Self::new(options, environment)?;
        let key = read_cluster_key(member, environment)?;
        let client_key = key.map(|key| key.of_cluster(&settings.cluster));
        Ok(Self { client_key, client: ClientSettings::new(environment)?, ..settings })
    }
}

fn cluster_name(given: Option<ClusterName>) -> ClusterName {
    given.unwrap_or_else(|| defaults::CLUSTER.parse().expect("a constant name that is legal"))
}

/// The cluster key. The key in the environment takes precedence over the key file.
fn read_cluster_key(options: &MemberOptions, environment: &Environment) -> Result<Option<ClusterKey>, SettingsError> {
    Ok(match environment.cluster_key().map_err(SecretError::from)? {
        Some(key) => Some(key),
        None => options.cluster_key_file.as_deref().map(read_key).transpose()?,
    })
}

impl MemberSettings {
    /// Resolves the settings. The key in the environment takes precedence over the key file.
    ///
    /// # Errors
    /// [`SettingsError`] if the key is unusable, or missing although `advertise` is not loopback.
    pub fn new(options: MemberOptions, environment: &Environment) -> Result<Self, SettingsError> {
        let cluster_key = read_cluster_key(&options, environment)?;
        if let (Some(host), None) = (&options.advertise, &cluster_key)
            && !host.is_loopback()
        {
            return Err(SettingsError::KeyMissing { host: host.to_string() });
        }
        let ttl = range("lease_ttl_s", options.lease_ttl_s.unwrap_or(defaults::LEASE_TTL_S), 2, 300)?;
        let (advertise, lease_ttl) = (options.advertise, Duration::from_secs(ttl));
        // Whoever names an address wants that one.
        let usual = if advertise.is_some() { InterfaceChoice::One } else { InterfaceChoice::All };
        Ok(Self { interfaces: options.interfaces.unwrap_or(usual), advertise, cluster_key, lease_ttl })
    }

    /// The place at which a member with the key `key` takes frames. The system chooses the port: the member's record
    /// tells the others.
    ///
    /// # Errors
    /// [`LinkError`] if there is an address and no key.
    pub fn listen(&self, key: Option<ClusterKey>) -> Result<Listen, LinkError> {
        let listen = Listen::new(self.advertise.as_ref().map(|host| host.as_str().to_owned()), None, key)?;
        Ok(if self.interfaces == InterfaceChoice::All { listen.at_every_address() } else { listen })
    }
}

impl ModelSettings {
    /// Resolves the settings. `stages_min` is the default of the setting of that name.
    ///
    /// # Errors
    /// [`SettingsError::Range`], and [`SettingsError::KvRoom`] if the room is given twice.
    pub fn new(options: ModelOptions, stages_min: u32) -> Result<Self, SettingsError> {
        // A block of keys and values has 32 tokens.
        let tokens = |tokens| range("kv_tokens", tokens, 32, u64::from(KV_TOKENS_MAX));
        let kv = match (options.kv_tokens, options.kv_memory) {
            (None, Some(size)) => KvSize::Bytes(size.bytes()),
            (None, None) => KvSize::Memory,
            (Some(given), None) => KvSize::Tokens(tokens(given)?),
            (Some(tokens), Some(size)) => return Err(SettingsError::KvRoom { tokens, bytes: size.bytes() }),
        };
        let stages_min = range("stages_min", options.stages_min.unwrap_or(stages_min), 1, 1024)?;
        let source = options.model.clone().filter(|model| crate::models::is_fetchable(model));
        let kv_type = options.kv_type.unwrap_or(defaults::KV_TYPE);
        Ok(Self { model: options.model, source, fetches: false, kv, kv_type, stages_min })
    }
}

impl ComputeSettings {
    /// Resolves the settings for one of `stages` stages on this machine.
    ///
    /// # Errors
    /// [`SettingsError`] for a device that is not built in, for a number out of its range, or if threads and spare
    /// cores are both given.
    pub fn new(options: &ComputeOptions, stages: u32) -> Result<Self, SettingsError> {
        let device = options.device.unwrap_or(DeviceChoice::Auto);
        if !device.is_built_in() {
            return Err(SettingsError::Device { found: device.name() });
        }
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let spare_cores = range("spare_cores", options.spare_cores.unwrap_or(defaults::SPARE_CORES), 0, 1023)?;
        let threads = match options.threads {
            Some(threads) if spare_cores > 0 => return Err(SettingsError::Threads { threads, spare_cores }),
            Some(threads) => range("threads", threads, 1, 1024)? as usize,
            None => threads(processors, spare_cores as usize, stages as usize),
        };
        Ok(Self { memory_budget_bytes: options.memory.map(schema::ByteSize::bytes), device, threads })
    }
}

impl HttpSettings {
    /// Resolves the settings.
    ///
    /// # Errors
    /// [`SettingsError`] if a number is out of its range, if keys or certificate are unusable, or if other machines
    /// could use the model without a key and that was not asked for.
    pub fn new(
        options: &GatewayOptions,
        keys: &ApiKeyOptions,
        environment: &Environment,
    ) -> Result<Self, SettingsError> {
        let listen = options.listen.unwrap_or_else(|| constant(defaults::LISTEN));
        let (keys, key_file) = api_keys(options, keys, environment)?;
        let tls = tls(options, environment)?;
        let is_local = listen.ip().to_canonical().is_loopback();
        match (is_local, keys.is_empty()) {
            (false, true) if options.insecure != Some(Switch::On) => {
                return Err(SettingsError::ApiKeyMissing { listen });
            }
            (false, true) => {
                tracing::warn!(%listen, "clients that reach this address can use the model: there is no API key");
            }
            (false, false) if tls.is_none() => {
                tracing::warn!(%listen, "API keys and texts cross the network unencrypted: --tls encrypts them");
            }
            _ => {}
        }
        let deadline = options.request_deadline_s.unwrap_or(defaults::REQUEST_DEADLINE_S);
        let tokens = options.default_max_tokens.unwrap_or(defaults::DEFAULT_MAX_TOKENS);
        let stored = options.stored_responses.unwrap_or(defaults::STORED_RESPONSES);
        Ok(Self {
            listen,
            keys,
            key_file,
            tls,
            request_deadline: Duration::from_secs(range("request_deadline_s", deadline, 1, 86_400)?),
            speculates: options.speculation.unwrap_or(defaults::SPECULATION) == Switch::On,
            default_max_tokens: range("default_max_tokens", tokens, 1, u64::from(KV_TOKENS_MAX))?,
            stored_responses: range("stored_responses", stored, 0, 65_536)?,
            uses_generation_config: options.generation_config.unwrap_or(defaults::GENERATION_CONFIG) == Switch::On,
            trusts_request_chat_template: options.trust_request_chat_template == Some(Switch::On),
            takes_web_pins: options.web_pins.unwrap_or(defaults::WEB_PINS) == Switch::On,
            runs_web_drills: options.web_drill.unwrap_or(defaults::WEB_DRILL) == Switch::On,
            model_aliases: options.model_alias.clone().unwrap_or_default(),
            clusters: options.clusters.clone(),
            allowed_origins: options.allow_origin.clone().unwrap_or_default(),
            allowed_hosts: options.allow_host.clone().unwrap_or_default(),
        })
    }
}

/// The API keys, with their limits.
fn api_keys(
    options: &GatewayOptions,
    keys: &ApiKeyOptions,
    environment: &Environment,
) -> Result<(KeyRing, Option<KeyFile>), SettingsError> {
    let limit = |name, found: Option<u32>, max: u32| {
        let found = found.map(|found| range(name, found, 1, max.into())).transpose()?;
        Ok::<_, SettingsError>((name, found))
    };
    let rate = limit("key_requests_per_minute", options.key_requests_per_minute, REQUESTS_PER_MINUTE_MAX)?;
    let concurrency = limit("key_concurrent_requests", options.key_concurrent_requests, CONCURRENT_REQUESTS_MAX)?;
    let limits =
        KeyLimits { requests_per_minute: api_keys::limit(rate.1), concurrent_requests: api_keys::limit(concurrency.1) };
    let (ring, file) = api_keys::collect(&keys.api_key, options.api_key_file.as_deref(), environment, limits)?;
    let without_use = [rate, concurrency].into_iter().find(|(_, limit)| limit.is_some() && ring.is_empty());
    match without_use {
        Some((name, _)) => Err(SettingsError::LimitWithoutKey { name }),
        None => Ok((ring, file)),
    }
}

/// The source of the certificate. `None` if the server is to speak http.
fn tls(options: &GatewayOptions, environment: &Environment) -> Result<Option<TlsSource>, SettingsError> {
    let (tls, certificate, key) = (options.tls, options.tls_cert.clone(), options.tls_key.clone());
    let source = match (tls, certificate, key) {
        (Some(Switch::On) | None, Some(certificate), Some(key)) => TlsSource::Files(TlsFiles { certificate, key }),
        (Some(Switch::On), None, None) => {
            TlsSource::SelfSigned { folder: environment.tls_folder().ok_or(SettingsError::Data)? }
        }
        (Some(Switch::Off) | None, None, None) => return Ok(None),
        (Some(Switch::Off), ..) => return Err(SettingsError::TlsPair { found: "tls is off beside a certificate" }),
        (_, Some(_), None) => return Err(SettingsError::TlsPair { found: "tls_cert without tls_key" }),
        (_, None, Some(_)) => return Err(SettingsError::TlsPair { found: "tls_key without tls_cert" }),
    };
    if cfg!(feature = "tls") { Ok(Some(source)) } else { Err(SettingsError::NoTls) }
}

impl StageSettings {
    /// Resolves the settings.
    ///
    /// # Errors
    /// [`SettingsError`] names the setting that is refused.
    pub fn new(
        shared: SharedOptions,
        compute: &ComputeOptions,
        stage: StageOptions,
        global: &GlobalOptions,
        environment: &Environment,
    ) -> Result<Self, SettingsError> {
        let SharedOptions { cluster, member, model } = shared;
        Ok(Self {
            cluster: ClusterSettings::new(&cluster, environment)?,
            member: MemberSettings::new(member, environment)?,
            model: ModelSettings::new(model, defaults::STAGES_MIN)?,
            compute: ComputeSettings::new(compute, 1)?,
            name: stage.name.unwrap_or_else(|| host::stage_name(&host::name())),
            cache: cache(global, environment)?,
            follow_stdin: false,
            deployment: None,
        })
    }
}

impl SwitchSettings {
    /// Resolves the settings.
    ///
    /// # Errors
    /// [`SettingsError`] names the setting that is refused.
    pub fn new(
        cluster: ClusterSettings,
        model: ModelOptions,
        global: &GlobalOptions,
        environment: &Environment,
    ) -> Result<Self, SettingsError> {
        let stages_min = model.stages_min;
        let model = ModelSettings::new(model, defaults::STAGES_MIN)?;
        Ok(Self { cluster, model, stages_min, cache: cache(global, environment)? })
    }
}

impl GatewaySettings {
    /// Resolves the settings.
    ///
    /// # Errors
    /// [`SettingsError`] names the setting that is refused.
    pub fn new(
        shared: SharedOptions,
        gateway: &GatewayOptions,
        keys: &ApiKeyOptions,
        global: &GlobalOptions,
        environment: &Environment,
    ) -> Result<Self, SettingsError> {
        let SharedOptions { cluster, member, model } = shared;
        Ok(Self {
            cluster: ClusterSettings::new(&cluster, environment)?,
            member: MemberSettings::new(member, environment)?,
            model: ModelSettings::new(model, defaults::STAGES_MIN)?,
            http: HttpSettings::new(gateway, keys, environment)?,
            cache: cache(global, environment)?,
            state: environment.state.clone(),
        })
    }
}

impl UpSettings {
    /// Resolves the settings.
    ///
    /// # Errors
    /// [`SettingsError`] names the setting that is refused.
    pub fn new(
        options: UpGroups<'_>,
        config: Option<PathBuf>,
        environment: &Environment,
    ) -> Result<Self, SettingsError> {
        let UpGroups { shared, compute, gateway, keys, up, network, global } = options;
        let SharedOptions { cluster, mut member, model } = shared;
        let mut share = share(up.share.as_ref(), network.discovers(), &cluster, environment)?;
        if let Some(share) = &mut share {
            // The key that links between machines need is made when the cluster is shared.
            let advertised = member.advertise.take().map(|host| host.as_str().to_owned());
            share.host = share.host.take().or(advertised);
            if share.host.is_some() {
                member.interfaces.get_or_insert(InterfaceChoice::One);
            }
        }
        let stages = range("stages", up.stages.unwrap_or(defaults::STAGES), 1, 64)?;
        let store_listen = up.store_listen.unwrap_or_else(|| constant(defaults::STORE_LISTEN));
        if !store_listen.ip().is_loopback() {
            return Err(SettingsError::StoreListen { found: store_listen });
        }
        let base = host::stage_name(&host::name());
        let name = |number| format!("{base}-{number}").parse().expect("a legal name of 40 letters and a number");
        Ok(Self {
            cluster: ClusterSettings::name(&cluster),
            share,
            state: environment.state.clone(),
            etcd: Some(etcd::access(&cluster, environment)?).filter(|_| cluster.etcd.is_some()),
            own_store: own_store(up.store, &cluster, environment)?,
            cluster_options: cluster,
            store_listen,
            member: MemberSettings::new(member, environment)?,
            model: ModelSettings::new(model, stages)?,
            compute: ComputeSettings::new(compute, stages)?,
            stage_names: (1..=stages).map(name).collect(),
            restarts: up.restart.unwrap_or(defaults::RESTART) == Switch::On,
            http: HttpSettings::new(gateway, keys, environment)?,
            cache: cache(global, environment)?,
            config,
            // Stages log at `warn` by default, as this process does, which itself prints the messages that users need.
            log: global.log.as_ref().or(environment.rust_log.as_ref()).map_or_else(|| "warn".to_owned(), Clone::clone),
            log_format: global.log_format.unwrap_or_default(),
        })
    }

    /// The arguments of the stage process `name` that serves `model` in the store at `etcd`.
    pub fn stage_arguments(
        &self,
        name: &StageName,
        model: &Path,
        etcd: &[String],
        deployment: Deployment,
        budget_bytes: u64,
    ) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["stage".into(), "--follow-stdin".into()];
        let mut flag = |name: &str, value: OsString| arguments.extend([format!("--{name}").into(), value]);
        if let Some(config) = &self.config {
            flag("config", config.into());
        }
        flag("log", self.log.as_str().into());
        flag("log-format", self.log_format.word().into());
        flag("cache", self.cache.root().into());
        flag("cluster", self.cluster.as_str().into());
        flag("etcd", etcd.join(",").into());
        if self.etcd.is_some() {
            let ClusterOptions { etcd_ca, etcd_cert, etcd_key, etcd_user, .. } = &self.cluster_options;
            for (name, path) in [("etcd-ca", etcd_ca), ("etcd-cert", etcd_cert), ("etcd-key", etcd_key)] {
                path.iter().for_each(|path| flag(name, path.into()));
            }
            etcd_user.iter().for_each(|user| flag("etcd-user", user.into()));
        }
        flag("name", name.as_str().into());
        if let Some(advertise) = &self.member.advertise {
            flag("advertise", advertise.as_str().into());
            flag("interfaces", self.member.interfaces.word().into());
        }
        flag("lease-ttl-s", self.member.lease_ttl.as_secs().to_string().into());
        match self.model.kv {
            KvSize::Memory => {}
            KvSize::Tokens(tokens) => flag("kv-tokens", tokens.to_string().into()),
            KvSize::Bytes(bytes) => flag("kv-memory", format!("{bytes}B").into()),
        }
        flag("kv-type", self.model.kv_type.word().into());
        flag("stages-min", self.model.stages_min.to_string().into());
        flag("memory", format!("{budget_bytes}B").into());
        flag("deployment", deployment.to_string().into());
        flag("device", self.compute.device.name().into());
        // The threads were divided among all stages here, so the values in the file or the environment must not be
        // applied again.
        flag("threads", self.compute.threads.to_string().into());
        flag("spare-cores", "0".into());
        // The path begins with `./`, so that it never looks like a flag or a catalogue name.
        arguments.push(Path::new(".").join(model).into());
        arguments
    }

    /// The environment variables of a stage process. The secrets are among them, because they must not be among its
    /// arguments.
    pub fn stage_environment(&self) -> Vec<(&'static str, String)> {
        let key = self.member.cluster_key.iter().map(|key| ("BATON_CLUSTER_KEY", key.to_hex()));
        let login = self.etcd.iter().filter_map(|access| access.login.as_ref());
        key.chain(login.map(|login| ("BATON_ETCD_PASSWORD", login.password.clone()))).collect()
    }
}

/// Number of compute threads of one of `stages` stages that leave `spare` of the machine's processors to other
/// programs.
fn threads(processors: usize, spare: usize, stages: usize) -> usize {
    (processors.saturating_sub(spare) / stages).max(1)
}

/// The place at which the cluster is shared. `None` if it is not.
fn share(
    given: Option<&SharePlace>,
    announces: bool,
    cluster: &ClusterOptions,
    environment: &Environment,
) -> Result<Option<ShareSettings>, SettingsError> {
    let Some(SharePlace::At(host, port)) = given else { return Ok(None) };
    if cfg!(not(feature = "tls")) {
        return Err(SettingsError::NoTls);
    }
    if cluster.etcd.is_some() {
        return Err(SettingsError::ShareWithEtcd);
    }
    let state = environment.state.clone().ok_or(SettingsError::State)?;
    let host = host.as_ref().map(|host| host.as_str().to_owned());
    Ok(Some(ShareSettings { host, port: *port, state, announces }))
}

/// The store to start. Its files lie beside those of a shared cluster.
fn own_store(
    given: Option<StoreKind>,
    cluster: &ClusterOptions,
    environment: &Environment,
) -> Result<OwnStoreSettings, SettingsError> {
    match given.unwrap_or(defaults::STORE) {
        StoreKind::Embedded => Ok(OwnStoreSettings::Embedded),
        StoreKind::Etcd if cluster.etcd.is_some() => Err(SettingsError::StoreWithEtcd),
        StoreKind::Etcd => {
            let state = environment.state.as_ref().ok_or(SettingsError::State)?;
            let name = ClusterSettings::name(cluster);
            Ok(OwnStoreSettings::Etcd { folder: state.join("clusters").join(name.as_str()).join("etcd") })
        }
    }
}

fn constant(address: &str) -> SocketAddr {
    address.parse().expect("a constant address that is legal")
}

/// The cache of model files.
///
/// # Errors
/// [`SettingsError::Cache`] if no setting and no environment variable gives the folder.
pub(crate) fn cache(global: &GlobalOptions, environment: &Environment) -> Result<Cache, SettingsError> {
    let root = global.cache.clone().or_else(|| environment.cache.clone()).ok_or(SettingsError::Cache)?;
    Ok(Cache::new(root, environment.access.clone()))
}

fn range<T: Copy + Into<u64>>(name: &'static str, found: T, min: u64, max: u64) -> Result<T, SettingsError> {
    let value = found.into();
    if (min..=max).contains(&value) { Ok(found) } else { Err(SettingsError::Range { name, found: value, min, max }) }
}

#[cfg(test)]
mod tests {
    use super::super::FileOptions;
    use super::*;

    fn environment() -> Environment {
        Environment { cache: Some("/cache".into()), ..Environment::default() }
    }

    fn up(toml: &str) -> Result<UpSettings, SettingsError> {
        up_in(toml, &environment())
    }

    fn up_in(toml: &str, environment: &Environment) -> Result<UpSettings, SettingsError> {
        let given = FileOptions::parse(toml).unwrap();
        let FileOptions { cluster, member, model, compute, gateway, up, network, global, .. } = &given;
        let shared = SharedOptions { cluster: cluster.clone(), member: member.clone(), model: model.clone() };
        let groups = UpGroups { shared, compute, gateway, keys: &ApiKeyOptions::default(), up, network, global };
        UpSettings::new(groups, None, environment)
    }

    fn http(toml: &str, environment: &Environment) -> Result<HttpSettings, SettingsError> {
        let given = FileOptions::parse(toml).unwrap();
        HttpSettings::new(&given.gateway, &ApiKeyOptions::default(), environment)
    }

    #[test]
    fn settings_that_are_not_given_have_their_defaults() {
        let up = up("").unwrap();
        assert_eq!((up.etcd, up.stage_names.len(), up.model.stages_min), (None, 2, 2));
        assert_eq!(
            (up.http.listen.to_string(), up.store_listen.to_string()),
            ("127.0.0.1:8100".into(), "127.0.0.1:2379".into())
        );
        assert_eq!((up.member.lease_ttl.as_secs(), up.http.request_deadline.as_secs()), (5, 600));
        assert!(up.http.speculates && up.http.allowed_origins.is_empty() && up.http.allowed_hosts.is_empty());
        assert_eq!(up.http.default_max_tokens, 4096);
        let cluster = ClusterSettings::new(&ClusterOptions::default(), &environment()).unwrap();
        let default = EtcdAccess::plain(&["http://127.0.0.1:2379".to_owned()]);
        assert_eq!((cluster.cluster.as_str(), cluster.etcd), ("home", default));
    }

    #[test]
    fn a_number_out_of_range_is_refused_with_the_range() {
        for (toml, expected) in [
            ("[up]\nstages = 0", "stages is 0: expected 1 to 64"),
            ("[up]\nstages = 65", "stages is 65: expected 1 to 64"),
            ("[member]\nlease_ttl_s = 1", "lease_ttl_s is 1: expected 2 to 300"),
            ("[model]\nkv_tokens = 31", "kv_tokens is 31: expected 32 to 16777216"),
            ("[gateway]\nrequest_deadline_s = 0", "request_deadline_s is 0: expected 1 to 86400"),
            ("[gateway]\ndefault_max_tokens = 0", "default_max_tokens is 0: expected 1 to 16777216"),
            ("[gateway]\nstored_responses = 65537", "stored_responses is 65537: expected 0 to 65536"),
            ("[gateway]\nkey_requests_per_minute = 0", "key_requests_per_minute is 0: expected 1 to 100000"),
            ("[gateway]\nkey_concurrent_requests = 1025", "key_concurrent_requests is 1025: expected 1 to 1024"),
            ("[compute]\nthreads = 0", "threads is 0: expected 1 to 1024"),
            ("[compute]\nspare_cores = 1024", "spare_cores is 1024: expected 0 to 1023"),
        ] {
            assert_eq!(up(toml).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn spare_cores_are_shared_by_all_stages_and_a_stage_has_at_least_one_thread() {
        for (processors, spare, stages, expected) in
            [(8, 0, 1, 8), (8, 1, 1, 7), (8, 2, 2, 3), (8, 1, 2, 3), (2, 1, 2, 1), (2, 2, 1, 1), (1, 9, 1, 1)]
        {
            assert_eq!(threads(processors, spare, stages), expected, "{processors} - {spare} for {stages}");
        }
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        assert_eq!(up("[compute]\nspare_cores = 1").unwrap().compute.threads, threads(processors, 1, 2));
    }

    #[test]
    fn room_for_keys_and_values_is_in_tokens_or_in_bytes_and_is_passed_to_the_stages() {
        let given = |toml: &str| up(toml).map(|up| (up.model.kv, up.model.kv_type));
        assert_eq!(given("").unwrap(), (KvSize::Memory, KvType::F16));
        let toml = "[model]\nkv_memory = \"2MiB\"\nkv_type = \"q8_0\"";
        assert_eq!(given(toml).unwrap(), (KvSize::Bytes(2 << 20), KvType::Q8));
        let error = given("[model]\nkv_memory = \"2MiB\"\nkv_tokens = 64").unwrap_err().to_string();
        assert_eq!(error, "kv_tokens is 64 and kv_memory is 2097152 bytes: expected at most one of them");
        let arguments =
            up(toml).unwrap().stage_arguments(&"a".parse().unwrap(), Path::new("m"), &[], Deployment::FIRST, 7);
        let after =
            |flag: &str| arguments.iter().skip_while(|word| *word != flag).nth(1).and_then(|word| word.to_str());
        assert_eq!((after("--kv-memory"), after("--kv-type")), (Some("2097152B"), Some("q8_0")));
        assert_eq!(after("--kv-tokens"), None);
    }

    #[test]
    fn threads_and_spare_cores_together_are_refused() {
        let error = up("[compute]\nthreads = 3\nspare_cores = 1").unwrap_err().to_string();
        assert!(error.contains("threads is 3 and spare_cores is 1: expected at most one of them"), "{error}");
        assert_eq!(up("[compute]\nthreads = 3\nspare_cores = 0").unwrap().compute.threads, 3);
    }

    #[test]
    fn links_between_machines_need_a_key() {
        assert!(matches!(up("[member]\nadvertise = \"mini-1\""), Err(SettingsError::KeyMissing { .. })));
        assert!(up("[member]\nadvertise = \"127.0.0.1\"").is_ok());
        let keyed = Environment { cluster_key: Some("ab".repeat(32)), ..environment() };
        let options = MemberOptions { advertise: Some("mini-1".parse().unwrap()), ..MemberOptions::default() };
        assert!(MemberSettings::new(options, &keyed).unwrap().cluster_key.is_some());
    }

    #[test]
    fn a_shared_cluster_has_a_host_and_a_store_of_its_own_and_needs_no_key_beforehand() {
        let environment = Environment { state: Some("/state".into()), ..environment() };
        let share = |toml: &str| up_in(toml, &environment).map(|up| up.share);
        assert_eq!(share("").unwrap(), None);
        assert_eq!(share("[up]\nshare = \"off\"").unwrap(), None);
        let shared = share("[up]\nshare = \"on\"\n[member]\nadvertise = \"mini-1\"").unwrap().unwrap();
        assert_eq!((shared.host.as_deref(), shared.port, shared.announces), (Some("mini-1"), None, true));
        let quiet = share("[up]\nshare = \"on\"\n[network]\ndiscovery = \"off\"").unwrap().unwrap();
        assert!(!quiet.announces);
        let shared = share("[up]\nshare = \"10.0.0.1:7000\"\n[member]\nadvertise = \"mini-1\"").unwrap().unwrap();
        assert_eq!((shared.host.as_deref(), shared.port), (Some("10.0.0.1"), Some(7000)));
        let beside = share("[up]\nshare = \"on\"\n[cluster]\netcd = \"a:1\"");
        assert!(matches!(beside, Err(SettingsError::ShareWithEtcd)));
        assert!(matches!(up("[up]\nshare = \"on\""), Err(SettingsError::State)));
    }

    #[test]
    fn the_embedded_store_stays_on_this_machine() {
        assert!(matches!(up("[up]\nstore_listen = \"0.0.0.0:2379\""), Err(SettingsError::StoreListen { .. })));
    }

    #[test]
    #[cfg(not(feature = "metal"))]
    fn a_device_that_is_not_built_in_is_refused() {
        let error = up("[compute]\ndevice = \"metal\"").unwrap_err().to_string();
        assert!(error.contains("--features metal"), "{error}");
    }

    #[test]
    fn origins_and_hosts_that_are_allowed_are_lists_and_each_is_checked() {
        let http = up("[gateway]\nallow_origin = [\"https://Chat.example\", \"*\"]\nallow_host = [\"chat.example\"]");
        let http = http.unwrap().http;
        assert_eq!(http.allowed_origins, ["https://chat.example".parse().unwrap(), AllowedOrigin::Any]);
        assert_eq!(http.allowed_hosts, ["chat.example".parse::<AllowedHost>().unwrap()]);
        let error = super::super::FileOptions::parse("[gateway]\nallow_host = [\"chat.example:80\"]").unwrap_err();
        assert!(error.contains("expected a host name without a port"), "{error}");
    }

    #[test]
    fn aliases_of_the_model_are_a_list_of_words() {
        let http = up("[gateway]\nmodel_alias = [\"claude-sonnet-5\", \"gpt-5\"]").unwrap().http;
        let expected: Vec<ModelAlias> = ["claude-sonnet-5", "gpt-5"].map(|name| name.parse().unwrap()).into();
        assert_eq!(http.model_aliases, expected);
        assert!(up("").unwrap().http.model_aliases.is_empty());
        let error = super::super::FileOptions::parse("[gateway]\nmodel_alias = [\"two words\"]").unwrap_err();
        assert!(error.contains("expected one word"), "{error}");
    }

    #[test]
    fn beyond_loopback_the_server_needs_a_key_or_the_word_of_its_operator() {
        let keyed = Environment { api_key: Some("a".repeat(16)), ..environment() };
        for listen in ["0.0.0.0:8100", "[::]:8100", "192.168.1.7:8100", "[::ffff:10.0.0.1]:8100"] {
            let toml = format!("[gateway]\nlisten = \"{listen}\"\n");
            let error = http(&toml, &environment()).unwrap_err().to_string();
            assert!(
                error.contains(listen) && error.contains("--api-key-file") && error.contains("--insecure"),
                "{error}"
            );
            assert!(http(&format!("{toml}insecure = \"off\""), &environment()).is_err());
            assert!(http(&format!("{toml}insecure = \"on\""), &environment()).unwrap().keys.is_empty());
            assert!(!http(&toml, &keyed).unwrap().keys.is_empty());
        }
        for listen in ["127.0.0.1:8100", "127.9.9.9:1", "[::1]:8100", "[::ffff:127.0.0.1]:8100"] {
            assert!(http(&format!("[gateway]\nlisten = \"{listen}\"\n"), &environment()).is_ok(), "{listen}");
        }
    }

    #[test]
    fn a_limit_without_a_key_is_refused() {
        let toml = "[gateway]\nkey_requests_per_minute = 60";
        assert!(matches!(
            http(toml, &environment()),
            Err(SettingsError::LimitWithoutKey { name: "key_requests_per_minute" })
        ));
        let keyed = Environment { api_key: Some("a".repeat(16)), ..environment() };
        assert!(http(toml, &keyed).is_ok());
    }

    #[test]
    fn the_settings_file_has_no_keys_because_others_may_read_it() {
        let error = super::super::FileOptions::parse("[gateway]\napi_key = [\"aaaaaaaaaaaaaaaa\"]").unwrap_err();
        assert!(error.contains("`api_key`") && error.contains("`api_key_file`"), "{error}");
    }

    #[test]
    #[cfg(feature = "tls")]
    fn tls_has_two_files_of_the_operator_or_a_pair_of_its_own() {
        let homeless = environment();
        let at_home = Environment { data: Some("/data".into()), ..environment() };
        let tls = |toml: &str, environment| http(&format!("[gateway]\n{toml}"), environment).map(|http| http.tls);
        assert_eq!(tls("", &at_home).unwrap(), None);
        assert_eq!(tls("tls = \"off\"", &at_home).unwrap(), None);
        let folder = "/data/tls".into();
        assert_eq!(tls("tls = \"on\"", &at_home).unwrap(), Some(TlsSource::SelfSigned { folder }));
        assert!(matches!(tls("tls = \"on\"", &homeless), Err(SettingsError::Data)));
        let files = TlsFiles { certificate: "c".into(), key: "k".into() };
        let pair = "tls_cert = \"c\"\ntls_key = \"k\"\n";
        assert_eq!(tls(pair, &homeless).unwrap(), Some(TlsSource::Files(files)));
        for toml in ["tls_cert = \"c\"", "tls_key = \"k\"\ntls = \"on\"", &format!("{pair}tls = \"off\"")] {
            assert!(matches!(tls(toml, &at_home), Err(SettingsError::TlsPair { .. })), "{toml}");
        }
    }

    #[test]
    fn a_flag_comes_before_the_file() {
        let flag = GatewayOptions { listen: Some(constant("127.0.0.1:1")), ..GatewayOptions::default() };
        let file = GatewayOptions {
            listen: Some(constant("127.0.0.1:2")),
            request_deadline_s: Some(3),
            speculation: Some(Switch::Off),
            ..GatewayOptions::default()
        };
        let both = flag.or(file);
        assert_eq!((both.listen.map(|listen| listen.port()), both.request_deadline_s), (Some(1), Some(3)));
        assert_eq!(both.speculation, Some(Switch::Off));
    }
}
