//! Connection admission: chooses the connection that is closed for a new one, or turns the new one away.
//!
//! Pure: a table of addresses and phases. Callers pass in the time. The table knows no sockets: callers close the
//! connections that it evicts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

/// The phase of a connection's request. In all phases but the last, the connection waits for its client. Waiting
/// connections are evicted in the order of their phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// The head of its first request is not complete.
    Opening,
    /// Its answer is sent, and no head of a next request is complete.
    Idle,
    /// The head of a request is complete, its body is not.
    Receiving,
    /// A request is being answered.
    Busy,
}

/// Most connections at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Connections of all addresses together.
    pub(crate) connections_max: usize,
    /// Connections of one address.
    pub(crate) per_address_max: usize,
    /// Connections of one address that wait for their client.
    pub(crate) waiting_per_address_max: usize,
}

/// A connection's number. Later connections have larger numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnectionId(u64);

/// The open connections, each with its right `T` to stay open. Dropping the right closes the connection.
#[derive(Debug)]
pub(crate) struct Admission<T> {
    bounds: Bounds,
    entries: BTreeMap<ConnectionId, Entry<T>>,
    next_id: u64,
}

#[derive(Debug)]
struct Entry<T> {
    address: IpAddr,
    phase: Phase,
    /// Time at which it entered the phase.
    since: Instant,
    right: T,
}

// === impl Admission ===

