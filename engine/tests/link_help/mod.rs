//! Helpers shared by the tests of links: a hop to send and a check for files that are left behind.

#![allow(dead_code, reason = "each test file uses its part")]

use std::path::Path;
use std::time::Duration;

use engine::link::{ClusterKey, Listen};
use schema::frame::{Frame, Hop, Sampling, Slice, TokenRule};
use schema::{Epoch, Generation, SequenceId, Step};

/// Longest wait for a state before a test gives up.
pub const WAIT_MAX: Duration = Duration::from_secs(30);

/// A hop of one sequence. It has token ids if it has no activations.
pub fn hop(step: u64, rows: u32, hidden: u32) -> Frame {
    let sampling = Sampling { seed: 7, ..Sampling::GREEDY };
    let tokens = if hidden == 0 { (0..rows).collect() } else { Vec::new() };
    let slice = Slice {
        position: 0,
        count: rows,
        tokens,
        blocks: vec![4, 2],
        logits: vec![rows - 1],
        rule: TokenRule::new(sampling),
        ..Slice::empty(SequenceId(1))
    };
    Frame::Hop(Hop {
        generation: Generation(1),
        gateway: 0,
        epoch: Epoch(1),
        step: Step(step),
        slot: 1,
        rows,
        hidden,
        slices: vec![slice],
        spent: Vec::new(),
    })
}

/// The step of a hop frame.
pub fn step(frame: &Frame) -> u64 {
    match frame {
        Frame::Hop(hop) => hop.step.0,
        Frame::Tokens(_) | Frame::Refusal(_) => panic!("not a hop"),
    }
}

/// A listener for encrypted TCP on a free port of the loopback address.
pub fn gate(key: &ClusterKey) -> Listen {
    Listen::Tcp { host: "127.0.0.1".to_owned(), port: None, key: key.clone(), every_address: false }
}

/// The `host:port` of a `tcp://` endpoint.
pub fn address(endpoint: &str) -> &str {
    endpoint.strip_prefix("tcp://").expect("a tcp endpoint")
}

/// True if `dir` is empty.
pub fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}
