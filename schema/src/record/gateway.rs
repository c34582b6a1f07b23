//! A live gateway: the value of `gateways/<slot>`.

use serde::{Deserialize, Serialize};

use super::membership::Proof;
use super::share::Share;

/// One gateway process; the key lives as long as its lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayRecord {
    /// Where its PULL socket takes sampled tokens.
    pub endpoint: String,
    /// Where it answers HTTP, `http://<host>:<port>`.
    pub url: String,
    /// The host's name.
    pub host: String,
    /// The process on that host.
    pub pid: u32,
    /// baton's version.
    pub version: String,
    /// The lease it lives under, as etcdctl writes it. It tells a process's registrations apart.
    #[serde(default)]
    pub lease: String,
    /// Proof that it knows the cluster key, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// Why no micro-batch comes through the stages, as it finds, while that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// The parts of the blocks of keys and values that are its own, on every stage. No two gateways have the same part.
    #[serde(default)]
    pub share: Share,
}
