//! The gateway's counters that its events do not have, as one line. Pure.

use std::collections::HashMap;

/// The gateway's metrics by name. Values that differ only in labels are added up.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct MetricTotals(HashMap<String, f64>);

// === impl MetricTotals ===

impl MetricTotals {
    /// The values of a page of metrics, without the buckets of histograms.
    pub(super) fn parse(text: &str) -> Self {
        let mut counted = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let name = name.split('{').next().unwrap_or(name).trim();
            if let Ok(value) = value.parse::<f64>()
                && !name.ends_with("_bucket")
            {
                *counted.entry(name.to_owned()).or_default() += value;
            }
        }
        Self(counted)
    }

    /// The changes since `last`: times as means, shares of all tokens since the gateway started.
    pub(super) fn since(&self, last: &Self) -> String {
        let value = |name: &str| self.value(name);
        let more = |name: &str| value(name) - last.value(name);
        let mean_ms = |name: &str| {
            let count = more(&format!("{name}_count"));
            (count > 0.0).then(|| format!("{:.1} ms", 1000.0 * more(&format!("{name}_sum")) / count))
        };
        let share = |part: &str, whole: &str| {
            (value(whole) > 0.0).then(|| format!("{:.0} %", 100.0 * value(part) / value(whole)))
        };
        let parts = [
            ("between tokens", mean_ms("inter_token_seconds")),
            ("a hop", mean_ms("hop_seconds")),
            ("prompt tokens from the cache", share("cached_tokens_total", "prompt_tokens_total")),
            ("drafts accepted", share("speculated_tokens_accepted_total", "speculated_tokens_total")),
            ("preempted", Some(value("preemptions_total")).filter(|count| *count > 0.0).map(|count| count.to_string())),
        ];
        let parts = parts.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", value?)));
        parts.collect::<Vec<_>>().join(" · ")
    }

    fn value(&self, name: &str) -> f64 {
        self.0.get(&format!("baton_{name}")).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP baton_prompt_tokens_total tokens\n# TYPE baton_prompt_tokens_total counter\n\
        baton_prompt_tokens_total 256\nbaton_cached_tokens_total 64\nbaton_inter_token_seconds_bucket{le=\"0.1\"} 3\n\
        baton_inter_token_seconds_sum 0.5\nbaton_inter_token_seconds_count 5\n\
        baton_preemptions_total{a=\"b\"} 2\nbaton_preemptions_total{a=\"c\"} 3\nno number\n";

    #[test]
    fn values_of_different_labels_are_added_up_and_times_are_means_since_the_last_page() {
        let now = MetricTotals::parse(PAGE);
        assert!(!now.0.contains_key("baton_inter_token_seconds_bucket"));
        let first = "between tokens 100.0 ms · prompt tokens from the cache 25 % · preempted 5";
        assert_eq!(now.since(&MetricTotals::default()), first);
        assert_eq!(now.since(&now), "prompt tokens from the cache 25 % · preempted 5");
        let mut last = now.clone();
        last.0.insert("baton_inter_token_seconds_count".to_owned(), 4.0);
        last.0.insert("baton_inter_token_seconds_sum".to_owned(), 0.1);
        assert!(now.since(&last).starts_with("between tokens 400.0 ms"));
        assert_eq!(MetricTotals::default().since(&last), "");
    }
}
