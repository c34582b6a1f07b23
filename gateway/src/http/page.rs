//! One page of the HTTP API: its entry in the list, and the filters that pages are made of.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};

use super::app_state::AppState;
use super::error::ApiError;
use super::server::body;

/// One page. `GET /` lists it, and a 405 answer names its methods.
pub(crate) struct Page {
    pub(crate) path: &'static str,
    pub(crate) methods: &'static str,
    pub(crate) description: &'static str,
}

/// `methods` of pages that are only read.
pub(crate) const READ: &str = "GET, HEAD";
/// `methods` of pages that take a body.
pub(crate) const WRITE: &str = "POST";

/// `methods` of pages that are read and take a body.
pub(crate) const READ_OR_WRITE: &str = "GET, HEAD, POST";

/// A page that `show` renders from the state alone.
pub(crate) fn get(
    path: impl Filter<Extract = (), Error = warp::Rejection> + Clone + Send + Sync + 'static,
    state: &Arc<AppState>,
    show: fn(&AppState) -> Response,
) -> BoxedFilter<(Response,)> {
    path.and(warp::get()).and(with_state(state)).map(move |state: Arc<AppState>| show(&state)).boxed()
}

/// A page that takes a body. `create` gets the body, read within the bounds of the settings.
pub(crate) fn post<F>(
    path: impl Filter<Extract = (), Error = warp::Rejection> + Clone + Send + Sync + 'static,
    state: &Arc<AppState>,
    create: impl Fn(Arc<AppState>, Bytes) -> F + Clone + Send + Sync + 'static,
) -> BoxedFilter<(Response,)>
where
    F: Future<Output = Result<Response, ApiError>> + Send + 'static,
{
    path.and(warp::post())
        .and(with_state(state))
        .and(content(state))
        .then(move |state, body: Result<Bytes, ApiError>| {
            let create = create.clone();
            async move {
                match body {
                    Ok(body) => create(state, body).await.unwrap_or_else(Reply::into_response),
                    Err(error) => error.into_response(),
                }
            }
        })
        .boxed()
}

/// A filter that extracts the state.
pub(crate) fn with_state(state: &Arc<AppState>) -> BoxedFilter<(Arc<AppState>,)> {
    let state = Arc::clone(state);
    warp::any().map(move || Arc::clone(&state)).boxed()
}

/// A filter that extracts the request's body, or the error of reading it.
pub(crate) fn content(state: &Arc<AppState>) -> BoxedFilter<(Result<Bytes, ApiError>,)> {
    let state = Arc::clone(state);
    warp::header::headers_cloned()
        .and(warp::body::stream())
        .then(move |headers: HeaderMap, stream| {
            let state = Arc::clone(&state);
            async move { body::read(&state.settings, &headers, stream).await }
        })
        .boxed()
}
