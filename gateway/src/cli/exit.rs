//! The exit statuses of `baton` and the errors behind them.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use engine::core::PipelineError;
use engine::membership::AdmissionError;
use engine::stage::StageError;
use engine::store::StoreError;
use schema::{ClusterName, StageName};

use super::service::ServiceError;
use crate::bench::BenchError;
use crate::chat::{CONVERSATION_BYTES_MAX, ConversationError};
use crate::client::{Failure, TrustError};
use crate::drill::DrillError;
use crate::models::ModelError;
use crate::run::RunError;
use crate::settings::{FileError, SettingsError};
#[cfg(feature = "tls")]
use crate::share::{DiscoveryError, FolderError, JoinError, TokenError, TokenStoreError};
use crate::transfer::TransferError;

/// The exit status of the process. Users rely on these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Exit {
    /// Everything succeeded.
    Ok = 0,
    /// Something failed. Its error is on stderr.
    Failed = 1,
    /// The store does not answer.
    StoreUnreachable = 2,
    /// Some layers are held by no stage.
    LayersMissing = 3,
    /// A request was not answered through the gateway.
    RequestFailed = 4,
    /// A request was answered, but a stage did no work for it.
    StageIdle = 5,
    /// The cluster has another key, or only one of the two has a key.
    OtherKey = 6,
    /// The command line is not usable.
    Usage = 64,
    /// The run was stopped by Ctrl-C.
    Interrupted = 130,
}

/// The exit statuses for help texts.
pub(super) const EXIT_HELP: &str = "Exit status:
  0   all is well
  1   something failed; stderr has the error, or the page the check (selftest)
  2   the store does not answer
  3   some layers are held by no stage (doctor)
  4   a request did not go through (doctor, chat, run, drill), or none did (bench)
  5   a request went through, but a stage did no work for it (doctor)
  6   the cluster has another key (stage, gateway, up)
  64  the command line is not usable
  130 Ctrl-C came before the end (bench, chat, drill)
`baton run` ends with the status of the program that it runs.";

