//! The HTTP server's own metrics, for Prometheus. Labels have few values: names of keys and status codes.

use http::StatusCode;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::key_name::KeyName;

/// The value of the label `key` for requests that no key opened. It is not a possible name of a key.
const NO_KEY: &str = "";

/// The limit that refused a request.
#[derive(Debug, Clone, Copy)]
pub(super) enum RefusedBy {
    /// `requests_per_minute`
    Rate,
    /// `concurrent_requests`
    Concurrency,
}

/// Counts requests by key.
#[derive(Debug)]
pub(super) struct RequestMeter {
    registry: Registry,
    answered: IntCounterVec,
    running: IntGaugeVec,
    limited: IntCounterVec,
}

// === impl RequestMeter ===

impl RequestMeter {
    /// Metrics at zero.
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        let counters = |name, help, labels: &[&str]| register(&registry, IntCounterVec::new(opts(name, help), labels));
        let answered = "requests that were answered; key is empty for those that no key opened";
        let limited = "requests that a limit of their key refused";
        Self {
            answered: counters("requests_total", answered, &["key", "code"]),
            limited: counters("requests_limited_total", limited, &["key", "limit"]),
            running: register(
                &registry,
                IntGaugeVec::new(opts("requests_running", "requests of a key whose answers have not ended"), &["key"]),
            ),
            registry,
        }
    }

    /// The gauge of the running requests of `key`.
    pub(super) fn running(&self, key: &KeyName) -> IntGauge {
        self.running.with_label_values(&[key.as_str()])
    }

    /// A request of `key` was answered, or one without a key.
    pub(super) fn answered(&self, key: Option<&KeyName>, status: StatusCode) {
        self.answered.with_label_values(&[key.map_or(NO_KEY, KeyName::as_str), status.as_str()]).inc();
    }

    /// A limit of `key` refused a request.
    pub(super) fn limited(&self, key: &KeyName, by: RefusedBy) {
        let limit = match by {
            RefusedBy::Rate => "requests_per_minute",
            RefusedBy::Concurrency => "concurrent_requests",
        };
        self.limited.with_label_values(&[key.as_str(), limit]).inc();
    }

    /// All of them with their values.
    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("baton_http_{name}"), help)
}

fn register<M: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<M>) -> M {
    let metric = metric.expect("a legal metric");
    registry.register(Box::new(metric.clone())).expect("a name that is used once");
    metric
}
