//! Anthropic's Messages API: one file for each endpoint, and files for the parts of requests and of answers.

mod answer;
mod block;
mod block_writer;
mod content;
mod count_tokens;
mod error;
mod event;
mod messages;
mod options;
mod output_format;
mod prompt;
mod thinking;
mod tools;
mod turns;
mod unsupported;
mod usage;

use std::sync::Arc;

use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::app_state::AppState;
use super::page::{Page, WRITE, post};
use super::params;

pub(super) use error::write as write_error;

pub(super) const PAGES: &[Page] = &[
    Page { path: "/v1/messages", methods: WRITE, description: "answer a conversation (Anthropic)" },
    Page {
        path: "/v1/messages/count_tokens",
        methods: WRITE,
        description: "count a conversation's tokens (Anthropic)",
    },
];

/// The filters for these pages over `state`.
pub(super) fn filters(state: &Arc<AppState>) -> Vec<BoxedFilter<(Response,)>> {
    vec![
        post(warp::path!("v1" / "messages"), state, messages::create),
        post(warp::path!("v1" / "messages" / "count_tokens"), state, count_tokens::create),
    ]
}
