//! The load of one point, and the times at which its requests are due.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use serde::Serialize;

use super::limits::{RATE_MAX, REQUESTS_AT_ONCE_MAX, ROUND_REQUESTS_MIN, ROUNDS_MAX};

/// Arrivals per second. Positive.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rate(f64);

/// One load point.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// Closed loop: this number of clients, each of which sends a request when its last one was answered.
    Concurrency(u32),
    /// Open loop: this average number of arrivals per second, even if the endpoint does not keep up (a Poisson
    /// process).
    Rate(Rate),
}

// === impl Rate ===

impl Rate {
    /// Arrivals per second.
    pub fn per_second(self) -> f64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rate = text.trim().parse().ok().filter(|rate| *rate > 0.0 && *rate <= RATE_MAX);
        rate.map(Self)
            .ok_or_else(|| format!("expected requests a second, above 0 and up to {RATE_MAX}, found {text:?}"))
    }
}

// === impl Load ===

impl Load {
    /// The times at which `requests` are due, in order, counted from the beginning of the point. In a closed loop they
    /// are `None`: each client begins at once and sends a further request when it is free.
    pub(super) fn arrivals(self, requests: u32, random: &mut StdRng) -> Vec<Option<Duration>> {
        let Self::Rate(Rate(rate)) = self else { return vec![None; requests as usize] };
        let mut at = 0.0;
        let arrival = |_| {
            // The times between arrivals of a Poisson process are exponential.
            at += -(1.0 - random.random::<f64>()).ln() / rate;
            Some(Duration::from_secs_f64(at))
        };
        (0..requests).map(arrival).collect()
    }

    /// Most requests at once. In an open loop, a request beyond this number waits, and its wait is part of its measured
    /// time.
    pub(super) fn at_once(self) -> u32 {
        match self {
            Self::Concurrency(clients) => clients,
            Self::Rate(_) => REQUESTS_AT_ONCE_MAX,
        }
    }

    /// Number of rounds into which `requests` are split when endpoints take turns.
    pub(super) fn rounds(self, requests: u32) -> u32 {
        let at_once = match self {
            Self::Concurrency(clients) => clients,
            // Rounds of an open loop are long enough for a queue to form.
            Self::Rate(_) => ROUND_REQUESTS_MIN,
        };
        (requests / (ROUND_REQUESTS_MIN * at_once).max(1)).clamp(1, ROUNDS_MAX)
    }

    /// The offered load: clients or arrivals per second.
    pub fn offered(self) -> f64 {
        match self {
            Self::Concurrency(clients) => f64::from(clients),
            Self::Rate(Rate(rate)) => rate,
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Concurrency(1) => write!(f, "1 client"),
            Self::Concurrency(clients) => write!(f, "{clients} clients"),
            Self::Rate(Rate(rate)) => write!(f, "{rate}/s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn arrivals_are_a_poisson_process_of_the_given_rate() {
        let load = Load::Rate("2".parse().unwrap());
        let arrivals: Vec<_> = load.arrivals(20_000, &mut StdRng::seed_from_u64(3)).into_iter().flatten().collect();
        assert!(arrivals.is_sorted());
        let last = arrivals.last().unwrap().as_secs_f64();
        assert!((last / 10_000.0 - 1.0).abs() < 0.03, "{last} s for 20,000 at 2 a second");
        // One arrival is expected in half a second. No arrival has probability 1/e.
        let mut empty = vec![true; last as usize * 2];
        for at in &arrivals {
            if let Some(empty) = empty.get_mut((at.as_secs_f64() * 2.0) as usize) {
                *empty = false;
            }
        }
        let share = empty.iter().filter(|empty| **empty).count() as f64 / empty.len() as f64;
        assert!((share - (-1.0_f64).exp()).abs() < 0.02, "{share}");
        assert_eq!(load.arrivals(5, &mut StdRng::seed_from_u64(3)), load.arrivals(5, &mut StdRng::seed_from_u64(3)));
    }

    #[test]
    fn a_round_has_some_requests_for_each_client() {
        assert_eq!(Load::Concurrency(8).rounds(24), 1);
        assert_eq!(Load::Concurrency(8).rounds(48), 2);
        assert_eq!(Load::Concurrency(1).rounds(1000), ROUNDS_MAX);
        assert_eq!(Load::Concurrency(8).rounds(3), 1);
    }

    #[test]
    fn a_rate_is_positive_and_finite() {
        for text in ["0", "-1", "NaN", "inf", "1e9", "fast"] {
            assert!(text.parse::<Rate>().is_err(), "{text} was accepted");
        }
        assert_eq!("0.5".parse::<Rate>().unwrap().per_second(), 0.5);
    }
}
