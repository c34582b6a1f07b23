//! `POST /distributed/drill`: a drill of this cluster, by this machine's stages. `GET` shows the one that runs, or the
//! last one; dashboards see it in their events.
//!
//! A drill kills or freezes a process, so the setting must allow it, and requests are guarded as those that write pins.
//! Its course is that of `baton drill --url`: it is a client of this server, with the key of whoever asked for it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use schema::StageName;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::timeout;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};

use super::drill_course::DrillCourse;
use super::sender;
use crate::client::{ApiSecret, Endpoint, Target, TrustedCertificates};
use crate::drill::{self, DEFAULT_SEED, DEFAULT_TOKENS, DrillError, DrillPlan, Fault, Gateway, TOKENS_MAX, TOKENS_MIN};
use crate::error_chain::chain;
use crate::http::app_state::AppState;
use crate::http::auth::presented;
use crate::http::error::{ApiError, json_response};
use crate::http::limits::DRILL_TIME_MAX;
use crate::http::page::{content, of_cluster};
use crate::http::served_model::ServedModel;

/// The faults that a gateway can bring about truthfully wherever it may signal the stages of its machine.
const OFFERED: [Fault; 2] = [Fault::Kill, Fault::Freeze];

/// Runs drills of the cluster that this server is a gateway of, one at a time.
#[derive(Debug)]
pub struct DrillRunner {
    /// The address at which the drill reaches this server, as others do.
    url: String,
    trusted: TrustedCertificates,
    /// The name of this machine in its stages' records.
    host: String,
    course: watch::Sender<Option<DrillCourse>>,
}

/// The drills that a dashboard can offer.
#[derive(Debug, Serialize)]
pub(crate) struct OfferedDrills<'a> {
    /// The machine whose stages can be disturbed.
    host: &'a str,
    faults: [Fault; 2],
}

/// The body of the request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DrillRequest {
    #[serde(default)]
    fault: Fault,
    /// `None` for the middle one.
    #[serde(default)]
    stage: Option<StageName>,
    #[serde(default)]
    tokens: Option<u32>,
}

/// The filter for `POST /distributed/drill` over `state`.
pub(super) fn start_filter(state: &Arc<AppState>) -> BoxedFilter<(Response,)> {
    warp::path!("distributed" / "drill")
        .and(warp::post())
        .and(of_cluster(state))
        .and(warp::header::headers_cloned())
        .and(content(state))
        .then(|model: Result<Arc<ServedModel>, ApiError>, headers: HeaderMap, body| async move {
            match model {
                Ok(model) => start(&model, &headers, body).await.unwrap_or_else(Reply::into_response),
                Err(error) => error.into_response(),
            }
        })
        .boxed()
}

/// The course of the drill that runs or ran last, or `null`.
pub(super) fn show(state: &ServedModel) -> Response {
    json_response(StatusCode::OK, &state.drills.as_ref().and_then(|drills| drills.course()))
}

async fn start(state: &ServedModel, headers: &HeaderMap, body: Result<Bytes, ApiError>) -> Result<Response, ApiError> {
    sender::check(headers)?;
    let plan = DrillRequest::read(&body?)?;
    let Some(drills) = &state.drills else {
        let message = "This server runs no drills: it was started without --web-drill on. Use `baton drill`.";
        return Err(ApiError::forbidden("drills_not_allowed", message));
    };
    let secret = presented(headers).next().and_then(|secret| ApiSecret::new(std::str::from_utf8(secret).ok()?));
    let course = drills.start(plan, secret).await?;
    Ok(json_response(StatusCode::ACCEPTED, &course))
}

/// The reason for which there is no report, as a person at a web page reads it.
fn reason(error: &DrillError) -> String {
    match error {
        DrillError::Busy { url, found } => {
            format!("{found} at {url}, which a drill would interrupt: wait until there are none")
        }
        DrillError::Unknown { url, .. } => format!("cannot ask the gateway {url} whether it serves other clients"),
        DrillError::OtherMachine { stage, host, .. } => {
            format!("stage {stage} runs on {host}: run `baton drill` there")
        }
        other => chain(other),
    }
}

// === impl DrillRunner ===

impl DrillRunner {
    /// Drills of the cluster whose gateway is this server, at `url`, on the machine `host`.
    pub fn new(url: String, trusted: TrustedCertificates, host: String) -> Self {
        Self { url, trusted, host, course: watch::Sender::default() }
    }

