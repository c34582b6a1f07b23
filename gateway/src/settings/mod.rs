//! What a person can set: by flag, else by environment (`BATON_*`), else in `baton.toml`, else a default.
//!
//! The `…Choices` are what was said (the same structs read flags, environment and file), the `…Settings` are what holds.
//! Knows nothing of what is done with them.

mod address;
mod choices;
mod environment;
mod file;
mod host;
mod otlp;
mod resolved;
mod secret;

pub use address::{EtcdUrls, Host};
pub use choices::{
    ClusterChoices, ComputeChoices, GatewayChoices, GlobalChoices, MemberChoices, ModelChoices, StageChoices, Switch,
    UpChoices,
};
pub use environment::{Environment, VARIABLES};
pub use file::{FileChoices, FileError};
pub use otlp::OtlpEndpoint;
pub use resolved::{
    ClusterSettings, ComputeSettings, GatewaySettings, HttpSettings, KvWish, MemberSettings, ModelSettings,
    SettingsError, StageSettings, UpSettings, defaults,
};
pub(crate) use resolved::{KV_TOKENS_MAX, cache};
pub use secret::SecretError;
