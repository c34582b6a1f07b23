//! Times as Ollama writes them: RFC 3339 in UTC, with microseconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::text::strftime;

/// `time` as RFC 3339.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = strftime(since.as_secs(), "%Y-%m-%dT%H:%M:%S").unwrap_or_default();
    format!("{seconds}.{:06}Z", since.subsec_micros())
}

/// The time `seconds` after the beginning of 1970 as RFC 3339.
pub(super) fn of_seconds(seconds: u64) -> String {
    rfc3339(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// The present time as RFC 3339.
pub(super) fn now() -> String {
    rfc3339(SystemTime::now())
}

/// A time as far away as the one that Ollama names for a model that stays loaded: its longest duration from now.
pub(super) fn never() -> String {
    rfc3339(SystemTime::now() + Duration::from_nanos(i64::MAX.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_its_microseconds() {
        let time = UNIX_EPOCH + Duration::from_micros(1_709_219_045_000_123);
        assert_eq!(rfc3339(time), "2024-02-29T15:04:05.000123Z");
        assert_eq!(of_seconds(0), "1970-01-01T00:00:00.000000Z");
        assert!(never().as_str() > "2300");
    }
}
