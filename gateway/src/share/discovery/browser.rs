//! The looking side: asks the network once, for a bounded time.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mdns_sd::{ServiceDaemon, ServiceEvent};
use tokio::time::{Instant, timeout_at};

use super::announcement::{Announcement, SERVICE_TYPE};
use super::limits::{BROWSE_TIME, CANDIDATES_MAX, LISTED_MAX};
use crate::share::authority::JOIN_VERSION;
use crate::share::token::AuthorityPin;

/// The reason that the network was not asked.
#[derive(Debug, thiserror::Error)]
#[error("cannot ask the network by multicast DNS: {reason}")]
pub struct DiscoveryError {
    reason: String,
}

/// Ends the daemon's thread, which closes its sockets.
struct Browser(ServiceDaemon);

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.0.shutdown();
    }
}

/// The clusters that announce themselves, in the order of their names. Takes a second and a half.
///
/// # Errors
/// [`DiscoveryError`] if the system has no multicast.
pub async fn list() -> Result<Vec<Announcement>, DiscoveryError> {
    let mut found = browse(LISTED_MAX, |_| true).await?;
    found.sort_by(|a, b| (&a.cluster, &a.machine, &a.addresses).cmp(&(&b.cluster, &b.machine, &b.addresses)));
    Ok(found)
}

/// The addresses at which somebody announces the cluster with this pin, which may or may not be true. None if the
/// system has no multicast.
pub async fn addresses_of(pin: AuthorityPin) -> Vec<SocketAddr> {
    let is_wanted = |found: &Announcement| found.pin == pin && found.join_version == JOIN_VERSION;
    let found = browse(CANDIDATES_MAX, is_wanted).await.unwrap_or_default();
    let mut addresses: Vec<_> = found.into_iter().flat_map(|found| found.addresses).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(CANDIDATES_MAX);
    addresses
}

/// Gathers at most `most` announcements that are wanted. Others take no place.
async fn browse(most: usize, is_wanted: impl Fn(&Announcement) -> bool) -> Result<Vec<Announcement>, DiscoveryError> {
    let failed = |error: mdns_sd::Error| DiscoveryError { reason: error.to_string() };
    let browser = Browser(ServiceDaemon::new().map_err(failed)?);
    let events = browser.0.browse(SERVICE_TYPE).map_err(failed)?;
    let deadline = Instant::now() + BROWSE_TIME;
    let mut found = BTreeMap::new();
    while let Ok(Ok(event)) = timeout_at(deadline, events.recv_async()).await {
        match event {
            ServiceEvent::ServiceResolved(service) => {
                let property = |key: &str| service.get_property_val(key).flatten();
                let addresses = service.addresses.iter().map(mdns_sd::ScopedIp::to_ip_addr);
                let read = Announcement::read(service.port, addresses, property).filter(&is_wanted);
                // The last word of an instance counts, and a full list changes no more.
                if let Some(read) = read.filter(|_| found.len() < most || found.contains_key(&service.fullname)) {
                    found.insert(service.fullname, read);
                }
            }
            ServiceEvent::ServiceRemoved(_, name) => drop(found.remove(&name)),
            _ => {}
        }
    }
    Ok(found.into_values().collect())
}