impl<T> Admission<T> {
    /// A table without connections.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, entries: BTreeMap::new(), next_id: 0 }
    }

    /// Admits a connection from `address`. Returns its number, and the right of the connection that was evicted for it,
    /// if any. `None` turns it away, because every connection that it could replace is busy.
    pub(crate) fn arrive(&mut self, address: IpAddr, now: Instant, right: T) -> Option<(ConnectionId, Option<T>)> {
        let address = address.to_canonical();
        let evicted = match self.crowded(address) {
            None => None,
            Some(crowd) => Some(self.evict(|entry| crowd.is_none_or(|address| entry.address == address))?),
        };
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        self.entries.insert(id, Entry { address, phase: Phase::Opening, since: now, right });
        Some((id, evicted))
    }

    /// Evicts the waiting connection that is first by phase, and in that phase has waited longest, of any address.
    /// `None` when all are busy.
    pub(crate) fn evict_any(&mut self) -> Option<T> {
        self.evict(|_| true)
    }

    /// Records that `id` is in `phase` from `now` on. Does nothing if `id` was evicted.
    pub(crate) fn enter(&mut self, id: ConnectionId, phase: Phase, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&id)
            && entry.phase != phase
        {
            (entry.phase, entry.since) = (phase, now);
        }
    }

    /// Removes `id` from the table.
    pub(crate) fn leave(&mut self, id: ConnectionId) {
        self.entries.remove(&id);
    }

    /// The connections that a new one from `address` could replace: `None` when there is room for it, `Some(None)` for
    /// all of them, else those of its own address.
    fn crowded(&self, address: IpAddr) -> Option<Option<IpAddr>> {
        let own = || self.entries.values().filter(|entry| entry.address == address);
        let waiting = own().filter(|entry| entry.phase != Phase::Busy).count();
        if waiting >= self.bounds.waiting_per_address_max || own().count() >= self.bounds.per_address_max {
            Some(Some(address))
        } else {
            (self.entries.len() >= self.bounds.connections_max).then_some(None)
        }
    }

    fn evict(&mut self, among: impl Fn(&Entry<T>) -> bool) -> Option<T> {
        let waiting = self.entries.iter().filter(|(_, entry)| entry.phase != Phase::Busy && among(entry));
        let (&id, _) = waiting.min_by_key(|(id, entry)| (entry.phase, entry.since, **id))?;
        self.entries.remove(&id).map(|entry| entry.right)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BOUNDS: Bounds = Bounds { connections_max: 4, per_address_max: 3, waiting_per_address_max: 2 };

    /// A table, its clock in seconds, and connections named by letters.
    struct Table {
        admission: Admission<char>,
        ids: BTreeMap<char, ConnectionId>,
        start: Instant,
    }

    impl Table {
        fn new(bounds: Bounds) -> Self {
            Self { admission: Admission::new(bounds), ids: BTreeMap::new(), start: Instant::now() }
        }

        fn at(&self, second: u64) -> Instant {
            self.start + Duration::from_secs(second)
        }

        /// `Ok` with the evicted connection, `Err` when the new one is turned away.
        fn arrive(&mut self, name: char, address: u8, second: u64) -> Result<Option<char>, ()> {
            let now = self.at(second);
            let (id, evicted) = self.admission.arrive([10, 0, 0, address].into(), now, name).ok_or(())?;
            self.ids.insert(name, id);
            Ok(evicted)
        }

        fn enter(&mut self, name: char, phase: Phase, second: u64) {
            let now = self.at(second);
            self.admission.enter(self.ids[&name], phase, now);
        }
    }

    #[test]
    fn at_the_cap_the_longest_half_open_connection_goes_before_any_idle_one() {
        let mut table = Table::new(BOUNDS);
        for (name, address) in [('a', 1), ('b', 2), ('c', 3), ('d', 4)] {
            assert_eq!(table.arrive(name, address, 0), Ok(None));
        }
        table.enter('a', Phase::Idle, 1);
        table.enter('b', Phase::Receiving, 1);
        assert_eq!(table.arrive('e', 5, 9), Ok(Some('c')));
        table.enter('d', Phase::Busy, 9);
        table.enter('e', Phase::Busy, 9);
        assert_eq!(table.arrive('f', 6, 10), Ok(Some('a')), "an idle one goes before one that sends a body");
        table.enter('f', Phase::Busy, 10);
        assert_eq!(table.arrive('g', 7, 11), Ok(Some('b')));
    }

    #[test]
    fn of_two_idle_connections_the_one_idle_for_longer_goes() {
        let mut table = Table::new(BOUNDS);
        for (name, address) in [('a', 1), ('b', 2), ('c', 3), ('d', 4)] {
            table.arrive(name, address, 0).unwrap();
            table.enter(name, Phase::Busy, 1);
        }
        table.enter('c', Phase::Idle, 5);
        table.enter('a', Phase::Idle, 6);
        table.enter('c', Phase::Idle, 7);
        assert_eq!(table.arrive('e', 5, 8), Ok(Some('c')), "to be idle again is not to begin anew");
    }

    #[test]
    fn a_busy_connection_is_never_evicted_and_a_newcomer_is_turned_away_instead() {
        let mut table = Table::new(BOUNDS);
        for (name, address) in [('a', 1), ('b', 2), ('c', 3), ('d', 4)] {
            table.arrive(name, address, 0).unwrap();
            table.enter(name, Phase::Busy, 0);
        }
        assert_eq!(table.arrive('e', 5, 100), Err(()));
        assert_eq!(table.admission.evict_any(), None);
        table.admission.leave(table.ids[&'b']);
        assert_eq!(table.arrive('e', 5, 100), Ok(None));
    }

    #[test]
    fn an_address_with_too_many_waiting_loses_its_own_longest_while_others_have_room() {
        let mut table = Table::new(Bounds { connections_max: 100, ..BOUNDS });
        table.arrive('x', 9, 0).unwrap();
        assert_eq!(table.arrive('a', 1, 1), Ok(None));
        assert_eq!(table.arrive('b', 1, 2), Ok(None));
        assert_eq!(table.arrive('c', 1, 3), Ok(Some('a')));
        table.enter('b', Phase::Busy, 4);
        assert_eq!(table.arrive('d', 1, 5), Ok(None), "busy ones do not wait");
        assert_eq!(table.arrive('e', 1, 6), Ok(Some('c')));
        table.enter('d', Phase::Busy, 7);
        table.enter('e', Phase::Busy, 7);
        assert_eq!(table.arrive('f', 1, 8), Err(()), "three are all that one address may have");
        assert_eq!(table.arrive('y', 9, 9), Ok(None));
    }

    #[test]
    fn an_ipv4_address_counts_the_same_when_it_comes_over_ipv6() {
        let mut admission = Admission::new(BOUNDS);
        let now = Instant::now();
        for (name, address) in [('a', "10.0.0.1"), ('b', "::ffff:10.0.0.1")] {
            assert!(admission.arrive(address.parse().unwrap(), now, name).is_some());
        }
        let (_, evicted) = admission.arrive("10.0.0.1".parse().unwrap(), now, 'c').unwrap();
        assert_eq!(evicted, Some('a'));
    }

    #[test]
    fn what_an_evicted_connection_does_later_changes_nothing() {
        let mut table = Table::new(BOUNDS);
        for (name, second) in [('a', 0), ('b', 1), ('c', 2)] {
            table.arrive(name, 1, second).unwrap();
        }
        table.enter('a', Phase::Busy, 3);
        table.admission.leave(table.ids[&'a']);
        assert_eq!(table.arrive('d', 1, 4), Ok(Some('b')));
    }
}
