//! The outcome of a run, collected tile by tile, and its conversion into the output of a step.

use engine::runner::{Output, RunnerError};
use schema::frame::{Chosen, HiddenState, Slice};

use super::tile::TileRow;
use crate::sampling::{Readout, SampledToken, SamplingError};

/// The outcome of a run. Its variant is set before the run and selects the result to collect.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The rows that the next stage takes.
    Activations(Vec<f32>),
    /// The results that the gateway takes.
    Results(Results),
    /// The logits of each position that requests a token.
    Logits(Vec<f32>),
}

/// The results of a step of the last shard, in the order of slices and offsets.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// A token for each position that requests one.
    pub(crate) chosen: Vec<Chosen>,
    /// The hidden state of each token for which it is requested.
    pub(crate) hidden_states: Vec<HiddenState>,
}

// === impl Outcome ===

impl Outcome {
    /// The empty outcome of a step: results if the shard has the output head, activations otherwise.
    pub(crate) fn of_step(output_head: bool) -> Self {
        if output_head { Self::Results(Results::default()) } else { Self::Activations(Vec::new()) }
    }

    /// The output of a step.
    ///
    /// # Errors
    /// As [`no_output_head`] for logits, which are not the outcome of a step.
    pub(crate) fn output(self) -> Result<Output, RunnerError> {
        match self {
            Self::Activations(values) => Ok(Output::Activations(values)),
            Self::Results(Results { chosen, hidden_states }) => Ok(Output::Tokens { chosen, hidden_states }),
            Self::Logits(_) => Err(no_output_head()),
        }
    }

    /// The logits, if the run collects them.
    ///
    /// # Errors
    /// As [`no_output_head`] if the run collects another result.
    pub(crate) fn logits(self) -> Result<Vec<f32>, RunnerError> {
        if let Self::Logits(logits) = self { Ok(logits) } else { Err(no_output_head()) }
    }
}

/// The result that `slice` asks of the logits after `row`, which is one of those that it names.
pub(crate) fn readout<'a>(slice: &'a Slice, row: &TileRow) -> Readout<'a> {
    let place = slice.logits.partition_point(|offset| (*offset as usize) < row.offset);
    match slice.scored.get(place) {
        Some(token) => Readout::Score { token: *token },
        None => Readout::Choose {
            position: row.position + 1,
            sampling: &slice.rule.sampling,
            rule: slice.rule.positions.get(place - slice.scored.len()).filter(|rule| !rule.is_plain()),
        },
    }
}

/// The token that a sampler chose or scored after `row` of `slice`, in the form that the gateway receives.
///
/// # Errors
/// [`RunnerError::Device`] when the sampler cannot use the logits, as with NaN, and [`RunnerError::Work`] when it
/// cannot use the rule.
pub(crate) fn chosen(
    slice: &Slice,
    row: &TileRow,
    sampled: Result<SampledToken, SamplingError>,
) -> Result<Chosen, RunnerError> {
    let (sequence, attempt, position) = (slice.sequence, slice.attempt, row.position + 1);
    let SampledToken { token, logprob, rank, alternatives } = sampled.map_err(|error| {
        let found = format!("{sequence}: {error}");
        let expected = "a rule that allows a token, and tokens of the vocabulary".to_owned();
        if error.is_about_rule() {
            RunnerError::Work { field: "rule", found, expected }
        } else {
            RunnerError::Device(found)
        }
    })?;
    Ok(Chosen { sequence, attempt, position, token, logprob, rank, alternatives })
}

/// The hidden state `values` of `row` of `slice`, in the form that the gateway receives.
///
/// # Errors
/// [`RunnerError::Device`] when a value is not finite.
pub(crate) fn hidden_state(slice: &Slice, row: &TileRow, values: Vec<f32>) -> Result<HiddenState, RunnerError> {
    let (sequence, attempt, position) = (slice.sequence, slice.attempt, row.position);
    match values.iter().find(|value| !value.is_finite()) {
        None => Ok(HiddenState { sequence, attempt, position, values }),
        Some(found) => {
            let reason = format!("{sequence}: a hidden state has the value {found}: expected finite numbers");
            Err(RunnerError::Device(reason))
        }
    }
}

/// The error of a shard that is asked for a result that only the last one has.
pub(crate) fn no_output_head() -> RunnerError {
    let (found, expected) =
        ("a shard without the last layer".to_owned(), "the last one, which has the output head".to_owned());
    RunnerError::Work { field: "shard", found, expected }
}
