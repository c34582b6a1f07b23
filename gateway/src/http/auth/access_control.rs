//! The gate in front of the pages: which key a request has, and whether its limits leave room for it.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use http::request::Parts;
use http::{Method, StatusCode};
use prometheus::proto::MetricFamily;

use super::credentials;
use super::key_name::KeyName;
use super::key_ring::{KeyRing, RingKey};
use super::permit::{AtLimit, KeyState, Permit};
use super::request_meter::{RefusedBy, RequestMeter};
use crate::http::error::ApiError;
use crate::http::web;

/// The page that is open to everybody, for load balancers and supervisors.
const OPEN_PAGE: &str = "/health";

/// The keys of a running server, with their use.
#[derive(Debug)]
pub struct AccessControl {
    keys: RwLock<Keys>,
    meter: RequestMeter,
}

/// The keys that open the pages.
#[derive(Debug, Default)]
struct Keys {
    ring: KeyRing,
    /// The state of each key, in the order of the ring.
    states: Vec<Arc<KeyState>>,
}

/// The sender of a request, as far as the server knows it.
#[derive(Debug)]
pub(crate) enum Caller {
    /// Anybody: the server has no keys, or the page is open.
    Anybody,
    /// The holder of this key.
    Holder(Arc<KeyState>),
    /// The page needs a key, and the request has none.
    WithoutKey,
    /// The page needs a key, and the request has one that the server does not know.
    WithWrongKey,
}

// === impl AccessControl ===

impl AccessControl {
    /// Opens the pages to the holders of these keys, or to everybody if there are no keys.
    pub fn new(ring: KeyRing) -> Self {
        let control = Self { keys: RwLock::default(), meter: RequestMeter::new() };
        control.replace(ring);
        control
    }

    /// Opens the pages to the holders of these keys only, from the next request on. A key that keeps its name and its
    /// limits goes on counting, even if it has another secret.
    pub fn replace(&self, ring: KeyRing) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let state = |key: &RingKey| {
            let same = keys.states.iter().find(|state| state.name == key.name && state.limits == key.limits);
            let new = || Arc::new(KeyState::new(key.name.clone(), key.limits, self.meter.running(&key.name)));
            same.map_or_else(new, Arc::clone)
        };
        let states = ring.keys().iter().map(state).collect();
        *keys = Keys { ring, states };
    }

    /// The sender of a request. Reads its head only.
    pub(crate) fn caller(&self, request: &Parts) -> Caller {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        if keys.ring.is_empty() || is_open(request) {
            return Caller::Anybody;
        }
        let mut caller = Caller::WithoutKey;
        for secret in credentials::presented(&request.headers) {
            match keys.ring.find(secret).and_then(|position| keys.states.get(position)) {
                Some(state) => return Caller::Holder(Arc::clone(state)),
                None => caller = Caller::WithWrongKey,
            }
        }
        caller
    }

    /// Admits a request. The permit of a key's holder is to be held until the answer has ended.
    ///
    /// # Errors
    /// 401 without a right key, 429 if a limit of the key leaves no room.
    pub(crate) fn admit(&self, caller: &Caller, now: Instant) -> Result<Option<Permit>, ApiError> {
        let state = match caller {
            Caller::Anybody => return Ok(None),
            Caller::WithoutKey => return Err(ApiError::no_api_key()),
            Caller::WithWrongKey => return Err(ApiError::wrong_api_key()),
            Caller::Holder(state) => state,
        };
        let name = &state.name;
        state.admit(now).map(Some).map_err(|limit| match limit {
            AtLimit::Rate { per_minute, wait } => {
                self.meter.limited(name, RefusedBy::Rate);
                ApiError::too_many_requests(name.as_str(), per_minute, wait)
            }
            AtLimit::Concurrency { concurrent } => {
                self.meter.limited(name, RefusedBy::Concurrency);
                ApiError::too_many_concurrent_requests(name.as_str(), concurrent)
            }
        })
    }

    /// Counts the answer to a request.
    pub(crate) fn answered(&self, caller: &Caller, status: StatusCode) {
        self.meter.answered(caller.key(), status);
    }

    /// The metrics of the HTTP server, with their values.
    pub(crate) fn metrics(&self) -> Vec<MetricFamily> {
        self.meter.gather()
    }
}

impl Default for AccessControl {
    /// Opens the pages to everybody.
    fn default() -> Self {
        Self::new(KeyRing::default())
    }
}

