//! The time of one hop: encode, send, receive and verified decode, over ipc and over encrypted TCP.
//!
//! `cargo run --release -p baton-engine --example hop_speed`. Both ends run on one thread first, then each on a thread
//! of its own. A bare pair of ZeroMQ sockets in the same run shows baton's own share of the time.

use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::link::{ClusterKey, Inbound, Listen, Outbound};
use schema::frame::{Frame, Hop, Sampling, Slice, TokenRule};
use schema::{Epoch, Generation, SequenceId, Step};
use zeromq::{PullSocket, PushSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let key = ClusterKey::generate()?;
    for (name, rows, rounds) in [("8 KiB", 4, 4000), ("2 MiB", 1024, 200)] {
        let hop = hop(rows, 512);
        let payload = Bytes::from(vec![1; rows as usize * 512 * 4]);
        print("zeromq ipc, bare", name, plain(&hop, &payload, rounds).await?);
        let tcp = Listen::Tcp { host: "127.0.0.1".to_owned(), port: None, key: key.clone(), every_address: false };
        for (kind, listen) in [("link over ipc", Listen::Ipc), ("link over tcp", tcp)] {
            print(kind, name, linked(listen.clone(), &key, &hop, &payload, rounds).await?);
            print(&format!("{kind}, 2 threads"), name, across(listen, &key, &hop, &payload, rounds).await?);
        }
    }
    Ok(())
}

async fn linked(
    listen: Listen,
    key: &ClusterKey,
    hop: &Frame,
    payload: &Bytes,
    rounds: usize,
) -> Result<Vec<Duration>, Failure> {
    let mut inbound = Inbound::bind(listen).await?;
    let mut outbound = Outbound::connect(inbound.endpoint(), Some(key)).await?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        outbound.send(hop, payload.clone()).await?;
        std::hint::black_box(inbound.receive().await?);
        times.push(start.elapsed());
    }
    Ok(times)
}

/// The same as [`linked`], with the receiving end on a thread of its own.
async fn across(
    listen: Listen,
    key: &ClusterKey,
    hop: &Frame,
    payload: &Bytes,
    rounds: usize,
) -> Result<Vec<Duration>, Failure> {
    let (endpoint_sender, mut endpoint_receiver) = tokio::sync::mpsc::channel(1);
    let (arrive, mut arrived) = tokio::sync::mpsc::channel(1);
    let receiver = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut inbound = Inbound::bind(listen).await.expect("a socket");
            endpoint_sender.send(inbound.endpoint().to_owned()).await.expect("a listener");
            for _ in 0..rounds {
                std::hint::black_box(inbound.receive().await.expect("a message"));
                arrive.send(Instant::now()).await.expect("a listener");
            }
        });
    });
    let mut outbound = Outbound::connect(&endpoint_receiver.recv().await.ok_or("no endpoint")?, Some(key)).await?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        outbound.send(hop, payload.clone()).await?;
        times.push(arrived.recv().await.ok_or("no message")? - start);
    }
    receiver.join().map_err(|_| "the receiver failed")?;
    Ok(times)
}

async fn plain(hop: &Frame, payload: &Bytes, rounds: usize) -> Result<Vec<Duration>, Failure> {
    let dir = tempfile::tempdir()?;
    let endpoint = format!("ipc://{}", dir.path().join("s").display());
    let (mut pull, mut push) = (PullSocket::new(), PushSocket::new());
    pull.bind(&endpoint).await?;
    push.connect(&endpoint).await?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        let mut message = ZmqMessage::from(hop.encode());
        message.push_back(payload.clone());
        push.send(message).await?;
        let message = pull.recv().await?;
        std::hint::black_box(Frame::decode(message.get(0).ok_or("no header")?)?);
        times.push(start.elapsed());
    }
    Ok(times)
}

fn print(kind: &str, size: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e6;
    println!("{kind:24} {size:>6}  p50 {:8.1} us  p99 {:8.1} us", at(50), at(99));
}

fn hop(rows: u32, hidden: u32) -> Frame {
    let sampling = Sampling { seed: 7, ..Sampling::GREEDY };
    let slice = Slice {
        position: 0,
        count: rows,
        blocks: (0..16).collect(),
        logits: vec![rows - 1],
        rule: TokenRule::new(sampling),
        ..Slice::empty(SequenceId(1))
    };
    Frame::Hop(Hop {
        generation: Generation(1),
        gateway: 0,
        epoch: Epoch(1),
        step: Step(1),
        slot: 1,
        rows,
        hidden,
        slices: vec![slice],
        spent: Vec::new(),
    })
}
