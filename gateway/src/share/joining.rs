//! The side that joins: finds the cluster by its pin, proves the token, and keeps what it is given.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use engine::link::ClusterKey;
use engine::store::{EtcdAccess, EtcdTls};
use rcgen::KeyPair;
use schema::ClusterName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

use super::authority::{JOIN_PROTOCOL, MachineKey, STORE_NAME, TLS_VERSIONS, host_text, pin_of};
use super::folder::{ClusterFolder, FolderError};
use super::limits::{CONNECT_WAIT_MAX, HANDSHAKE_WAIT_MAX, JOIN_WAIT_MAX, REPLY_BYTES_MAX};
use super::protocol::{JoinReply, JoinRequest, Refusal, read_line, write_line};
use super::token::{AuthorityPin, JoinToken};

/// A machine's place in a cluster.
#[derive(Debug)]
pub struct Membership {
    /// The cluster.
    pub cluster: ClusterName,
    /// The way to its store.
    pub store: EtcdAccess,
    /// The cluster key.
    pub cluster_key: ClusterKey,
}

/// The reason that a machine has not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Nobody answers at the address.
    #[error("cannot reach {address}: is `baton up --share` running there?")]
    Connect {
        /// The address.
        address: String,
        /// The system's reason.
        #[source]
        cause: io::Error,
    },
    /// The peer is another cluster, or no baton.
    #[error(
        "{address} is not the cluster that the token is for: its authority is another one ({reason}); expected the \
         machine that made the token, with the files that it had then"
    )]
    Pin {
        /// The address.
        address: String,
        /// TLS's reason.
        reason: String,
    },
    /// The conversation broke off.
    #[error("{address} broke off: {reason}")]
    Broken {
        /// The address.
        address: String,
        /// The reason.
        reason: String,
    },
    /// It does not let this machine in.
    #[error("{address} does not let this machine in: {reason}")]
    Refused {
        /// The address.
        address: String,
        /// The reason.
        reason: Refusal,
    },
    /// A key of this machine cannot be made.
    #[error("cannot make a key: {reason}")]
    Key {
        /// The reason.
        reason: String,
    },
    /// A file cannot be kept.
    #[error("cannot keep what the cluster gave")]
    Keep(#[from] FolderError),
    /// Nobody announces the cluster of a token that came without an address.
    #[error(
        "nobody on this network announces the cluster {cluster} of the token: expected HOST:PORT before the token, as \
         `baton up --share` prints it"
    )]
    NotAnnounced {
        /// The cluster.
        cluster: ClusterName,
    },
    /// There is nothing to begin with.
    #[error(
        "this machine has not joined cluster {cluster} before: expected HOST:PORT and a token, as `baton up --share` \
         prints them"
    )]
    NotJoined {
        /// The cluster.
        cluster: ClusterName,
    },
}

/// Joins the cluster of `token` at `address` as `machine`, and keeps what it is given in `folder`. Also returns this
/// machine's own address, as the connection has it.
///
/// # Errors
/// [`JoinError`] says at which step it failed.
pub async fn join(
    address: &str,
    token: &JoinToken,
    machine: &str,
    folder: &ClusterFolder,
) -> Result<(Membership, IpAddr), JoinError> {
    let key = KeyPair::generate().map_err(|error| JoinError::Key { reason: error.to_string() })?;
    let broken = |reason: String| JoinError::Broken { address: address.to_owned(), reason };
    let (tcp, own) = connect(address).await?;
    let verifier = Arc::new(PinVerifier { pin: token.pin, provider: Arc::new(ring::default_provider()) });
    let config = ClientConfig::builder_with_provider(verifier.provider.clone()).with_protocol_versions(TLS_VERSIONS);
    let config = config.map_err(|error| broken(error.to_string()))?.dangerous();
    let mut config = config.with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![JOIN_PROTOCOL.to_vec()];
    let name = ServerName::try_from(STORE_NAME).map_err(|error| broken(error.to_string()))?;
    let mut stream = match timeout(HANDSHAKE_WAIT_MAX, TlsConnector::from(Arc::new(config)).connect(name, tcp)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
            return Err(match tls {
                Some(TlsError::InvalidCertificate(_)) => {
                    JoinError::Pin { address: address.to_owned(), reason: error.to_string() }
                }
                _ => broken(format!("{error}; expected the port that `baton up --share` prints")),
            });
        }
        Err(_) => return Err(broken("no handshake in time".to_owned())),
    };
    let (_, tls) = stream.get_ref();
    let authority = tls.peer_certificates().and_then(|chain| chain.last()).map(pem);
    let authority = authority.ok_or_else(|| broken("it showed no certificate".to_owned()))?;
    let request = JoinRequest {
        token: token.id.to_string(),
        secret: token.secret.to_hex(),
        machine: machine.to_owned(),
        public_key: MachineKey::to_hex(&key),
    };
    let exchange = async {
        // Only the writing half is closed: the answer is still to come.
        write_line(&mut stream, &request).await?;
        read_line::<JoinReply>(&mut stream, REPLY_BYTES_MAX).await
    };
    let reply = timeout(JOIN_WAIT_MAX, exchange).await.map_err(|_| broken("no answer in time".to_owned()))?;
    let reply = reply.map_err(|error| broken(error.to_string()))?;
    let (cluster_key, certificate) = match reply {
        Some(JoinReply::Welcome { cluster_key, certificate }) => (cluster_key, certificate),
        Some(JoinReply::Refused { reason }) => {
            return Err(JoinError::Refused { address: address.to_owned(), reason });
        }
        None => return Err(broken("its answer is none; is baton of the same version there?".to_owned())),
    };
    folder.make()?;
    folder.write(ClusterFolder::AUTHORITY, &authority)?;
    folder.write(ClusterFolder::CLIENT, &certificate)?;
    folder.write(ClusterFolder::CLIENT_KEY, &key.serialize_pem())?;
    folder.write(ClusterFolder::CLUSTER_KEY, &format!("{cluster_key}\n"))?;
    folder.write(ClusterFolder::STORE_ADDRESS, &format!("{address}\n"))?;
    Ok((kept(&token.cluster, folder)?, own))
}

