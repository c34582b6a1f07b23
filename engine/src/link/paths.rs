//! The addresses of one peer, and which of them to dial, to try and to use. Pure: connections are made elsewhere, and
//! their outcomes are told here.
//!
//! An address costs what a frame of usual size would take there: half its round trip, and the bytes by its throughput.
//! Until that was measured, the speed counts that the system tells of its interface, else what is usual for its kind.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use schema::record::{AdvertisedAddress, InterfaceKind, LinkReport, LinkState, NetworkInterface};

use super::limits::{
    BETTER_TIMES, BURST_AGAIN, BURST_EVERY, BURSTS_KEPT, DEAD_PROBE_AFTER, DEAD_PROBE_EVERY, FIRST_PROBE_AFTER,
    MOVE_EVERY, PROBE_AGAIN_AFTER, PROBE_EVERY, ROUND_TRIPS_KEPT,
};

/// Bits of a frame of usual size: a token's activations for each of a few requests.
const FRAME_BITS: u64 = 8 * 64 * 1024;
/// An address is better than the one in use if it costs less than this share of it, in percent.
const BETTER_PERCENT: u32 = 70;
/// Least difference of the costs of two addresses that counts: a busy machine adds as much.
const BETTER_BY: Duration = Duration::from_micros(100);
/// A round trip is reported anew when it has become so much longer or shorter, in percent.
const REPORT_PERCENT: u32 = 150;

/// The addresses of one peer.
#[derive(Debug)]
pub(crate) struct Paths {
    peer: String,
    known: Vec<Path>,
    used: Option<String>,
    moved_at: Option<Instant>,
    /// The address that was found better than the one in use, and how many times in a row.
    better: Option<(String, u32)>,
}

/// One address.
#[derive(Debug)]
struct Path {
    address: String,
    interface: Option<NetworkInterface>,
    /// The newest last.
    round_trips: VecDeque<Duration>,
    reported: Option<Duration>,
    /// Throughputs in Mbit/s, the newest last.
    bursts: VecDeque<u32>,
    burst_at: Instant,
    /// Failures in a row.
    failures: u32,
    probe_at: Instant,
}

// === impl Paths ===

impl Paths {
    /// The peer whose record names the endpoint `peer`. It is one of its addresses.
    pub(crate) fn new(peer: &str, addresses: &[AdvertisedAddress], now: Instant) -> Self {
        let mut paths = Self { peer: peer.to_owned(), known: Vec::new(), used: None, moved_at: None, better: None };
        paths.follow(addresses, now);
        paths
    }

    pub(crate) fn peer(&self) -> &str {
        &self.peer
    }

    /// The peer advertises these addresses now.
    pub(crate) fn follow(&mut self, addresses: &[AdvertisedAddress], now: Instant) {
        let mut before = std::mem::take(&mut self.known);
        let mut add = |address: &str, interface: Option<&NetworkInterface>| {
            if self.known.iter().any(|known| known.address == address) {
                return;
            }
            let known = before.iter().position(|known| known.address == address).map(|at| before.swap_remove(at));
            let path = known.unwrap_or_else(|| Path::new(address, now + FIRST_PROBE_AFTER));
            self.known.push(Path { interface: interface.cloned(), ..path });
        };
        let own = addresses.iter().find(|address| address.endpoint == self.peer);
        add(&self.peer, own.map(|own| &own.interface));
        addresses.iter().for_each(|address| add(&address.endpoint, Some(&address.interface)));
    }

    /// The addresses in the order in which to dial them: those that failed last come last. The one that was used comes
    /// first unless it failed or another one was found better. The peer's own endpoint, whose failure is proof that the
    /// peer is gone, is the second at the latest.
    pub(crate) fn to_dial(&self) -> Vec<String> {
        let preferred = self.better().or(self.used.as_ref());
        let mut order: Vec<&Path> = self.known.iter().collect();
        order.sort_by_key(|path| (path.failures > 0, Some(&path.address) != preferred, path.cost()));
        let own = order.iter().position(|path| path.address == self.peer);
        if let Some(own) = own.filter(|own| *own > 1) {
            order[1..=own].rotate_right(1);
        }
        order.into_iter().map(|path| path.address.clone()).collect()
    }

