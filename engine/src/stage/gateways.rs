//! The ways back to the gateways.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use schema::frame::Frame;
use tracing::warn;

use crate::link::ClusterKey;
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

    /// Answers gateway `slot`; an answer that cannot be sent is lost, which the gateway notices.
    pub(super) async fn answer(&mut self, view: &ClusterView, slot: u32, frame: &Frame) {
        let Some(gateway) = view.gateways.get(&slot) else {
            warn!(gateway = slot, "no such gateway in the store: its answer is dropped");
            return;
        };
        let route = self.routes.entry(slot).or_insert_with(|| Route::new(self.key.clone()));
        if let Err(error) = route.send(&gateway.value.endpoint, frame, Bytes::new()).await {
            warn!(gateway = slot, %error, "cannot answer the gateway");
        }
    }
}
