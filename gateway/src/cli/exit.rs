//! The exit statuses of `baton` and the errors behind them.

use std::io;
use std::process::ExitCode;

use engine::core::PipelineError;
use engine::membership::KeyAgreementError;
use engine::stage::StageError;
use engine::store::StoreError;
use schema::StageName;

use crate::bench::BenchError;
use crate::models::ModelError;
use crate::run::RunError;
use crate::settings::{FileError, SettingsError};

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
  1   something failed; stderr has the error
  2   the store does not answer
  3   some layers are held by no stage (doctor)
  4   a request did not go through (doctor), or none did (bench)
  5   a request went through, but a stage did no work for it (doctor)
  6   the cluster has another key (stage, gateway, up)
  64  the command line is not usable
  130 Ctrl-C came before the end (bench)";

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
    /// A model file is not available.
    #[error("cannot get the model")]
    Model(#[from] ModelError),
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
    /// Writing to stdout failed.
    #[error("cannot write the answer")]
    Output(#[from] io::Error),
}

// === impl CliError ===

impl CliError {
    /// The exit status for this error.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Store(StoreError::Unavailable { .. }) => Exit::StoreUnreachable,
            Self::Run { source, .. } if is_without_store(source) => Exit::StoreUnreachable,
            Self::Run { source: RunError::Key(KeyAgreementError::Mismatch(_)), .. }
            | Self::Run { source: RunError::Stage(StageError::Key(_)), .. } => Exit::OtherKey,
            Self::Bench(BenchError::Endpoint { .. } | BenchError::NoModel { .. }) => Exit::RequestFailed,
            Self::File(_) | Self::Settings(_) | Self::Log { .. } | Self::NoSpans { .. } | Self::NoStage { .. } => {
                Exit::Usage
            }
            _ => Exit::Failed,
        }
    }
}

/// True if a verb that runs until it is stopped could not start because the store does not answer.
fn is_without_store(error: &RunError) -> bool {
    let (RunError::Store(store)
    | RunError::Key(KeyAgreementError::Store(store))
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
