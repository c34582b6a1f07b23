//! A live stage process: the value of `stages/<stage>`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::interface::{AdvertisedAddress, NetworkInterface};
use super::link::LinkReport;
use super::membership::Proof;
use super::touched_experts::TouchedExperts;
use crate::{LayerRange, Protocol};

/// The kind of device that a stage computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// The processor, with baton's own kernels.
    Cpu,
    /// An Apple GPU.
    Metal,
    /// An NVIDIA GPU.
    Cuda,
    /// The kernels for GPUs on the processor, under the simulator: a check of baton itself.
    Sim,
}

// === impl DeviceKind ===

impl DeviceKind {
    /// Its name in records and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Metal => "metal",
            Self::Cuda => "cuda",
            Self::Sim => "sim",
        }
    }
}

/// One stage process. The key exists as long as its lease, so its presence serves as the heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// Endpoint at which its PULL socket takes frames: `ipc://<path>` on this host or `tcp://<host>:<port>`.
    pub endpoint: String,
    /// The host's name.
    pub host: String,
    /// The process id on that host.
    pub pid: u32,
    /// baton's version.
    pub version: String,
    /// The protocol that it speaks.
    #[serde(default = "Protocol::unnamed")]
    pub protocol: Protocol,
    /// The lease of this key, in the notation of etcdctl.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub lease: String,
    /// Proof that the stage has the cluster key. `None` in a cluster without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// The kind of device that it computes on.
    pub device: DeviceKind,
    /// The reason for the device, if that is not the device that was asked for, or if candle computes there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_reason: Option<String>,
    /// The model name of the processor or GPU.
    pub chip: String,
    /// Number of compute threads.
    pub threads: u32,
    /// The device's memory, in bytes.
    pub memory_total_bytes: u64,
    /// Upper bound of the memory that the stage may use for weights, keys and values, and scratch, in bytes.
    pub memory_budget_bytes: u64,
    /// Its measured speeds of multiplication. Empty until it has measured them, and on devices where it cannot.
    #[serde(default, skip_serializing_if = "Speeds::is_empty")]
    pub speed: Speeds,
    /// The interface that has the address of its endpoint. `None` if only processes of this machine reach it, if the
    /// system does not tell, and in the records of older stages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<NetworkInterface>,
    /// All addresses at which it takes frames, that of its endpoint among them. Empty if it has that one only, and in
    /// the records of older stages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<AdvertisedAddress>,
    /// One-way latency from it to the next stage, or to a gateway, in microseconds: half the time that a connection
    /// took to be made. 0 within a machine, and until it has made one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub link_us: u32,
    /// Throughput of that link in Mbit/s, as it measured it. `None` within a machine, until it has measured one, and in
    /// the records of older stages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_megabits_per_second: Option<u32>,
    /// True if it is about to stop and other stages are to take over its layers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// The layer ranges whose weights it has read into memory, while it holds no layers. With them it can quickly
    /// replace a stage that is lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub standby: Vec<LayerRange>,
    /// The layers whose weights were on its disk when it joined, if it has only a part of the model's files. `None` if
    /// it has all of them, and in the records of older stages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<Vec<LayerRange>>,
    /// The address, as `host:port`, at which it serves to other machines the weights that it has fetched. `None` if it
    /// does not, and in the records of older stages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers_endpoint: Option<String>,
    /// The reason for which it cannot send answers to a gateway. `None` while it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Its recent work and use of resources. Read from the records of older stages, which wrote it here; written to a
    /// key of its own, which nobody watches.
    #[serde(default, skip_serializing)]
    pub load: StageLoad,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Speeds by the name of the weight format, such as `Q4_1`.
pub type Speeds = BTreeMap<String, FormatSpeed>;

/// The speed of products with weights of one format. No field is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormatSpeed {
    /// Bytes of weights per second when they are multiplied with one row, as in decoding.
    pub bytes_per_second: u64,
    /// Multiplications (with their additions) per second when there are many rows, as in prefill.
    pub multiplications_per_second: u64,
}

/// A stage's recent work and use of resources, as it measured them itself.
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
    /// Share of it in which the stage had nothing to compute, 0 to 1.
    #[serde(default)]
    pub idle_input: f64,
    /// Share of it in which a result waited for the link to take it and nothing was computed, 0 to 1.
    #[serde(default)]
    pub idle_output: f64,
    /// Micro-batches computed since the process started.
    #[serde(default)]
    pub batches_total: u64,
    /// Seconds spent computing since the process started.
    #[serde(default)]
    pub compute_s_total: f64,
    /// Seconds that micro-batches waited for the compute thread, since the process started.
    #[serde(default)]
    pub queue_s_total: f64,
    /// Seconds that results waited for the link to take them, since the process started.
    #[serde(default)]
    pub send_s_total: f64,
    /// Bytes of activations sent to the next stage since the process started.
    #[serde(default)]
    pub sent_bytes_total: u64,
    /// Frames refused since the process started (wrong generation, duplicate, gap, malformed).
    pub frames_refused: u64,
    /// The sender of the last of them, and the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame_refused: Option<RefusedFrame>,
    /// Number of stages that it evicted since the process started, because they did not answer.
    #[serde(default)]
    pub strikes_total: u64,
    /// The addresses of the peers on other machines that it sends to, as it finds them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<LinkReport>,
}