fn is_open(request: &Parts) -> bool {
    let path = request.uri.path();
    // The files of the pages for browsers are the same everywhere. What they show, they ask for with a key.
    if web::is_page(request) {
        return true;
    }
    // Browsers send no key with the question that precedes a request (CORS preflight).
    request.method == Method::OPTIONS || path.strip_suffix('/').unwrap_or(path) == OPEN_PAGE
}

// === impl Caller ===

impl Caller {
    /// The name of the key, if the server knows it.
    pub(crate) fn key(&self) -> Option<&KeyName> {
        match self {
            Self::Holder(state) => Some(&state.name),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{KeyLimits, parse_key, parse_key_file};
    use super::*;

    const SECRET: &str = "aaaaaaaaaaaaaaaa";

    fn control() -> AccessControl {
        let key = parse_key(&format!("alice:{SECRET}")).unwrap();
        AccessControl::new(KeyRing::new(vec![key], KeyLimits::default()).unwrap())
    }

    fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn status(control: &AccessControl, request: &Parts) -> u16 {
        let admitted = control.admit(&control.caller(request), Instant::now());
        admitted.map_or_else(|refusal| refusal.status.as_u16(), |_| 200)
    }

    #[test]
    fn with_a_key_only_health_and_preflights_are_open() {
        let control = control();
        for path in ["/health", "/health/"] {
            assert_eq!(status(&control, &request("GET", path, &[])), 200, "{path}");
        }
        assert_eq!(status(&control, &request("OPTIONS", "/v1/models", &[])), 200);
        for path in ["/", "/metrics", "/v1/models", "/nowhere", "/health/x", "/HEALTH", "/%68ealth", "//health"] {
            assert_eq!(status(&control, &request("GET", path, &[])), 401, "{path}");
        }
        let browser = [("accept", "text/html,application/xhtml+xml")];
        for path in ["/", "/chat", "/web/dashboard.js"] {
            assert_eq!(status(&control, &request("GET", path, &browser)), 200, "{path}");
        }
        for path in ["/distributed/events", "/v1/models", "/web/../metrics", "/chat/x", "/web/no-such-file"] {
            assert_eq!(status(&control, &request("GET", path, &browser)), 401, "{path}");
        }
        assert_eq!(status(&control, &request("POST", "/chat", &browser)), 401);
        let open = AccessControl::default();
        assert_eq!(status(&open, &request("GET", "/metrics", &[("authorization", "Bearer anything")])), 200);
    }

    #[test]
    fn other_keys_take_effect_at_once_and_one_that_stays_goes_on_counting() {
        let given = |text: &str| KeyRing::new(parse_key_file(text).unwrap(), KeyLimits::default()).unwrap();
        let request = |secret| request("GET", "/", &[("x-api-key", secret)]);
        let control = AccessControl::new(given("alice:aaaaaaaaaaaaaaaa requests_per_minute=1\nbob:bbbbbbbbbbbbbbbb\n"));
        assert_eq!(status(&control, &request("aaaaaaaaaaaaaaaa")), 200);
        control.replace(given("alice:cccccccccccccccc requests_per_minute=1\ndave:dddddddddddddddd\n"));
        assert_eq!(status(&control, &request("bbbbbbbbbbbbbbbb")), 401);
        assert_eq!(status(&control, &request("aaaaaaaaaaaaaaaa")), 401);
        assert_eq!(status(&control, &request("cccccccccccccccc")), 429, "alice has another secret, not another minute");
        assert_eq!(status(&control, &request("dddddddddddddddd")), 200);
    }

    #[test]
    fn either_header_opens_and_a_wrong_key_in_one_does_not_spoil_the_other() {
        let control = control();
        let right = format!("Bearer {SECRET}");
        for headers in [
            &[("authorization", right.as_str())][..],
            &[("x-api-key", SECRET)],
            &[("authorization", "Bearer wrong"), ("x-api-key", SECRET)],
            &[("authorization", &right), ("x-api-key", "wrong")],
        ] {
            let caller = control.caller(&request("GET", "/", headers));
            assert_eq!(caller.key().map(KeyName::as_str), Some("alice"), "{headers:?}");
        }
        let wrong = control.caller(&request("GET", "/", &[("x-api-key", "wrong")]));
        assert!(matches!(wrong, Caller::WithWrongKey) && wrong.key().is_none());
        assert!(matches!(control.caller(&request("GET", "/", &[])), Caller::WithoutKey));
    }
}
