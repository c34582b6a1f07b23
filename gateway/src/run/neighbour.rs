//! Another `baton up` of this user on this machine, with whose store and HTTP server a second one serves its cluster.

use std::net::SocketAddr;

use engine::membership::read_view;
use engine::store::{EtcdAccess, SharedStore};
use schema::{ClusterName, Keyspace};
use tokio::time::{Instant, sleep};

use super::RunError;
use super::limits::{LEAVE_WAIT_MAX, NEIGHBOUR_POLL};
use super::share;
use crate::running::{RunningFolder, RunningUp};
use crate::settings::{OwnStoreSettings, UpSettings};

/// The process that listens where this one would.
#[derive(Debug)]
pub(super) struct Neighbour(RunningUp);

/// True if a server at `http` takes the connections to `wanted`.
fn serves_at(http: SocketAddr, wanted: SocketAddr) -> bool {
    let is_any = http.ip().is_unspecified() && http.is_ipv4() == wanted.is_ipv4();
    http.port() == wanted.port() && (is_any || http.ip() == wanted.ip())
}

// === impl Neighbour ===

impl Neighbour {
    /// The process of another cluster that serves HTTP at the address in `settings`, unless these ask for a store or a
    /// shared port of this process's own.
    pub(super) fn find(settings: &UpSettings) -> Option<Self> {
        if settings.share.is_some() || settings.own_store != OwnStoreSettings::Embedded {
            return None;
        }
        let folder = RunningFolder::new(settings.state.as_deref()?);
        let running = folder.running(&stages::memory::machine().host).ok()?;
        let is_it = |up: &RunningUp| {
            let serves = up.record.http.is_some_and(|http| serves_at(http, settings.http.listen));
            serves && up.record.cluster != settings.cluster
        };
        running.into_iter().find(is_it).map(Self)
    }

    /// Its cluster.
    pub(super) fn cluster(&self) -> &ClusterName {
        &self.0.record.cluster
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.0.record.pid
    }

    /// Makes `settings` those of a member of its store, with its cluster key if it made one.
    ///
    /// # Errors
    /// [`RunError`] if its HTTP server is more open than this one was to be, if its store cannot be told, or if the key
    /// cannot be read.
    pub(super) fn complete(&self, settings: &mut UpSettings) -> Result<(), RunError> {
        let record = &self.0.record;
        let lacks = [
            ("an API key", !settings.http.keys.is_empty() && !record.asks_key),
            ("https", settings.http.tls.is_some() && !record.speaks_https),
        ];
        if let Some((lacking, _)) = lacks.into_iter().find(|(_, is_lacking)| *is_lacking) {
            let (cluster, address) = (self.cluster().clone(), settings.http.listen);
            return Err(RunError::NeighbourOpen { cluster, address, lacking });
        }
        if settings.etcd.is_none() {
            let store = &self.0.record.embedded_store;
            if store.is_empty() {
                let (cluster, address) = (self.cluster().clone(), settings.http.listen);
                return Err(RunError::NeighbourStore { cluster, address });
            }
            settings.etcd = Some(EtcdAccess::plain(store));
        }
        if let Some(state) = settings.state.as_deref().filter(|_| self.0.record.made_key)
            && settings.member.cluster_key.is_none()
        {
            settings.member.cluster_key = Some(share::cluster_key(state, self.cluster())?);
        }
        Ok(())
    }

    /// Waits, within bounds, until its gateway has left a cluster whose stages have all ended: as a member it would
    /// hold on to the model that the cluster had.
    pub(super) async fn left(&self, store: &SharedStore, keyspace: &Keyspace) -> Result<(), RunError> {
        let until = Instant::now() + LEAVE_WAIT_MAX;
        while Instant::now() < until {
            let view = read_view(store, keyspace, None).await?;
            let is_left = view.gateways.values().all(|gateway| gateway.value.pid != self.pid());
            if is_left || !view.stages.is_empty() || !view.unproven_stages.is_empty() {
                break;
            }
            sleep(NEIGHBOUR_POLL).await;
        }
        Ok(())
    }

    /// Resolves when the process has ended.
    pub(super) async fn ended(&self) {
        while !self.0.has_ended().unwrap_or(false) {
            sleep(NEIGHBOUR_POLL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_takes_the_connections_to_its_own_address_or_to_every_one() {
        for (http, wanted, expected) in [
            ("127.0.0.1:8100", "127.0.0.1:8100", true),
            ("0.0.0.0:8100", "127.0.0.1:8100", true),
            ("[::]:8100", "[::1]:8100", true),
            // The second is to be reached from elsewhere, and the first is not.
            ("127.0.0.1:8100", "0.0.0.0:8100", false),
            ("127.0.0.1:8101", "127.0.0.1:8100", false),
            ("0.0.0.0:8100", "[::1]:8100", false),
        ] {
            assert_eq!(serves_at(http.parse().unwrap(), wanted.parse().unwrap()), expected, "{http} {wanted}");
        }
    }
}
