//! The routes back to the gateways.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use schema::frame::Frame;
use schema::record::LinkReport;

use crate::link::ClusterKey;
use crate::route::{PeerAddresses, Route, RouteEvent};
use crate::view::ClusterView;

/// One route for each gateway that sent work; at most as many as the store knows gateways.
pub(super) struct Gateways {
    key: Option<ClusterKey>,
    peers: PeerAddresses,
    routes: BTreeMap<u32, Route>,
}

// === impl Gateways ===

impl Gateways {
    pub(super) fn new(key: Option<ClusterKey>, peers: PeerAddresses) -> Self {
        Self { key, peers, routes: BTreeMap::new() }
    }

    /// Drops the routes to gateways that are gone.
    pub(super) fn follow(&mut self, view: &ClusterView) {
        self.routes.retain(|slot, _| view.gateways.contains_key(slot));
    }

    /// Sends an answer to the gateway in `slot`.
    pub(super) fn send(&mut self, slot: u32, endpoint: String, frame: Frame) {
        let route = self.routes.entry(slot).or_insert_with(|| Route::new(self.key.clone(), self.peers.clone()));
        route.send(endpoint, frame, Bytes::new());
    }

    /// The addresses of the gateways on other machines.
    pub(super) fn links(&mut self) -> impl Iterator<Item = LinkReport> {
        self.routes.values_mut().flat_map(Route::links)
    }

    /// A pending event of the route to the gateway in `slot`.
    pub(super) fn take_event(&mut self, slot: u32) -> Option<RouteEvent> {
        self.routes.get_mut(&slot)?.take_event()
    }

    /// Waits for the next event of a route to a gateway, for ever if there is no route. Cancel-safe.
    pub(super) async fn next(&mut self) -> (u32, RouteEvent) {
        let routes = self.routes.iter_mut();
        let mut events: FuturesUnordered<_> =
            routes.map(|(slot, route)| async { (*slot, route.next().await) }).collect();
        match events.next().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}