/// The reason that a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The settings file is unusable.
    #[error(transparent)]
    File(#[from] FileError),
    /// The settings are unusable.
    #[error("cannot start")]
    Settings(#[from] SettingsError),
    /// The log filter is unusable.
    #[error("cannot use the log filter {found:?}: {reason}")]
    Log {
        /// The filter that was given.
        found: String,
        /// The parse error.
        reason: String,
    },
    /// Spans are to be sent, but this build cannot send them.
    #[error(
        "spans are to go to {to}, but this baton was built without that: build it with `--features otlp`, or leave \
         otlp_endpoint (or OTEL_EXPORTER_OTLP_ENDPOINT) unset"
    )]
    NoSpans {
        /// The address that was given.
        to: String,
    },
    /// A device could not be tested.
    #[error(transparent)]
    SelfTest(#[from] stages::selftest::SelfTestError),
    /// Spans cannot be sent.
    #[error("cannot send spans to {to}: {reason}")]
    Spans {
        /// The address that was given.
        to: String,
        /// The error of the exporter.
        reason: String,
    },
    /// The async runtime did not start.
    #[error("cannot start the runtime")]
    Runtime {
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The operating system gave no random bytes.
    #[error("cannot make a key")]
    Random {
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The machine has not joined.
    #[cfg(feature = "tls")]
    #[error("cannot join")]
    Join(#[from] JoinError),
    /// The records of running processes cannot be read.
    #[error("cannot tell what runs on this machine")]
    Running {
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// There is nothing to stop.
    #[error(
        "no `baton up` of this user runs cluster {cluster} on this machine: expected {expected}; `baton join`, `stage` \
         and `gateway` are stopped where they run",
        expected = expected_clusters(found)
    )]
    NotRunning {
        /// The cluster that was named.
        cluster: ClusterName,
        /// The clusters that run.
        found: Vec<ClusterName>,
    },
    /// Other clusters would lose their store and HTTP server.
    #[error(
        "the `baton up` of cluster {cluster} has the store and the HTTP server of {dependents}, too: stop those first, \
         or all of them with --yes",
        dependents = listed_clusters(dependents)
    )]
    Dependents {
        /// The cluster that was named.
        cluster: ClusterName,
        /// The others, and their processes.
        dependents: Vec<(ClusterName, u32)>,
    },
    /// A process does not end.
    #[error("cannot stop process {pid}: {reason}")]
    NotStopped {
        /// The process.
        pid: u32,
        /// The reason.
        reason: String,
    },
    /// The network was not asked.
    #[cfg(feature = "tls")]
    #[error("cannot look for clusters")]
    Discovery(#[from] DiscoveryError),
    /// Clusters are not looked for.
    #[cfg(feature = "tls")]
    #[error(
        "clusters are not looked for, because discovery is off: expected HOST:PORT TOKEN, as `baton up --share` prints \
         it, or --discovery on"
    )]
    DiscoveryOff,
    /// The text is no token.
    #[cfg(feature = "tls")]
    #[error("cannot join")]
    Token(#[from] TokenError),
    /// A token was not made or revoked.
    #[cfg(feature = "tls")]
    #[error("cannot change the tokens")]
    Tokens(#[from] TokenStoreError),
    /// The files of a shared cluster cannot be used.
    #[cfg(feature = "tls")]
    #[error("cannot make a token here: expected the machine on which `baton up --share` runs")]
    Folder(#[from] FolderError),
    /// The store failed.
    #[error("cannot read the cluster")]
    Store(#[from] StoreError),
    /// A stage's name is none.
    #[error("{reason}")]
    NoStage {
        /// The name, and what was expected.
        reason: String,
    },
    /// A model's header cannot be used.
    #[error("cannot plan {model}: {reason}")]
    Header {
        /// The model as it was given.
        model: String,
        /// The reason.
        reason: String,
    },
    /// A pin that would have no effect.
    #[error("cannot pin stage {stage}: {reason}")]
    PinRefused {
        /// The stage.
        stage: StageName,
        /// The reason that the stages could not obey it.
        reason: String,
    },
    /// There is no pin to remove.
    #[error("stage {stage} is not pinned")]
    NoPin {
        /// The stage.
        stage: StageName,
    },
    /// Another process changed the pin first.
    #[error("the pin of stage {stage} has just been changed by another process: look again")]
    PinChanged {
        /// The stage.
        stage: StageName,
    },
    /// The name is that of no model here.
    #[error("no model {name:?} is on this machine: expected {expected}", expected = expected_models(known))]
    NotCached {
        /// The name.
        name: String,
        /// The names of those that are.
        known: Vec<String>,
    },
    /// Models are to be removed, and nobody can be asked.
    #[error("{models} models would be removed, and standard input is no terminal: expected --yes, or --dry-run")]
    Unconfirmed {
        /// Their number.
        models: usize,
    },
    /// A model file is not available.
    #[error("cannot get the model")]
    Model(#[from] ModelError),
    /// A drill was refused, or ended early.
    #[error("no drill")]
    Drill(#[from] DrillError),
    /// An endpoint could not be measured.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// A verb that runs until it is stopped has failed.
    #[error("cannot go on with `baton {verb}`")]
    Run {
        /// The verb.
        verb: &'static str,
        /// Its error.
        #[source]
        source: RunError,
    },
    /// TLS cannot be used.
    #[error("cannot speak https with {url}")]
    Trust {
        /// The endpoint.
        url: String,
        /// The reason.
        #[source]
        cause: TrustError,
    },
    /// An endpoint did not answer.
    #[error("cannot talk to {url}")]
    Endpoint {
        /// The endpoint.
        url: String,
        /// The step that failed.
        #[source]
        cause: Failure,
    },
    /// A conversation cannot be read.
    #[error("cannot go on with the conversation")]
    Conversation(#[from] ConversationError),
    /// There is nothing to answer.
    #[error("standard input has no message: expected text in it, a MESSAGE, or a terminal")]
    NoMessage,
    /// The message is too long.
    #[error("the message is longer than {CONVERSATION_BYTES_MAX} bytes, the most that a gateway takes")]
    LongMessage,
    /// The terminal cannot be read.
    #[error("cannot read from the terminal: {reason}")]
    Prompt {
        /// The reason.
        reason: String,
    },
    /// Log files cannot be read.
    #[error("cannot read the logs in {path}", path = path.display())]
    Logs {
        /// The folder.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        cause: io::Error,
    },
    /// There are no log lines.
    #[error(
        "{path} has no lines{of}: expected those of a `baton up`, `stage` or `gateway` that this user started; \
         services log to the system's journal, too: journalctl -u 'baton-*'",
        path = path.display(), of = member.as_ref().map(|member| format!(" of {member}")).unwrap_or_default()
    )]
    NoLogs {
        /// The folder.
        path: PathBuf,
        /// The member that was named.
        member: Option<String>,
    },
    /// There is no folder for logs.
    #[error("there is no folder for logs: expected HOME or XDG_STATE_HOME to be set")]
    NoStateFolder,
    /// A service was not installed or removed.
    #[error("cannot change the service")]
    Service(#[source] ServiceError),
    /// A program was not started.
    #[error("cannot start {program}: is it installed?", program = program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// The operating system's reason.
        #[source]
        cause: io::Error,
    },
    /// A cluster was not exported or imported.
    #[error("cannot move the cluster")]
    Transfer(#[from] TransferError),
    /// A file cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        cause: io::Error,
    },
    /// Files cannot be written.
    #[error("cannot write {path}", path = path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        cause: io::Error,
    },
    /// Writing to stdout failed.
    #[error("cannot write the answer")]
    Output(#[from] io::Error),
}

// === impl CliError ===

impl CliError {
    /// An error of the line editor.
    pub(super) fn prompt(error: impl std::fmt::Display) -> Self {
        Self::Prompt { reason: error.to_string() }
    }

    /// The advice for the next step, for errors that do not give it themselves.
    pub(super) fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Store(StoreError::Unavailable { .. }) => {
                Some("`baton up` starts a cluster on this machine, --etcd names the store of another one")
            }
            Self::Endpoint { cause: Failure::Connect { .. }, .. } => {
                Some("`baton up` starts one, --url names another, `baton doctor` says what a cluster lacks")
            }
            Self::Endpoint { cause: Failure::Refused { status: 401 | 403, .. }, .. } => {
                Some("BATON_API_KEY holds the key to send")
            }
            Self::Endpoint { .. } => Some("`baton doctor` says what a cluster lacks"),
            _ => None,
        }
    }

    /// The exit status for this error.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Store(StoreError::Unavailable { .. })
            | Self::Transfer(TransferError::Store(StoreError::Unavailable { .. })) => Exit::StoreUnreachable,
            #[cfg(feature = "tls")]
            Self::Join(JoinError::Connect { .. } | JoinError::NotAnnounced { .. }) => Exit::StoreUnreachable,
            #[cfg(feature = "tls")]
            Self::Token(_) | Self::DiscoveryOff | Self::Join(JoinError::NotJoined { .. }) => Exit::Usage,
            Self::Run { source, .. } if is_without_store(source) => Exit::StoreUnreachable,
            Self::Run { source: RunError::Admission(AdmissionError::Key(_)), .. }
            | Self::Run { source: RunError::Stage(StageError::Key(_)), .. } => Exit::OtherKey,
            Self::Endpoint { .. } | Self::Trust { .. } => Exit::RequestFailed,
            Self::Drill(DrillError::Gateway { .. } | DrillError::Trust { .. }) => Exit::RequestFailed,
            Self::NoMessage | Self::LongMessage | Self::Service(ServiceError::Plan(_)) => Exit::Usage,
            Self::NotCached { .. } | Self::Unconfirmed { .. } => Exit::Usage,
            Self::Bench(BenchError::Endpoint { .. } | BenchError::NoModel { .. }) => Exit::RequestFailed,
            Self::File(_) | Self::Settings(_) | Self::Log { .. } | Self::NoSpans { .. } | Self::NoStage { .. } => {
                Exit::Usage
            }
            _ => Exit::Failed,
        }
    }
}

/// The names of the models that could have been named.
fn expected_models(known: &[String]) -> String {
    if known.is_empty() { "none, there is no model; `baton pull` fetches one".to_owned() } else { known.join(", ") }
}

/// The clusters that can be stopped.
fn listed_clusters(found: &[(ClusterName, u32)]) -> String {
    let names: Vec<_> = found.iter().map(|(cluster, pid)| format!("cluster {cluster} (process {pid})")).collect();
    names.join(" and of ")
}

fn expected_clusters(found: &[ClusterName]) -> String {
    let names: Vec<_> = found.iter().map(ToString::to_string).collect();
    if names.is_empty() { "one that runs, and none does".to_owned() } else { format!("one of {}", names.join(", ")) }
}

/// True if a verb that runs until it is stopped could not start because the store does not answer.
fn is_without_store(error: &RunError) -> bool {
    let (RunError::Store(store)
    | RunError::Admission(AdmissionError::Store(store))
    | RunError::Stage(StageError::Store(store))
    | RunError::Pipeline(PipelineError::Store(store))) = error
    else {
        return false;
    };
    matches!(store, StoreError::Unavailable { .. })
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
