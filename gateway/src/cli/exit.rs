//! How `baton` ends: what its exit status means.

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

/// What the exit status says; part of what users rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Exit {
    /// All is well.
    Ok = 0,
    /// Something failed; stderr says what.
    Failed = 1,
    /// The store does not answer.
    StoreUnreachable = 2,
    /// Some layers are held by nobody.
    LayersMissing = 3,
    /// A request did not go through the gateway.
    RequestFailed = 4,
    /// A request went through, but a stage did no work for it.
    StageIdle = 5,
    /// The cluster has another key, or only one of the two has a key.
    OtherKey = 6,
    /// The command line is not usable.
    Usage = 64,
    /// Ctrl-C came before the end.
    Interrupted = 130,
}

/// The same for help texts.
pub(super) const EXIT_HELP: &str = "Exit status:
  0   all is well
  1   something failed; stderr says what
  2   the store does not answer
  3   some layers are held by nobody (doctor)
  4   a request did not go through (doctor), or none did (bench)
  5   a request went through, but a stage did no work for it (doctor)
  6   the cluster has another key (stage, gateway, up)
  64  the command line is not usable
  130 Ctrl-C came before the end (bench)";

/// Why a verb could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The settings file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The settings.
    #[error("cannot start")]
    Settings(#[from] SettingsError),
    /// The log filter.
    #[error("cannot use the log filter {found:?}: {reason}")]
    Log {
        /// What was given.
        found: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Spans that this build cannot send.
    #[error(
        "spans are to go to {to}, but this baton was built without that: build it with `--features otlp`, or say nothing \
         of otlp_endpoint (or OTEL_EXPORTER_OTLP_ENDPOINT)"
    )]
    NoSpans {
        /// Where they were to go.
        to: String,
    },
    /// Spans that cannot be sent.
    #[error("cannot send spans to {to}: {reason}")]
    Spans {
        /// Where they were to go.
        to: String,
        /// Why not.
        reason: String,
    },
    /// The async runtime.
    #[error("cannot start the runtime")]
    Runtime {
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// No randomness.
    #[error("cannot make a key")]
    Random {
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The store.
    #[error("cannot read the cluster")]
    Store(#[from] StoreError),
    /// A pin that would change nothing.
    #[error("cannot pin stage {stage}: {reason}")]
    PinRefused {
        /// The stage.
        stage: StageName,
        /// Why the stages could not obey it.
        reason: String,
    },
    /// Nothing to unpin.
    #[error("stage {stage} is not pinned")]
    NoPin {
        /// The stage.
        stage: StageName,
    },
    /// Somebody was faster.
    #[error("the pin of stage {stage} has just been changed by somebody else: look again")]
    PinChanged {
        /// The stage.
        stage: StageName,
    },
    /// A model file.
    #[error("cannot get the model")]
    Model(#[from] ModelError),
    /// A measurement of an endpoint.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// A verb that stays.
    #[error("cannot go on with `baton {verb}`")]
    Run {
        /// The verb.
        verb: &'static str,
        /// Why.
        #[source]
        source: RunError,
    },
    /// Writing to stdout.
    #[error("cannot write the answer")]
    Output(#[from] io::Error),
}

// === impl CliError ===

impl CliError {
    /// The exit status that says the same.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Store(StoreError::Unavailable { .. }) => Exit::StoreUnreachable,
            Self::Run { source, .. } if is_without_store(source) => Exit::StoreUnreachable,
            Self::Run { source: RunError::Key(KeyAgreementError::Mismatch(_)), .. }
            | Self::Run { source: RunError::Stage(StageError::Key(_)), .. } => Exit::OtherKey,
            Self::Bench(BenchError::Endpoint { .. } | BenchError::NoModel { .. }) => Exit::RequestFailed,
            Self::File(_) | Self::Settings(_) | Self::Log { .. } | Self::NoSpans { .. } => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}

/// A verb that stays could not begin because the store does not answer.
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
