//! A progress bar while the stages of `baton up` load their layers, on stderr if that is a terminal.

use std::time::Duration;

use engine::view::ClusterView;
use indicatif::{ProgressBar, ProgressStyle};

/// Interval at which the bar looks at the stages' records, which they write every two seconds.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The bar. Its unit is bytes of weights in memory, as the operating system counts them.
const TEMPLATE: &str = "loading {wide_bar} {bytes}/{total_bytes} {msg}";

/// The bar, until the cluster serves for the first time.
pub(super) struct LoadBar(ProgressBar);

// === impl LoadBar ===

impl LoadBar {
    /// A bar that shows nothing yet. It never does where stderr is no terminal.
    pub(super) fn new() -> Self {
        let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(ProgressBar::no_length().with_style(style))
    }

    /// Shows how much of the claimed weights is in memory, and which stages serve already.
    pub(super) fn look(&self, view: &ClusterView) {
        let (bytes, total, serving, claims) = progress(view);
        if claims > 0 {
            self.0.set_length(total);
            self.0.set_position(bytes.min(total));
            self.0.set_message(format!("{serving} of {claims} stages serve"));
        }
    }

    /// Prints a line above the bar.
    pub(super) fn suspend(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

/// Bytes of the claimed weights that are in memory, all of them, the claims that serve, and all claims.
fn progress(view: &ClusterView) -> (u64, u64, usize, usize) {
    let claims = view.claims.values().map(|claim| &claim.value);
    let (mut bytes, mut total, mut serving, mut count) = (0, 0, 0, 0);
    for claim in claims {
        let serves = claim.state == schema::record::ClaimState::Serving;
        let resident = view.stages.get(&claim.stage).map_or(0, |stage| stage.value.load.memory.weights_resident_bytes);
        bytes += if serves { claim.weights_bytes } else { resident.min(claim.weights_bytes) };
        total += claim.weights_bytes;
        serving += usize::from(serves);
        count += 1;
    }
    (bytes, total, serving, count)
}
