//! The embedded store: the state machine, served over the part of etcd's gRPC API that etcd-client and etcdctl use. It
//! listens on loopback only, because it does not authenticate its clients. Streams of clients that others have
//! authenticated are served by [`EmbeddedService`].

mod accept;
mod connections;
mod http2;
mod kv;
mod lease;
mod members;
mod not_offered;
mod proxy;
mod service;
mod watch;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use self::accept::accept;
use self::connections::Connections;
pub use self::proxy::StoreProxy;
use self::service::Service;
use super::MemoryStore;

/// A running embedded store. Dropping it closes its port and all connections, and deletes the stored data, unless a
/// file keeps them.
#[derive(Debug)]
pub struct EmbeddedServer {
    store: MemoryStore,
    address: SocketAddr,
    service: EmbeddedService,
    task: JoinHandle<()>,
}

/// The API for streams that are already open. Clones serve the same store.
#[derive(Clone)]
pub struct EmbeddedService {
    service: Arc<Service>,
    connections: Connections,
}

// === impl EmbeddedServer ===

impl EmbeddedServer {
    /// Serves an empty store that ends with it on `listener`, in a task of the current runtime.
    ///
    /// Refuses an address that other machines can reach.
    pub fn bind(listener: TcpListener) -> io::Result<Self> {
        Self::serve(listener, MemoryStore::new())
    }

    /// Serves `store` in the same way.
    pub fn serve(listener: TcpListener, store: MemoryStore) -> io::Result<Self> {
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            let message =
                format!("the embedded store has no access control: expected a loopback address, got {address}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let service = Arc::new(Service::new(store.host().clone(), format!("http://{address}")));
        let task = tokio::spawn(http2::serve(listener, service.clone()));
        Ok(Self {
            store,
            address,
            service: EmbeddedService { service, connections: Connections::new(http2::CONNECTIONS_MAX) },
            task,
        })
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

    /// Its API, for streams that come by another way.
    pub fn service(&self) -> EmbeddedService {
        self.service.clone()
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

// === impl EmbeddedService ===

impl EmbeddedService {
    /// Serves one client until it closes the stream. If there are as many as may be, one without a call makes room.
    pub async fn serve<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        http2::serve_one_of(self.connections.clone(), stream, self.service.clone()).await;
    }
}

impl std::fmt::Debug for EmbeddedService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedService").finish_non_exhaustive()
    }
}
