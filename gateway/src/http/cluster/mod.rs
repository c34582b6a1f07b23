//! Pages about the cluster and this process, for operators, monitors and people. They belong to no API's dialect.

mod drill;
mod drill_course;
mod gpu_info;
mod health;
mod metrics;
mod pins;
mod sender;
mod status;

use std::sync::Arc;

use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::app_state::AppState;
use super::live;
use super::page::{Page, READ, READ_OR_WRITE, WRITE, get};

pub use drill::DrillRunner;
pub use pins::PinStore;

pub(super) use status::status_value;

pub(super) const PAGES: &[Page] = &[
    Page { path: "/health", methods: READ, description: "200 when requests are served, else 503 and the reason" },
    Page { path: "/metrics", methods: READ, description: "counters and gauges, for Prometheus" },
    Page { path: "/distributed/status", methods: READ, description: "the layers, memory and speed of each stage" },
    Page { path: "/distributed/events", methods: READ, description: "the same and more, live, as server-sent events" },
    Page { path: "/distributed/plan", methods: WRITE, description: "the placement that a pin would lead to" },
    Page { path: "/distributed/pins", methods: WRITE, description: "writes a pin, or removes it" },
    Page { path: "/distributed/drill", methods: READ_OR_WRITE, description: "a drill of this cluster, and its course" },
    Page { path: "/distributed/gpu-info", methods: READ, description: "the device of each stage" },
];

/// The filters for these pages over `state`.
pub(super) fn filters(state: &Arc<AppState>) -> Vec<BoxedFilter<(Response,)>> {
    vec![
        get(warp::path!("health"), state, health::show),
        metrics::filter(state),
        get(warp::path!("distributed" / "status"), state, status::show),
        live::filter(state),
        pins::plan_filter(state),
        pins::write_filter(state),
        drill::start_filter(state),
        get(warp::path!("distributed" / "drill"), state, drill::show),
        get(warp::path!("distributed" / "gpu-info"), state, gpu_info::show),
    ]
}
