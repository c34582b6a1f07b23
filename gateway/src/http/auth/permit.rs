//! A key's state while the server runs, and the permit of one of its requests.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntGauge;

use super::key_limits::KeyLimits;
use super::key_name::KeyName;
use super::token_bucket::TokenBucket;

/// A key that requests have used.
#[derive(Debug)]
pub(crate) struct KeyState {
    pub(super) name: KeyName,
    pub(super) limits: KeyLimits,
    /// `None` if the key may be used at any rate.
    bucket: Option<Mutex<TokenBucket>>,
    concurrent_max: u32,
    running: AtomicU32,
    gauge: IntGauge,
}

/// The right of one request to be answered. It is held until the answer has ended.
#[derive(Debug)]
pub(crate) struct Permit(Arc<KeyState>);

/// The limit that leaves no room for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AtLimit {
    /// The rate. There is room again after `wait`.
    Rate { per_minute: u32, wait: Duration },
    /// The number of requests at the same time.
    Concurrency { concurrent: u32 },
}

// === impl KeyState ===

impl KeyState {
    /// A key without requests. `gauge` follows the number of those that run.
    pub(super) fn new(name: KeyName, limits: KeyLimits, gauge: IntGauge) -> Self {
        let bucket = limits.requests_per_minute.number().map(|number| Mutex::new(TokenBucket::new(number)));
        let concurrent_max = limits.concurrent_requests.number().map_or(u32::MAX, NonZeroU32::get);
        Self { name, limits, bucket, concurrent_max, running: AtomicU32::new(0), gauge }
    }

    /// Admits a request. One that is refused counts towards neither limit.
    pub(super) fn admit(self: &Arc<Self>, now: Instant) -> Result<Permit, AtLimit> {
        let one_more = |running: u32| (running < self.concurrent_max).then(|| running + 1);
        if self.running.fetch_update(Relaxed, Relaxed, one_more).is_err() {
            return Err(AtLimit::Concurrency { concurrent: self.concurrent_max });
        }
        self.gauge.inc();
        // From here on, dropping the permit gives the place back.
        let permit = Permit(Arc::clone(self));
        if let Some(bucket) = &self.bucket {
            let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            let per_minute = bucket.requests_per_minute();
            bucket.take(now).map_err(|wait| AtLimit::Rate { per_minute, wait })?;
        }
        Ok(permit)
    }
}

// === impl Permit ===

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Relaxed);
        self.0.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::super::key_limits::Limit;
    use super::*;

    fn key(requests_per_minute: Option<u32>, concurrent_requests: Option<u32>) -> Arc<KeyState> {
        let limit = |number: Option<u32>| number.and_then(NonZeroU32::new).map_or(Limit::Unlimited, Limit::AtMost);
        let limits = KeyLimits {
            requests_per_minute: limit(requests_per_minute),
            concurrent_requests: limit(concurrent_requests),
        };
        Arc::new(KeyState::new("alice".parse().unwrap(), limits, IntGauge::new("running", "test").unwrap()))
    }

    #[test]
    fn a_place_is_free_again_when_its_permit_is_dropped() {
        let (key, now) = (key(None, Some(2)), Instant::now());
        let (first, _second) = (key.admit(now).unwrap(), key.admit(now).unwrap());
        assert_eq!(key.admit(now).unwrap_err(), AtLimit::Concurrency { concurrent: 2 });
        assert_eq!(key.gauge.get(), 2);
        drop(first);
        assert!(key.admit(now).is_ok());
        assert_eq!(key.gauge.get(), 1);
    }

    #[test]
    fn a_refused_request_counts_towards_no_limit() {
        let (key, now) = (key(Some(2), Some(1)), Instant::now());
        let first = key.admit(now).unwrap();
        assert_eq!(key.admit(now).unwrap_err(), AtLimit::Concurrency { concurrent: 1 });
        drop(first);
        assert!(key.admit(now).is_ok(), "the refused one took no token");
        for _ in 0..2 {
            let refused = key.admit(now).unwrap_err();
            assert_eq!(refused, AtLimit::Rate { per_minute: 2, wait: Duration::from_secs(30) });
        }
        assert_eq!(key.gauge.get(), 0, "the refused ones hold no place");
    }

    #[test]
    fn a_key_without_limits_is_always_admitted() {
        let (key, now) = (key(None, None), Instant::now());
        let permits: Vec<_> = (0..10_000).map(|_| key.admit(now).unwrap()).collect();
        assert_eq!(key.gauge.get(), permits.len() as i64);
    }
}
