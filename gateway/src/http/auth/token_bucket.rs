//! A token bucket: so many requests in a minute, all of which may come at once.
//!
//! Pure: callers pass in the time. The bucket is kept as the time at which it is full again (the form known as GCRA),
//! so it needs no rounding and no timer.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// Time in which an empty bucket fills.
const MINUTE: Duration = Duration::from_secs(60);

/// A bucket of one key.
#[derive(Debug)]
pub(super) struct TokenBucket {
    requests_per_minute: NonZeroU32,
    /// Time in which one token is added.
    interval: Duration,
    /// The time at which the bucket is full again, if it is not full.
    full_at: Option<Instant>,
}

// === impl TokenBucket ===

impl TokenBucket {
    /// A full bucket for this number of requests in a minute.
    pub(super) fn new(requests_per_minute: NonZeroU32) -> Self {
        Self { requests_per_minute, interval: MINUTE / requests_per_minute.get(), full_at: None }
    }

    /// Tokens that a full bucket holds.
    pub(super) fn requests_per_minute(&self) -> u32 {
        self.requests_per_minute.get()
    }

    /// Takes a token.
    ///
    /// # Errors
    /// The time until there is one.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let missing = self.full_at.map_or(Duration::ZERO, |full_at| full_at.saturating_duration_since(now));
        let missing = missing + self.interval;
        match missing.checked_sub(MINUTE) {
            None | Some(Duration::ZERO) => {
                self.full_at = Some(now + missing);
                Ok(())
            }
            Some(wait) => Err(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(requests_per_minute: u32) -> TokenBucket {
        TokenBucket::new(NonZeroU32::new(requests_per_minute).unwrap())
    }

    #[test]
    fn a_minute_of_requests_may_come_at_once_and_then_one_at_a_time() {
        let (mut bucket, start) = (bucket(3), Instant::now());
        let at = |second: u64| start + Duration::from_secs(second);
        assert_eq!([0, 0, 0].map(|second| bucket.take(at(second))), [Ok(()); 3]);
        assert_eq!(bucket.take(at(0)), Err(Duration::from_secs(20)));
        assert_eq!(bucket.take(at(19)), Err(Duration::from_secs(1)), "a refusal takes no token");
        assert_eq!((bucket.take(at(20)), bucket.take(at(21))), (Ok(()), Err(Duration::from_secs(19))));
    }

    #[test]
    fn a_bucket_that_rests_fills_up_and_not_beyond() {
        let (mut bucket, start) = (bucket(2), Instant::now());
        let later = start + Duration::from_secs(3600);
        assert_eq!([start, start, later, later].map(|time| bucket.take(time)), [Ok(()); 4]);
        assert_eq!(bucket.take(later), Err(Duration::from_secs(30)));
        assert_eq!(bucket.take(start), Err(Duration::from_secs(3630)), "time that goes back adds nothing");
    }

    #[test]
    fn every_number_of_requests_is_admitted_in_full() {
        for number in [1, 7, 59, 61, 997, 99_999, 100_000] {
            let (mut bucket, now) = (bucket(number), Instant::now());
            assert!((0..number).all(|_| bucket.take(now).is_ok()), "{number}");
            assert!(bucket.take(now).is_err(), "{number}");
        }
    }
}