/// The membership that this machine kept when it joined `cluster`.
///
/// # Errors
/// [`JoinError::NotJoined`] if it has not, [`JoinError::Keep`] if a file cannot be used.
pub fn kept(cluster: &ClusterName, folder: &ClusterFolder) -> Result<Membership, JoinError> {
    let read = |name| folder.read(name)?.ok_or_else(|| JoinError::NotJoined { cluster: cluster.clone() });
    let address = read(ClusterFolder::STORE_ADDRESS)?;
    let key = read(ClusterFolder::CLUSTER_KEY)?.parse();
    let cluster_key = key.map_err(|_| folder.unusable(ClusterFolder::CLUSTER_KEY, "a cluster key of 64 hex digits"))?;
    let tls = EtcdTls {
        authority: Some(read(ClusterFolder::AUTHORITY)?),
        identity: Some((read(ClusterFolder::CLIENT)?, read(ClusterFolder::CLIENT_KEY)?)),
        server_name: Some(STORE_NAME.to_owned()),
    };
    let store = EtcdAccess { endpoints: vec![format!("https://{}", address.trim())], tls, login: None };
    Ok(Membership { cluster: cluster.clone(), store, cluster_key })
}

/// The pin of the authority that this machine kept when it joined. `None` if it has not.
pub fn kept_pin(folder: &ClusterFolder) -> Option<AuthorityPin> {
    let authority = folder.read(ClusterFolder::AUTHORITY).ok().flatten()?;
    pin_of(&CertificateDer::from_pem_slice(authority.as_bytes()).ok()?)
}

/// This machine's own address, as a peer at `address` sees it.
///
/// # Errors
/// [`JoinError::Connect`] if nobody answers there.
pub async fn own_address(address: &str) -> Result<IpAddr, JoinError> {
    connect(address).await.map(|(_, own)| own)
}

async fn connect(address: &str) -> Result<(TcpStream, IpAddr), JoinError> {
    let failed = |cause| JoinError::Connect { address: address.to_owned(), cause };
    let connecting = timeout(CONNECT_WAIT_MAX, TcpStream::connect(address)).await;
    let tcp = connecting.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?.map_err(failed)?;
    // The end of a request must not wait until the request is acknowledged.
    let _ = tcp.set_nodelay(true);
    let own: SocketAddr = tcp.local_addr().map_err(failed)?;
    Ok((tcp, own.ip().to_canonical()))
}

/// A host and a port as an address of a socket.
pub fn socket_text(host: &str, port: u16) -> String {
    format!("{}:{port}", host_text(host))
}

/// A certificate in PEM form.
fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line)).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Accepts a server whose chain ends with the authority that has the pin.
#[derive(Debug)]
struct PinVerifier {
    pin: AuthorityPin,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let authority = intermediates.last().filter(|authority| pin_of(authority) == Some(self.pin));
        let authority = authority.ok_or(TlsError::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone()).build();
        let verifier = verifier.map_err(|error| TlsError::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
