//! The sign that a prompt is being read, on stderr if that is a terminal: a bar where the endpoint tells how much of it
//! is computed, else the time alone.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::chat::ComputedPrompt;

/// Interval at which it moves.
const PERIOD: Duration = Duration::from_millis(120);
const UNKNOWN: &str = "{spinner} reading the prompt, {elapsed}";
const KNOWN: &str = "{spinner} reading the prompt {bar:30} {human_pos} of {human_len} tokens, {elapsed}";

/// Shown until it is cleared.
pub(super) struct PromptSign(ProgressBar);

// === impl PromptSign ===

impl PromptSign {
    /// A sign with the time alone.
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new_spinner().with_style(style(UNKNOWN));
        bar.enable_steady_tick(PERIOD);
        Self(bar)
    }

    /// Shows how much of the prompt is computed.
    pub(super) fn show(&self, progress: ComputedPrompt) {
        if self.0.length().is_none() {
            self.0.set_style(style(KNOWN));
        }
        self.0.set_length(progress.total);
        self.0.set_position(progress.processed.min(progress.total));
    }

    /// Takes it away.
    pub(super) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