    /// The addresses to which frames could go if nothing more came from the one in use.
    pub(crate) fn others(&self) -> Vec<String> {
        let is_other = |path: &&Path| Some(&path.address) != self.used.as_ref();
        let mut others: Vec<_> = self.known.iter().filter(is_other).collect();
        others.sort_by_key(|path| (path.failures, path.cost()));
        others.into_iter().map(|path| path.address.clone()).collect()
    }

    /// A connection to `address` was made, in `round_trip`.
    pub(crate) fn answered(&mut self, address: &str, round_trip: Duration, now: Instant) {
        let Some(path) = self.known.iter_mut().find(|path| path.address == address) else { return };
        path.failures = 0;
        path.probe_at = now + PROBE_EVERY;
        if path.round_trips.len() >= ROUND_TRIPS_KEPT {
            path.round_trips.pop_front();
        }
        path.round_trips.push_back(round_trip);
        self.compare(address, now);
    }

    /// True if the throughput of `address` is due to be measured.
    pub(crate) fn is_burst_due(&self, address: &str, now: Instant) -> bool {
        self.known.iter().any(|path| path.address == address && path.burst_at <= now)
    }

    /// A burst to `address` came there at so many Mbit/s. `None` if it failed.
    pub(crate) fn carried(&mut self, address: &str, megabits: Option<u32>, now: Instant) {
        let Some(path) = self.known.iter_mut().find(|path| path.address == address) else { return };
        path.burst_at = now + if megabits.is_some() { BURST_EVERY } else { BURST_AGAIN };
        if path.bursts.len() >= BURSTS_KEPT {
            path.bursts.pop_front();
        }
        path.bursts.extend(megabits);
    }

    /// `address` did not answer.
    pub(crate) fn failed(&mut self, address: &str, now: Instant) {
        if self.better.as_ref().is_some_and(|(better, _)| better == address) {
            self.better = None;
        }
        let Some(path) = self.known.iter_mut().find(|path| path.address == address) else { return };
        path.failures = path.failures.saturating_add(1);
        // What it was before it failed says nothing about what it will be.
        path.round_trips.clear();
        path.bursts.clear();
        path.burst_at = now;
        let doubled = DEAD_PROBE_AFTER * 2_u32.saturating_pow(path.failures.min(8) - 1);
        path.probe_at = now + doubled.min(DEAD_PROBE_EVERY);
    }

    /// Frames go to `address` from now on.
    pub(crate) fn uses(&mut self, address: &str) {
        if self.used.as_deref() != Some(address) {
            self.used = Some(address.to_owned());
            self.better = None;
        }
    }

    /// Frames go to `address` from now on, because it is better.
    pub(crate) fn moves(&mut self, address: &str, now: Instant) {
        self.uses(address);
        self.moved_at = Some(now);
    }

    /// The address that is due to be tried, the one that waits longest first.
    pub(crate) fn to_probe(&self, now: Instant) -> Option<String> {
        let due = self.known.iter().filter(|path| path.probe_at <= now).min_by_key(|path| path.probe_at);
        due.map(|path| path.address.clone())
    }

    /// The moment at which an address is next to be tried.
    pub(crate) fn probe_at(&self) -> Option<Instant> {
        self.known.iter().map(|path| path.probe_at).min()
    }

    /// The address to move to, if there is one that was found better than the one in use often enough.
    pub(crate) fn to_move_to(&self, now: Instant) -> Option<&String> {
        let may_move = self.moved_at.is_none_or(|moved| now >= moved + MOVE_EVERY);
        self.better().filter(|_| may_move)
    }

