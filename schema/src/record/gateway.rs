//! A live gateway: the value of `gateways/<slot>`.

use serde::{Deserialize, Serialize};

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
}
