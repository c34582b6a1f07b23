//! The shared port: TLS with the cluster's own authority. Whoever shows a member's certificate gets etcd's API, or
//! layers of the model; whoever shows none can join, and nothing else. Handshakes are bounded in time, and in number:
//! one more closes the oldest of the address that has most.

use std::net::SocketAddr;
use std::sync::Arc;

use engine::link::ClusterKey;
use engine::store::{EmbeddedService, SharedStore, StoreProxy, accept};
use engine::strangers::{Place, Strangers};
use schema::Keyspace;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, info, warn};

use super::authority::{Authority, JOIN_PROTOCOL, MachineKey};
use super::limits::{HANDSHAKE_WAIT_MAX, JOIN_WAIT_MAX, PORT_TRIES, REQUEST_BYTES_MAX, STRANGERS_MAX};
use super::protocol::{JoinReply, JoinRequest, Refusal, read_line, write_line};
use super::token::Secret;
use super::tokens::{admit, list, now_s};
use crate::layers::{LAYERS_PROTOCOL, LayerService};

/// The means of the shared port to let machines in and to serve members.
pub struct Sharing {
    /// The cluster's authority.
    pub authority: Authority,
    /// The cluster key, which every machine that joins is given.
    pub cluster_key: ClusterKey,
    /// The store with the tokens.
    pub store: SharedStore,
    /// The cluster's keys.
    pub keyspace: Keyspace,
    /// The store's API.
    pub service: StoreService,
    /// The model of this machine.
    pub layers: Arc<LayerService>,
}

/// The store behind the shared port.
#[derive(Debug)]
pub enum StoreService {
    /// The embedded one.
    Embedded(EmbeddedService),
    /// An etcd without TLS on this machine, to which all bytes go through.
    At(StoreProxy),
}

/// The open port. Dropping it closes it and all its connections.
#[derive(Debug)]
pub struct SharedPort {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

/// The listener of the shared port, before it serves.
#[derive(Debug)]
pub struct ShareListener {
    tcp: TcpListener,
    address: SocketAddr,
}

// === impl ShareListener ===

impl ShareListener {
    /// Listens at `host`, at `port` or, if that is taken and `search` says so, at the next one that is free.
    ///
    /// # Errors
    /// The system's reason, of the last try.
    pub async fn bind(host: &str, port: u16, search: bool) -> std::io::Result<Self> {
        let mut addresses: Vec<_> = lookup_host((host, port)).await?.collect();
        // A machine's own name often resolves to its loopback address first, so those addresses are tried last.
        addresses.sort_by_key(|address| address.ip().is_loopback());
        let mut refused = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
        for more in 0..if search { PORT_TRIES } else { 1 } {
            for address in &addresses {
                let wanted = SocketAddr::new(address.ip(), port.saturating_add(more));
                match TcpListener::bind(wanted).await {
                    Ok(tcp) => {
                        let address = tcp.local_addr()?;
                        return Ok(Self { tcp, address });
                    }
                    Err(cause) => refused = cause,
                }
            }
            if refused.kind() != std::io::ErrorKind::AddrInUse {
                break;
            }
        }
        Err(refused)
    }

