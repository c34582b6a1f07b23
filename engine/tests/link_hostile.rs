//! Connections that a link must refuse, and the limits of those that it accepts. A good peer is served throughout.

use bytes::Bytes;
use engine::link::{ClusterKey, Inbound, LinkError, Listen, Outbound};
use schema::frame::FrameError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use zeromq::{PushSocket, Socket, SocketSend, ZmqMessage};

use link_help::{WAIT_MAX, address, gate, hop, step};

mod link_help;

/// A listener, and a good peer that connected before all others.
struct Setting {
    dir: tempfile::TempDir,
    inbound: Inbound,
    good: Outbound,
    sent: u64,
}

impl Setting {
    async fn new(listen: Listen, key: &ClusterKey) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let inbound = Inbound::bind_in(dir.path(), listen).await.unwrap();
        let good = Outbound::connect_in(dir.path(), inbound.endpoint(), Some(key)).await.unwrap();
        Self { dir, inbound, good, sent: 0 }
    }

    async fn the_good_peer_is_served(&mut self) {
        self.sent += 1;
        self.good.send(&hop(self.sent, 2, 8), vec![0; 64]).await.unwrap();
        assert_eq!(step(&self.inbound.receive().await.unwrap().frame), self.sent);
    }
}

/// A ZMTP greeting, READY and the header of a frame that declares 2^36 bytes. A bare ZeroMQ socket aborts on it.
fn hostile_zmtp() -> Vec<u8> {
    let mut bytes = vec![0; 64];
    (bytes[0], bytes[9], bytes[10]) = (0xff, 0x7f, 3);
    bytes[12..16].copy_from_slice(b"NULL");
    bytes.extend(b"\x04\x1a\x05READY\x0bSocket-Type\x00\x00\x00\x04PUSH");
    bytes.push(2);
    bytes.extend((1_u64 << 36).to_be_bytes());
    bytes.extend([0; 1000]);
    bytes
}

/// A ZeroMQ socket that sends arbitrary messages. It is connected to the PULL socket next to a local endpoint's socket.
async fn bare_socket(endpoint: &str) -> PushSocket {
    let mut push = PushSocket::new();
    push.connect(&endpoint.replace("/in.sock", "/pull.sock")).await.unwrap();
    push
}

/// Waits until the other side has closed the connection.
async fn is_closed(stream: &mut (impl AsyncReadExt + Unpin)) {
    let mut rest = Vec::new();
    // A reset counts as a close.
    let _ = timeout(WAIT_MAX, stream.read_to_end(&mut rest)).await.expect("the connection was left open");
}

#[tokio::test]
async fn another_key_is_refused_with_its_own_error() {
    let key = ClusterKey::generate().unwrap();
    let mut setting = Setting::new(gate(&key), &key).await;
    let other = ClusterKey::generate().unwrap();
    let refused =
        Outbound::connect_in(setting.dir.path(), setting.inbound.endpoint(), Some(&other)).await.err().unwrap();
    assert!(matches!(refused, LinkError::Handshake { .. }), "{refused:?}");
    let cause = std::error::Error::source(&refused).unwrap().to_string();
    assert!(cause.contains("its cluster key is another one"), "{cause}");
    setting.the_good_peer_is_served().await;
}

#[tokio::test]
async fn tcp_without_a_key_is_refused_with_the_command_that_makes_one() {
    let listening = Listen::new(Some("10.0.0.2".to_owned()), None, None).unwrap_err().to_string();
    let connecting = Outbound::connect("tcp://127.0.0.1:9", None).await.err().unwrap().to_string();
    for error in [listening, connecting] {
        for word in ["`baton key`", "BATON_CLUSTER_KEY", "--cluster-key-file"] {
            assert!(error.contains(word), "{error}");
        }
    }
    assert!(matches!(Listen::new(None, None, None), Ok(Listen::Ipc)));
}

#[tokio::test]
async fn an_address_that_others_cannot_use_is_not_advertised() {
    let dir = tempfile::tempdir().unwrap();
    let key = ClusterKey::generate().unwrap();
    for host in ["0.0.0.0", "::", "[::]"] {
        let listen = Listen::Tcp { host: host.to_owned(), port: None, key: key.clone(), every_address: false };
        let error = Inbound::bind_in(dir.path(), listen).await.err().unwrap();
        assert!(matches!(error, LinkError::Advertise { .. }), "{error:?}");
    }
    // An address that no machine has (RFC 5737).
    let listen = Listen::Tcp { host: "192.0.2.1".to_owned(), port: None, key, every_address: false };
    let error = Inbound::bind_in(dir.path(), listen).await.err().unwrap();
    assert!(matches!(error, LinkError::NotThisMachine { .. }), "{error:?}");
    assert!(link_help::is_empty(dir.path()));
}