    pub(crate) fn offered(&self) -> OfferedDrills<'_> {
        OfferedDrills { host: &self.host, faults: OFFERED }
    }

    pub(crate) fn course(&self) -> Option<DrillCourse> {
        self.course.borrow().clone()
    }

    /// Starts a drill, which goes on if the request that wanted it ends. Returns its course once it has a victim.
    async fn start(self: &Arc<Self>, plan: DrillPlan, api_key: Option<ApiSecret>) -> Result<DrillCourse, ApiError> {
        let is_free = self.course.send_if_modified(|course| {
            let is_free = course.as_ref().is_none_or(|course| !course.is_running());
            if is_free {
                *course = Some(DrillCourse::default());
            }
            is_free
        });
        if !is_free {
            return Err(ApiError::conflict("drill_running", "A drill runs already: wait for its end."));
        }
        let mut courses = self.course.subscribe();
        tokio::spawn(Arc::clone(self).run(plan, api_key));
        let decided = courses.wait_for(|course| course.as_ref().is_some_and(DrillCourse::is_decided)).await;
        let course = decided.ok().and_then(|course| course.clone()).unwrap_or_default();
        match course.refusal() {
            Some(reason) => Err(ApiError::conflict("drill_refused", format!("There is no drill: {reason}."))),
            None => Ok(course),
        }
    }

    async fn run(self: Arc<Self>, plan: DrillPlan, api_key: Option<ApiSecret>) {
        tracing::info!(fault = %plan.fault, stage = ?plan.stage, "a drill was started over HTTP");
        let mut observe = |progress| self.change(|course| course.push(&progress));
        let drilling = async {
            let endpoint: Endpoint = self.url.parse()?;
            let gateway = Gateway::new(Target { endpoint, api_key }, self.trusted.clone());
            let gateway = gateway.map_err(|error| reason(&error))?;
            drill::run(&gateway, None, &plan, &mut observe).await.map_err(|error| reason(&error))
        };
        let late = || format!("it took more than {} s, so the fault was undone", DRILL_TIME_MAX.as_secs());
        let ended = timeout(DRILL_TIME_MAX, drilling).await.unwrap_or_else(|_| Err(late()));
        self.change(|course| course.end(ended));
    }

    fn change(&self, change: impl FnOnce(&mut DrillCourse)) {
        self.course.send_modify(|course| change(course.get_or_insert_default()));
    }
}

// === impl DrillRequest ===

impl DrillRequest {
    fn read(body: &[u8]) -> Result<DrillPlan, ApiError> {
        let invalid = |found: String| {
            let offered = OFFERED.map(|fault| format!("\"{fault}\"")).join(" or ");
            let expected =
                format!(r#"{{"fault": {offered}, "stage": NAME or null, "tokens": {TOKENS_MIN} to {TOKENS_MAX}}}"#);
            ApiError::bad_request("invalid_drill", format!("Expected {expected}: {found}."))
        };
        // Not at once, because a list without values would do for a request without fields.
        let object = serde_json::from_slice::<Map<String, Value>>(body).map_err(|error| invalid(error.to_string()))?;
        let read = Self::deserialize(Value::Object(object)).map_err(|error| invalid(error.to_string()));
        let Self { fault, stage, tokens } = read?;
        if !OFFERED.contains(&fault) {
            return Err(invalid(format!("only `baton drill` brings about the fault {fault}")));
        }
        let tokens = tokens.unwrap_or(DEFAULT_TOKENS);
        if !(TOKENS_MIN..=TOKENS_MAX).contains(&tokens) {
            return Err(invalid(format!("found {tokens} tokens")));
        }
        Ok(DrillPlan { fault, stage, tokens, seed: DEFAULT_SEED, yes: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_a_fault_that_is_offered_a_stage_and_a_number_of_tokens() {
        let plan = DrillRequest::read(br#"{"fault":"freeze","stage":"b","tokens":32}"#).unwrap();
        assert_eq!((plan.fault, plan.stage.unwrap().as_str(), plan.tokens), (Fault::Freeze, "b", 32));
        assert!(!plan.yes, "requests of others are never interrupted");
        let plan = DrillRequest::read(b"{}").unwrap();
        assert_eq!((plan.fault, plan.stage, plan.tokens), (Fault::Kill, None, DEFAULT_TOKENS));
        for invalid in [
            "",
            "[]",
            r#"{"fault":"cut"}"#,
            r#"{"fault":"store"}"#,
            r#"{"fault":"burn"}"#,
            r#"{"stage":"../x"}"#,
            r#"{"tokens":7}"#,
            r#"{"tokens":4097}"#,
            r#"{"yes":true}"#,
        ] {
            let error = DrillRequest::read(invalid.as_bytes()).unwrap_err();
            assert!(error.message().starts_with(r#"Expected {"fault": "kill" or "freeze""#), "{}", error.message());
        }
    }
}
