//! `POST /distributed/plan`: the placement that a pin would lead to. `POST /distributed/pins`: writes or deletes a pin.
//!
//! A pin moves weights between machines, so that a web page of somebody else must not be able to write one: only pages
//! of this server and programs that are no browsers may, and only as JSON. Where there are API keys, they need one.

use std::sync::Arc;

use bytes::Bytes;
use engine::membership::{delete_pin, put_pin};
use engine::store::{Committed, SharedStore};
use engine::view::ClusterView;
use http::{HeaderMap, StatusCode};
use schema::record::Pin;
use schema::{Key, Keyspace, StageName};
use serde::{Deserialize, Serialize};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};

use super::sender;
use crate::http::app_state::AppState;
use crate::http::error::{ApiError, json_response};
use crate::http::page::{content, of_cluster};
use crate::http::served_model::ServedModel;
use crate::placement_plan::{PlanDocument, assume_pin};

/// Writes pins into the cluster's store.
#[derive(Clone)]
pub struct PinStore {
    /// The store.
    pub store: SharedStore,
    /// The cluster's keys in it.
    pub keyspace: Keyspace,
}

/// The body of both requests.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PinRequest {
    stage: StageName,
    /// The pin. `null` removes it.
    pin: Option<Pin>,
    /// The revision of the pin that the client saw. `null`: there was none. Only for writing.
    #[serde(default)]
    seen: Option<u64>,
}

/// The plan with the pin, and what the store would hold.
#[derive(Debug, Serialize)]
struct PinPlan<'a> {
    stage: &'a StageName,
    pin: Option<Pin>,
    /// The pin that stands, and its revision.
    current: Option<Pin>,
    seen: Option<u64>,
    /// The reason for which the stages would not obey the pin.
    refused: Option<&'a str>,
    /// The key that is written or deleted.
    key: Option<String>,
    plan: &'a PlanDocument,
}

/// The answer to a pin that was written.
#[derive(Debug, Serialize)]
struct Written<'a> {
    stage: &'a StageName,
    pin: Option<Pin>,
    /// The pin that stood before.
    before: Option<Pin>,
    /// The revision of the pin that was written.
    seen: Option<u64>,
}

/// The filter for `POST /distributed/plan` over `state`.
pub(super) fn plan_filter(state: &Arc<AppState>) -> BoxedFilter<(Response,)> {
    warp::path!("distributed" / "plan")
        .and(warp::post())
        .and(of_cluster(state))
        .and(content(state))
        .map(|model: Result<Arc<ServedModel>, ApiError>, body| {
            model.and_then(|model| preview(&model, body)).unwrap_or_else(Reply::into_response)
        })
        .boxed()
}

/// The filter for `POST /distributed/pins` over `state`.
pub(super) fn write_filter(state: &Arc<AppState>) -> BoxedFilter<(Response,)> {
    warp::path!("distributed" / "pins")
        .and(warp::post())
        .and(of_cluster(state))
        .and(warp::header::headers_cloned())
        .and(content(state))
        .then(|model: Result<Arc<ServedModel>, ApiError>, headers: HeaderMap, body| async move {
            match model {
                Ok(model) => write(&model, &headers, body).await.unwrap_or_else(Reply::into_response),
                Err(error) => error.into_response(),
            }
        })
        .boxed()
}

fn preview(state: &ServedModel, body: Result<Bytes, ApiError>) -> Result<Response, ApiError> {
    let request = PinRequest::read(&body?)?;
    let view = state.pipeline.view();
    let (current, seen) = standing(&view, &request.stage);
    let plan = request.plan(&view);
    let refused = request.refusal(&plan);
    let key = state.pins.as_ref().map(|pins| pins.keyspace.name(&Key::Pin(request.stage.clone())));
    let PinRequest { stage, pin, .. } = &request;
    let body = PinPlan { stage, pin: *pin, current, seen, refused, key, plan: &plan };
    Ok(json_response(StatusCode::OK, &body))
}

