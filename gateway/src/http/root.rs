//! `GET /`: what there is, for people.

use warp::reply::{Reply, Response};

use super::door::Door;
use super::routes::PAGES;

/// The pages and how to ask for them.
pub(crate) fn show(door: &Door) -> Response {
    let pages: String =
        PAGES.iter().map(|page| format!("  {:<10} {:<25} {}\n", page.methods, page.path, page.what)).collect();
    format!("baton serves {}\n\n{pages}", door.model.name).into_response()
}