/// A frame that was refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedFrame {
    /// The address of its sender, or that it is a process of the same machine.
    pub from: String,
    /// The reason.
    pub reason: String,
}

/// A process's memory as the operating system counts it, in bytes. Zero if the system does not report it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Experts of its layers, counted in each layer, that a token has chosen since the layers were loaded. Others take
    /// no memory.
    #[serde(default, skip_serializing_if = "is_none")]
    pub experts_touched: u64,
    /// The same experts by layer. Left out of a record of layers without experts.
    #[serde(default, skip_serializing_if = "TouchedExperts::is_empty")]
    pub experts: TouchedExperts,
    /// Share of the weights of its layers that are on this machine, in percent, while it fetches the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched_percent: Option<u8>,
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

// === impl StageRecord ===

impl StageRecord {
    /// A stage of this process on `host` that has measured, joined and done nothing yet: one thread of its processor,
    /// with `memory_bytes` of memory, all of which it may use.
    pub fn new(host: &str, memory_bytes: u64) -> Self {
        Self {
            endpoint: String::new(),
            host: host.to_owned(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: Protocol::CURRENT,
            lease: String::new(),
            proof: None,
            device: DeviceKind::Cpu,
            device_reason: None,
            chip: String::new(),
            threads: 1,
            memory_total_bytes: memory_bytes,
            memory_budget_bytes: memory_bytes,
            speed: Speeds::new(),
            interface: None,
            addresses: Vec::new(),
            link_us: 0,
            link_megabits_per_second: None,
            leaving: false,
            standby: Vec::new(),
            stored: None,
            layers_endpoint: None,
            trouble: None,
            load: StageLoad::default(),
        }
    }

    /// True if `other` has the same in the store: all but the load.
    pub fn is_stored_like(&self, other: &Self) -> bool {
        *self == Self { load: self.load.clone(), ..other.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record written before stages measured their own speed.
    const OLDER: &str = concat!(
        r#"{"endpoint":"ipc:///x","host":"h","pid":1,"version":"0.1.0","device":"cpu","chip":"c","threads":2,"#,
        r#""memory_total_bytes":2,"memory_budget_bytes":1}"#
    );

    #[test]
    fn the_load_in_an_older_record_is_read_and_none_is_written() {
        let load = r#","load":{"memory":{"rss_bytes":7,"pss_bytes":6,"pss_file_bytes":5,"pss_anonymous_bytes":4,
            "weights_resident_bytes":3},"tokens_total":9,"tokens_per_second":1.5,"busy":0.5,"frames_refused":0}}"#;
        let record: StageRecord = serde_json::from_str(&OLDER.replace('}', load)).unwrap();
        assert_eq!((record.load.tokens_total, record.load.memory.rss_bytes), (9, 7));
        assert!(!serde_json::to_string(&record).unwrap().contains("load"));
        // A stage of a version that expects one reads zeros.
        let without: StageRecord = serde_json::from_str(OLDER).unwrap();
        assert_eq!(without.load, StageLoad::default());
        assert!(record.is_stored_like(&without));
        assert!(!record.is_stored_like(&StageRecord { link_us: 7, ..without }));
    }

    #[test]
    fn a_record_without_speeds_is_read_and_written_without_them() {
        let record: StageRecord = serde_json::from_str(OLDER).unwrap();
        assert!(record.speed.is_empty());
        assert!(!serde_json::to_string(&record).unwrap().contains("speed"));
    }

    #[test]
    fn an_older_record_does_not_say_what_is_stored_and_none_is_written() {
        let record: StageRecord = serde_json::from_str(OLDER).unwrap();
        assert_eq!((&record.stored, &record.layers_endpoint), (&None, &None));
        let text = serde_json::to_string(&record).unwrap();
        assert!(!text.contains("stored") && !text.contains("layers_endpoint"), "{text}");
        let stored = Some(vec![LayerRange::new(3, 9).unwrap()]);
        let record = StageRecord { stored, layers_endpoint: Some("mini-2:4100".to_owned()), ..record };
        let text = serde_json::to_string(&record).unwrap();
        assert!(text.contains(r#""stored":[[3,9]],"layers_endpoint":"mini-2:4100""#), "{text}");
        assert_eq!(serde_json::from_str::<StageRecord>(&text).unwrap(), record);
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
