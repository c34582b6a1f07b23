//! What a run is to do.

use std::time::Duration;

use serde::Serialize;

use super::endpoint::Endpoint;
use super::load::Load;
use super::workload::Workload;

/// Which of the two interfaces is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completions,
}

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// One endpoint, or two that take turns.
    pub endpoints: Vec<Endpoint>,
    /// What to ask for; without it, the first model that the endpoint lists.
    pub model: Option<String>,
    /// How to ask.
    pub api: Api,
    /// What to ask.
    pub workload: Workload,
    /// The load points, in order.
    pub loads: Vec<Load>,
    /// Requests to each endpoint at each load point.
    pub requests: u32,
    /// Requests to each endpoint that come before and do not count.
    pub warmup: u32,
    /// Longest time for one answer.
    pub timeout: Duration,
}
