//! One page of the HTTP API: its entry in the list, and the filters that pages are made of.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};

use super::app_state::AppState;
use super::error::ApiError;
use super::json_body::JsonBody;
use super::models::Models;
use super::params::Params;
use super::served_model::ServedModel;
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

/// Finds the model that a request's parameters name.
pub(crate) type FindModel = fn(&Models, &Params<'_>) -> Result<Arc<ServedModel>, ApiError>;

/// A page that `show` renders from the state alone.
pub(crate) fn get_server(
    path: impl Filter<Extract = (), Error = warp::Rejection> + Clone + Send + Sync + 'static,
    state: &Arc<AppState>,
    show: fn(&AppState) -> Response,
) -> BoxedFilter<(Response,)> {
    path.and(warp::get()).and(with_state(state)).map(move |state: Arc<AppState>| show(&state)).boxed()
}

/// A page about one model that `show` renders: that of the cluster in the query, or the first one.
pub(crate) fn get(
    path: impl Filter<Extract = (), Error = warp::Rejection> + Clone + Send + Sync + 'static,
    state: &Arc<AppState>,
    show: fn(&ServedModel) -> Response,
) -> BoxedFilter<(Response,)> {
    path.and(warp::get())
        .and(of_cluster(state))
        .map(move |model: Result<Arc<ServedModel>, ApiError>| match model {
            Ok(model) => show(&model),
            Err(error) => error.into_response(),
        })
        .boxed()
}

/// A page that takes a JSON object with the name of a model in `model`, or without one for the first. `create` gets the
/// model and the body, read within the bounds of the settings.
pub(crate) fn post<F>(
    path: impl Filter<Extract = (), Error = warp::Rejection> + Clone + Send + Sync + 'static,
    state: &Arc<AppState>,
    create: impl Fn(Arc<ServedModel>, JsonBody) -> F + Clone + Send + Sync + 'static,
) -> BoxedFilter<(Response,)>
where
    F: Future<Output = Result<Response, ApiError>> + Send + 'static,
{
    post_to(path, state, |models, params| models.named(params.text("model")?), create)
}

/// As [`post`], where `find` finds the model.
pub(crate) fn post_to<F>(
    path: impl Filter<Extract = (), Error = warp::Rejection> + Clone + Send + Sync + 'static,
    state: &Arc<AppState>,
    find: FindModel,
    create: impl Fn(Arc<ServedModel>, JsonBody) -> F + Clone + Send + Sync + 'static,
) -> BoxedFilter<(Response,)>
where
    F: Future<Output = Result<Response, ApiError>> + Send + 'static,
{
    path.and(warp::post())
        .and(with_state(state))
        .and(content(state))
        .then(move |state: Arc<AppState>, body: Result<Bytes, ApiError>| {
            let create = create.clone();
            async move {
                let body = body.and_then(JsonBody::parse);
                let found = body.and_then(|body| Ok((find(&state.models, &Params::new(&body))?, body)));
                match found {
                    Ok((model, body)) => create(model, body).await.unwrap_or_else(Reply::into_response),
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

/// A filter that extracts the model of the cluster that the query names in `cluster`, or the first one. Other parts of
/// the query are for the page.
pub(crate) fn of_cluster(state: &Arc<AppState>) -> BoxedFilter<(Result<Arc<ServedModel>, ApiError>,)> {
    let state = Arc::clone(state);
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    query
        .map(move |query: String| {
            // Names of clusters have no letter that is escaped in a query.
            let named = query.split('&').find_map(|part| part.strip_prefix("cluster="));
            state.models.of_cluster(named)
        })
        .boxed()
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
