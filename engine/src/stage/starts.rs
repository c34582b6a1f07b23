//! A stage that crashes again and again is set quarantine: each of its processes counts itself in the store before it joins, and
//! from the fourth on waits, longer each time.

use std::time::Duration;

use schema::record::StartsRecord;
use schema::{Keyspace, StageName};
use tracing::warn;

use crate::membership::{forget_starts, note_start};
use crate::store::{SharedStore, StoreError};
use crate::view::ClusterView;

/// A process that has lived for so long is not crashing in a loop.
const COUNTED_FOR: Duration = Duration::from_secs(20);
/// Starts within that time without a wait: a crash or two, and somebody who tries something out.
const STARTS_FREE: u32 = 3;
/// The longest wait: in the end it is the others who get no layers otherwise, and a stage that is needed must come back.
const WAIT_MAX: Duration = Duration::from_secs(8);

/// How long the stage of its `starts`th start waits.
fn wait(starts: u32) -> Duration {
    match starts.saturating_sub(STARTS_FREE) {
        0 => Duration::ZERO,
        more => Duration::from_secs(1 << (more - 1).min(3)).min(WAIT_MAX),
    }
}

/// Counts this start; how long the stage is to wait before it joins.
pub(super) async fn begin(
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
    store.commit(note_start(keyspace, stage, &record, lease.id())).await?;
    lease.let_expire();
    if !wait.is_zero() {
        warn!(%stage, starts, ?wait, "this stage crashed again and again: it waits before it joins");
    }
    Ok(wait)
}

/// The stage stops in good order. Where the store is away, time forgets.
pub(super) async fn end(store: &SharedStore, keyspace: &Keyspace, stage: &StageName) {
    if let Err(error) = store.commit(forget_starts(keyspace, stage)).await {
        warn!(%error, "cannot say in the store that this stage stops in good order");
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
