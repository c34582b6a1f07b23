//! `POST /api/embed` and `POST /api/embeddings`: refused, since no model that this server can run makes embeddings.

use std::sync::Arc;

use bytes::Bytes;
use warp::reply::Response;

use super::model_name;
use crate::http::app_state::AppState;
use crate::http::error::ApiError;
use crate::http::params::{Params, parse_object};

/// Refuses the request.
///
/// # Errors
/// Always: a 404 if the request names another model, else a 400.
pub(super) async fn create(state: Arc<AppState>, body: Bytes) -> Result<Response, ApiError> {
    let map = parse_object(&body)?;
    let name = model_name::read(&Params::new(&map), &state)?;
    let message = format!("The model '{name}' makes no embeddings: this server generates text only.");
    Err(ApiError::unsupported("model", message))
}