    /// The least round trip of late to the address in use.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.used().and_then(Path::round_trip)
    }

    /// The addresses as people see them. A round trip changes only if it has become much longer or shorter. `is_open`
    /// is true while there is a connection.
    pub(crate) fn report(&mut self, is_open: bool) -> Vec<LinkReport> {
        let used = self.used.clone().filter(|_| is_open);
        let report = |path: &mut Path| LinkReport {
            to: self.peer.clone(),
            address: path.address.clone(),
            rtt_us: path.reported().map(|round_trip| u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX)),
            megabits_per_second: path.throughput(),
            state: match () {
                () if used.as_ref() == Some(&path.address) => LinkState::Used,
                () if path.failures > 0 => LinkState::Dead,
                () => LinkState::Spare,
            },
        };
        self.known.iter_mut().map(report).collect()
    }

    fn used(&self) -> Option<&Path> {
        let used = self.used.as_ref()?;
        self.known.iter().find(|path| path.address == *used)
    }

    fn better(&self) -> Option<&String> {
        self.better.as_ref().filter(|(_, times)| *times >= BETTER_TIMES).map(|(address, _)| address)
    }

    /// Compares `address`, of which there is a new measurement, with the one in use.
    fn compare(&mut self, address: &str, now: Instant) {
        let answering = || self.known.iter().filter(|path| path.failures == 0);
        // A throughput that was measured and one that the system tells do not compare.
        let are_measured = answering().all(|path| path.throughput().is_some());
        let cost = |path: &Path| path.cost_at(path.throughput().filter(|_| are_measured));
        let (Some(used), Some(best)) = (self.used(), answering().min_by_key(|path| cost(path))) else { return };
        let (own, other) = (cost(used), cost(best));
        let is_better = best.address != used.address
            && other * 100 < own * BETTER_PERCENT
            && own.saturating_sub(other) >= BETTER_BY;
        if !is_better {
            self.better = None;
        } else if best.address == address {
            let times = self.better.take().filter(|(known, _)| known == address).map_or(0, |(_, times)| times);
            self.better = Some((address.to_owned(), times.saturating_add(1)));
            self.known.iter_mut().filter(|path| path.address == address).for_each(|path| {
                path.probe_at = path.probe_at.min(now + PROBE_AGAIN_AFTER);
            });
        }
    }
}

// === impl Path ===

impl Path {
    fn new(address: &str, probe_at: Instant) -> Self {
        Self {
            address: address.to_owned(),
            interface: None,
            round_trips: VecDeque::new(),
            reported: None,
            bursts: VecDeque::new(),
            burst_at: probe_at,
            failures: 0,
            probe_at,
        }
    }

    fn round_trip(&self) -> Option<Duration> {
        self.round_trips.iter().min().copied()
    }

    /// The throughput in Mbit/s, if it was measured.
    fn throughput(&self) -> Option<u32> {
        self.bursts.iter().max().copied()
    }

    /// The time of a frame of usual size.
    fn cost(&self) -> Duration {
        self.cost_at(self.throughput())
    }

    /// The same at a throughput in Mbit/s, or at the one that is told or usual.
    fn cost_at(&self, measured: Option<u32>) -> Duration {
        let kind = self.interface.as_ref().map_or(InterfaceKind::Unknown, |interface| interface.kind);
        let (round_trip_us, megabits) = usual(kind);
        let told = self.interface.as_ref().and_then(|interface| interface.megabits_per_second);
        let megabits = measured.or(told).filter(|told| *told > 0).map_or(megabits, u64::from);
        let round_trip = self.round_trip().unwrap_or(Duration::from_micros(round_trip_us));
        round_trip / 2 + Duration::from_micros(FRAME_BITS / megabits)
    }

    fn reported(&mut self) -> Option<Duration> {
        let is_like =
            |known: Duration, new: Duration| known * 100 <= new * REPORT_PERCENT && new * 100 <= known * REPORT_PERCENT;
        let new = self.round_trip();
        if !matches!((self.reported, new), (Some(known), Some(new)) if is_like(known, new)) {
            self.reported = new;
        }
        self.reported
    }
}

