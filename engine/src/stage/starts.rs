//! Crash-loop backoff: each process of a stage counts its start in the store before it joins. From the fourth start on
//! it waits, longer each time.

use std::time::Duration;

use schema::record::StartsRecord;
use schema::{Keyspace, StageName};
use tracing::warn;

use crate::membership::{clear_starts, count_start};
use crate::store::{SharedStore, StoreError};
use crate::view::ClusterView;

/// A process that has lived for this time is not in a crash loop.
const COUNTED_FOR: Duration = Duration::from_secs(20);
/// Starts within that time without a wait: a crash or two, or an operator who tries something out.
const STARTS_FREE: u32 = 3;
/// The longest wait: a stage whose memory the cluster needs must come back.
const WAIT_MAX: Duration = Duration::from_secs(8);

/// The wait of a stage before its `starts`th start.
fn wait(starts: u32) -> Duration {
    match starts.saturating_sub(STARTS_FREE) {
        0 => Duration::ZERO,
        more => Duration::from_secs(1 << (more - 1).min(3)).min(WAIT_MAX),
    }
}

/// Counts this start. Returns the wait before the stage may join.
pub(super) async fn record_start(
    store: &SharedStore,
    keyspace: &Keyspace,
    stage: &StageName,
    view: &ClusterView,
) -> Result<Duration, StoreError> {
    let before = view.starts.get(stage).map_or(0, |starts| starts.value.starts);
    let starts = before.saturating_add(1);
    let wait = wait(starts);
    let lease = store.lease(COUNTED_FOR + wait).await?;
    let record = StartsRecord { starts, wait_s: wait.as_secs() };
    store.commit(count_start(keyspace, stage, &record, lease.id())).await?;
    lease.let_expire();
    if !wait.is_zero() {
        warn!(%stage, starts, ?wait, "this stage crashed repeatedly: it waits before it joins");
    }
    Ok(wait)
}

/// Deletes the count, because the stage stops in good order. If the store is away, the lease of the count ends.
pub(super) async fn clear(store: &SharedStore, keyspace: &Keyspace, stage: &StageName) {
    if let Err(error) = store.commit(clear_starts(keyspace, stage)).await {
        warn!(%error, "cannot delete the count of starts of this stage");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fourth_start_waits_and_each_one_after_it_longer_up_to_a_bound() {
        let waits: Vec<_> = [1, 3, 4, 5, 6, 7, 8, u32::MAX].map(|starts| wait(starts).as_secs()).into();
        assert_eq!(waits, [0, 0, 1, 2, 4, 8, 8, 8]);
    }
}
