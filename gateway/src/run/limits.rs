//! The bounds of several clusters of a machine.

use std::time::Duration;

/// Clusters of a store whose stages are counted: many times as many as a gateway serves.
pub(super) const CLUSTERS_FOLLOWED_MAX: usize = 256;
/// Time for which a cluster without a live stage is served on, and its requests wait: a stage that crashed is started
/// again within it.
pub(super) const STAGELESS_TIME_MAX: Duration = Duration::from_secs(5);
/// Pause after a cluster could not be opened: its model may still be on the way, and each try reads its records.
pub(super) const OPEN_RETRY: Duration = Duration::from_secs(2);

/// Interval of the looks whether a gateway still needs the stages of an old model. Each reads the deployment's keys.
pub(super) const RETIRED_POLL: Duration = Duration::from_millis(500);
/// Interval of the looks whether the last request of an old model has ended.
pub(super) const CLOSE_POLL: Duration = Duration::from_millis(100);

/// Longest wait of a `baton up` for the gateway of another one to serve its cluster. The gateway opens a cluster within
/// a second of its first stage, unless the machine is busy.
pub(super) const GATEWAY_WAIT_MAX: Duration = Duration::from_secs(15);
/// Longest wait for that gateway to leave the cluster as it was before, whose model it would hold on to: the time for
/// which it serves one without stages, and some more.
pub(super) const LEAVE_WAIT_MAX: Duration = Duration::from_secs(8);
/// Interval of the looks whether the other process lives, and whether its gateway has left.
pub(super) const NEIGHBOUR_POLL: Duration = Duration::from_millis(200);

/// Times by which a model may take more memory on a GPU that is named than its file says: candle computes some models
/// there, with weights of four bits as sixteen.
pub(super) const DEVICE_COPIES: u64 = 4;

/// Interval of the looks at a cluster that changes its model. Each reads the new deployment's keys.
pub(super) const SWITCH_POLL: Duration = Duration::from_millis(200);
/// Time after which `baton switch` says what to do if both models do not fit: small ones are loaded long before.
pub(super) const SWITCH_HINT_AFTER: Duration = Duration::from_secs(20);
/// Longest wait of `baton switch` for the members of the old model to end, only to tidy up after them.
pub(super) const TIDY_WAIT_MAX: Duration = Duration::from_secs(10);
