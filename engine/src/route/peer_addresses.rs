//! The addresses that the members of a cluster advertise, as the store shows them.

use std::sync::Arc;

use schema::record::{ADDRESSES_MAX, AdvertisedAddress};
use tokio::sync::watch;

use crate::link::own_addresses;
use crate::view::ClusterView;

/// Finds the addresses of a peer. Without views, a peer has none but its endpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct PeerAddresses(Option<watch::Receiver<Arc<ClusterView>>>);

// === impl PeerAddresses ===

impl PeerAddresses {
    /// Those of the members in the newest of `views`.
    pub(crate) fn new(views: watch::Receiver<Arc<ClusterView>>) -> Self {
        Self(Some(views))
    }

    /// The addresses of the stage or gateway whose record names `endpoint`, without those that this machine has, too:
    /// they lead to this machine.
    pub(super) fn of(&self, endpoint: &str) -> Vec<AdvertisedAddress> {
        let Some(views) = &self.0 else { return Vec::new() };
        let view = views.borrow().clone();
        let Some(addresses) = find(&view, endpoint).filter(|addresses| !addresses.is_empty()) else {
            return Vec::new();
        };
        let own = own_addresses();
        let is_elsewhere = |address: &&AdvertisedAddress| own.leads_elsewhere(&address.endpoint);
        addresses.iter().filter(is_elsewhere).take(ADDRESSES_MAX).cloned().collect()
    }
}

fn find<'a>(view: &'a ClusterView, endpoint: &str) -> Option<&'a Vec<AdvertisedAddress>> {
    let stage = view.stages.values().map(|stage| &stage.value).find(|stage| stage.endpoint == endpoint);
    let gateway = || view.gateways.values().map(|gateway| &gateway.value).find(|gateway| gateway.endpoint == endpoint);
    stage.map(|stage| &stage.addresses).or_else(|| gateway().map(|gateway| &gateway.addresses))
}

#[cfg(test)]
mod tests {
    use schema::record::{InterfaceKind, NetworkInterface, StageRecord};

    use super::*;
    use crate::testing::{name, stage};
    use crate::view::Versioned;

    #[test]
    fn a_peer_has_the_addresses_of_its_record_but_no_more_than_the_bound_and_none_of_this_machine() {
        let address = |endpoint: String| {
            let kind = InterfaceKind::Unknown;
            let interface = NetworkInterface { name: "x".to_owned(), kind, megabits_per_second: None, mtu: None };
            AdvertisedAddress { endpoint, interface }
        };
        let bad = ["tcp://127.0.0.1:7000", "tcp://[::1]:7000", "ipc:///tmp/in.sock", "tcp://mini-2:7000", "nonsense"];
        let good = (0..20).map(|at| format!("tcp://198.51.100.{at}:7000"));
        let addresses = bad.map(str::to_owned).into_iter().chain(good.clone()).map(address).collect();
        let record = StageRecord { endpoint: "tcp://mini-2:7000".to_owned(), addresses, ..stage(1) };
        let mut view = ClusterView::default();
        view.stages.insert(name("a"), Versioned { value: record, mod_revision: 1 });
        let peers = PeerAddresses::new(watch::channel(Arc::new(view)).1);
        let found: Vec<_> = peers.of("tcp://mini-2:7000").into_iter().map(|address| address.endpoint).collect();
        assert_eq!(found, good.take(ADDRESSES_MAX).collect::<Vec<_>>());
        assert!(
            peers.of("tcp://mini-3:7000").is_empty() && PeerAddresses::default().of("tcp://mini-2:7000").is_empty()
        );
    }
}
