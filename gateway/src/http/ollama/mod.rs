//! Ollama's API: one file for each endpoint, and files for the parts of bodies that the endpoints share.
//!
//! It follows the API of Ollama 0.32. Parameters that a request leaves out have the values that the model's file
//! recommends, if it does, and else Ollama's defaults: `temperature` 0.8,
//! `top_k` 40, `top_p` 0.9, no `min_p` and no penalties; answers are streamed. An answer without `num_predict` is
//! limited like a chat of OpenAI's API, since a model that never ends would otherwise fill the context; -1 and -2 lift
//! that limit.
//!
//! Differences, because this server has one model, which its operator chose:
//! - `num_ctx` and other options of loading are accepted and change nothing. A prompt that is too long is refused, and
//!   never cut.
//! - `keep_alive` is accepted, and the model stays loaded.
//! - `template`, `context` and images are refused by name.

mod answer;
mod chat;
mod embed;
mod error;
mod format;
mod generate;
mod logprobs;
mod messages;
mod metrics;
mod model_name;
mod models;
mod options;
mod request;
mod show;
mod think;
mod timestamp;
mod tool_calls;
mod tools;
mod version;

use std::sync::Arc;

use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::app_state::AppState;
use super::page::{Page, READ, WRITE, get, post};

pub(super) use error::write_error;

pub(super) const PAGES: &[Page] = &[
    Page { path: "/api/chat", methods: WRITE, description: "answer a chat (Ollama)" },
    Page { path: "/api/generate", methods: WRITE, description: "answer or complete a prompt (Ollama)" },
    Page { path: "/api/tags", methods: READ, description: "the model (Ollama)" },
    Page { path: "/api/ps", methods: READ, description: "the model while it is served (Ollama)" },
    Page { path: "/api/show", methods: WRITE, description: "the model's details (Ollama)" },
    Page { path: "/api/version", methods: READ, description: "the version of the API (Ollama)" },
    Page { path: "/api/embed", methods: WRITE, description: "embed texts (Ollama)" },
    Page { path: "/api/embeddings", methods: WRITE, description: "embed a text, as older clients ask (Ollama)" },
];

/// All paths whose errors have Ollama's body, those of endpoints that this server does not have among them.
pub(super) const ERROR_PAGES: &[Page] = &[Page { path: "/api/{id}", methods: "", description: "" }];

/// The filters for these pages over `state`.
pub(super) fn filters(state: &Arc<AppState>) -> Vec<BoxedFilter<(Response,)>> {
    vec![
        post(warp::path!("api" / "chat"), state, chat::create),
        post(warp::path!("api" / "generate"), state, generate::create),
        get(warp::path!("api" / "tags"), state, models::tags),
        get(warp::path!("api" / "ps"), state, models::ps),
        post(warp::path!("api" / "show"), state, show::create),
        get(warp::path!("api" / "version"), state, version::show),
        post(warp::path!("api" / "embed"), state, embed::create),
        post(warp::path!("api" / "embeddings"), state, embed::create_one),
    ]
}
