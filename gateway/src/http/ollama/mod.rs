//! Ollama's API: one file for each endpoint, and files for the parts of bodies that the endpoints share.
//!
//! It follows the API of Ollama 0.32. Parameters that a request leaves out have the values that the model's file
//! recommends, if it does, and else Ollama's defaults: `temperature` 0.8,
//! `top_k` 40, `top_p` 0.9, no `min_p` and no penalties; answers are streamed. An answer without `num_predict` is
//! limited like a chat of OpenAI's API, since a model that never ends would otherwise fill the context; -1 and -2 lift
//! that limit.
//!
//! Differences, because an operator chose the models of this server:
//! - `num_ctx` and other options of loading are accepted and change nothing. A prompt that is too long is refused, and
//!   never cut.
//! - `keep_alive` is accepted, and the models stay loaded.
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
use super::page::{Page, READ, WRITE, get_server, post_to};

pub(super) use error::write_error;

pub(super) const PAGES: &[Page] = &[
    Page { path: "/api/chat", methods: WRITE, description: "answer a chat (Ollama)" },
    Page { path: "/api/generate", methods: WRITE, description: "answer or complete a prompt (Ollama)" },
    Page { path: "/api/tags", methods: READ, description: "the models (Ollama)" },
    Page { path: "/api/ps", methods: READ, description: "the models that are served now (Ollama)" },
    Page { path: "/api/show", methods: WRITE, description: "a model's details (Ollama)" },
    Page { path: "/api/version", methods: READ, description: "the version of the API (Ollama)" },
    Page { path: "/api/embed", methods: WRITE, description: "embed texts (Ollama)" },
    Page { path: "/api/embeddings", methods: WRITE, description: "embed a text, as older clients ask (Ollama)" },
];

/// All paths whose errors have Ollama's body, those of endpoints that this server does not have among them.
pub(super) const ERROR_PAGES: &[Page] = &[Page { path: "/api/{id}", methods: "", description: "" }];

/// The filters for these pages over `state`.
pub(super) fn filters(state: &Arc<AppState>) -> Vec<BoxedFilter<(Response,)>> {
    vec![
        post_to(warp::path!("api" / "chat"), state, model_name::find, chat::create),
        post_to(warp::path!("api" / "generate"), state, model_name::find, generate::create),
        get_server(warp::path!("api" / "tags"), state, models::tags),
        get_server(warp::path!("api" / "ps"), state, models::ps),
        post_to(warp::path!("api" / "show"), state, model_name::find, show::create),
        get_server(warp::path!("api" / "version"), state, version::show),
        post_to(warp::path!("api" / "embed"), state, model_name::find, embed::create),
        post_to(warp::path!("api" / "embeddings"), state, model_name::find, embed::create_one),
    ]
}