/// The round trip in microseconds and the Mbit/s that are usual for a kind of interface.
fn usual(kind: InterfaceKind) -> (u64, u64) {
    match kind {
        InterfaceKind::Loopback => (20, 40_000),
        InterfaceKind::Thunderbolt => (100, 20_000),
        InterfaceKind::Ethernet => (200, 1000),
        InterfaceKind::Unknown => (500, 1000),
        InterfaceKind::Wifi => (3000, 300),
        InterfaceKind::Vpn => (10_000, 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "tcp://mini-2:7000";
    const WIFI: &str = "tcp://10.0.0.2:7000";
    const CABLE: &str = "tcp://169.254.0.2:7000";

    fn advertised(endpoint: &str, kind: InterfaceKind) -> AdvertisedAddress {
        let interface = NetworkInterface { name: "x0".to_owned(), kind, megabits_per_second: None, mtu: None };
        AdvertisedAddress { endpoint: endpoint.to_owned(), interface }
    }

    fn paths(now: Instant) -> Paths {
        let addresses = [advertised(WIFI, InterfaceKind::Wifi), advertised(CABLE, InterfaceKind::Thunderbolt)];
        Paths::new(PEER, &addresses, now)
    }

    fn us(microseconds: u64) -> Duration {
        Duration::from_micros(microseconds)
    }

    #[test]
    fn the_best_kind_is_dialled_first_and_what_failed_last() {
        let now = Instant::now();
        let mut paths = paths(now);
        assert_eq!(paths.to_dial(), [CABLE, PEER, WIFI]);
        paths.failed(CABLE, now);
        assert_eq!(paths.to_dial(), [PEER, WIFI, CABLE]);
        paths.failed(PEER, now);
        assert_eq!(paths.to_dial(), [WIFI, PEER, CABLE], "the endpoint of the record is the second at the latest");
        paths.answered(CABLE, us(90), now);
        assert_eq!(paths.to_dial(), [CABLE, PEER, WIFI]);
    }

    #[test]
    fn a_measured_round_trip_counts_more_than_a_kind_and_the_used_address_stays_first() {
        let now = Instant::now();
        let mut paths = paths(now);
        paths.answered(WIFI, us(2500), now);
        paths.uses(WIFI);
        assert_eq!(paths.to_dial()[0], WIFI, "the others are not known to be better");
        paths.answered(CABLE, us(40_000), now);
        paths.answered(CABLE, us(41_000), now);
        assert_eq!((paths.others(), paths.round_trip()), (vec![PEER.to_owned(), CABLE.to_owned()], Some(us(2500))));
        assert_eq!(paths.to_move_to(now + MOVE_EVERY), None);
    }

    #[test]
    fn it_moves_to_what_is_better_twice_in_a_row_and_not_again_at_once() {
        let now = Instant::now();
        let mut paths = paths(now);
        paths.answered(PEER, us(3000), now);
        paths.uses(PEER);
        paths.answered(CABLE, us(100), now);
        assert_eq!(paths.to_move_to(now), None, "once may be chance");
        let again = paths.known.iter().find(|path| path.address == CABLE).map(|path| path.probe_at);
        assert_eq!(again, Some(now + PROBE_AGAIN_AFTER), "so it is tried again soon");
        paths.answered(CABLE, us(110), now);
        assert_eq!(paths.to_move_to(now).map(String::as_str), Some(CABLE));
        paths.moves(CABLE, now);
        for _ in 0..ROUND_TRIPS_KEPT {
            paths.answered(CABLE, us(9000), now);
        }
        for _ in 0..BETTER_TIMES {
            paths.answered(PEER, us(60), now);
        }
        assert_eq!(paths.to_move_to(now), None, "it has just moved");
        assert_eq!(paths.to_move_to(now + MOVE_EVERY).map(String::as_str), Some(PEER));
    }

    #[test]
    fn a_measured_throughput_counts_more_than_a_told_one_once_all_that_answer_have_one() {
        let now = Instant::now();
        let mut paths = Paths::new(CABLE, &[advertised(WIFI, InterfaceKind::Wifi)], now);
        for address in [CABLE, WIFI] {
            assert!(!paths.is_burst_due(address, now) && paths.is_burst_due(address, now + FIRST_PROBE_AFTER));
            paths.answered(address, us(400), now);
        }
        paths.uses(CABLE);
        // The cable is a bad one.
        let find = |paths: &mut Paths| {
            for _ in 0..BETTER_TIMES {
                paths.answered(WIFI, us(400), now);
            }
            paths.to_move_to(now).cloned()
        };
        paths.carried(WIFI, Some(800), now);
        assert_eq!(find(&mut paths), None, "the cable's is not known");
        paths.carried(CABLE, Some(90), now);
        assert!(!paths.is_burst_due(CABLE, now) && paths.is_burst_due(CABLE, now + BURST_EVERY));
        assert_eq!(find(&mut paths).as_deref(), Some(WIFI));
        // It only shared the cable with frames.
        paths.carried(CABLE, Some(9000), now);
        assert_eq!(find(&mut paths), None);
        assert_eq!(paths.report(true)[0].megabits_per_second, Some(9000));
        paths.failed(CABLE, now);
        assert_eq!(paths.report(true)[0].megabits_per_second, None);
        paths.carried(CABLE, None, now);
        assert!(!paths.is_burst_due(CABLE, now + BURST_EVERY) && paths.is_burst_due(CABLE, now + BURST_AGAIN));
    }

    #[test]
    fn jitter_moves_nothing_and_a_lasting_change_does_once() {
        let mut now = Instant::now();
        let mut paths = paths(now);
        paths.answered(CABLE, us(100), now);
        paths.uses(CABLE);
        let (mut moves, mut seed) = (Vec::new(), 7_u64);
        for round in 0..2000 {
            let Some(at) = paths.probe_at() else { panic!("nothing is tried any more") };
            now = at;
            let address = paths.to_probe(now).unwrap();
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let jitter = us((seed >> 33) % 300);
            // The cable becomes slow in the middle.
            let base = match address.as_str() {
                CABLE if round < 1000 => us(100),
                CABLE => us(20_000),
                _ => us(900),
            };
            paths.answered(&address, base + jitter, now);
            if let Some(to) = paths.to_move_to(now).cloned() {
                paths.moves(&to, now);
                moves.push((round, to));
            }
        }
        assert!(moves.len() == 1 && (1000..1060).contains(&moves[0].0) && moves[0].1 == PEER, "{moves:?}");
    }

    #[test]
    fn a_dead_address_is_tried_at_growing_intervals_and_a_new_one_soon() {
        let now = Instant::now();
        let mut paths = paths(now);
        let waits: Vec<_> = (0..5)
            .map(|_| {
                paths.failed(WIFI, now);
                paths.known.iter().find(|path| path.address == WIFI).unwrap().probe_at - now
            })
            .collect();
        assert_eq!(waits, [2, 4, 8, 16, 30].map(Duration::from_secs));
        paths.follow(&[advertised("tcp://10.9.0.2:7000", InterfaceKind::Ethernet)], now);
        let addresses: Vec<_> = paths.known.iter().map(|path| path.address.as_str()).collect();
        assert_eq!(addresses, [PEER, "tcp://10.9.0.2:7000"]);
        assert_eq!(paths.to_probe(now + FIRST_PROBE_AFTER).as_deref(), Some(PEER));
        assert_eq!(paths.to_probe(now), None);
    }

    #[test]
    fn the_report_names_the_used_the_spare_and_the_dead_and_ignores_jitter() {
        let now = Instant::now();
        let mut paths = paths(now);
        paths.answered(CABLE, us(100), now);
        paths.uses(CABLE);
        paths.failed(WIFI, now);
        let shown = |paths: &mut Paths| {
            let rows = paths.report(true);
            rows.iter().map(|row| (row.address.clone(), row.rtt_us, row.state.word())).collect::<Vec<_>>()
        };
        let expected = [(PEER, None, "spare"), (WIFI, None, "dead"), (CABLE, Some(100), "used")];
        let expected = expected.map(|(address, rtt_us, state)| (address.to_owned(), rtt_us, state));
        assert_eq!(shown(&mut paths), expected);
        paths.answered(CABLE, us(80), now);
        assert_eq!(shown(&mut paths), expected, "that is jitter");
        assert_eq!(paths.report(false)[2].state, LinkState::Spare);
    }
}
