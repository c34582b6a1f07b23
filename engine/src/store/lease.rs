//! A lease as a value: while the grant is held, a task renews it. Dropping the grant revokes the lease.
//!
//! This module knows only the meaning of a renewal's answer. A [`Renewing`] brings the renewal to the store.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::limits::LEASE_TTL_MIN;

/// Renewals in one time to live: two may go unanswered before the lease is in danger.
const RENEWALS_PER_TTL: u32 = 3;

/// Pause after a failed renewal: short compared with the shortest time to live.
const RETRY_PAUSE: Duration = Duration::from_millis(150);

/// Longest time for revoking a lease. After that the store is left to expire it.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(2);

/// A store's id of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub i64);

/// Hexadecimal, as etcdctl writes it.
impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// The outcome of a renewal.
pub(super) enum Renewal {
    /// The store renewed the lease for this time.
    Renewed { ttl: Duration },
    /// The lease is unknown to the store.
    Gone,
    /// There was no answer. The lease may still live.
    Unanswered { reason: String },
}

/// Renews and revokes one lease in its store. The futures may be dropped at any time.
#[async_trait]
pub(super) trait Renewing: Send + 'static {
    /// Asks the store once to renew the lease.
    async fn renew(&mut self) -> Renewal;
    /// Revokes the lease.
    async fn revoke(&mut self);
}

/// The right to have keys in the store that are deleted when their holder ends.
///
/// The lease is renewed in the background. Dropping the grant revokes it, if the store can be reached.
#[derive(Debug)]
pub struct LeaseGrant {
    id: LeaseId,
    ttl: Duration,
    lost: watch::Receiver<bool>,
    release: Option<oneshot::Sender<Release>>,
}

/// The holder's way of giving up the lease.
#[derive(Debug)]
enum Release {
    /// It revokes the lease. If the receiver of `done` is dropped, nothing waits for that.
    Back { done: oneshot::Sender<()> },
    /// It leaves the lease to expire.
    ToExpire,
}

// === impl LeaseGrant ===

impl LeaseGrant {
    /// Wraps a lease that the store granted.
    pub(super) fn new(id: LeaseId, ttl: Duration, renewer: impl Renewing) -> Self {
        let (publish, lost) = watch::channel(false);
        let (release, released) = oneshot::channel();
        let task = Renewer { id, ttl, renewer, lost: publish };
        tokio::spawn(task.run(released));
        Self { id, ttl, lost, release: Some(release) }
    }

    /// The lease's id in the store.
    pub fn id(&self) -> LeaseId {
        self.id
    }

    /// The time to live that the store granted.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Resolves once the store has answered that the lease is gone.
    pub async fn lost(&self) {
        // An error means that the task that renews has ended with its runtime: then nothing keeps the lease.
        let _ = self.lost.clone().wait_for(|lost| *lost).await;
    }

    /// True if the store has answered that the lease is gone. Once true, it stays true.
    pub fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }

    /// Stops renewing the lease. It expires with its keys once its time to live has passed.
    pub fn let_expire(mut self) {
        if let Some(release) = self.release.take() {
            let _ = release.send(Release::ToExpire);
        }
    }

    /// Revokes the lease and waits until the store has deleted its keys or could not be reached.
    pub async fn revoke(mut self) {
        let (done, revoked) = oneshot::channel();
        if let Some(release) = self.release.take() {
            let _ = release.send(Release::Back { done });
            let _ = revoked.await;
        }
    }
}

// === impl Renewer ===

/// The task behind a grant.
struct Renewer<W> {
    id: LeaseId,
    ttl: Duration,
    renewer: W,
    lost: watch::Sender<bool>,
}

impl<W: Renewing> Renewer<W> {
    /// Renews the lease until it is lost or the grant is dropped. Then revokes it, unless it is to expire.
    async fn run(mut self, mut released: oneshot::Receiver<Release>) {
        let release = tokio::select! {
            release = &mut released => release.ok(),
            () = self.keep() => None,
        };
        if matches!(release, Some(Release::ToExpire)) {
            return;
        }
        self.lost.send_replace(true);
        if timeout(REVOKE_TIMEOUT, self.renewer.revoke()).await.is_err() {
            debug!(lease = %self.id, "lease not revoked in time: the store will expire it");
        }
        let release = match release {
            Some(release) => Some(release),
            None => released.try_recv().ok(),
        };
        if let Some(Release::Back { done }) = release {
            let _ = done.send(());
        }
    }

