//! The faults for which a gateway ends the epoch of its pipeline.

use schema::Step;

/// A micro-batch was lost or refused. The gateway begins a new epoch, which computes the running sequences again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PipelineFault {
    /// A later micro-batch came back before the oldest one in flight. Stages keep the order, so the oldest is lost.
    #[error("micro-batch {found} came back: expected {expected}")]
    Gap {
        /// The oldest micro-batch in flight.
        expected: Step,
        /// The micro-batch that came back.
        found: Step,
    },
    /// The micro-batch came back with too few or too many tokens, or with tokens of other sequences, attempts or
    /// positions than it was sent for.
    #[error("micro-batch {0} came back without the tokens it was to bring")]
    Mismatch(Step),
    /// The oldest micro-batch in flight did not come back before its timeout.
    #[error("micro-batch {0} did not come back in time")]
    Overdue(Step),
    /// The link to the first stage broke while this micro-batch was the oldest in flight. It may be lost.
    #[error("the link that micro-batch {0} went over broke")]
    Broken(Step),
    /// A stage refused a micro-batch.
    #[error("stage {stage} refused micro-batch {step}: {reason}")]
    Refused {
        /// The stage's name.
        stage: String,
        /// The micro-batch.
        step: Step,
        /// The reason that the stage gave.
        reason: String,
    },
}
