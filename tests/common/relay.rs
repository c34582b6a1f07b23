//! Passes connections on to an address, as far as a test lets it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The name that a client's first message has in the clear if it is about layers (ALPN).
const LAYERS: &[u8] = b"baton-layers/1";
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// A relay.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    /// Bytes on one connection after which it is held.
    held_after: AtomicU64,
    /// Bytes that came back.
    passed: AtomicU64,
    /// The part of them on connections about layers.
    passed_layers: AtomicU64,
    /// True if connections about layers are closed.
    layers_are_cut: AtomicBool,
}

// === impl Relay ===

impl Relay {
    /// Passes on what comes to a free port of `host`.
    pub(crate) fn start_at(host: &str, to: SocketAddr) -> Self {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let state = Arc::new(State {
            held_after: AtomicU64::new(u64::MAX),
            passed: AtomicU64::new(0),
            passed_layers: AtomicU64::new(0),
            layers_are_cut: AtomicBool::new(false),
        });
        let relay = Self { address: listener.local_addr().unwrap(), state: state.clone() };
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let state = state.clone();
                std::thread::spawn(move || carry(near, to, &state));
            }
        });
        relay
    }

    pub(crate) fn start(to: SocketAddr) -> Self {
        Self::start_at("127.0.0.1", to)
    }

    pub(crate) fn hold_after(&self, bytes: u64) {
        self.state.held_after.store(bytes, Ordering::Relaxed);
    }

    /// Closes the connections about layers, and new ones, too. All others go on.
    pub(crate) fn cut_layers(&self) {
        self.state.layers_are_cut.store(true, Ordering::Relaxed);
    }

    /// Bytes that came back.
    pub(crate) fn passed(&self) -> u64 {
        self.state.passed.load(Ordering::Relaxed)
    }

    /// The part of them on connections about layers.
    pub(crate) fn passed_layers(&self) -> u64 {
        self.state.passed_layers.load(Ordering::Relaxed)
    }
}

fn carry(mut near: TcpStream, to: SocketAddr, state: &Arc<State>) {
    let Ok(mut far) = TcpStream::connect(to) else { return };
    let mut first = vec![0; 16 << 10];
    let Ok(count @ 1..) = near.read(&mut first) else { return };
    let first = &first[..count];
    let is_about_layers = first.windows(LAYERS.len()).any(|bytes| bytes == LAYERS);
    let is_cut = |state: &State| is_about_layers && state.layers_are_cut.load(Ordering::Relaxed);
    if is_cut(state) || far.write_all(first).is_err() {
        return;
    }
    let (from, back) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    std::thread::spawn(move || pass(from, far, |_| true));
    let mut own = 0;
    pass(back, near, |bytes| {
        while own > state.held_after.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK_PAUSE);
        }
        if is_cut(state) {
            return false;
        }
        own += bytes;
        state.passed.fetch_add(bytes, Ordering::Relaxed);
        state.passed_layers.fetch_add(if is_about_layers { bytes } else { 0 }, Ordering::Relaxed);
        true
    });
}

/// Passes bytes from one end to the other, each piece if `may_pass`.
fn pass(mut from: TcpStream, mut to: TcpStream, mut may_pass: impl FnMut(u64) -> bool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if !may_pass(count as u64) {
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // The other direction may go on: a machine that joins closes its own end before the answer.
    let _ = to.shutdown(Shutdown::Write);
}
