//! `GET /metrics`: the counters of the gateway's core and of its HTTP server, and the stages' own reports, in
//! Prometheus' text format.

use std::sync::Arc;

use engine::view::ClusterView;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use prometheus::{CounterVec, GaugeVec, Opts, Registry, TextEncoder};
use schema::record::StageRecord;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};

use crate::http::app_state::AppState;
use crate::http::auth::AccessControl;
use crate::http::error::ApiError;
use crate::http::page::{of_cluster, with_state};
use crate::http::served_model::ServedModel;

/// One figure of a stage's record.
type Figure = fn(&StageRecord) -> f64;

/// The figures that a stage reports every few seconds: name, meaning, and the field of its record. Those that end in
/// `_total` are counters, the others gauges.
const FIGURES: &[(&str, &str, Figure)] = &[
    ("busy_ratio", "share of the last seconds spent computing", |stage| stage.load.busy),
    ("idle_input_ratio", "share of the last seconds with nothing to compute", |stage| stage.load.idle_input),
    ("idle_output_ratio", "share of the last seconds waiting for the link", |stage| stage.load.idle_output),
    ("memory_budget_bytes", "most memory the stage may use", |stage| stage.memory_budget_bytes as f64),
    ("memory_resident_bytes", "resident set", |stage| stage.load.memory.rss_bytes as f64),
    ("memory_proportional_bytes", "proportional set", |stage| stage.load.memory.pss_bytes as f64),
    ("memory_anonymous_bytes", "anonymous part of it", |stage| stage.load.memory.pss_anonymous_bytes as f64),
    ("weights_resident_bytes", "mapped weights that are resident", |stage| {
        stage.load.memory.weights_resident_bytes as f64
    }),
    ("experts_touched", "experts that a token has chosen since the layers were loaded", |stage| {
        stage.load.memory.experts_touched as f64
    }),
    ("process_rows_total", "token rows computed since the process started", |stage| stage.load.tokens_total as f64),
    ("process_batches_total", "micro-batches computed since then", |stage| stage.load.batches_total as f64),
    ("process_compute_seconds_total", "time spent computing since then", |stage| stage.load.compute_s_total),
    ("process_queue_seconds_total", "time micro-batches waited to be computed", |stage| stage.load.queue_s_total),
    ("process_send_seconds_total", "time until the link took what was computed", |stage| stage.load.send_s_total),
    ("process_sent_bytes_total", "activations sent to the next stage", |stage| stage.load.sent_bytes_total as f64),
    ("process_frames_refused_total", "frames refused: stale, doubled, out of order or broken", |stage| {
        stage.load.frames_refused as f64
    }),
    ("process_strikes_total", "stages evicted for not answering", |stage| stage.load.strikes_total as f64),
];

/// The filter for the page over `state`.
pub(super) fn filter(state: &Arc<AppState>) -> BoxedFilter<(Response,)> {
    warp::path!("metrics")
        .and(warp::get())
        .and(with_state(state))
        .and(of_cluster(state))
        .map(|state: Arc<AppState>, model: Result<Arc<ServedModel>, ApiError>| match model {
            Ok(model) => show(&state.access, &model),
            Err(error) => error.into_response(),
        })
        .boxed()
}

/// The metrics of one model and of the HTTP server, as text.
fn show(access: &AccessControl, model: &ServedModel) -> Response {
    let text = stages(&model.pipeline.view()).and_then(|stages| {
        let mut families = model.pipeline.metrics().gather();
        families.extend(access.metrics());
        families.extend(stages.gather());
        TextEncoder::new().encode_to_string(&families)
    });
    match text {
        Ok(text) => {
            let mut response = warp::reply::with_status(text, StatusCode::OK).into_response();
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Err(error) => ApiError::internal(format!("The metrics cannot be written: {error}.")).into_response(),
    }
}

/// The figures of the stages that are live now.
fn stages(view: &ClusterView) -> prometheus::Result<Registry> {
    let registry = Registry::new();
    for (name, help, figure) in FIGURES {
        let opts = Opts::new(format!("baton_stage_{name}"), *help);
        let figures = view.stages.iter().map(|(stage, record)| (stage.as_str(), figure(&record.value)));
        if name.ends_with("_total") {
            let counters = CounterVec::new(opts, &["stage"])?;
            // A record is another process's: what is negative or no number counts as nothing.
            figures.for_each(|(stage, value)| counters.with_label_values(&[stage]).inc_by(value.max(0.0)));
            registry.register(Box::new(counters))?;
        } else {
            let gauges = GaugeVec::new(opts, &["stage"])?;
            figures.for_each(|(stage, value)| gauges.with_label_values(&[stage]).set(value));
            registry.register(Box::new(gauges))?;
        }
    }
    let build = GaugeVec::new(Opts::new("baton_build_info", "1, with the version of the gateway"), &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
    registry.register(Box::new(build))?;
    let bounds = GaugeVec::new(
        Opts::new("baton_stage_memory_bound_bytes", "most that the stage's layers can take"),
        &["stage", "layers"],
    )?;
    for claim in view.serving().map(|served| served.claims).unwrap_or_default() {
        let (stage, layers) = (claim.value.stage.to_string(), claim.value.layers.to_string());
        bounds.with_label_values(&[&stage, &layers]).set(claim.value.memory_bound_bytes as f64);
    }
    registry.register(Box::new(bounds))?;
    Ok(registry)
}