#[tokio::test]
async fn every_address_is_open_only_where_the_advertised_one_is_no_loopback() {
    let dir = tempfile::tempdir().unwrap();
    let key = ClusterKey::generate().unwrap();
    // No packet is sent: the system says which of its addresses it would use.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let own = socket.connect("203.0.113.1:9").and_then(|()| socket.local_addr()).map(|own| own.ip());
    let Some(own) = own.ok().filter(|own| !own.is_loopback()) else {
        return eprintln!("not tried: this machine has no address but loopback");
    };
    let inbound = Inbound::bind_in(dir.path(), gate(&key).at_every_address()).await.unwrap();
    let port = address(inbound.endpoint()).rsplit_once(':').unwrap().1.to_owned();
    assert!(TcpStream::connect(format!("{own}:{port}")).await.is_err(), "it listens beyond loopback");
    let listen = Listen::new(Some(own.to_string()), None, Some(key.clone())).unwrap();
    let inbound = Inbound::bind_in(dir.path(), listen.clone()).await.unwrap();
    let port = address(inbound.endpoint()).rsplit_once(':').unwrap().1.to_owned();
    assert!(TcpStream::connect(format!("127.0.0.1:{port}")).await.is_err(), "it listens at another address");
    let inbound = Inbound::bind_in(dir.path(), listen.at_every_address()).await.unwrap();
    let port = address(inbound.endpoint()).rsplit_once(':').unwrap().1.to_owned();
    for host in ["127.0.0.1".to_owned(), own.to_string()] {
        Outbound::connect_in(dir.path(), &format!("tcp://{host}:{port}"), Some(&key)).await.unwrap();
    }
}

#[tokio::test]
async fn invalid_bytes_at_the_gate_are_refused() {
    let key = ClusterKey::generate().unwrap();
    let mut setting = Setting::new(gate(&key), &key).await;
    let random: Vec<u8> = (0..4096_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let right_length = [&[0, 48][..], &random[..48]].concat();
    let invalid: [&[u8]; 7] = [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        &hostile_zmtp(),
        &random,
        &right_length,
        &[0; 100],
        &[0xff; 70_000],
        &[0],
    ];
    for bytes in invalid {
        let mut stream = TcpStream::connect(address(setting.inbound.endpoint())).await.unwrap();
        // The acceptor may close the connection before it has read everything.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        is_closed(&mut stream).await;
        setting.the_good_peer_is_served().await;
    }
}

#[tokio::test]
async fn a_silent_or_slow_handshake_times_out() {
    let key = ClusterKey::generate().unwrap();
    let mut setting = Setting::new(gate(&key), &key).await;
    let mut silent = TcpStream::connect(address(setting.inbound.endpoint())).await.unwrap();
    let (mut slow_reads, mut slow_writes) =
        TcpStream::connect(address(setting.inbound.endpoint())).await.unwrap().into_split();
    let write_slowly = async {
        for byte in [&[0, 48][..], &[7; 40]].concat() {
            if slow_writes.write_all(&[byte]).await.is_err() {
                return std::future::pending().await;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    setting.the_good_peer_is_served().await;
    tokio::select! {
        ((), ()) = async { tokio::join!(is_closed(&mut silent), is_closed(&mut slow_reads)) } => {}
        () = write_slowly => panic!("it was given all the time it took"),
    }
    setting.the_good_peer_is_served().await;
}

#[tokio::test]
async fn the_local_socket_closes_invalid_and_silent_connections() {
    let key = ClusterKey::generate().unwrap();
    let mut setting = Setting::new(Listen::Ipc, &key).await;
    let path = setting.inbound.endpoint().strip_prefix("ipc://").unwrap().to_owned();
    // Zero bytes are heartbeats, but the connection closes once they stop.
    let invalid: [&[u8]; 5] = [b"GET / HTTP/1.1\r\n\r\n", &hostile_zmtp(), &[0; 100], &[0xff; 100], &[]];
    for bytes in invalid {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let _ = stream.write_all(bytes).await;
        is_closed(&mut stream).await;
        setting.the_good_peer_is_served().await;
    }
}

#[tokio::test]
async fn a_malformed_message_is_reported_and_the_next_one_comes() {
    let key = ClusterKey::generate().unwrap();
    let mut setting = Setting::new(Listen::Ipc, &key).await;
    let mut push = bare_socket(setting.inbound.endpoint()).await;
    let good = Bytes::from(hop(1, 2, 8).encode());
    let parts = |parts: &[&Bytes]| ZmqMessage::try_from(parts.iter().copied().cloned().collect::<Vec<_>>()).unwrap();
    let messages = [
        parts(&[&Bytes::from_static(b"junk")]),
        parts(&[&good]),
        parts(&[&good, &Bytes::from_static(&[0; 60])]),
        parts(&[&good, &Bytes::new()]),
        parts(&[&good.slice(..good.len() - 9), &Bytes::from_static(&[0; 64])]),
        parts(&[&Bytes::new()]),
        parts(&[&good, &Bytes::from_static(&[0; 64]), &good]),
    ];
    for message in messages {
        push.send(message).await.unwrap();
        let error = setting.inbound.receive().await.unwrap_err();
        assert!(error.is_about_one_message(), "{error:?}");
        setting.the_good_peer_is_served().await;
    }
    push.send(parts(&[&good, &Bytes::from_static(&[0; 60])])).await.unwrap();
    let error = setting.inbound.receive().await.unwrap_err();
    assert!(matches!(error, LinkError::Frame(FrameError::Activations { found: 60, expected: 64, .. })), "{error:?}");
}
