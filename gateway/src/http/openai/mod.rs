//! OpenAI's API: one file for each endpoint, and files for the parts of bodies that the endpoints share.

mod chat;
mod completions;
mod embeddings;
mod logprobs;
pub(super) mod messages;
mod models;
pub(super) mod options;
mod rerank;
mod response;
pub(super) mod template_options;
pub(super) mod tools;
mod unsupported;
mod usage;

use std::sync::Arc;

use warp::Filter;
use warp::filters::BoxedFilter;
use warp::path::Tail;
use warp::reply::{Reply, Response};

use super::app_state::AppState;
use super::page::{Page, READ, WRITE, get_server, post, with_state};
use super::params;

pub(super) const PAGES: &[Page] = &[
    Page { path: "/v1/chat/completions", methods: WRITE, description: "answer a chat (OpenAI)" },
    Page { path: "/v1/completions", methods: WRITE, description: "complete a prompt (OpenAI)" },
    Page { path: "/v1/embeddings", methods: WRITE, description: "embed texts (OpenAI)" },
    Page { path: "/v1/rerank", methods: WRITE, description: "refused: no model here ranks documents (Jina, vLLM)" },
    Page { path: "/rerank", methods: WRITE, description: "as /v1/rerank (llama-server)" },
    Page { path: "/v1/models", methods: READ, description: "the models (OpenAI)" },
    Page { path: "/v1/models/{id}", methods: READ, description: "a model by its id (OpenAI)" },
];

/// The filters for these pages over `state`.
pub(super) fn filters(state: &Arc<AppState>) -> Vec<BoxedFilter<(Response,)>> {
    let model =
        warp::path("v1").and(warp::path("models")).and(warp::path::tail()).and(warp::get()).and(with_state(state)).map(
            |id: Tail, state: Arc<AppState>| models::one(&state, id.as_str()).unwrap_or_else(Reply::into_response),
        );
    vec![
        post(warp::path!("v1" / "chat" / "completions"), state, chat::create),
        post(warp::path!("v1" / "completions"), state, completions::create),
        post(warp::path!("v1" / "embeddings"), state, embeddings::create),
        post(warp::path!("v1" / "rerank"), state, rerank::create),
        post(warp::path!("rerank"), state, rerank::create),
        get_server(warp::path!("v1" / "models"), state, models::list),
        model.boxed(),
    ]
}
