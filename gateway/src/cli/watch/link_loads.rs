//! Bytes per second that stages send, by the counters in their reports. Pure.

use std::collections::HashMap;
use std::time::Instant;

use super::limits::LOAD_AGE_MAX;
use super::picture::Cluster;

/// The loads of the links, by the name of the stage that sends.
#[derive(Debug, Clone, Default)]
pub(super) struct LinkLoads {
    seen: HashMap<String, (u64, Instant)>,
    rates: HashMap<String, f64>,
}

// === impl LinkLoads ===

impl LinkLoads {
    /// Takes the counters as they are at `now`.
    pub(super) fn update(&mut self, cluster: &Cluster, now: Instant) {
        self.seen.retain(|name, _| cluster.stages.contains_key(name));
        self.rates.retain(|name, _| cluster.stages.contains_key(name));
        for (name, stage) in &cluster.stages {
            let Some(total) = stage.sent_bytes_total else { continue };
            let (before, at) = *self.seen.entry(name.clone()).or_insert((total, now));
            let elapsed = now.saturating_duration_since(at);
            if total != before || elapsed > LOAD_AGE_MAX {
                let rate = total.saturating_sub(before) as f64 / elapsed.as_secs_f64().max(0.001);
                self.rates.insert(name.clone(), rate);
                self.seen.insert(name.clone(), (total, now));
            }
        }
    }

    /// Bytes per second of the stage. `None` before its second report.
    pub(super) fn of(&self, stage: &str) -> Option<f64> {
        self.rates.get(stage).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::picture::Stage;
    use super::*;

    fn cluster(total: u64) -> Cluster {
        let stage = Stage { sent_bytes_total: Some(total), ..Stage::default() };
        Cluster { stages: [("a".to_owned(), stage)].into(), ..Cluster::default() }
    }

    #[test]
    fn a_rate_is_that_between_two_reports_and_falls_to_zero_without_them() {
        let (mut loads, start) = (LinkLoads::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        loads.update(&cluster(1000), at(0));
        assert_eq!(loads.of("a"), None);
        loads.update(&cluster(5000), at(2));
        loads.update(&cluster(5000), at(3));
        assert_eq!(loads.of("a"), Some(2000.0));
        loads.update(&cluster(5000), at(12));
        assert_eq!(loads.of("a"), Some(0.0));
        loads.update(&Cluster::default(), at(13));
        assert_eq!(loads.of("a"), None);
    }
}
