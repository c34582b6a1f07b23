//! The cost of one hop: a frame with 8 KiB of activations, from encoding to verified decoding, over a local socket and
//! over encrypted TCP. `cargo bench --bench hop`.

use criterion::{Criterion, criterion_group, criterion_main};
use engine::link::{ClusterKey, Inbound, Listen, Outbound, activations_to_bytes};
use schema::frame::{Frame, Hop, Sampling, Slice, TokenRule};
use schema::{Epoch, Generation, SequenceId, Step};

const HIDDEN: u32 = 2048;

fn frame() -> Frame {
    let sampling = Sampling { seed: 1, ..Sampling::GREEDY };
    let slice = Slice {
        position: 100,
        count: 1,
        blocks: (0..4).collect(),
        logits: vec![0],
        rule: TokenRule::new(sampling),
        ..Slice::empty(SequenceId(1))
    };
    Frame::Hop(Hop {
        generation: Generation(1),
        gateway: 0,
        epoch: Epoch(1),
        step: Step(1),
        slot: 1,
        rows: 1,
        hidden: HIDDEN,
        slices: vec![slice],
        spent: Vec::new(),
    })
}

fn hop(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let key = ClusterKey::generate().expect("randomness");
    let gate = Listen::Tcp { host: "127.0.0.1".to_owned(), port: None, key: key.clone(), every_address: false };
    for (name, listen) in [("hop 8 KiB ipc", Listen::Ipc), ("hop 8 KiB tcp gate", gate)] {
        let mut inbound = runtime.block_on(Inbound::bind(listen)).expect("an endpoint");
        let endpoint = inbound.endpoint().to_owned();
        let mut outbound = runtime.block_on(Outbound::connect(&endpoint, Some(&key))).expect("a connection");
        let (frame, rows) = (frame(), activations_to_bytes(&[0.5; HIDDEN as usize]));
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    outbound.send(&frame, rows.clone()).await.expect("sent");
                    inbound.receive().await.expect("received")
                })
            });
        });
    }
}

criterion_group!(benches, hop);
criterion_main!(benches);