    /// Returns once the store answers that the lease is gone. No answer means nothing: a store that comes back may have
    /// kept the lease, and the holder's keys with it, far beyond its time to live.
    async fn keep(&mut self) {
        let mut pause = self.ttl / RENEWALS_PER_TTL;
        loop {
            sleep(pause).await;
            // A renewal that hangs is given up early enough for another try.
            let renew_timeout = self.ttl / RENEWALS_PER_TTL;
            pause = match timeout(renew_timeout, self.renewer.renew()).await {
                Ok(Renewal::Renewed { ttl }) => ttl / RENEWALS_PER_TTL,
                Ok(Renewal::Gone) => {
                    warn!(lease = %self.id, "lease lost: the store does not know it any more");
                    return;
                }
                Ok(Renewal::Unanswered { reason }) => {
                    debug!(lease = %self.id, reason, "lease renewal not answered");
                    RETRY_PAUSE
                }
                Err(_) => {
                    debug!(lease = %self.id, "lease renewal timed out");
                    RETRY_PAUSE
                }
            };
        }
    }
}

/// A time to live in whole seconds, as etcd's requests carry it: rounded up, and at least the shortest that a store
/// grants.
pub(super) fn whole_seconds(ttl: Duration) -> i64 {
    let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    i64::try_from(seconds).unwrap_or(i64::MAX).max(LEASE_TTL_MIN.as_secs().cast_signed())
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// A store that gives these answers and then no more.
    struct Script {
        answers: Vec<Renewal>,
        revoked: watch::Sender<u32>,
    }

    #[async_trait]
    impl Renewing for Script {
        async fn renew(&mut self) -> Renewal {
            match self.answers.pop() {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        }

        async fn revoke(&mut self) {
            self.revoked.send_modify(|count| *count += 1);
        }
    }

    const TTL: Duration = Duration::from_secs(3);

    fn grant(mut answers: Vec<Renewal>) -> (LeaseGrant, watch::Receiver<u32>) {
        answers.reverse();
        let (revoked, count) = watch::channel(0);
        (LeaseGrant::new(LeaseId(7), TTL, Script { answers, revoked }), count)
    }

    fn renewed() -> Renewal {
        Renewal::Renewed { ttl: TTL }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_survives_a_store_that_does_not_answer() {
        let (grant, _) = grant(vec![renewed(), renewed()]);
        sleep(9 * TTL).await;
        assert!(!grant.is_lost());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_renewal_is_tried_again_before_the_time_is_over() {
        let failed = || Renewal::Unanswered { reason: "connection refused".into() };
        let started = Instant::now();
        let (grant, _) = grant(vec![failed(), failed(), failed(), Renewal::Gone]);
        grant.lost().await;
        assert!(started.elapsed() < TTL, "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_the_store_does_not_know_is_lost_and_stays_lost() {
        let (grant, _) = grant(vec![Renewal::Gone, renewed()]);
        grant.lost().await;
        sleep(Duration::from_secs(9)).await;
        assert!(grant.is_lost());
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_the_grant_revokes_the_lease_once() {
        let (grant, mut revoked) = grant(vec![]);
        drop(grant);
        revoked.wait_for(|count| *count == 1).await.unwrap();
        sleep(Duration::from_secs(9)).await;
        assert_eq!(*revoked.borrow(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_left_to_expire_is_neither_revoked_nor_renewed() {
        let (grant, revoked) = grant(vec![]);
        grant.let_expire();
        sleep(9 * TTL).await;
        assert_eq!(*revoked.borrow(), 0);
        assert!(revoked.has_changed().is_err(), "its renewer still runs");
    }

    #[tokio::test(start_paused = true)]
    async fn revoking_waits_until_the_lease_was_revoked() {
        let (grant, revoked) = grant(vec![]);
        grant.revoke().await;
        assert_eq!(*revoked.borrow(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn revoking_a_lost_lease_returns() {
        let (grant, _) = grant(vec![Renewal::Gone]);
        grant.lost().await;
        grant.revoke().await;
    }
}
