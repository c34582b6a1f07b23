//! Strangers that say anything while a machine looks for a cluster and joins it: at the shared port, in the place of
//! the cluster that it asks, and in announcements.

use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use engine::store::{EmbeddedServer, Store, Txn, Write};
use gateway::share::{
    Announcement, Authority, ClusterFolder, JoinError, JoinToken, STORE_NAME, ShareListener, Sharing, StoreService,
    ensure_cluster_key, join,
};
use schema::record::TokenRecord;
use schema::{ClusterName, Key, Keyspace};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, version};

use crate::damage::Piece;
use crate::liar::{Flipping, Liar};
use crate::targets::{Target, chain, scratch};

/// The name of the protocol (ALPN).
const JOIN_PROTOCOL: &[u8] = b"baton-join/1";
/// Longest wait for the answer to a client that behaves.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(20);
/// Wait for the answer to a damaged request.
const DAMAGED_WAIT: Duration = Duration::from_millis(100);
/// Bytes of a connection, from its first, that may be flipped: those of the greeting and some behind them.
const FLIPPED_BYTES: usize = 600;

fn home() -> ClusterName {
    "home".parse().unwrap()
}

/// The end of an error: the reason without the address, which differs from run to run.
fn reason(error: &JoinError) -> String {
    chain(error).split_once(' ').map_or_else(String::new, |(_, reason)| reason.to_owned())
}

