//! A client of the embedded store that sends anything: in HTTP/2 and its headers, in gRPC and in etcd's messages.

use std::time::Duration;

use engine::store::{EmbeddedServer, EmbeddedService};
use etcd_client::proto::{
    PbCompare, PbDeleteRequest, PbLeaseGrantRequest, PbLeaseKeepAliveRequest, PbPutRequest, PbRangeRequest,
    PbTxnOpRequest, PbTxnRequest, PbTxnRequestOp,
};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::damage::Piece;
use crate::targets::Target;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Types of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
/// Flags of frames.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Longest wait for the answer to a client that behaves, and for the end of a connection that a client has left.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
/// Wait for the answer to a damaged call.
const DAMAGED_WAIT: Duration = Duration::from_millis(3);

/// An HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// The header block of a call: every field is a literal without an index.
fn block(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "store"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let literal = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [&[0][..], &literal(name), &literal(value)].concat()).collect()
}

/// A call in pieces: the settings, the header block, the message, and flips in all of these once they are frames.
fn call(path: &str, message: Vec<u8>) -> Vec<Piece> {
    let pieces = [[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat(), block(path), message, vec![0; 300]];
    pieces.map(Piece::binary).to_vec()
}

fn calls() -> Vec<Vec<Piece>> {
    let key = || b"/baton/v1/home/model".to_vec();
    let put = PbPutRequest { key: key(), value: b"{}".to_vec(), ..PbPutRequest::default() };
    let range = PbRangeRequest { key: key(), range_end: b"/baton/v2".to_vec(), limit: 9, ..PbRangeRequest::default() };
    let delete = PbDeleteRequest { key: key(), prev_kv: true, ..PbDeleteRequest::default() };
    let operation = |request| PbTxnRequestOp { request: Some(request) };
    let transaction = PbTxnRequest {
        compare: vec![PbCompare { key: key(), ..PbCompare::default() }],
        success: vec![operation(PbTxnOpRequest::RequestPut(put.clone()))],
        failure: vec![
            operation(PbTxnOpRequest::RequestRange(range.clone())),
            operation(PbTxnOpRequest::RequestDeleteRange(delete.clone())),
        ],
    };
    // A request to watch from this key on, which the client's crate does not let others make.
    let from = PbRangeRequest { key: key(), range_end: b"0".to_vec(), ..PbRangeRequest::default() }.encode_to_vec();
    let watch = [&[0x0a, from.len() as u8][..], &from].concat();
    vec![
        call("/etcdserverpb.KV/Put", put.encode_to_vec()),
        call("/etcdserverpb.KV/Range", range.encode_to_vec()),
        call("/etcdserverpb.KV/DeleteRange", delete.encode_to_vec()),
        call("/etcdserverpb.KV/Txn", transaction.encode_to_vec()),
        call("/etcdserverpb.Lease/LeaseGrant", PbLeaseGrantRequest { ttl: 60, id: 0 }.encode_to_vec()),
        call("/etcdserverpb.Lease/LeaseKeepAlive", PbLeaseKeepAliveRequest { id: 7 }.encode_to_vec()),
        call("/etcdserverpb.Watch/Watch", watch),
        // Empty messages ask for no more than the name of the method does.
        call("/etcdserverpb.Cluster/MemberList", Vec::new()),
        call("/etcdserverpb.Maintenance/Status", Vec::new()),
    ]
}

/// The names of the frames in `bytes`, and true if an answer or an end is among them.
fn names(mut bytes: &[u8]) -> (Vec<&'static str>, bool) {
    let (mut names, mut is_answered) = (Vec::new(), false);
    while let Some(([a, b, c, kind, flags, _, _, _, stream], rest)) = bytes.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some(after) = rest.get(length..) else { break };
        bytes = after;
        is_answered |= matches!(*kind, DATA | RESET | GO_AWAY) || (*kind == HEADERS && flags & END_STREAM != 0);
        names.push(match *kind {
            DATA => "data",
            HEADERS if *stream == 1 && flags & END_STREAM != 0 => "trailers",
            HEADERS => "headers",
            RESET => "reset",
            SETTINGS => "settings",
            GO_AWAY => "go away",
            _ => "another frame",
        });
    }
    (names, is_answered)
}

/// Makes a call on a connection of its own. Returns the names of the frames in the answer.
async fn converse(service: &EmbeddedService, input: &[Piece], wait: Duration) -> Vec<&'static str> {
    let [settings, block, message, flips] = [0, 1, 2, 3].map(|at: usize| &input[at].bytes[..]);
    let body = [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat();
    let mut bytes = [settings, &frame(HEADERS, END_HEADERS, 1, block), &frame(DATA, END_STREAM, 1, &body)].concat();
    bytes.iter_mut().zip(flips).for_each(|(byte, flip)| *byte ^= flip);
    let (client, server) = duplex(64 << 10);
    let served = tokio::spawn({
        let service = service.clone();
        async move { service.serve(server).await }
    });
    let (mut read, mut write) = tokio::io::split(client);
    let mut heard = Vec::new();
    let talk = async {
        // The server may break off at any byte.
        let said = async { write.write_all(&bytes).await.is_ok() };
        let listened =
            async { while !names(&heard).1 && read.read_buf(&mut heard).await.is_ok_and(|count| count > 0) {} };
        tokio::join!(said, listened)
    };
    let _ = timeout(wait, talk).await;
    drop((read, write));
    timeout(ANSWER_WAIT_MAX, served).await.expect("a connection ends with its client").expect("it does not panic");
    names(&heard).0
}

/// Calls of the embedded store.
pub(crate) fn store() -> Target {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server =
        runtime.block_on(async { EmbeddedServer::bind(TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap() });
    let service = server.service();
    let good = calls();
    let run = move |input: &[Piece]| {
        let _serving = &server;
        runtime.block_on(async {
            let wait = if good.iter().any(|call| call == input) { ANSWER_WAIT_MAX } else { DAMAGED_WAIT };
            let answer = converse(&service, input, wait).await;
            // Another client is served as before.
            let other = converse(&service, &good[1], ANSWER_WAIT_MAX).await;
            assert!(other.contains(&"data"), "{other:?}");
            if answer.contains(&"data") { Ok(answer.join(", ")) } else { Err(answer.join(", ")) }
        })
    };
    // Each watch and each call holds its buffers, and the store keeps up to 16 MiB of its history.
    Target { name: "store", seeds: calls(), run: Box::new(run), memory: (4 << 20, 64) }
}
