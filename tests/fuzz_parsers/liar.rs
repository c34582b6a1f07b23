//! A server of TLS that has the certificates of a shared port and answers whatever it is told to, once on each
//! connection.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use gateway::share::{AuthorityPin, STORE_NAME};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, version};

/// Most bytes of a question that are kept.
const HEARD_BYTES_MAX: usize = 64 << 10;

/// Longest time of a connection, which takes a few milliseconds unless a length is damaged.
const CONNECTION_TIME_MAX: Duration = Duration::from_millis(100);

/// The answer to the next connections, the flips in its bytes on the wire, and the last question.
#[derive(Default)]
struct Script {
    answer: Vec<u8>,
    flips: Vec<u8>,
    heard: Vec<u8>,
}

/// The server, in a thread that ends with the process.
pub(crate) struct Liar {
    address: String,
    pin: AuthorityPin,
    authority: String,
    identity: (String, String),
    script: Arc<Mutex<Script>>,
}

/// A socket of which the first bytes written are flipped where its mask has bits.
pub(crate) struct Flipping {
    socket: TcpStream,
    mask: Vec<u8>,
    written: usize,
}

// === impl Liar ===

impl Liar {
    pub(crate) fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let pin = AuthorityPin(Sha256::digest(&roots.roots[0].subject_public_key_info).into());
        let issuer = Issuer::new(params, &key);
        let own_key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(vec![STORE_NAME.to_owned()]).unwrap().signed_by(&own_key, &issuer).unwrap();
        let identity = (own.pem(), own_key.serialize_pem());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_protocol_versions(&[&version::TLS13]).unwrap().with_no_client_auth();
        let chain = vec![own.der().clone(), authority.der().clone()];
        let own_key = PrivateKeyDer::try_from(own_key.serialize_der()).unwrap();
        let mut config = config.with_single_cert(chain, own_key).unwrap();
        config.alpn_protocols = vec![b"baton-join/1".to_vec(), b"baton-layers/1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let script = Arc::<Mutex<Script>>::default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        listener.set_nonblocking(true).unwrap();
        let told = script.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                loop {
                    let (socket, _) = listener.accept().await.unwrap();
                    // A peer that breaks off is the parser's to explain. One that waits for more bytes than a damaged
                    // length leaves is cut off.
                    let _ = timeout(CONNECTION_TIME_MAX, answer(socket, &acceptor, &told)).await;
                }
            });
        });
        Self { address, pin, authority: authority.pem(), identity, script }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn pin(&self) -> AuthorityPin {
        self.pin
    }

    /// Its authority's certificate.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// A certificate of its authority, and the key of it.
    pub(crate) fn identity(&self) -> (String, String) {
        self.identity.clone()
    }

    /// Sets the answer to the next questions, and the flips of its connection.
    pub(crate) fn answers(&self, answer: Vec<u8>, flips: Vec<u8>) {
        *self.script.lock().unwrap() = Script { answer, flips, heard: Vec::new() };
    }

    /// The last question.
    pub(crate) fn heard(&self) -> Vec<u8> {
        self.script.lock().unwrap().heard.clone()
    }
}

async fn answer(socket: TcpStream, acceptor: &TlsAcceptor, script: &Mutex<Script>) -> io::Result<()> {
    let (answer, flips) = {
        let script = script.lock().unwrap();
        (script.answer.clone(), script.flips.clone())
    };
    let mut stream = acceptor.accept(Flipping::new(socket, flips)).await?;
    let mut heard = vec![0; HEARD_BYTES_MAX];
    let count = stream.read(&mut heard).await?;
    heard.truncate(count);
    script.lock().unwrap().heard = heard;
    stream.write_all(&answer).await?;
    stream.shutdown().await?;
    // Until the peer has read the answer: closing with bytes unread would take the answer back.
    let _ = stream.read_to_end(&mut Vec::new()).await;
    Ok(())
}

// === impl Flipping ===

impl Flipping {
    pub(crate) fn new(socket: TcpStream, mask: Vec<u8>) -> Self {
        socket.set_nodelay(true).unwrap();
        Self { socket, mask, written: 0 }
    }
}

impl AsyncRead for Flipping {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, into)
    }
}

impl AsyncWrite for Flipping {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut flipped = bytes.to_vec();
        let mask = self.mask.get(self.written..).unwrap_or_default();
        flipped.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
        let done = Pin::new(&mut self.socket).poll_write(cx, &flipped);
        if let Poll::Ready(Ok(count)) = &done {
            self.written += count;
        }
        done
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
