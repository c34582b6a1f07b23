//! Leases: each has a deadline, and the keys that are deleted with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Refusal, limits};

/// One lease.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    ttl_seconds: i64,
    deadline: Duration,
    keys: BTreeSet<Vec<u8>>,
}

/// The state of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct LeaseStatus {
    pub granted_seconds: i64,
    pub left_seconds: i64,
    pub keys: Vec<Vec<u8>>,
}

/// All leases of the store.
#[derive(Debug)]
pub(super) struct Leases {
    by_id: BTreeMap<i64, Lease>,
    /// The next id to try for a lease that comes without one.
    next_id: i64,
}

impl Leases {
    pub(super) fn new() -> Self {
        // Any positive start works. A large one looks like etcd's and is not mistaken for a count.
        Self { by_id: BTreeMap::new(), next_id: 0x0ba7_0000_0000_0001 }
    }

    pub(super) fn grant(&mut self, id: i64, ttl_seconds: i64, now: Duration) -> Result<(i64, i64), Refusal> {
        if ttl_seconds > limits::LEASE_TTL_SECONDS_MAX {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if self.by_id.len() >= limits::LEASES_MAX {
            return Err(Refusal::Full(format!("{} leases, which is the most it grants", self.by_id.len())));
        }
        let id = if id == 0 { self.unused_id() } else { id };
        if self.by_id.contains_key(&id) {
            return Err(Refusal::LeaseExists);
        }
        let ttl_seconds = ttl_seconds.max(limits::LEASE_TTL_MIN.as_secs().cast_signed());
        let lease = Lease { ttl_seconds, deadline: now + seconds(ttl_seconds), keys: BTreeSet::new() };
        self.by_id.insert(id, lease);
        Ok((id, ttl_seconds))
    }

    fn unused_id(&mut self) -> i64 {
        while self.by_id.contains_key(&self.next_id) {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        }
        let id = self.next_id;
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        id
    }

    pub(super) fn knows(&self, id: i64) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(super) fn keep_alive(&mut self, id: i64, now: Duration) -> Option<i64> {
        let lease = self.by_id.get_mut(&id)?;
        lease.deadline = now + seconds(lease.ttl_seconds);
        Some(lease.ttl_seconds)
    }

    pub(super) fn status(&self, id: i64, now: Duration) -> Option<LeaseStatus> {
        let lease = self.by_id.get(&id)?;
        Some(LeaseStatus {
            granted_seconds: lease.ttl_seconds,
            left_seconds: lease.deadline.saturating_sub(now).as_secs().cast_signed(),
            keys: lease.keys.iter().cloned().collect(),
        })
    }

    pub(super) fn ids(&self) -> Vec<i64> {
        self.by_id.keys().copied().collect()
    }

    /// Ends a lease. The caller deletes the keys that lived under it.
    pub(super) fn remove(&mut self, id: i64) -> Option<Lease> {
        self.by_id.remove(&id)
    }

    /// Gives `id` the lease that it had, or none.
    pub(super) fn put_back(&mut self, id: i64, prev: Option<Lease>) {
        match prev {
            Some(lease) => drop(self.by_id.insert(id, lease)),
            None => drop(self.by_id.remove(&id)),
        }
    }

    /// The time to live of a lease, in seconds, and its end.
    pub(super) fn term(&self, id: i64) -> Option<(i64, Duration)> {
        self.by_id.get(&id).map(|lease| (lease.ttl_seconds, lease.deadline))
    }

    /// Takes the leases of a file, and `first` as the next id to try.
    pub(super) fn restore(&mut self, first: i64, leases: Vec<(i64, i64, Duration)>) {
        let lease = |(id, ttl_seconds, deadline)| (id, Lease { ttl_seconds, deadline, keys: BTreeSet::new() });
        self.by_id = leases.into_iter().map(lease).collect();
        self.next_id = first;
    }

    pub(super) fn due(&self, now: Duration) -> Vec<i64> {
        self.by_id.iter().filter(|(_, lease)| lease.deadline <= now).map(|(id, _)| *id).collect()
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.by_id.values().map(|lease| lease.deadline).min()
    }

    pub(super) fn attach(&mut self, id: i64, key: &[u8]) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.keys.insert(key.to_vec());
        }
    }

    pub(super) fn detach(&mut self, id: i64, key: &[u8]) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.keys.remove(key);
        }
    }
}

// === impl Lease ===

impl Lease {
    /// The keys under it.
    pub(super) fn keys(&self) -> &BTreeSet<Vec<u8>> {
        &self.keys
    }
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(count.unsigned_abs())
}
