//! The parameters of a run.

use std::time::Duration;

use serde::Serialize;

use super::load::Load;
use super::workload::Workload;
use crate::client::{Target, TrustedCertificates};

/// The HTTP API that requests use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completions,
}

/// The parameters of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// One target, or two that take turns.
    pub targets: Vec<Target>,
    /// The certificates to trust, for endpoints with https.
    pub trusted: TrustedCertificates,
    /// The model to request. If `None`, the first model that the endpoint lists.
    pub model: Option<String>,
    /// The HTTP API to use.
    pub api: Api,
    /// The requests to send.
    pub workload: Workload,
    /// The load points, in order.
    pub loads: Vec<Load>,
    /// Requests to each endpoint at each load point.
    pub requests: u32,
    /// Warm-up requests to each endpoint, which come first and are not counted.
    pub warmup: u32,
    /// Timeout for one answer.
    pub timeout: Duration,
}
