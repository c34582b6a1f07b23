//! The pages of the HTTP API: one filter, one list, and our own answer for every other path or method.
//!
//! An API (a dialect's folder, or `cluster`) has its pages in its `mod.rs`: `PAGES` for the list at `GET /` and for
//! wrong methods, and `filter` for warp. A further API is one line in each of the two lists here.

use std::sync::Arc;

use http::Method;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reply::{Reply, Response};

use super::app_state::AppState;
use super::error::ApiError;
use super::page::{Page, READ, get};
use super::{cluster, index, openai};

const INDEX: Page = Page { path: "/", methods: READ, description: "this page" };

/// Every page. `{id}` at the end of a path stands for any text that is not empty.
pub(crate) fn pages() -> impl Iterator<Item = &'static Page> {
    [openai::PAGES, cluster::PAGES, &[INDEX]].into_iter().flatten()
}

/// The filter for all pages over `state`. It rejects nothing, so that every answer is one of ours.
pub(crate) fn filter(state: &Arc<AppState>) -> BoxedFilter<(Response,)> {
    let unknown = warp::path::full()
        .and(warp::method())
        .map(|path: FullPath, method: Method| unmatched(&method, path.as_str()).into_response());
    let index = get(warp::path::end(), state, |state| index::show(state, pages()));
    openai::filter(state).or(cluster::filter(state)).unify().or(index).unify().or(unknown).unify().boxed()
}

/// The methods of the page at `path`.
pub(crate) fn methods(path: &str) -> Option<&'static str> {
    let is_at = |page: &&Page| match page.path.strip_suffix("{id}") {
        Some(start) => path.len() > start.len() && path.starts_with(start),
        None => path.strip_suffix('/').filter(|path| path.len() > 1).unwrap_or(path) == page.path,
    };
    pages().find(is_at).map(|page| page.methods)
}

fn unmatched(method: &Method, path: &str) -> ApiError {
    match methods(path) {
        Some(allow) => ApiError::wrong_method(method, path, allow),
        None => ApiError::no_such_path(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::page::WRITE;

    #[test]
    fn a_known_path_has_its_methods_and_an_unknown_one_none() {
        assert_eq!(methods("/"), Some(READ));
        assert_eq!(methods("/health/"), Some(READ));
        assert_eq!(methods("/v1/completions"), Some(WRITE));
        assert_eq!(methods("/v1/models/org/name"), Some(READ));
        for path in ["", "/v1", "/v1/model", "/healthy", "//", "*"] {
            assert_eq!(methods(path), None, "{path}");
        }
    }
}
