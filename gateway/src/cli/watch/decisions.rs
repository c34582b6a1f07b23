//! The decisions of the cluster, the newest sentence first. Pure.

use super::line::{PageLine, Tone, wrap};
use super::picture::Decision;
use super::units::clock;

/// Columns before a sentence: the time of day, the longest subject, and the spaces behind both.
const MARGIN: usize = 8 + 2 + 9 + 2;
/// Lines of one sentence. The rest of it is cut.
const LINES_MAX: usize = 3;

/// The newest sentences in at most `lines_max` lines.
pub(super) fn render(log: &[Decision], lines_max: usize, width: usize) -> Vec<PageLine> {
    let mut lines = Vec::new();
    for decision in log.iter().rev() {
        let wrapped = wrap(&decision.text, width.saturating_sub(MARGIN).max(20));
        let head = format!("{}  {:9}  ", clock(decision.t), decision.subject);
        for (at, text) in wrapped.iter().take(LINES_MAX).enumerate() {
            if lines.len() == lines_max {
                return lines;
            }
            let more = if at + 1 == LINES_MAX && wrapped.len() > LINES_MAX { " …" } else { "" };
            let margin = if at == 0 { head.clone() } else { " ".repeat(MARGIN) };
            lines.push(PageLine::new(Tone::Dim, &margin).with(Tone::Plain, &format!("{text}{more}")));
        }
    }
    lines
}
