//! The outcome of a run, gathered tile by tile, and its way into the answer to a step.

use engine::runner::{Output, RunnerError};
use schema::frame::{Chosen, Slice};

use super::tile::Row;
use crate::sampling::{Choice, SamplingError};

/// The outcome of a run; its variant says beforehand which one is wanted.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The rows as the next stage takes them.
    Activations(Vec<f32>),
    /// A token for each position that wants one.
    Tokens(Vec<Chosen>),
    /// The logits of each position that wants a token.
    Logits(Vec<f32>),
}

// === impl Outcome ===

impl Outcome {
    /// The empty outcome of a step: tokens from the shard with the `head`, activations from any other.
    pub(crate) fn of_step(head: bool) -> Self {
        if head { Self::Tokens(Vec::new()) } else { Self::Activations(Vec::new()) }
    }

    /// The answer to a step.
    ///
    /// # Errors
    /// As [`no_head`]: logits are no step's outcome.
    pub(crate) fn output(self) -> Result<Output, RunnerError> {
        match self {
            Self::Activations(values) => Ok(Output::Activations(values)),
            Self::Tokens(chosen) => Ok(Output::Tokens(chosen)),
            Self::Logits(_) => Err(no_head()),
        }
    }

    /// The logits, where they were wanted.
    ///
    /// # Errors
    /// As [`no_head`], where something else was.
    pub(crate) fn logits(self) -> Result<Vec<f32>, RunnerError> {
        if let Self::Logits(logits) = self { Ok(logits) } else { Err(no_head()) }
    }
}

/// The token that a sampler chose after `row` of `slice`, as the gateway gets it.
///
/// # Errors
/// [`RunnerError::Device`] when the logits were no numbers.
pub(crate) fn chosen(slice: &Slice, row: &Row, choice: Result<Choice, SamplingError>) -> Result<Chosen, RunnerError> {
    let (sequence, attempt, position) = (slice.sequence, slice.attempt, row.position + 1);
    let Choice { token, logprob, .. } = choice.map_err(|error| RunnerError::Device(format!("{sequence}: {error}")))?;
    Ok(Chosen { sequence, attempt, position, token, logprob })
}

/// The error of a shard that is asked for what only the last one has.
pub(crate) fn no_head() -> RunnerError {
    let (found, expected) =
        ("a shard without the last layer".to_owned(), "the last one, which has the head".to_owned());
    RunnerError::Work { field: "shard", found, expected }
}
