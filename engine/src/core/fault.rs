//! The faults that end an epoch.

use schema::Step;

/// The pipeline lost or refused something: a new epoch must begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PipelineFault {
    /// A later micro-batch came back first.
    #[error("micro-batch {found} came back: expected {expected}")]
    Gap {
        /// The oldest in flight.
        expected: Step,
        /// The one that came.
        found: Step,
    },
    /// The last stage returned other tokens than the expected ones.
    #[error("micro-batch {0} came back without the tokens it was to bring")]
    Mismatch(Step),
    /// A micro-batch did not come back.
    #[error("micro-batch {0} did not come back in time")]
    Overdue(Step),
    /// The link to the first stage broke, perhaps with this micro-batch in flight.
    #[error("the link that micro-batch {0} went over broke")]
    Broken(Step),
    /// A stage refused.
    #[error("stage {stage} refused micro-batch {step}: {reason}")]
    Refused {
        /// The stage.
        stage: String,
        /// The micro-batch.
        step: Step,
        /// The reason that it gave.
        reason: String,
    },
}
