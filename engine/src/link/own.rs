//! The addresses of this machine, to tell whether an endpoint leads to another one.

use std::net::IpAddr;
use std::str::FromStr;

use super::endpoint::Endpoint;
use super::interface;

/// The addresses of this machine at a moment.
pub(crate) struct OwnAddresses(Vec<IpAddr>);

/// Asks the system for them.
pub(crate) fn own_addresses() -> OwnAddresses {
    OwnAddresses(interface::own_ips())
}

// === impl OwnAddresses ===

impl OwnAddresses {
    /// True for the endpoint of another machine at an address, not a name, that this machine does not have.
    pub(crate) fn leads_elsewhere(&self, endpoint: &str) -> bool {
        let Ok(Endpoint::Tcp { host, .. }) = Endpoint::from_str(endpoint) else { return false };
        host.parse::<IpAddr>().is_ok_and(|ip| !ip.is_loopback() && !ip.is_unspecified() && !self.0.contains(&ip))
    }
}
