//! `GET /`: the list of pages, for people.

use warp::reply::{Reply, Response};

use crate::http::app_state::AppState;
use crate::http::routes::pages;

/// The pages with their methods, as plain text.
pub(crate) fn show(state: &AppState) -> Response {
    let pages: String =
        pages().map(|page| format!("  {:<10} {:<25} {}\n", page.methods, page.path, page.what)).collect();
    format!("baton serves {}\n\n{pages}", state.model.name).into_response()
}
