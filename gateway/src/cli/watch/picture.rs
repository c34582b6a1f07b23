//! The cluster as the events of `GET /distributed/events` describe it. Fields that a gateway does not send are empty.

use std::collections::BTreeMap;

use schema::LayerRange;
use schema::record::{MemoryUse, NetworkInterface};
use serde::Deserialize;

/// Everything that a page shows.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Picture {
    pub(super) cluster: Cluster,
    /// The requests of this gateway, by their numbers.
    pub(super) requests: BTreeMap<String, RequestPlace>,
    pub(super) controls: Controls,
    pub(super) series: SeriesRows,
    /// The decisions of the cluster, the oldest first.
    pub(super) log: Vec<Decision>,
}

/// The cluster and its stages, as `/distributed/status` has them.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Cluster {
    pub(super) serving: bool,
    pub(super) reason: Option<String>,
    pub(super) generation: Option<u64>,
    pub(super) model: Option<Model>,
    pub(super) stages: BTreeMap<String, Stage>,
    pub(super) pins: BTreeMap<String, PinState>,
    pub(super) gateways: BTreeMap<String, serde::de::IgnoredAny>,
    /// The links between machines, by sender and address.
    pub(super) links: BTreeMap<String, Link>,
    pub(super) store: StoreState,
    pub(super) kv: KvUse,
    pub(super) running: u64,
    pub(super) waiting: u64,
    pub(super) tokens_per_second: f64,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Model {
    pub(super) name: String,
    pub(super) layers: u32,
    pub(super) kv_tokens: u64,
    pub(super) kv_type: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Stage {
    pub(super) name: String,
    pub(super) host: Option<String>,
    pub(super) device: Option<String>,
    pub(super) endpoint: Option<String>,
    /// The interface at which other machines reach it.
    pub(super) interface: Option<NetworkInterface>,
    pub(super) layers: Option<LayerRange>,
    pub(super) state: String,
    pub(super) reason: Option<String>,
    /// Layers that it has in memory without holding them.
    pub(super) standby: Vec<LayerRange>,
    pub(super) memory: Memory,
    pub(super) link_us: Option<u64>,
    pub(super) tokens_per_second: Option<f64>,
    pub(super) busy: Option<f64>,
    pub(super) idle_input: Option<f64>,
    pub(super) idle_output: Option<f64>,
    pub(super) sent_bytes_total: Option<u64>,
}

/// The memory of a stage: the parts of its bound, and what the operating system counts.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Memory {
    pub(super) budget_bytes: Option<u64>,
    pub(super) bound_bytes: Option<u64>,
    pub(super) weights_bytes: Option<u64>,
    pub(super) kv_bytes: Option<u64>,
    pub(super) used: Option<MemoryUse>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct PinState {
    pub(super) honoured: Option<bool>,
    pub(super) reason: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct StoreState {
    pub(super) reachable: bool,
    pub(super) alarms: Vec<String>,
}

/// One address of a peer on another machine, as the sender finds it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Link {
    pub(super) from: String,
    pub(super) to: String,
    /// The interface of the machine that takes.
    pub(super) interface: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) address: String,
    pub(super) rtt_us: Option<u32>,
    pub(super) measured_megabits_per_second: Option<u32>,
    pub(super) megabits_per_second: Option<u32>,
    pub(super) mtu: Option<u32>,
    pub(super) state: String,
}

/// The blocks of keys and values of this gateway.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct KvUse {
    pub(super) blocks: u64,
    pub(super) used: u64,
}

/// A request's place in the queue, in its prompt or in its answer.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct RequestPlace {
    pub(super) phase: String,
    pub(super) before: u64,
    pub(super) prompt_tokens: u64,
    pub(super) generated_tokens: u64,
    pub(super) tokens_left: u64,
    pub(super) sent_tokens: u64,
    pub(super) attempts: u64,
    pub(super) age_ms: u64,
    pub(super) in_flight: u64,
    pub(super) in_flight_ms: u64,
    pub(super) stages: Vec<StageShare>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct StageShare {
    pub(super) stage: String,
    pub(super) compute_ms: f64,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Controls {
    pub(super) version: String,
}

/// The figures of the last minutes: a row for each interval.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct SeriesRows {
    pub(super) columns: Vec<String>,
    pub(super) interval_ms: u64,
    pub(super) rows: Vec<Vec<Option<f64>>>,
}

/// A sentence of the log.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Decision {
    /// Milliseconds since 1970.
    pub(super) t: u64,
    pub(super) subject: String,
    pub(super) text: String,
}

// === impl StoreState ===

impl Default for StoreState {
    fn default() -> Self {
        Self { reachable: true, alarms: Vec::new() }
    }
}

// === impl Cluster ===

impl Cluster {
    /// The stages with layers in the order in which a token passes through them, then the others by name.
    pub(super) fn ordered(&self) -> Vec<&Stage> {
        let mut stages: Vec<_> = self.stages.values().collect();
        stages.sort_by_key(|stage| stage.layers.map_or((true, 0), |layers| (false, layers.start())));
        stages
    }
}

// === impl Memory ===

impl Memory {
    /// The bytes that the operating system counts.
    pub(super) fn measured(&self) -> Option<u64> {
        self.used.as_ref().map(|used| used.pss_bytes.max(used.rss_bytes)).filter(|bytes| *bytes > 0)
    }
}

// === impl SeriesRows ===

impl SeriesRows {
    /// The values of a column, the oldest first.
    pub(super) fn column(&self, name: &str) -> impl DoubleEndedIterator<Item = Option<f64>> {
        let at = self.columns.iter().position(|column| column == name);
        self.rows.iter().map(move |row| row.get(at?).copied().flatten())
    }

    /// The newest value of a column that is not empty.
    pub(super) fn last(&self, name: &str) -> Option<f64> {
        self.column(name).rev().flatten().next()
    }
}
