//! A port of a machine that joined, at which it serves the layers that it has fetched to other members.

use std::net::SocketAddr;
use std::sync::Arc;

use engine::store::{EtcdAccess, accept};
use engine::strangers::{Place, Strangers};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::error::LayersError;
use super::limits::{CONNECT_WAIT_MAX, STRANGERS_MAX};
use super::service::LayerService;
use super::tls::MemberTls;
use crate::share::socket_text;

/// The open port. Dropping it closes it and all its connections.
#[derive(Debug)]
pub struct LayerPort {
    endpoint: String,
    _tasks: JoinSet<()>,
}

// === impl LayerPort ===

impl LayerPort {
    /// Serves `service` at a free port of `host`, to members of the cluster of `access`. `None` if that has no
    /// certificates.
    ///
    /// # Errors
    /// [`LayersError::Certificates`], or [`LayersError::Port`] if it cannot be opened.
    pub async fn open(
        access: &EtcdAccess,
        host: &str,
        service: Arc<LayerService>,
    ) -> Result<Option<Self>, LayersError> {
        let Some(tls) = MemberTls::new(access)? else { return Ok(None) };
        let acceptor = TlsAcceptor::from(tls.server()?);
        // A name may lead to loopback on the machine that has it.
        let at = host.parse().unwrap_or_else(|_| std::net::Ipv4Addr::UNSPECIFIED.into());
        let listener = TcpListener::bind(SocketAddr::new(at, 0)).await.map_err(LayersError::Port)?;
        let port = listener.local_addr().map_err(LayersError::Port)?.port();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut strangers = Strangers::new(STRANGERS_MAX);
            accept(listener, "the port for layers", |stream, peer| {
                Some(serve(stream, peer, acceptor.clone(), service.clone(), strangers.enter(peer.ip())))
            })
            .await;
        });
        Ok(Some(Self { endpoint: socket_text(host, port), _tasks: tasks }))
    }

    /// The address for other members, as `host:port`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

/// Serves one connection. `place` is given back once it shows a member's certificate.
async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    service: Arc<LayerService>,
    mut place: Place,
) {
    let _ = stream.set_nodelay(true);
    let accepted = tokio::select! {
        accepted = timeout(CONNECT_WAIT_MAX, acceptor.accept(stream)) => accepted,
        () = place.lost() => return debug!(%peer, "closed at the port for layers: too many strangers at once"),
    };
    drop(place);
    match accepted {
        Ok(Ok(stream)) => service.serve(stream, peer).await,
        Ok(Err(error)) => debug!(%peer, %error, "a handshake at the port for layers failed"),
        Err(_) => debug!(%peer, "a handshake at the port for layers took too long"),
    }
}
