//! The pages of the HTTP API: one filter, one list, and our own answer for every other path or method.
//!
//! An API (a dialect's folder, or `cluster`) has its pages in its `mod.rs`: `PAGES` for the list at `GET /` and for
//! wrong methods, and `filter` for warp. A further API is one line in each of the two lists here.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reply::{Reply, Response};

use super::app_state::AppState;
use super::error::ApiError;
use super::server::body;
use super::{cluster, openai};

/// One page. `GET /` lists it, and a 405 answer names its methods.
pub(crate) struct Page {
    pub(crate) path: &'static str,
    pub(crate) methods: &'static str,
    pub(crate) what: &'static str,
}

/// `methods` of pages that are only read.
pub(crate) const READ: &str = "GET, HEAD";
/// `methods` of pages that take a body.
pub(crate) const WRITE: &str = "POST";

/// Every page. `{id}` at the end of a path stands for any text that is not empty.
pub(crate) fn pages() -> impl Iterator<Item = &'static Page> {
    [openai::PAGES, cluster::PAGES].into_iter().flatten()
}

/// The filter for all pages over `state`. It rejects nothing, so that every answer is one of ours.
pub(crate) fn filter(state: &Arc<AppState>) -> BoxedFilter<(Response,)> {
    let unknown = warp::path::full()
        .and(warp::method())
        .map(|path: FullPath, method: Method| nowhere(&method, path.as_str()).into_response());
    openai::filter(state).or(cluster::filter(state)).unify().or(unknown).unify().boxed()
}

/// The methods of the page at `path`.
pub(crate) fn methods(path: &str) -> Option<&'static str> {
    let is_at = |page: &&Page| match page.path.strip_suffix("{id}") {
        Some(start) => path.len() > start.len() && path.starts_with(start),
        None => path.strip_suffix('/').filter(|path| path.len() > 1).unwrap_or(path) == page.path,
    };
    pages().find(is_at).map(|page| page.methods)
}

fn nowhere(method: &Method, path: &str) -> ApiError {
    match methods(path) {
        Some(allow) => ApiError::wrong_method(method, path, allow),
        None => ApiError::no_such_path(path),
    }
}

/// A page that `show` renders from the state alone.
pub(crate) fn get(
    path: impl Filter<Extract = (), Error = warp::Rejection> + Clone + Send + Sync + 'static,
    state: &Arc<AppState>,
    show: fn(&AppState) -> Response,
) -> BoxedFilter<(Response,)> {
    path.and(warp::get()).and(with(state)).map(move |state: Arc<AppState>| show(&state)).boxed()
}

/// A page that takes a body. `create` gets the body, read within the bounds of the settings.
pub(crate) fn post<F>(
    path: impl Filter<Extract = (), Error = warp::Rejection> + Clone + Send + Sync + 'static,
    state: &Arc<AppState>,
    create: fn(Arc<AppState>, Bytes) -> F,
) -> BoxedFilter<(Response,)>
where
    F: Future<Output = Result<Response, ApiError>> + Send + 'static,
{
    path.and(warp::post())
        .and(with(state))
        .and(content(state))
        .then(move |state, body: Result<Bytes, ApiError>| async move {
            match body {
                Ok(body) => create(state, body).await.unwrap_or_else(Reply::into_response),
                Err(error) => error.into_response(),
            }
        })
        .boxed()
}

/// A filter that extracts the state.
pub(crate) fn with(state: &Arc<AppState>) -> BoxedFilter<(Arc<AppState>,)> {
    let state = Arc::clone(state);
    warp::any().map(move || Arc::clone(&state)).boxed()
}

/// A filter that extracts the request's body, or the error of reading it.
fn content(state: &Arc<AppState>) -> BoxedFilter<(Result<Bytes, ApiError>,)> {
    let state = Arc::clone(state);
    warp::header::headers_cloned()
        .and(warp::body::stream())
        .then(move |headers: HeaderMap, stream| {
            let state = Arc::clone(&state);
            async move { body::read(&state.settings, &headers, stream).await }
        })
        .boxed()
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
