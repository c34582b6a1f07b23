//! The places of connections whose peers have not shown yet that they may connect.

use std::collections::VecDeque;
use std::net::IpAddr;

use tokio::sync::oneshot;

/// The connections of strangers, at most a number at a time. One more closes another: the oldest of the address that
/// has most. Whoever may connect needs a round trip or two to show it, and whoever may not must not keep the others
/// out by any number of connections from one address.
#[derive(Debug)]
pub struct Strangers {
    places_max: usize,
    /// Dropping a sender takes its place back.
    oldest_first: VecDeque<(IpAddr, oneshot::Sender<()>)>,
}

/// The place of one connection. Dropping it gives the place back.
#[derive(Debug)]
pub struct Place(oneshot::Receiver<()>);

// === impl Strangers ===

impl Strangers {
    /// No connections, and room for `places_max`, at least one.
    pub fn new(places_max: usize) -> Self {
        Self { places_max: places_max.max(1), oldest_first: VecDeque::new() }
    }

    /// A place for a new connection from `address`.
    pub fn enter(&mut self, address: IpAddr) -> Place {
        self.oldest_first.retain(|(_, place)| !place.is_closed());
        let network = network(address);
        if self.oldest_first.len() >= self.places_max {
            self.evict();
        }
        let (held, lost) = oneshot::channel();
        self.oldest_first.push_back((network, held));
        Place(lost)
    }

    /// Takes the oldest place back of those of the network that has most. Of two networks with as many, the one with
    /// the oldest place loses it.
    fn evict(&mut self) {
        let count = |network: &IpAddr| self.oldest_first.iter().filter(|(held, _)| held == network).count();
        let counts: Vec<_> = self.oldest_first.iter().map(|(network, _)| count(network)).collect();
        let most = counts.iter().copied().max().unwrap_or(0);
        let evicted = counts.iter().position(|count| *count == most);
        drop(evicted.and_then(|at| self.oldest_first.remove(at)));
    }
}

/// The address, or of an IPv6 address the first half, of which a machine may use any number of others.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        address => address,
    }
}

// === impl Place ===

impl Place {
    /// Waits until the place is taken back.
    pub async fn lost(&mut self) {
        // Nothing is ever sent: the sender is only dropped.
        let _ = (&mut self.0).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: usize = 8;

    /// True if the place is taken back already.
    fn is_lost(place: &mut Place) -> bool {
        place.0.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_more_takes_the_oldest_place_that_is_still_held() {
        let mut strangers = Strangers::new(PLACES);
        let mut places: Vec<_> = (0..PLACES).map(|_| strangers.enter(address("10.0.0.1"))).collect();
        drop(places.remove(3));
        let mut next = strangers.enter(address("10.0.0.1"));
        assert!(!places.iter_mut().any(is_lost), "a place had come free");
        let _more = strangers.enter(address("10.0.0.1"));
        assert!(is_lost(&mut places[0]) && !is_lost(&mut places[1]) && !is_lost(&mut next));
    }

    #[test]
    fn an_address_with_many_connections_takes_no_place_of_one_with_few() {
        let mut strangers = Strangers::new(PLACES);
        let mut alone = strangers.enter(address("::ffff:10.0.0.1"));
        let mut many: Vec<_> = (0..100).map(|_| strangers.enter(address("10.0.0.2"))).collect();
        assert!(!is_lost(&mut alone));
        assert_eq!(many.iter_mut().map(is_lost).filter(|lost| !lost).count(), PLACES - 1);
        // The halves of a network of IPv6 count together.
        let _v6: Vec<_> = (1..100).map(|last| strangers.enter(address(&format!("fd00::{last}")))).collect();
        assert!(!is_lost(&mut alone));
        assert!(many.iter_mut().map(is_lost).filter(|lost| !lost).count() >= PLACES / 2 - 1);
    }
}
