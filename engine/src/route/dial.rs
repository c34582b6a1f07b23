//! Connects to a peer at the first of its addresses that answers.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, timeout};

use crate::link::limits::{CONNECT_WAIT_MAX, NEXT_ADDRESS_AFTER};
use crate::link::{ClusterKey, LinkError, Outbound};

/// Pause before a connection that was closed at once is dialled again. The system of a process that is just ending
/// still accepts connections and closes them. A moment later it refuses them, which proves that the process is gone.
const ENDING_PAUSE: Duration = Duration::from_millis(10);
/// Number of such dials: a process takes the longer to end, the more memory it has.
const ENDING_TRIES: usize = 5;

/// The outcome of a dial.
pub(super) struct Dialled {
    /// The connection, or the error of the endpoint that the peer's record names.
    pub(super) link: Result<Outbound, LinkError>,
    /// The addresses that did not answer, or did so later than another one.
    pub(super) failed: Vec<String>,
}

/// Connects to `peer` at one of `addresses`. Dials again if the peer seems to be just ending.
pub(super) async fn dial(peer: String, addresses: Vec<String>, key: Option<ClusterKey>) -> Dialled {
    let mut dialled = race(&peer, &addresses, key.as_ref()).await;
    for _ in 0..ENDING_TRIES {
        if !dialled.link.as_ref().is_err_and(LinkError::was_closed_at_once) {
            break;
        }
        sleep(ENDING_PAUSE).await;
        dialled = race(&peer, &addresses, key.as_ref()).await;
    }
    dialled
}

/// Dials the addresses in their order, the next one after [`NEXT_ADDRESS_AFTER`] or when one has failed. The first that
/// answers counts.
async fn race(peer: &str, addresses: &[String], key: Option<&ClusterKey>) -> Dialled {
    let deadline = Instant::now() + CONNECT_WAIT_MAX;
    let (mut tried, mut own_error) = (0, None);
    let mut tries = FuturesUnordered::new();
    loop {
        if let Some(address) = addresses.get(tried) {
            tried += 1;
            tries.push(async move { (address, Outbound::connect(address, key).await) });
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = if tried < addresses.len() { left.min(NEXT_ADDRESS_AFTER) } else { left };
        match timeout(wait, tries.next()).await {
            Ok(Some((address, Ok(link)))) => {
                let failed = addresses[..tried].iter().filter(|tried| *tried != address).cloned().collect();
                return Dialled { link: Ok(link), failed };
            }
            Ok(Some((address, Err(error)))) => own_error = own_error.or((address == peer).then_some(error)),
            Ok(None) if tried >= addresses.len() => break,
            Err(_) if Instant::now() >= deadline => break,
            Ok(None) | Err(_) => {}
        }
    }
    let silent = || LinkError::Silent { endpoint: peer.to_owned(), waited: CONNECT_WAIT_MAX };
    Dialled { link: Err(own_error.unwrap_or_else(silent)), failed: addresses[..tried].to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{Inbound, Listen};

    #[tokio::test]
    async fn the_first_address_that_answers_counts_and_a_dead_one_costs_little() {
        let folder = tempfile::tempdir().unwrap();
        let key = ClusterKey::generate().unwrap();
        let listen = Listen::new(Some("127.0.0.1".to_owned()), None, Some(key.clone())).unwrap();
        let inbound = Inbound::bind_in(folder.path(), listen).await.unwrap();
        // A listener that answers no handshake, and a port at which nothing listens.
        let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (mute_address, closed) = (format!("tcp://{}", mute.local_addr().unwrap()), format!("tcp://{closed}"));
        let addresses = vec![closed.clone(), mute_address.clone(), inbound.endpoint().to_owned()];
        let dialled = dial(closed.clone(), addresses, Some(key.clone())).await;
        assert_eq!(dialled.link.unwrap().endpoint(), inbound.endpoint());
        assert_eq!(dialled.failed, [closed.clone(), mute_address.clone()]);
        // If none answers, the error is that of the peer's own endpoint.
        let started = Instant::now();
        let dialled = dial(closed.clone(), vec![mute_address.clone(), closed.clone()], Some(key)).await;
        let error = dialled.link.err().unwrap();
        assert!(matches!(&error, LinkError::Connect { endpoint, .. } if *endpoint == closed), "{error}");
        assert_eq!(dialled.failed, [mute_address, closed]);
        assert!(started.elapsed() < 3 * CONNECT_WAIT_MAX);
    }
}