    /// The address at which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves members and machines that join. `names` are those by which clients reach this machine.
    ///
    /// # Errors
    /// The reason that no certificate can be made.
    pub fn serve(self, sharing: Sharing, names: &[String]) -> Result<SharedPort, String> {
        let mut names = names.to_vec();
        names.push(self.address.ip().to_string());
        let config = sharing.authority.server_config(&names)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let mut tasks = JoinSet::new();
        let address = self.address;
        tasks.spawn(serve_all(self.tcp, acceptor, Arc::new(sharing)));
        Ok(SharedPort { address, _tasks: tasks })
    }
}

// === impl SharedPort ===

impl SharedPort {
    /// The address at which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Accepts connections until the future is dropped, which closes all of them.
async fn serve_all(listener: TcpListener, acceptor: TlsAcceptor, sharing: Arc<Sharing>) {
    let mut strangers = Strangers::new(STRANGERS_MAX);
    accept(listener, "the shared port", |stream, peer| {
        Some(serve(stream, peer, acceptor.clone(), sharing.clone(), strangers.enter(peer.ip())))
    })
    .await;
}

/// Serves one connection. `place` is given back once it shows a member's certificate.
async fn serve(stream: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor, sharing: Arc<Sharing>, mut place: Place) {
    let member = tokio::select! {
        member = introduce(stream, peer, &acceptor, &sharing) => member,
        () = place.lost() => return debug!(%peer, "closed at the shared port: too many strangers at once"),
    };
    drop(place);
    let Some(stream) = member else { return };
    if stream.get_ref().1.alpn_protocol() == Some(LAYERS_PROTOCOL) {
        return sharing.layers.serve(stream, peer).await;
    }
    sharing.service.serve(stream, peer).await;
}

/// Learns who the peer of a new connection is, and lets it join if it wants to. Returns the connection of a member that
/// wants the store or layers.
async fn introduce(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: &TlsAcceptor,
    sharing: &Sharing,
) -> Option<TlsStream<TcpStream>> {
    let _ = stream.set_nodelay(true);
    let mut stream = match timeout(HANDSHAKE_WAIT_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            debug!(%peer, %error, "a handshake at the shared port failed");
            return None;
        }
        Err(_) => {
            debug!(%peer, "a handshake at the shared port took too long");
            return None;
        }
    };
    let (_, tls) = stream.get_ref();
    let is_member = tls.peer_certificates().is_some();
    if tls.alpn_protocol() == Some(JOIN_PROTOCOL) {
        if timeout(JOIN_WAIT_MAX, join(&mut stream, peer, sharing)).await.is_err() {
            debug!(%peer, "joining took too long");
        }
        return None;
    }
    if !is_member {
        debug!(%peer, "refused at the shared port: no certificate of the cluster's authority");
    }
    Some(stream).filter(|_| is_member)
}

// === impl StoreService ===

impl StoreService {
    /// Serves one member until either side closes the connection.
    async fn serve(&self, stream: TlsStream<TcpStream>, peer: SocketAddr) {
        match self {
            Self::Embedded(service) => service.serve(stream).await,
            Self::At(etcd) => {
                if let Err(error) = etcd.serve(stream).await {
                    debug!(%peer, %error, "a member's connection to etcd ended");
                }
            }
        }
    }
}

/// Answers one request to join.
async fn join(stream: &mut TlsStream<TcpStream>, peer: SocketAddr, sharing: &Sharing) {
    let reply = match read_line::<JoinRequest>(stream, REQUEST_BYTES_MAX).await {
        Ok(Some(request)) => match welcome(&request, sharing).await {
            Ok(reply) => {
                info!(%peer, token = request.token, machine = request.machine, "a machine has joined");
                reply
            }
            Err(reason) => {
                warn!(%peer, %reason, "a machine was not let in");
                JoinReply::Refused { reason }
            }
        },
        Ok(None) => JoinReply::Refused { reason: Refusal::Request },
        Err(_) => return,
    };
    // A peer that is gone needs no answer.
    let _ = write_line(stream, &reply).await;
}

async fn welcome(request: &JoinRequest, sharing: &Sharing) -> Result<JoinReply, Refusal> {
    let key = MachineKey::from_hex(&request.public_key).ok_or(Refusal::Request)?;
    let tokens =
        list(&*sharing.store, &sharing.keyspace).await.map_err(|error| Refusal::Internal(error.to_string()))?;
    let record = request.token.parse().ok().and_then(|id| tokens.get(&id)).map(|(record, _)| record);
    admit(record, Secret::from_hex(&request.secret).as_ref(), now_s())?;
    let name: String = request.machine.chars().filter(char::is_ascii_graphic).take(60).collect();
    let certificate = sharing.authority.member(&name, &key).map_err(|error| Refusal::Internal(error.to_string()))?;
    Ok(JoinReply::Welcome { cluster_key: sharing.cluster_key.to_hex(), certificate })
}
