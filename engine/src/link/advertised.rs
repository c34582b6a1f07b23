//! The addresses at which a process takes frames, as its interfaces come and go.

use schema::record::{ADDRESSES_MAX, AdvertisedAddress};
use tokio::sync::watch;
use tokio::time::sleep;

use super::endpoint::Endpoint;
use super::interface;
use super::limits::INTERFACES_EVERY;
use super::task::Task;

/// The addresses of a process that takes frames at all of them. Dropping it ends the task that looks at the
/// interfaces.
#[derive(Debug)]
pub(crate) struct AdvertisedAddresses {
    addresses: watch::Receiver<Vec<AdvertisedAddress>>,
    _task: Option<Task>,
}

// === impl AdvertisedAddresses ===

impl AdvertisedAddresses {
    /// None beside the endpoint.
    pub(super) fn none() -> Self {
        Self { addresses: watch::channel(Vec::new()).1, _task: None }
    }

    /// Those of this machine, with `port`. Looks again each [`INTERFACES_EVERY`].
    pub(super) async fn at_port(port: u16) -> Self {
        let (publish, addresses) = watch::channel(list(port).await);
        let task = Task::spawn(async move {
            loop {
                sleep(INTERFACES_EVERY).await;
                let listed = list(port).await;
                publish.send_if_modified(|last| (*last != listed).then(|| *last = listed).is_some());
            }
        });
        Self { addresses, _task: Some(task) }
    }

    /// The newest.
    pub(crate) fn newest(&mut self) -> Vec<AdvertisedAddress> {
        self.addresses.borrow_and_update().clone()
    }

    /// Waits until they have changed, for ever if they cannot. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        if self.addresses.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn list(port: u16) -> Vec<AdvertisedAddress> {
    let found = interface::usable().await.into_iter().take(ADDRESSES_MAX);
    let address = |(ip, interface): (std::net::IpAddr, _)| AdvertisedAddress {
        endpoint: Endpoint::Tcp { host: ip.to_string(), port }.to_string(),
        interface,
    };
    found.map(address).collect()
}
