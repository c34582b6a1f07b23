//! `GET /`: the list of pages, for people.

use warp::reply::{Reply, Response};

use super::app_state::AppState;
use super::page::Page;

/// The pages with their methods, as plain text.
pub(crate) fn show(state: &AppState, pages: impl Iterator<Item = &'static Page>) -> Response {
    let pages: String =
        pages.map(|page| format!("  {:<17} {:<31} {}\n", page.methods, page.path, page.description)).collect();
    let models: Vec<_> = state.models.all().iter().map(|served| served.model.name.clone()).collect();
    format!("baton serves {}\n\n{pages}", models.join(", ")).into_response()
}