/// A client of the shared port without a certificate.
fn stranger(authority: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_protocol_versions(&[&version::TLS13]).unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![JOIN_PROTOCOL.to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// Asks to join with the first piece, of which the bytes on the wire are flipped as the second says.
async fn ask(address: &str, connector: &TlsConnector, input: &[Piece]) -> Result<String, String> {
    let socket = Flipping::new(TcpStream::connect(address).await.unwrap(), input[1].bytes.clone());
    let name = ServerName::try_from(STORE_NAME).unwrap();
    let mut stream = connector.connect(name, socket).await.map_err(|error| format!("no handshake: {error}"))?;
    // The port may break off at any byte.
    let said = async {
        stream.write_all(&input[0].bytes).await?;
        stream.write_all(b"\n").await?;
        stream.shutdown().await
    };
    let said = said.await;
    let mut answer = Vec::new();
    let heard = stream.read_to_end(&mut answer).await;
    match serde_json::from_slice::<Value>(&answer) {
        Ok(answer) if answer["welcome"].is_object() => Ok("welcome".to_owned()),
        Ok(answer) => Err(answer["refused"]["reason"].to_string().replace('"', "")),
        Err(_) => Err(format!("no answer: said {}, heard {}", said.is_ok(), heard.is_ok())),
    }
}

/// Conversations of a stranger with the shared port, inside TLS and in TLS itself.
pub(crate) fn join_port() -> Target {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (state, cluster) = (scratch(), home());
    let folder = ClusterFolder::new(state.path(), &cluster);
    let authority = Authority::ensure(&folder, &cluster).unwrap();
    let token = JoinToken::generate(cluster.clone(), authority.pin()).unwrap();
    let pem = fs::read_to_string(folder.path("authority.pem")).unwrap();
    let (server, port) = runtime.block_on(async {
        let server = EmbeddedServer::bind(TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap();
        let keyspace = Keyspace::new(&cluster);
        let record = TokenRecord { secret_hash: token.secret.hash(), created_s: 1, expires_s: None, revoked_s: None };
        let key = keyspace.name(&Key::Token(token.id.clone()));
        let put = Write::Put { key, value: serde_json::to_vec(&record).unwrap(), lease: None };
        server.store().commit(Txn { compares: Vec::new(), writes: vec![put] }).await.unwrap();
        let sharing = Sharing {
            authority,
            cluster_key: ensure_cluster_key(&folder).unwrap(),
            store: Arc::new(server.store()),
            keyspace,
            service: StoreService::Embedded(server.service()),
            layers: Arc::default(),
        };
        let port = ShareListener::bind("127.0.0.1", 0, false).await.unwrap().serve(sharing, &[]).unwrap();
        (server, port)
    });
    // The machine's own request is a secret of its protocol, so one that listens in its cluster's place writes it down.
    let liar = Liar::start();
    let asked = JoinToken { pin: liar.pin(), ..token.clone() };
    liar.answers(b"none\n".to_vec(), Vec::new());
    let elsewhere = ClusterFolder::new(&state.path().join("other"), &cluster);
    runtime.block_on(join(liar.address(), &asked, "mini-2", &elsewhere)).unwrap_err();
    let request: Value = serde_json::from_slice(&liar.heard()).unwrap();

    let (connector, address) = (stranger(&pem), port.address().to_string());
    let good = vec![Piece::json(&request), Piece::binary(vec![0; FLIPPED_BYTES])];
    let seeds = vec![good.clone()];
    let run = move |input: &[Piece]| {
        let _serving = (&server, &port, &state);
        runtime.block_on(async {
            // Both sides may wait for the bytes that a damaged length announces: then the stranger goes away.
            let wait = if *input == good { ANSWER_WAIT_MAX } else { DAMAGED_WAIT };
            let answer = timeout(wait, ask(&address, &connector, input)).await;
            let answer = answer.unwrap_or_else(|_| Err("no end in time".to_owned()));
            // Another machine joins as before.
            let other = timeout(ANSWER_WAIT_MAX, ask(&address, &connector, &good)).await.expect("the port answers");
            assert_eq!(other, Ok("welcome".to_owned()));
            answer
        })
    };
    // TLS keeps buffers for each connection.
    Target { name: "join_port", seeds, run: Box::new(run), memory: (2 << 20, 512) }
}

/// The answers of a liar in the place of the cluster that a machine joins.
pub(crate) fn join_reply() -> Target {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (state, cluster, liar) = (scratch(), home(), Liar::start());
    let folder = ClusterFolder::new(state.path(), &cluster);
    let token = JoinToken::generate(cluster, liar.pin()).unwrap();
    let welcome = json!({"welcome": {"cluster_key": "5a".repeat(32), "certificate": liar.authority()}});
    let refused = ["unknown", "expired", "revoked", "request"].map(|reason| json!({"refused": {"reason": reason}}));
    let internal = json!({"refused": {"reason": {"internal": "the store does not answer"}}});
    let seeds = [vec![welcome], refused.to_vec(), vec![internal]].concat();
    let seeds = seeds.iter().map(|reply| vec![Piece::json(reply), Piece::binary(vec![0; FLIPPED_BYTES])]).collect();
    let run = move |input: &[Piece]| {
        let _kept = &state;
        liar.answers([&input[0].bytes[..], b"\n"].concat(), input[1].bytes.clone());
        let joined = runtime.block_on(join(liar.address(), &token, "mini-2", &folder));
        match joined {
            Ok((membership, _)) => {
                assert_eq!(membership.store.endpoints, [format!("https://{}", liar.address())]);
                Ok("joined".to_owned())
            }
            Err(error @ JoinError::Refused { .. }) => Ok(reason(&error)),
            Err(error) => Err(reason(&error)),
        }
    };
    Target { name: "join_reply", seeds, run: Box::new(run), memory: (2 << 20, 512) }
}

/// The keys of an announcement, and a value of each.
const ANNOUNCED: [(&str, &[u8]); 5] = [
    ("cluster", b"home"),
    ("model", b"qwen3-14b"),
    ("machine", b"mini-1"),
    ("join", b"1"),
    ("pin", b"a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7"),
];

/// Reads the announcement of these values, and of a port and IPv6 addresses in the last piece.
fn announcement(values: &[&[u8]]) -> Option<Announcement> {
    let port = values[5].first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
    let addresses = values[5].get(2..).unwrap_or_default().chunks_exact(16);
    let addresses = addresses.map(|bytes| IpAddr::from(<[u8; 16]>::try_from(bytes).unwrap()));
    let property = |key: &str| {
        let at = ANNOUNCED.iter().position(|(known, _)| *known == key)?;
        // An empty value stands for a key that is not there.
        Some(values[at]).filter(|value| !value.is_empty())
    };
    Announcement::read(port, addresses, property)
}

/// The records of an announcement, as the responder hands them on.
pub(crate) fn announced() -> Target {
    let mapped = |ip: [u8; 4]| [&[0; 10][..], &[0xff; 2], &ip].concat();
    let addresses = [mapped([192, 168, 1, 11]), [&[0xfd][..], &[7; 15]].concat(), mapped([127, 0, 0, 1])].concat();
    let addresses = [&7946_u16.to_be_bytes()[..], &addresses].concat();
    let good: Vec<_> = ANNOUNCED.iter().map(|(_, value)| value.to_vec()).chain([addresses]).collect();
    let seeds = vec![good.iter().cloned().map(Piece::binary).collect()];
    let run = move |input: &[Piece]| {
        let values: Vec<&[u8]> = input.iter().map(|piece| &piece.bytes[..]).collect();
        let Some(read) = announcement(&values) else {
            // The value that is to blame: with the good one in its place, the others are read.
            let to_blame = (0..values.len()).find(|at| {
                let mut mended = values.clone();
                mended[*at] = &good[*at];
                announcement(&mended).is_some()
            });
            let names = ["cluster", "model", "machine", "join", "pin", "addresses"];
            return Err(to_blame.map_or("for several values", |at| names[at]).to_owned());
        };
        let is_plain = |text: &str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        assert!(is_plain(&read.model) && is_plain(&read.machine) && is_plain(read.cluster.as_str()), "{read:?}");
        assert!(read.model.len() <= 80 && read.machine.len() <= 63, "{read:?}");
        assert!((1..=4).contains(&read.addresses.len()), "{read:?}");
        assert!(read.addresses.iter().all(|address| !address.ip().is_loopback() && address.port() > 0), "{read:?}");
        Ok("x".repeat(read.addresses.len()))
    };
    Target { name: "announcement", seeds, run: Box::new(run), memory: (64 << 10, 8) }
}
