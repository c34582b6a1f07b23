//! Virtual time. It knows neither the clock nor the queue of events: they are the environment's.

use std::time::Duration;

/// Virtual time since the start, in microseconds.
pub(super) type Moment = u64;

pub(super) const MS: Moment = 1000;
pub(super) const SECOND: Moment = 1_000_000;

/// A duration as virtual time.
pub(super) const fn micros(time: Duration) -> Moment {
    time.as_micros() as Moment
}

pub(super) const fn duration(moment: Moment) -> Duration {
    Duration::from_micros(moment)
}
