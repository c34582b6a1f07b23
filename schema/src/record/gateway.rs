//! A live gateway: the value of `gateways/<slot>`.

use serde::{Deserialize, Serialize};

use super::interface::AdvertisedAddress;
use super::membership::Proof;
use super::share::Share;
use crate::{Epoch, Protocol};

/// One gateway process. The key exists as long as its lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayRecord {
    /// Endpoint at which its PULL socket takes sampled tokens.
    pub endpoint: String,
    /// All addresses at which it takes them, that of its endpoint among them. Empty if it has that one only, and in the
    /// records of older gateways.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<AdvertisedAddress>,
    /// Address at which it answers HTTP, `http://<host>:<port>`.
    pub url: String,
    /// The host's name.
    pub host: String,
    /// The process id on that host.
    pub pid: u32,
    /// baton's version.
    pub version: String,
    /// The protocol that it speaks.
    #[serde(default = "Protocol::unnamed")]
    pub protocol: Protocol,
    /// The lease of this key, in the notation of etcdctl. It distinguishes the registrations of a process.
    #[serde(default)]
    pub lease: String,
    /// Proof that the gateway has the cluster key. `None` in a cluster without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// The reason for which no micro-batch passes through the stages, as the gateway finds it. `None` while
    /// micro-batches pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// The parts of the pool of KV blocks that belong to this gateway, on every stage. No two gateways have the same
    /// part.
    #[serde(default)]
    pub share: Share,
    /// The newest epoch that the gateway has begun beyond those that follow from this record's revision; 0 if there is
    /// none. Stages take no epoch far above. `None` in the records of older gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The room for keys and values, in tokens and of all gateways together, with which the longest sequence that this
    /// gateway has accepted can end in its share. 0 if the room in the model's record is enough.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub kv_tokens_needed: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(tokens: &u32) -> bool {
    *tokens == 0
}

// === impl GatewayRecord ===

impl GatewayRecord {
    /// A gateway of this process on `host`, at `url`, that is not registered yet.
    pub fn new(host: &str, url: String) -> Self {
        Self {
            endpoint: String::new(),
            addresses: Vec::new(),
            url,
            host: host.to_owned(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: Protocol::CURRENT,
            lease: String::new(),
            proof: None,
            trouble: None,
            share: Share::EMPTY,
            epoch: Some(Epoch(0)),
            kv_tokens_needed: 0,
        }
    }
}
