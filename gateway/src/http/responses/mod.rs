//! OpenAI's Responses API: `/v1/responses` and the pages of one response.
//!
//! A request names its conversation by its input items, and by `previous_response_id` if it goes on from an earlier
//! response. [`store`] keeps those responses in this process's memory, within bounds. The other files read a request
//! (`request` and the parts of its body), turn items into messages (`conversation`), and write what is generated as
//! items (`output`) and events (`event`). This dialect runs no tools itself: hosted tools are refused or left out by
//! name.

mod answer;
mod body;
mod context;
mod conversation;
mod create;
mod echo;
mod event;
mod ids;
mod input;
mod item;
mod list;
mod logprobs;
mod open_item;
mod options;
mod output;
mod pages;
mod reasoning;
mod request;
mod store;
mod stored;
mod text_format;
mod tools;
mod truncation;
mod unsupported;
mod usage;
mod word;

use std::sync::Arc;

use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};

use self::store::{ResponseStore, StoreBounds};
use super::app_state::AppState;
use super::page::{Page, READ, WRITE, post};

/// `methods` of one response's page.
const READ_OR_DELETE: &str = "GET, HEAD, DELETE";

pub(super) const PAGES: &[Page] = &[
    Page { path: "/v1/responses", methods: WRITE, description: "answer a conversation (OpenAI's Responses)" },
    Page { path: "/v1/responses/{id}/input_items", methods: READ, description: "the items before a kept response" },
    Page {
        path: "/v1/responses/{id}/cancel",
        methods: WRITE,
        description: "refused: no response runs in the background",
    },
    Page { path: "/v1/responses/{id}", methods: READ_OR_DELETE, description: "a kept response, to read or delete" },
];

/// The filters for these pages over `state`. They have the store of responses, which lasts as long as they do.
pub(super) fn filters(state: &Arc<AppState>) -> Vec<BoxedFilter<(Response,)>> {
    let store = Arc::new(ResponseStore::new(StoreBounds::new(&state.settings)));
    let create = {
        let store = Arc::clone(&store);
        post(warp::path!("v1" / "responses"), state, move |state, body| create::create(state, Arc::clone(&store), body))
    };
    let with_store = warp::any().map(move || Arc::clone(&store));
    let query = warp::query::<Vec<(String, String)>>();
    let read = warp::path!("v1" / "responses" / String).and(warp::get()).and(query).and(with_store.clone()).map(
        |id: String, query: Vec<(String, String)>, store: Arc<ResponseStore>| {
            pages::read(&store, &id, &query).unwrap_or_else(Reply::into_response)
        },
    );
    let delete = warp::path!("v1" / "responses" / String)
        .and(warp::delete())
        .and(with_store.clone())
        .map(|id: String, store: Arc<ResponseStore>| pages::delete(&store, &id).unwrap_or_else(Reply::into_response));
    let input_items = warp::path!("v1" / "responses" / String / "input_items")
        .and(warp::get())
        .and(query)
        .and(with_store.clone())
        .map(|id: String, query: Vec<(String, String)>, store: Arc<ResponseStore>| {
            pages::input_items(&store, &id, &query).unwrap_or_else(Reply::into_response)
        });
    let cancel = warp::path!("v1" / "responses" / String / "cancel")
        .and(warp::post())
        .and(with_store)
        .map(|id: String, store: Arc<ResponseStore>| pages::cancel(&store, &id).into_response());
    vec![create, read.boxed(), delete.boxed(), input_items.boxed(), cancel.boxed()]
}
