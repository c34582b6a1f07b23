//! The part of the state that changes by patches: the cluster as `/distributed/status` shows it, with the stages by
//! name, the requests by number, and the drill that runs or ran last.

use engine::generate::{SequencePhase, SequenceReport};
use serde_json::{Map, Value, json};

use crate::http::cluster::status_value;
use crate::http::served_model::ServedModel;
use crate::merge_patch::without_nulls;

/// The lists of the status whose entries have a name, with the key of that name.
const NAMED_LISTS: [(&str, &str); 3] = [("stages", "name"), ("pins", "stage"), ("gateways", "slot")];

/// The snapshot of `state` as it is now.
pub(super) fn take(state: &ServedModel) -> Value {
    let mut cluster = status_value(state);
    for (list, key) in NAMED_LISTS {
        by_name(&mut cluster, list, |entry| text(&entry[key]));
    }
    by_name(&mut cluster, "links", |link| [&link["from"], &link["to"], &link["address"]].map(text).join(" "));
    let requests: Map<_, _> =
        state.pipeline.sequences().iter().map(|report| (report.id.to_string(), request(report))).collect();
    let drills = state.drills.as_ref();
    let offered = drills.map(|drills| drills.offered());
    let controls = json!({"pins": state.pins.is_some(), "drill": offered, "version": env!("CARGO_PKG_VERSION")});
    let drill = drills.and_then(|drills| drills.course());
    without_nulls(json!({"cluster": cluster, "requests": requests, "controls": controls, "drill": drill}))
}

/// Turns a list of the status into an object, so that a patch need not repeat the whole list.
fn by_name(cluster: &mut Value, list: &str, name: impl Fn(&Value) -> String) {
    let Some(Value::Array(entries)) = cluster.get_mut(list).map(Value::take) else { return };
    cluster[list] = entries.into_iter().map(|entry| (name(&entry), entry)).collect::<Map<_, _>>().into();
}

/// A name as it is, or a number in digits.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn request(report: &SequenceReport) -> Value {
    let (phase, before) = match report.phase {
        SequencePhase::Waiting { before } => ("waiting", Some(before)),
        SequencePhase::Prefill => ("prefill", None),
        SequencePhase::Decode => ("decode", None),
    };
    let ms = |time: std::time::Duration| time.as_millis() as u64;
    let stages = report.stages.iter().map(|stage| {
        json!({"stage": stage.stage, "layers": stage.layers, "rows": stage.rows, "compute_ms": ms(stage.compute)})
    });
    json!({
        "phase": phase,
        "before": before,
        "prompt_tokens": report.prompt_tokens,
        "generated_tokens": report.generated_tokens,
        "tokens_left": report.tokens_left,
        "sent_tokens": report.sent_tokens,
        "attempts": report.attempts,
        "age_ms": ms(report.age),
        "in_flight": report.in_flight,
        "in_flight_ms": ms(report.in_flight_for),
        "stages": stages.collect::<Vec<_>>(),
    })
}
