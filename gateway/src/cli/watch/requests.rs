//! The requests of the page, each with its place: in the queue, in its prompt or in its answer. Pure.

use std::collections::BTreeMap;

use super::fitted_table::{self, Column, column};
use super::picture::RequestPlace;
use super::units::{duration, percent, whole};

const COLUMNS: [Column; 7] = [
    column("REQUEST", 0),
    column("PHASE", 0),
    column("PROGRESS", 2),
    column("PLACE", 0),
    column("AGE", 1),
    column("IN FLIGHT", 3),
    column("COMPUTED BY", 4),
];
/// Columns of the bar.
const BAR: usize = 12;
/// Stages that are named of those that computed.
const STAGES_MAX: usize = 3;

/// The first `rows_max` requests: those that wait first, as in the dashboard, then prompts, then answers.
pub(super) fn render(requests: &BTreeMap<String, RequestPlace>, rows_max: usize, width: usize) -> Vec<String> {
    let mut sorted: Vec<_> = requests.iter().collect();
    let order = |phase: &str| ["waiting", "prefill", "decode"].iter().position(|known| *known == phase);
    sorted.sort_by_key(|(id, request)| (order(&request.phase), request.before, id.len(), id.as_str()));
    let rows: Vec<_> = sorted.into_iter().take(rows_max).map(|(id, request)| row(id, request)).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    fitted_table::render(&COLUMNS, &rows, width)
}

fn row(id: &str, request: &RequestPlace) -> [String; 7] {
    let (done, all, place) = place(request);
    let again = if request.attempts > 1 { format!(" ({}. attempt)", request.attempts) } else { String::new() };
    let flying = match request.in_flight {
        0 => "-".to_owned(),
        count => format!("{count} for {}", duration(request.in_flight_ms as f64)),
    };
    [
        format!("#{id}"),
        format!("{}{again}", request.phase),
        bar(done, all),
        place,
        duration(request.age_ms as f64),
        flying,
        computed(request),
    ]
}

/// The tokens that are done of all, and both in words.
fn place(request: &RequestPlace) -> (u64, u64, String) {
    let history = request.prompt_tokens.saturating_add(request.generated_tokens);
    match request.phase.as_str() {
        "waiting" => {
            let words = format!("{} before it, {} prompt tokens", request.before, whole(request.prompt_tokens));
            (0, history, words)
        }
        "prefill" => {
            let sent = request.sent_tokens.min(history);
            (sent, history, format!("{} of {} tokens sent", whole(sent), whole(history)))
        }
        _ => {
            let (made, left) = (request.generated_tokens, request.tokens_left);
            (made, made.saturating_add(left), format!("{} tokens, at most {} more", whole(made), whole(left)))
        }
    }
}

fn bar(done: u64, all: u64) -> String {
    let full = (done as f64 / all.max(1) as f64 * BAR as f64).round() as usize;
    "█".repeat(full.min(BAR)) + &"░".repeat(BAR - full.min(BAR))
}

/// The shares of the stages in the time that was computed for it.
fn computed(request: &RequestPlace) -> String {
    let total: f64 = request.stages.iter().map(|stage| stage.compute_ms).sum();
    if total <= 0.0 {
        return String::new();
    }
    let shares = request.stages.iter().take(STAGES_MAX);
    let shares: Vec<_> = shares.map(|work| format!("{} {}", work.stage, percent(work.compute_ms / total))).collect();
    let more = if request.stages.len() > STAGES_MAX { ", …" } else { "" };
    shares.join(", ") + more
}
