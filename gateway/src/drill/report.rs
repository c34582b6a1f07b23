//! The outcome of a drill with its figures.

use std::fmt;

use schema::{LayerRange, StageName};
use serde::Serialize;

use super::fault::Fault;
use super::plan::DrillPlan;
use super::progress::ms;
use super::recording::Recording;
use super::verdict::{Difference, DrillVerdict};
use super::victim::Victim;

/// The outcome of a drill, as `--json` prints it and dashboards show it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DrillReport {
    /// The outcome.
    pub verdict: DrillVerdict,
    /// The first place at which the answers differ.
    pub difference: Option<Difference>,
    /// The fault.
    pub fault: Fault,
    /// The stage that it happened to. `None` for the store.
    pub stage: Option<StageName>,
    /// Its layers.
    pub layers: Option<LayerRange>,
    /// The model.
    pub model: String,
    /// The seed of both answers.
    pub seed: u64,
    /// The number of the last token before the fault.
    pub fault_after_tokens: usize,
    /// The undisturbed answer.
    pub undisturbed: AnswerFigures,
    /// The disturbed answer.
    pub disturbed: AnswerFigures,
    /// True if the fault was undone before the answer was complete, because no token came.
    pub relieved: bool,
    /// Time from the end of the answer until the cluster was whole, in milliseconds. `None` if it was not in time.
    pub whole_again_ms: Option<u64>,
    /// The lack of the cluster, if it was not whole in time.
    pub lacks: Option<String>,
}

/// The figures of one answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AnswerFigures {
    /// Number of its tokens.
    pub tokens: usize,
    /// Bytes of its text.
    pub text_bytes: usize,
    /// BLAKE3 of the ids of its tokens (little-endian, 32 bits each) and its text.
    pub hash: String,
    /// Time until the last token, in milliseconds.
    pub took_ms: u64,
    /// The longest time between two tokens, in milliseconds.
    pub longest_gap_ms: u64,
    /// The number of times that it was begun.
    pub attempts: u32,
}

// === impl DrillReport ===

impl DrillReport {
    /// The report on `undisturbed` and `disturbed`, before it is known whether the cluster is whole.
    pub(super) fn new(
        plan: &DrillPlan,
        model: &str,
        victim: Option<&Victim>,
        undisturbed: &Recording,
        disturbed: &Disturbed,
    ) -> Self {
        let (verdict, difference) = DrillVerdict::new(plan.fault, undisturbed, &disturbed.recording);
        Self {
            verdict,
            difference,
            fault: plan.fault,
            stage: victim.map(|victim| victim.stage.clone()),
            layers: victim.map(|victim| victim.layers),
            model: model.to_owned(),
            seed: plan.seed,
            fault_after_tokens: disturbed.fault_after,
            undisturbed: AnswerFigures::new(undisturbed),
            disturbed: AnswerFigures::new(&disturbed.recording),
            relieved: disturbed.relieved,
            whole_again_ms: None,
            lacks: None,
        }
    }

    /// True if the answers are equal, the fault was felt and the cluster is whole.
    pub fn is_passed(&self) -> bool {
        self.verdict == DrillVerdict::Equal && self.lacks.is_none()
    }
}

/// The answer that the fault came into.
#[derive(Debug, Clone, Default)]
pub(super) struct Disturbed {
    pub(super) recording: Recording,
    pub(super) fault_after: usize,
    pub(super) relieved: bool,
}

impl fmt::Display for DrillReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tokens, bytes) = (self.disturbed.tokens, self.disturbed.text_bytes);
        match (self.verdict, &self.difference) {
            (DrillVerdict::Equal, _) => write!(
                f,
                "EQUAL: all {tokens} tokens and {bytes} bytes of text are those of the undisturbed answer; pause {}, \
                 undisturbed {}",
                ms(self.disturbed.longest_gap()),
                ms(self.undisturbed.longest_gap())
            ),
            (DrillVerdict::Unfelt, _) => f.write_str(
                "UNFELT: the answers are equal, but the fault came too late to disturb the second one: ask for more \
                 tokens (--tokens)",
            ),
            (DrillVerdict::Different, Some(difference)) => write!(f, "DIFFERENT: {difference}"),
            (DrillVerdict::Different, None) => f.write_str("DIFFERENT"),
        }
    }
}

// === impl AnswerFigures ===

impl AnswerFigures {
    fn new(recording: &Recording) -> Self {
        let mut hasher = blake3::Hasher::new();
        for id in &recording.token_ids {
            hasher.update(&id.to_le_bytes());
        }
        hasher.update(recording.text.as_bytes());
        Self {
            tokens: recording.token_ids.len(),
            text_bytes: recording.text.len(),
            hash: hasher.finalize().to_hex().to_string(),
            took_ms: recording.took.as_millis() as u64,
            longest_gap_ms: recording.longest_gap.as_millis() as u64,
            attempts: recording.attempts,
        }
    }

    fn longest_gap(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.longest_gap_ms)
    }
}
