//! `POST /v1/rerank` and `POST /rerank`: refused by the model's name, since no model that this server can load has a
//! ranking head.

use std::sync::Arc;

use warp::reply::Response;

use super::params::{Params, missing, wrong_type};
use crate::http::error::ApiError;
use crate::http::json_body::JsonBody;
use crate::http::served_model::ServedModel;

/// Refuses the request.
///
/// # Errors
/// Always: a 400 that names a parameter of the wrong type, or else the model.
pub(super) async fn create(state: Arc<ServedModel>, body: JsonBody) -> Result<Response, ApiError> {
    let params = Params::new(&body);
    params.required_text("query")?;
    let documents = params.list("documents")?.ok_or_else(|| missing("documents", "an array of texts"))?;
    if let Some((index, found)) = documents.iter().enumerate().find(|(_, text)| !(text.is_string() || text.is_object()))
    {
        return Err(wrong_type(&format!("documents[{index}]"), "a string or an object with a text", found));
    }
    let message = format!(
        "The model '{}' cannot rank documents: expected a model with a ranking head (pooling_type 4 and the tensor \
         cls.output.weight), which none of the supported architectures has. /v1/embeddings gives vectors to compare.",
        state.model.name
    );
    Err(ApiError::unsupported("model", message))
}
