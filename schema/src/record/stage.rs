//! A live stage process: the value of `stages/<stage>`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::membership::Proof;
use crate::LayerRange;

/// What a stage computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// The processor, with baton's own kernels.
    Cpu,
    /// An Apple GPU.
    Metal,
    /// An NVIDIA GPU.
    Cuda,
}

/// One stage process; the key lives as long as its lease, so its presence is the heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// Where its PULL socket takes frames: `ipc://<path>` on this host or `tcp://<host>:<port>`.
    pub endpoint: String,
    /// The host's name.
    pub host: String,
    /// The process on that host.
    pub pid: u32,
    /// baton's version.
    pub version: String,
    /// The lease it lives under, as etcdctl writes it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub lease: String,
    /// Proof that it knows the cluster key, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// What it computes on.
    pub device: DeviceKind,
    /// The processor's or GPU's own name.
    pub chip: String,
    /// Compute threads.
    pub threads: u32,
    /// The device's memory, in bytes.
    pub memory_total_bytes: u64,
    /// The most the stage may use for weights, keys and values, and scratch, in bytes.
    pub memory_budget_bytes: u64,
    /// How fast it multiplies, as it measured itself; empty until it has, and where it cannot.
    #[serde(default, skip_serializing_if = "Speeds::is_empty")]
    pub speed: Speeds,
    /// How long the way from it to the next stage, or to a gateway, takes, in microseconds: half of what a connection took to
    /// be made. 0 within a machine, and until it has made one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub link_us: u32,
    /// It is about to stop: others are to take its layers over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// While it holds no layers: those whose weights it has read into memory, to be quick when one of the others is lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub standby: Vec<LayerRange>,
    /// The reason for which it cannot bring answers to a gateway, while that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// What it did and used lately.
    #[serde(default)]
    pub load: StageLoad,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Speeds by the name of the weights' format, such as `Q4_1`.
pub type Speeds = BTreeMap<String, FormatSpeed>;

/// How fast products with weights of one format are; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormatSpeed {
    /// Bytes of weights a second where one row is multiplied with them, as in decoding.
    pub bytes_per_second: u64,
    /// Multiplications (with their additions) a second where many rows are, as in prefill.
    pub multiplications_per_second: u64,
}

/// What a stage did and used lately, as it measured itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StageLoad {
    /// Memory as the operating system counts it.
    pub memory: MemoryUse,
    /// Token rows computed since the process started.
    pub tokens_total: u64,
    /// Token rows per second over the last reporting period.
    pub tokens_per_second: f64,
    /// Share of the last reporting period spent computing, 0 to 1.
    pub busy: f64,
    /// Share of it with nothing to compute, 0 to 1.
    #[serde(default)]
    pub idle_input: f64,
    /// Share of it in which what was computed waited for the link to take it and nothing was computed, 0 to 1.
    #[serde(default)]
    pub idle_output: f64,
    /// Micro-batches computed since the process started.
    #[serde(default)]
    pub batches_total: u64,
    /// Seconds spent computing since then.
    #[serde(default)]
    pub compute_s_total: f64,
    /// Seconds that micro-batches waited to be computed.
    #[serde(default)]
    pub queue_s_total: f64,
    /// Seconds until the link took what was computed.
    #[serde(default)]
    pub send_s_total: f64,
    /// Bytes of activations sent to the next stage.
    #[serde(default)]
    pub sent_bytes_total: u64,
    /// Frames refused since the process started (wrong generation, duplicate, gap, malformed).
    pub frames_refused: u64,
    /// Stages that it struck off since the process started, because they did not answer.
    #[serde(default)]
    pub strikes_total: u64,
}

/// A process's memory as the operating system counts it, in bytes. Zero where the system does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// Resident set.
    pub rss_bytes: u64,
    /// Proportional share of the resident set.
    pub pss_bytes: u64,
    /// Part of the proportional share that is backed by files (weights, program).
    pub pss_file_bytes: u64,
    /// Part of the proportional share that is anonymous (keys and values, scratch, heap).
    pub pss_anonymous_bytes: u64,
    /// Bytes of the model file that are resident through this process's mappings.
    pub weights_resident_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As written before stages measured themselves.
    const OLDER: &str = r#"{"endpoint":"ipc:///x","host":"h","pid":1,"version":"0.1.0","device":"cpu","chip":"c","threads":2,"memory_total_bytes":2,"memory_budget_bytes":1}"#;

    #[test]
    fn a_record_without_speeds_is_read_and_written_without_them() {
        let record: StageRecord = serde_json::from_str(OLDER).unwrap();
        assert!(record.speed.is_empty());
        assert!(!serde_json::to_string(&record).unwrap().contains("speed"));
    }

    #[test]
    fn speeds_come_back_as_they_were_written() {
        let mut record: StageRecord = serde_json::from_str(OLDER).unwrap();
        let speed = FormatSpeed { bytes_per_second: 9_800_000_000, multiplications_per_second: u64::MAX };
        record.speed.insert("Q4_1".to_owned(), speed);
        let text = serde_json::to_string(&record).unwrap();
        assert!(text.contains(r#""speed":{"Q4_1":{"bytes_per_second":9800000000,"#), "{text}");
        assert_eq!(serde_json::from_str::<StageRecord>(&text).unwrap(), record);
    }
}
