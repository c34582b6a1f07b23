//! The settings of a user: from a flag, else from the environment (`BATON_*`), else from `baton.toml`, else a default.
//!
//! The `…Options` are the values that were given (the same structs parse flags, environment and file). The `…Settings`
//! are the resolved and checked values. This module does not know the commands that use them.

mod address;
mod api_keys;
mod client;
mod environment;
mod etcd;
mod file;
mod host;
mod options;
mod otlp;
mod resolved;
mod secret;
mod secrets;
mod terminal;

pub use address::{EtcdUrls, Host, SharePlace};
pub use api_keys::{ApiKeysError, KeyFile};
pub use client::ClientSettings;
pub use environment::{Environment, VARIABLES};
pub use etcd::EtcdSettingsError;
pub use file::{FileError, FileOptions};
pub(crate) use options::device;
pub use options::{
    ApiKeyOptions, ClusterChoice, ClusterOptions, ComputeOptions, GatewayOptions, GlobalOptions, InterfaceChoice,
    LogFormat, MemberOptions, ModelOptions, NetworkOptions, SharedOptions, StageOptions, StoreKind, Switch, UpGroups,
    UpOptions,
};
pub use otlp::OtlpEndpoint;
pub use resolved::{
    ClusterSettings, ComputeSettings, GatewaySettings, HttpSettings, KvSize, MemberSettings, ModelSettings,
    OwnStoreSettings, SettingsError, ShareSettings, StageSettings, SwitchSettings, UpSettings, defaults,
};
pub(crate) use resolved::{KV_TOKENS_MAX, cache};
pub use secret::{SecretError, SecretText};
pub(crate) use secrets::secrets;
pub use terminal::TerminalSettings;
