//! Which page a request is for: one warp filter a page, and a last one that says what is wrong with the rest.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::path::{FullPath, Tail};
use warp::reply::{Reply, Response};

use super::door::Door;
use super::error::ApiError;
use super::{body, chat, completions, gpu_info, health, metrics, models, root, status};

/// One page, as `GET /` lists it and as a wrong method is told.
pub(crate) struct Page {
    pub(crate) path: &'static str,
    pub(crate) methods: &'static str,
    pub(crate) what: &'static str,
}

const READ: &str = "GET, HEAD";
const WRITE: &str = "POST";

/// Every page; a path that ends in `{id}` has anything there.
pub(crate) const PAGES: &[Page] = &[
    Page { path: "/v1/chat/completions", methods: WRITE, what: "answer a chat (OpenAI)" },
    Page { path: "/v1/completions", methods: WRITE, what: "complete a prompt (OpenAI)" },
    Page { path: "/v1/models", methods: READ, what: "the model (OpenAI)" },
    Page { path: "/v1/models/{id}", methods: READ, what: "the model by its id (OpenAI)" },
    Page { path: "/health", methods: READ, what: "200 when requests are served, else 503 and why" },
    Page { path: "/metrics", methods: READ, what: "what was counted, for Prometheus" },
    Page { path: "/distributed/status", methods: READ, what: "which stage holds which layers, memory, speed" },
    Page { path: "/distributed/gpu-info", methods: READ, what: "what each stage computes on" },
    Page { path: "/", methods: READ, what: "this page" },
];

/// All pages of `door`; refuses nothing, so that every answer is this door's own.
pub(crate) fn filter(door: &Arc<Door>) -> BoxedFilter<(Response,)> {
    let get = |path: BoxedFilter<()>, show: fn(&Door) -> Response| {
        path.and(warp::get()).and(with(door)).map(move |door: Arc<Door>| show(&door)).boxed()
    };
    let chat = warp::path!("v1" / "chat" / "completions")
        .and(warp::post())
        .and(with(door))
        .and(content(door))
        .then(async |door, body: Result<Bytes, ApiError>| sent(async { chat::create(door, body?).await }.await));
    let completions =
        warp::path!("v1" / "completions").and(warp::post()).and(with(door)).and(content(door)).then(
            async |door, body: Result<Bytes, ApiError>| sent(async { completions::create(door, body?).await }.await),
        );
    let model = warp::path("v1")
        .and(warp::path("models"))
        .and(warp::path::tail())
        .and(warp::get())
        .and(with(door))
        .map(|id: Tail, door: Arc<Door>| sent(models::one(&door, id.as_str())));
    let unknown = warp::path::full()
        .and(warp::method())
        .map(|path: FullPath, method: Method| nowhere(&method, path.as_str()).into_response());
    let reads = get(warp::path!("v1" / "models").boxed(), models::list)
        .or(model.boxed())
        .unify()
        .or(get(warp::path!("health").boxed(), health::show))
        .unify()
        .or(get(warp::path!("metrics").boxed(), metrics::show))
        .unify()
        .or(get(warp::path!("distributed" / "status").boxed(), status::show))
        .unify()
        .or(get(warp::path!("distributed" / "gpu-info").boxed(), gpu_info::show))
        .unify()
        .or(get(warp::path::end().boxed(), root::show))
        .unify();
    let writes = chat.boxed().or(completions.boxed()).unify();
    writes.or(reads).unify().or(unknown).unify().boxed()
}

/// The methods of the page at `path`.
pub(crate) fn methods(path: &str) -> Option<&'static str> {
    let is_at = |page: &&Page| match page.path.strip_suffix("{id}") {
        Some(start) => path.len() > start.len() && path.starts_with(start),
        None => path.strip_suffix('/').filter(|path| path.len() > 1).unwrap_or(path) == page.path,
    };
    PAGES.iter().find(is_at).map(|page| page.methods)
}

fn nowhere(method: &Method, path: &str) -> ApiError {
    match methods(path) {
        Some(allow) => ApiError::wrong_method(method, path, allow),
        None => ApiError::no_such_path(path),
    }
}

fn with(door: &Arc<Door>) -> BoxedFilter<(Arc<Door>,)> {
    let door = Arc::clone(door);
    warp::any().map(move || Arc::clone(&door)).boxed()
}

/// The request's body, or why there is none.
fn content(door: &Arc<Door>) -> BoxedFilter<(Result<Bytes, ApiError>,)> {
    let door = Arc::clone(door);
    warp::header::headers_cloned()
        .and(warp::body::stream())
        .then(move |headers: HeaderMap, stream| {
            let door = Arc::clone(&door);
            async move { body::read(&door.settings, &headers, stream).await }
        })
        .boxed()
}

fn sent(answer: Result<Response, ApiError>) -> Response {
    answer.unwrap_or_else(Reply::into_response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_path_has_its_methods_and_an_unknown_one_none() {
        assert_eq!(methods("/"), Some(READ));
        assert_eq!(methods("/health/"), Some(READ));
        assert_eq!(methods("/v1/completions"), Some(WRITE));
        assert_eq!(methods("/v1/models/org/name"), Some(READ));
        for path in ["", "/v1", "/v1/model", "/healthy", "//", "*"] {
            assert_eq!(methods(path), None, "{path}");
        }
    }
}