async fn write(state: &ServedModel, headers: &HeaderMap, body: Result<Bytes, ApiError>) -> Result<Response, ApiError> {
    sender::check(headers)?;
    let request = PinRequest::read(&body?)?;
    let Some(pins) = &state.pins else {
        let message = "This server takes no pins over HTTP: it was started with --web-pins off. Use `baton pin`.";
        return Err(ApiError::forbidden("pins_not_allowed", message));
    };
    let view = state.pipeline.view();
    if !view.reachable {
        return Err(ApiError::unavailable("The store does not answer: the pin was not written."));
    }
    let (before, seen) = standing(&view, &request.stage);
    let changed = || {
        let message = format!("The pin of stage {} has changed meanwhile: look at it again.", request.stage);
        ApiError::conflict("pin_changed", message)
    };
    if seen != request.seen {
        return Err(changed());
    }
    let plan = request.plan(&view);
    if let Some(refused) = request.refusal(&plan) {
        return Err(ApiError::bad_request("pin_refused", format!("The stages would not obey this pin: {refused}.")));
    }
    let PinRequest { stage, pin, .. } = &request;
    let txn = match (pin, seen) {
        (Some(pin), _) => put_pin(&pins.keyspace, stage, pin, seen),
        (None, Some(seen)) => delete_pin(&pins.keyspace, stage, seen),
        (None, None) => {
            return Err(ApiError::not_found("pin_not_found", format!("Stage {stage} has no pin to remove.")));
        }
    };
    match pins.store.commit(txn).await {
        Ok(Committed::Applied { revision }) => {
            tracing::info!(%stage, pin = pin.map(|pin| pin.to_string()), "a pin was written over HTTP");
            let seen = pin.map(|_| revision.0);
            Ok(json_response(StatusCode::OK, &Written { stage, pin: *pin, before, seen }))
        }
        Ok(Committed::Refused) => Err(changed()),
        Err(error) => Err(ApiError::unavailable(format!("The pin was not written: {error}."))),
    }
}

/// The pin of a stage, if it can be read, and its revision.
fn standing(view: &ClusterView, stage: &StageName) -> (Option<Pin>, Option<u64>) {
    let pin = view.pins.get(stage);
    let unreadable = view.unreadable_pins.get(stage).map(|pin| pin.mod_revision);
    (pin.map(|pin| pin.value), pin.map(|pin| pin.mod_revision).or(unreadable))
}

// === impl PinRequest ===

impl PinRequest {
    fn read(body: &[u8]) -> Result<Self, ApiError> {
        serde_json::from_slice(body).map_err(|error| {
            let expected = r#"{"stage": "NAME", "pin": {"layers": [0, 12]} or null, "seen": REVISION or null}"#;
            ApiError::bad_request("invalid_pin", format!("Expected {expected}: {error}."))
        })
    }

    /// The plan of the stages with this pin.
    fn plan(&self, view: &ClusterView) -> PlanDocument {
        let mut view = view.clone();
        assume_pin(&mut view, &self.stage, self.pin);
        PlanDocument::new(&view)
    }

    fn refusal<'a>(&self, plan: &'a PlanDocument) -> Option<&'a str> {
        plan.refused_pins.iter().find(|refused| refused.stage == self.stage).map(|refused| refused.reason.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_with_an_unknown_field_is_refused() {
        let read = |text: &str| PinRequest::read(text.as_bytes());
        let request = read(r#"{"stage":"a","pin":{"layers":[0,4]},"seen":7}"#).unwrap();
        assert_eq!((request.stage.as_str(), request.seen), ("a", Some(7)));
        assert!(read(r#"{"stage":"a","pin":null}"#).unwrap().pin.is_none());
        for invalid in [
            "",
            "[]",
            r#"{"stage":"a","pin":{"layers":[4,0]}}"#,
            r#"{"stage":"../x","pin":null}"#,
            r#"{"stage":"a","pin":null,"force":true}"#,
            r#"{"pin":null}"#,
        ] {
            assert!(read(invalid).unwrap_err().message().starts_with("Expected {"), "{invalid}");
        }
    }
}
