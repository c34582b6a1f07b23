//! The flags of `baton drill`. They are not settings: none has an environment variable or an entry in the settings
//! file.

use clap::Args;
use schema::StageName;

use crate::client::Endpoint;
use crate::drill::{DEFAULT_SEED, DEFAULT_TOKENS, DrillPlan, Fault, TOKENS_MAX, TOKENS_MIN};

/// Most stages of a cluster of its own, as with `baton up`.
const STAGES_MAX: i64 = 64;

/// The arguments of `baton drill`.
#[derive(Debug, Args)]
pub struct DrillArguments {
    /// The model of the cluster that the drill starts [default: the default model]
    #[arg(value_name = "MODEL", conflicts_with = "url")]
    pub(super) model: Option<String>,
    /// The gateway of a running cluster [default: the drill starts a cluster of its own]
    #[arg(long, value_name = "URL")]
    pub(super) url: Option<Endpoint>,
    /// Stages of the cluster that the drill starts, 2 to 64
    #[arg(long, value_name = "N", default_value_t = 3, conflicts_with = "url")]
    #[arg(value_parser = clap::value_parser!(u32).range(2..=STAGES_MAX))]
    pub(super) stages: u32,
    /// The fault
    #[arg(long, value_enum, default_value_t)]
    fault: Fault,
    /// The stage that it happens to [default: the middle one]
    #[arg(long, value_name = "STAGE")]
    stage: Option<StageName>,
    /// Tokens of the answer
    #[arg(long, value_name = "N", default_value_t = DEFAULT_TOKENS)]
    #[arg(value_parser = clap::value_parser!(u32).range(i64::from(TOKENS_MIN)..=i64::from(TOKENS_MAX)))]
    tokens: u32,
    /// Seed of the answer
    #[arg(long, value_name = "N", default_value_t = DEFAULT_SEED)]
    seed: u64,
    /// Go on though requests of other clients run, which the fault interrupts
    #[arg(long)]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

// === impl DrillArguments ===

impl DrillArguments {
    /// The plan of the drill.
    pub(super) fn plan(&self) -> DrillPlan {
        DrillPlan { fault: self.fault, stage: self.stage.clone(), tokens: self.tokens, seed: self.seed, yes: self.yes }
    }
}
