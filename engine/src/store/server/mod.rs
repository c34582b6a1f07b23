//! The embedded store: the in-memory state machine, served over the part of etcd's gRPC API that etcd-client and
//! etcdctl use. It listens on loopback only, because it does not authenticate its clients.

mod http2;
mod kv;
mod lease;
mod members;
mod not_offered;
mod service;
mod watch;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use self::service::Service;
use super::MemoryStore;

/// A running embedded store. Dropping it closes its port and all connections, and deletes the stored data.
#[derive(Debug)]
pub struct EmbeddedServer {
    store: MemoryStore,
    address: SocketAddr,
    task: JoinHandle<()>,
}

// === impl EmbeddedServer ===

impl EmbeddedServer {
    /// Serves an empty store on `listener`, in a task of the current runtime.
    ///
    /// Refuses an address that other machines can reach.
    pub fn bind(listener: TcpListener) -> io::Result<Self> {
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            let message =
                format!("the embedded store has no access control: expected a loopback address, got {address}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let store = MemoryStore::new();
        let service = Service::new(store.host().clone(), format!("http://{address}"));
        let task = tokio::spawn(http2::serve(listener, Arc::new(service)));
        Ok(Self { store, address, task })
    }

    /// The address at which it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The URL for clients.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The same store, without the network.
    pub fn store(&self) -> MemoryStore {
        self.store.clone()
    }

    /// Stops serving and waits until the port is closed.
    pub async fn shutdown(mut self) {
        self.task.abort();
        // An aborted task ends with an error, which is expected here.
        let _ = (&mut self.task).await;
    }
}

impl Drop for EmbeddedServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
