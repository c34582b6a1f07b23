//! The table of stages: layers, state, memory bound and used, work. Pure.

use super::super::output::bytes;
use super::super::table::Table;
use super::stage_line::StageLine;

/// The table of `stages`.
pub(super) fn render(stages: &[StageLine]) -> String {
    let mut columns = vec![
        "STAGE", "HOST", "DEVICE", "LAYERS", "STATE", "BOUND", "USED", "FILE", "ANON", "WEIGHTS", "TOK/S", "BUSY",
        "IDLE IN", "IDLE OUT",
    ];
    // Only where a stage has copies of weights, or keys and values of windows.
    let with_copies = stages.iter().any(|stage| stage.copied_bytes.is_some_and(|bytes| bytes > 0));
    let with_windows = stages.iter().any(|stage| stage.window_kv_bytes.is_some_and(|bytes| bytes > 0));
    columns.extend(with_copies.then_some("COPIED"));
    columns.extend(with_windows.then_some(["KV", "WINDOW KV"]).into_iter().flatten());
    // Only where a stage has experts: those that a token chose, of all.
    let with_experts = stages.iter().any(|stage| stage.experts.is_some());
    columns.extend(with_experts.then_some("EXPERTS"));
    let mut table = Table::new(&columns);
    // A dash stands for an unknown value: the operating system does not report it, or the stage is not registered.
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let size = |count: Option<u64>| or_dash(count.filter(|count| *count > 0).map(bytes));
    let percent = |share: Option<f64>| or_dash(share.map(|share| format!("{:.0} %", share * 100.0)));
    for stage in stages {
        let memory = stage.memory.as_ref();
        let experts = stage.experts.as_ref().map(|experts| format!("{}/{}", experts.touched, experts.total));
        let cells = [
            stage.stage.clone(),
            or_dash(stage.host.clone()),
            or_dash(stage.device.map(|device| format!("{device:?}").to_lowercase())),
            or_dash(stage.layers.map(|layers| layers.to_string())),
            stage.state.to_owned(),
            size(stage.memory_bound_bytes),
            size(memory.map(|memory| memory.pss_bytes)),
            size(memory.map(|memory| memory.pss_file_bytes)),
            size(memory.map(|memory| memory.pss_anonymous_bytes)),
            size(memory.map(|memory| memory.weights_resident_bytes)),
            or_dash(stage.tokens_per_second.map(|rate| format!("{rate:.1}"))),
            percent(stage.busy),
            percent(stage.idle_input),
            percent(stage.idle_output),
        ];
        let copied = with_copies.then(|| size(stage.copied_bytes));
        let kv = with_windows.then(|| [size(stage.kv_bytes), size(stage.window_kv_bytes)]).into_iter().flatten();
        table.row(cells.into_iter().chain(copied).chain(kv).chain(with_experts.then(|| or_dash(experts))));
    }
    table.render()
}
