//! Pages that llama-server and vLLM have beside OpenAI's API: tokenising, templates, infilling, and the state of the
//! server. Where both servers have a page of the same path, the keys of the body tell which form it has.

mod apply_template;
mod conversation;
mod detokenize;
mod embedding;
mod infill;
mod infill_answer;
mod props;
mod samplers;
mod slots;
mod tokenize;
mod tokenize_params;
mod vllm;

use std::sync::Arc;

use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::app_state::AppState;
use super::page::{Page, READ, WRITE, get, get_server, post};

pub(super) const PAGES: &[Page] = &[
    Page { path: "/tokenize", methods: WRITE, description: "the tokens of a text or chat (llama-server, vLLM)" },
    Page { path: "/detokenize", methods: WRITE, description: "the text of tokens (llama-server, vLLM)" },
    Page { path: "/apply-template", methods: WRITE, description: "the prompt of a chat (llama-server)" },
    Page { path: "/embedding", methods: WRITE, description: "vectors of texts (llama-server)" },
    Page { path: "/embeddings", methods: WRITE, description: "the same under another name (llama-server)" },
    Page { path: "/infill", methods: WRITE, description: "fill in the middle of code (llama-server)" },
    Page { path: "/props", methods: READ, description: "the server's properties (llama-server)" },
    Page { path: "/slots", methods: READ, description: "the running sequences (llama-server)" },
    Page { path: "/version", methods: READ, description: "the program's version (vLLM)" },
    Page { path: "/load", methods: READ, description: "number of requests at work (vLLM)" },
    Page { path: "/ping", methods: READ, description: "200 when requests are served, else 503 (vLLM)" },
];

/// The filters for these pages over `state`.
pub(super) fn filters(state: &Arc<AppState>) -> Vec<BoxedFilter<(Response,)>> {
    vec![
        post(warp::path!("tokenize"), state, tokenize::create),
        post(warp::path!("detokenize"), state, detokenize::create),
        post(warp::path!("apply-template"), state, apply_template::create),
        post(warp::path!("embedding"), state, embedding::create),
        post(warp::path!("embeddings"), state, embedding::create),
        post(warp::path!("infill"), state, infill::create),
        get(warp::path!("props"), state, props::show),
        slots::filter(state),
        get_server(warp::path!("version"), state, vllm::version),
        get(warp::path!("load"), state, vllm::load),
        get(warp::path!("ping"), state, vllm::ping),
    ]
}
