//! The stages of the page: layers, state, memory to scale, work, and the link to the next one. Pure.

use super::super::output::bytes;
use super::fitted_table::{self, Column, column};
use super::link_loads::LinkLoads;
use super::picture::{Cluster, Memory, Stage};
use super::units::{duration, layers, number, percent};

const COLUMNS: [Column; 15] = [
    column("STAGE", 0),
    column("HOST", 3),
    column("DEVICE", 8),
    column("LAYERS", 0),
    column("STATE", 0),
    column("BOUND", 0),
    column("MEASURED", 0),
    column("█ WEIGHTS ▓ KV ▒ SCRATCH", 4),
    column("BUSY", 0),
    column("NO INPUT", 2),
    column("LINK FULL", 5),
    column("ROWS/S", 6),
    column("RTT", 1),
    column("SENDS", 1),
    column("VIA", 7),
];
/// Columns of the strip of memory.
const STRIP: usize = 24;
/// A budget over so many times of what is used is cut: else nothing is seen of what is used.
const CUT_FACTOR: u64 = 4;

/// The first `rows_max` stages in the order of the pipeline.
pub(super) fn render(cluster: &Cluster, loads: &LinkLoads, rows_max: usize, width: usize) -> Vec<String> {
    let stages = cluster.ordered();
    let scale = scale(stages.iter().map(|stage| &stage.memory));
    let rows: Vec<_> =
        stages.iter().take(rows_max).map(|stage| row(stage, next(&stages, stage), loads, scale)).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    fitted_table::render(&COLUMNS, &rows, width)
}

/// Sentences about the stages that are not well.
pub(super) fn reasons(cluster: &Cluster) -> impl Iterator<Item = String> {
    cluster.ordered().into_iter().filter_map(|stage| {
        let reason = stage.reason.as_ref().filter(|_| stage.state != "serving")?;
        Some(format!("stage {} is {}: {reason}", stage.name, stage.state))
    })
}

fn row(stage: &Stage, next: Option<&Stage>, loads: &LinkLoads, scale: u64) -> [String; 15] {
    // A dash stands for what is not known.
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let share = |share: Option<f64>| or_dash(share.map(percent));
    let held = match &stage.standby[..] {
        [] => layers(stage.layers),
        [first, ..] if stage.layers.is_none() => format!("({first})"),
        _ => layers(stage.layers),
    };
    let link = stage.link_us.filter(|us| *us > 0 && stage.layers.is_some());
    let sends = loads.of(&stage.name).map(|rate| format!("{}/s", bytes(rate.round() as u64)));
    [
        stage.name.clone(),
        or_dash(stage.host.clone()),
        or_dash(stage.device.clone()),
        held,
        stage.state.clone(),
        or_dash(stage.memory.bound_bytes.map(bytes)),
        or_dash(stage.memory.measured().map(bytes)),
        strip(&stage.memory, scale),
        share(stage.busy),
        share(stage.idle_input),
        share(stage.idle_output),
        or_dash(stage.tokens_per_second.map(number)),
        // One way is measured; people know the way there and back.
        or_dash(link.map(|us| duration(us as f64 * 2.0 / 1000.0))),
        or_dash(sends),
        or_dash(next.map(via)),
    ]
}

/// The stage that takes what `stage` computes.
fn next<'a>(stages: &[&'a Stage], stage: &Stage) -> Option<&'a Stage> {
    let end = stage.layers?.end();
    stages.iter().find(|next| next.layers.is_some_and(|layers| layers.start() == end)).copied()
}

/// The interface that carries the frames to `stage`.
fn via(stage: &Stage) -> String {
    match &stage.interface {
        _ if stage.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("ipc:")) => {
            "same machine".to_owned()
        }
        Some(interface) => format!("{} ({})", interface.name, format!("{:?}", interface.kind).to_lowercase()),
        None => "unknown".to_owned(),
    }
}

/// The bytes that a whole strip stands for, the same in all rows.
fn scale<'a>(memories: impl Iterator<Item = &'a Memory>) -> u64 {
    let (mut needed, mut budget) = (1, 1);
    for memory in memories {
        needed = needed.max(memory.bound_bytes.unwrap_or(0)).max(memory.measured().unwrap_or(0));
        budget = budget.max(memory.budget_bytes.unwrap_or(0));
    }
    if needed > 1 && budget > needed.saturating_mul(CUT_FACTOR) { needed / 5 * 7 } else { budget.max(needed) }
}

/// The memory to scale: the parts of the bound, what is free, and a bar where the measured bytes end.
fn strip(memory: &Memory, scale: u64) -> String {
    let Some(bound) = memory.bound_bytes else { return String::new() };
    let place = |bytes: u64| ((bytes as f64 / scale as f64 * STRIP as f64).round() as usize).min(STRIP);
    let weights = memory.weights_bytes.unwrap_or(0).min(bound);
    let kv = weights.saturating_add(memory.kv_bytes.unwrap_or(0)).min(bound);
    let budget = memory.budget_bytes.unwrap_or(bound);
    let mut cells: Vec<char> = (0..STRIP)
        .map(|at| match at {
            at if at < place(weights) => '█',
            at if at < place(kv) => '▓',
            at if at < place(bound) => '▒',
            at if at < place(budget) => '·',
            _ => ' ',
        })
        .collect();
    if let Some(cell) = memory.measured().and_then(|bytes| cells.get_mut(place(bytes).min(STRIP - 1))) {
        *cell = '|';
    }
    cells.into_iter().collect()
}
