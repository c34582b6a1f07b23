//! The flags of `baton bench`. They are not settings: none has an environment variable or an entry in the settings
//! file.

use std::path::PathBuf;

use clap::Args;

use crate::bench::{Api, LengthDistribution, Load, REQUESTS_AT_ONCE_MAX, Rate};
use crate::client::{ApiSecret, Endpoint};

/// Most concurrent clients.
const CONCURRENCY_MAX: i64 = REQUESTS_AT_ONCE_MAX as i64;
/// Most requests of a load point. It is bounded because the times between all their tokens are kept.
const REQUESTS_MAX: i64 = 100_000;
/// Longest shared prefix, in tokens: more than any context has.
const PREFIX_TOKENS_MAX: i64 = 1 << 20;
/// Longest timeout for an answer: a day.
const TIMEOUT_S_MAX: u64 = 86_400;

/// The arguments of `baton bench`.
#[derive(Debug, Args)]
pub struct BenchArguments {
    /// The endpoint
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:8100")]
    pub(super) url: Endpoint,
    /// A second endpoint, which takes turns with the first
    #[arg(long, value_name = "URL")]
    pub(super) compare: Option<Endpoint>,
    /// The first endpoint's API key, as it is sent [default: the first of BATON_API_KEY]
    #[arg(long, value_name = "KEY", value_parser = api_key)]
    pub(super) api_key: Option<ApiSecret>,
    /// The second endpoint's API key, as it is sent
    #[arg(long, value_name = "KEY", value_parser = api_key, requires = "compare")]
    pub(super) compare_api_key: Option<ApiSecret>,
    /// Load points with N concurrent clients, each of which sends a request as soon as its last one was answered
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,2,4,8", conflicts_with = "rate")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=CONCURRENCY_MAX))]
    pub(super) concurrency: Vec<u32>,
    /// Load points with R requests per second, which arrive at random times even if the endpoint does not keep up
    #[arg(long, value_name = "R,…", value_delimiter = ',')]
    pub(super) rate: Vec<Rate>,
    /// Requests to an endpoint at each load point
    #[arg(long, value_name = "N", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=REQUESTS_MAX))]
    pub(super) requests: u32,
    /// Warm-up requests to an endpoint before the first load point, which are not counted
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(..=REQUESTS_MAX))]
    pub(super) warmup: u32,
    /// Tokens of a prompt: N, uniform:FROM..TO or lognormal:MEDIAN,SIGMA
    #[arg(long, value_name = "LENGTHS", default_value = "120")]
    pub(super) prompt_tokens: LengthDistribution,
    /// Tokens of an answer, in the same form as --prompt-tokens
    #[arg(long, value_name = "LENGTHS", default_value = "128")]
    pub(super) output_tokens: LengthDistribution,
    /// Tokens of a system prompt that all requests share, in addition to their own prompt
    #[arg(long, value_name = "N", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32).range(..=PREFIX_TOKENS_MAX))]
    pub(super) shared_prefix_tokens: u32,
    /// Seed of words, lengths and arrival times [default: random]
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
    /// The model to request [default: the first that the endpoint lists]
    #[arg(long, value_name = "NAME")]
    pub(super) model: Option<String>,
    /// The HTTP API to use
    #[arg(long, value_enum, default_value_t = Api::Chat)]
    pub(super) api: Api,
    /// Timeout for an answer, in seconds
    #[arg(long, value_name = "S", default_value_t = 600)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=TIMEOUT_S_MAX))]
    pub(super) timeout_s: u64,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Plot latency and throughput over load into a file (SVG)
    #[arg(long, value_name = "PATH")]
    pub(super) plot: Option<PathBuf>,
}

fn api_key(text: &str) -> Result<ApiSecret, &'static str> {
    ApiSecret::new(text).ok_or("expected visible ASCII characters")
}

// === impl BenchArguments ===

impl BenchArguments {
    /// The load points: those of `--rate` if any are given, else those of `--concurrency`.
    pub(super) fn loads(&self) -> Vec<Load> {
        if self.rate.is_empty() {
            self.concurrency.iter().copied().map(Load::Concurrency).collect()
        } else {
            self.rate.iter().copied().map(Load::Rate).collect()
        }
    }
}
