//! `GET /slots`: the sequences that run. llama-server keeps a fixed number of slots, each with its own part of the
//! context, and lists the idle ones, too. Here sequences share one pool, so that only those that run can be listed.

use std::sync::Arc;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};

use crate::http::app_state::AppState;
use crate::http::error::{ApiError, json_response};
use crate::http::page::of_cluster;
use crate::http::served_model::ServedModel;

/// One running sequence.
#[derive(Debug, Serialize)]
struct Slot {
    id: usize,
    /// Most tokens of a sequence.
    n_ctx: u32,
    is_processing: bool,
}

/// The query.
#[derive(Debug, Default, Deserialize)]
struct Query {
    /// `1` asks for a 503 if a new sequence would have to wait.
    fail_on_no_slot: Option<String>,
}

/// The filter for the page over `state`.
pub(super) fn filter(state: &Arc<AppState>) -> BoxedFilter<(Response,)> {
    let query = warp::query::<Query>().or(warp::any().map(Query::default)).unify();
    warp::path!("slots")
        .and(warp::get())
        .and(of_cluster(state))
        .and(query)
        .map(|model: Result<Arc<ServedModel>, ApiError>, query: Query| {
            model.and_then(|model| show(&model, &query)).unwrap_or_else(Reply::into_response)
        })
        .boxed()
}

fn show(state: &ServedModel, query: &Query) -> Result<Response, ApiError> {
    let status = state.pipeline.status();
    if query.fail_on_no_slot.as_deref() == Some("1") {
        state.check_serving()?;
        if status.waiting > 0 {
            let message = format!("A new request would have to wait: {} wait already.", status.waiting);
            return Err(ApiError::unavailable(message));
        }
    }
    let n_ctx = state.context_tokens();
    let slots: Vec<_> = (0..status.running).map(|id| Slot { id, n_ctx, is_processing: true }).collect();
    Ok(json_response(StatusCode::OK, &slots))
}
