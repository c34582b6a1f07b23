//! The ways back to the gateways.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use schema::frame::Frame;
use tracing::warn;

use crate::link::{ClusterKey, Unreachable};
use crate::route::Route;
use crate::view::ClusterView;

/// One route for each gateway that sent work; as many as the store knows gateways.
pub(super) struct Gateways {
    key: Option<ClusterKey>,
    routes: BTreeMap<u32, Route>,
}

// === impl Gateways ===

impl Gateways {
    pub(super) fn new(key: Option<ClusterKey>) -> Self {
        Self { key, routes: BTreeMap::new() }
    }

    /// Drops the routes to gateways that are gone.
    pub(super) fn follow(&mut self, view: &ClusterView) {
        self.routes.retain(|slot, _| view.gateways.contains_key(slot));
    }

    /// Waits until the connection to a gateway has ended, and says to which; for ever, if there is none. Cancel-safe.
    pub(super) async fn ended(&mut self) -> u32 {
        let mut ends: FuturesUnordered<_> =
            self.routes.iter_mut().map(|(slot, route)| async { (*slot, route.ended().await) }).collect();
        let ended = ends.next().await.map(|(slot, _)| slot);
        drop(ends);
        match ended {
            None => std::future::pending().await,
            Some(slot) => {
                // The next answer makes another one.
                self.routes.remove(&slot);
                slot
            }
        }
    }

    /// How long it takes to a gateway and back, as far as that is known.
    pub(super) fn round_trip(&self, slot: u32) -> Option<Duration> {
        self.routes.get(&slot)?.round_trip()
    }

    /// Answers gateway `slot`; an answer that cannot be sent is lost, which the gateway notices. Says how it
    /// shows, if so, that a gateway which the store knows is not there.
    pub(super) async fn answer(&mut self, view: &ClusterView, slot: u32, frame: &Frame) -> Option<Unreachable> {
        let Some(gateway) = view.gateways.get(&slot) else {
            warn!(gateway = slot, "no such gateway in the store: its answer is dropped");
            return None;
        };
        let route = self.routes.entry(slot).or_insert_with(|| Route::new(self.key.clone()));
        let error = route.send(&gateway.value.endpoint, frame, Bytes::new()).await.err()?;
        warn!(gateway = slot, %error, "cannot answer the gateway");
        Unreachable::by(&gateway.value.endpoint, &error)
    }
}
