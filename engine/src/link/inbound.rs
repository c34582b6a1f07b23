//! The receiving end of a process: one PULL socket and its acceptor.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use schema::record::NetworkInterface;
use tokio::net::{TcpListener, UnixListener, lookup_host};
use zeromq::{PullSocket, Socket, SocketRecv, ZmqError};

use super::acceptor::{Acceptor, Gate};
use super::advertised::AdvertisedAddresses;
use super::endpoint::Endpoint;
use super::interface;
use super::key::ClusterKey;
use super::message::Message;
use super::runtime_dir::{self, PULL_SOCKET, RuntimeDir};
use super::sender_mark;
use super::task::Task;
use super::{LinkError, Listen};

/// The sender of a message, by its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    /// A process of the same user on this machine.
    ThisMachine,
    /// A peer with the cluster key.
    Peer(SocketAddr),
}

/// Receives from every peer that connects. Dropping it closes all connections and removes its socket files.
pub struct Inbound {
    pull: PullSocket,
    /// The sender of the last message. `None` for a process of this machine.
    sender: Option<SocketAddr>,
    endpoint: String,
    /// The address at which other machines reach it.
    address: Option<IpAddr>,
    /// Its port, if it takes frames at every address of this machine.
    open_port: Option<u16>,
    _acceptor: Task,
    // Last, because fields are dropped in order: the sockets in the directory are closed before it is removed.
    _dir: RuntimeDir,
}

// === impl Inbound ===

impl Inbound {
    /// Listens, with the sockets in `XDG_RUNTIME_DIR` or, if there is none, in the temporary directory.
    ///
    /// # Errors
    /// [`LinkError`] if the directory cannot be made or is too deep for a socket, or if the address cannot be listened
    /// on.
    pub async fn bind(listen: Listen) -> Result<Self, LinkError> {
        Self::bind_in(&runtime_dir::default_parent(), listen).await
    }

    /// Listens, with the sockets in a private directory that is made in `parent`.
    ///
    /// # Errors
    /// As [`Inbound::bind`].
    pub async fn bind_in(parent: &Path, listen: Listen) -> Result<Self, LinkError> {
        runtime_dir::remove_orphans(parent);
        let dir = RuntimeDir::create(parent)?;
        let (inner, outer) = (dir.socket(PULL_SOCKET)?, dir.socket("in.sock")?);
        let local = Endpoint::ipc(&outer)?.to_string();
        let listener = UnixListener::bind(&outer).map_err(|cause| listen_error(&local, cause))?;
        let mut open_port = None;
        let (gate, endpoint, address) = match listen {
            Listen::Ipc => (None, local, None),
            Listen::Tcp { host, port, key, every_address } => {
                let (mut gate, bare, mut address) = open_gate(host, port.unwrap_or(0), key).await?;
                // A process that is reached at loopback is this machine's alone.
                if every_address && !address.ip().is_loopback() {
                    // The first listener has shown that the host is an address of this machine.
                    gate = gate.open_to_every_address(port.unwrap_or(0)).map_err(|cause| listen_error(&bare, cause))?;
                    let opened = gate.listener.local_addr().map_err(|cause| listen_error(&bare, cause))?;
                    address.set_port(opened.port());
                    open_port = Some(opened.port());
                }
                let endpoint = Endpoint::Tcp { host: bare, port: address.port() }.to_string();
                (Some(gate), endpoint, Some(address.ip()))
            }
        };
        let mut pull = PullSocket::new();
        pull.bind(&Endpoint::ipc(&inner)?.to_string()).await.map_err(|error| LinkError::Zeromq(error.to_string()))?;
        let acceptor = Task::spawn(Acceptor::new(listener, gate, inner).serve());
        Ok(Self { pull, sender: None, endpoint, address, open_port, _acceptor: acceptor, _dir: dir })
    }

    /// The endpoint at which peers reach this process: `ipc:///…/in.sock` or `tcp://host:port`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The interface at which other machines reach this process. `None` if only this machine does, or the system does
    /// not tell.
    pub async fn interface(&self) -> Option<NetworkInterface> {
        interface::of(self.address?).await
    }

    /// The addresses at which other machines reach this process. None if it is reached at that of its endpoint alone.
    pub(crate) async fn addresses(&self) -> AdvertisedAddresses {
        match self.open_port {
            Some(port) => AdvertisedAddresses::at_port(port).await,
            None => AdvertisedAddresses::none(),
        }
    }

    /// The sender of the message that was received last, or refused.
    pub(crate) fn sender(&self) -> Sender {
        self.sender.map_or(Sender::ThisMachine, Sender::Peer)
    }

    /// The next message from any peer. The messages of one connection come in the order in which they were sent. If a
    /// peer connects anew, messages that it sent before may still come, between or behind the new ones. Cancel-safe.
    ///
    /// # Errors
    /// After an error that [`LinkError::is_about_one_message`], count it and go on. Any other error is the end of this
    /// socket.
    pub async fn receive(&mut self) -> Result<Message, LinkError> {
        loop {
            match self.pull.recv().await {
                Ok(message) => {
                    let mut parts = message.into_vecdeque();
                    self.sender = sender_mark::take(&mut parts);
                    return Message::from_parts(parts);
                }
                // The connection of one peer broke. The socket has removed it already.
                Err(ZmqError::Codec(error)) => tracing::debug!(%error, "a peer broke off"),
                Err(error) => return Err(LinkError::Zeromq(error.to_string())),
            }
        }
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ThisMachine => f.write_str("a process on this machine"),
            Self::Peer(address) => address.fmt(f),
        }
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        // A PULL socket does not do this when it is dropped, and its connections would stay open.
        self.pull.backend().shutdown();
    }
}

/// Listens on the address that `host` has on this machine. Returns the host without brackets, and that address.
async fn open_gate(host: String, port: u16, key: ClusterKey) -> Result<(Gate, String, SocketAddr), LinkError> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host).to_owned();
    let wanted = Endpoint::Tcp { host: bare.clone(), port }.to_string();
    let addresses = lookup_host((bare.as_str(), port)).await;
    let addresses = addresses.map_err(|cause| LinkError::NotThisMachine { host: bare.clone(), cause })?;
    let mut addresses: Vec<_> = addresses.collect();
    if addresses.iter().any(|address| address.ip().is_unspecified()) {
        return Err(LinkError::Advertise { host });
    }
    // A machine's own name often resolves to its loopback address first, so those addresses are tried last.
    addresses.sort_by_key(|address| address.ip().is_loopback());
    let mut refused = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let address = listener.local_addr().map_err(|cause| listen_error(&wanted, cause))?;
                if address.ip().is_loopback() && bare != "localhost" && bare.parse::<IpAddr>().is_err() {
                    tracing::warn!(
                        host = bare, %address,
                        "this name is a loopback address here: other machines cannot connect"
                    );
                }
                return Ok((Gate { listener, key }, bare, address));
            }
            Err(cause) => refused = cause,
        }
    }
    match refused.kind() {
        io::ErrorKind::AddrNotAvailable => Err(LinkError::NotThisMachine { host: bare, cause: refused }),
        _ => Err(listen_error(&wanted, refused)),
    }
}

fn listen_error(endpoint: &str, cause: io::Error) -> LinkError {
    LinkError::Listen { endpoint: endpoint.to_owned(), cause }
}
