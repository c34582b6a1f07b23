//! The pages of the HTTP API: one filter, one list, and our own answer for every other path or method.
//!
//! An API (a dialect's folder, or `cluster`) has its pages in its `mod.rs`: `PAGES` for the list at `GET /` and for
//! wrong methods, and `filters` for warp. A further API is one line in each of the two lists here.

use std::sync::Arc;

use http::Method;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reply::{Reply, Response};

use super::app_state::AppState;
use super::error::{ApiError, ErrorWriter, write_openai};
use super::page::{Page, READ, get_server};
use super::{anthropic, cluster, index, llama_server, ollama, openai, responses, web};

const INDEX: Page = Page { path: "/", methods: READ, description: "this page; for browsers the dashboard" };

/// The writers of errors of APIs that do not use OpenAI's body.
const ERROR_WRITERS: &[(&[Page], ErrorWriter)] =
    &[(anthropic::PAGES, anthropic::write_error), (ollama::ERROR_PAGES, ollama::write_error)];

/// Every page. `{id}` in a path stands for any text that is not empty. Of two pages that match, the first one counts.
pub(crate) fn pages() -> impl Iterator<Item = &'static Page> {
    let dialects = [openai::PAGES, responses::PAGES, anthropic::PAGES, ollama::PAGES];
    dialects.into_iter().chain([llama_server::PAGES, cluster::PAGES, web::PAGES, &[INDEX]]).flatten()
}

/// The filter for all pages over `state`. It rejects nothing, so that every answer is one of ours.
pub(crate) fn filter(state: &Arc<AppState>) -> BoxedFilter<(Response,)> {
    let unknown = warp::path::full()
        .and(warp::method())
        .map(|path: FullPath, method: Method| unmatched(&method, path.as_str()).into_response());
    let index = get_server(warp::path::end(), state, |state| index::show(state, pages()));
    let dialects =
        [openai::filters(state), responses::filters(state), anthropic::filters(state), ollama::filters(state)];
    let others = [llama_server::filters(state), cluster::filters(state), web::filters(), vec![index]];
    let pages: Vec<_> = dialects.into_iter().chain(others).flatten().collect();
    pages.into_iter().rfold(unknown.boxed(), |later, page| page.or(later).unify().boxed())
}

/// The methods of the page at `path`.
pub(crate) fn methods(path: &str) -> Option<&'static str> {
    pages().find(|page| is_at(page, path)).map(|page| page.methods)
}

/// The page at `path` as it is listed, with `{id}` for what differs from request to request.
pub(crate) fn route(path: &str) -> Option<&'static str> {
    pages().find(|page| is_at(page, path)).map(|page| page.path)
}

/// The writer of errors of the page at `path`: that of its API.
pub(crate) fn error_writer(path: &str) -> ErrorWriter {
    let own = ERROR_WRITERS.iter().find(|(pages, _)| pages.iter().any(|page| is_at(page, path)));
    own.map_or(write_openai, |(_, writer)| *writer)
}

fn is_at(page: &Page, path: &str) -> bool {
    match page.path.split_once("{id}") {
        Some((start, end)) => {
            path.strip_prefix(start).and_then(|rest| rest.strip_suffix(end)).is_some_and(|id| !id.is_empty())
        }
        None => path.strip_suffix('/').filter(|path| path.len() > 1).unwrap_or(path) == page.path,
    }
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
        assert_eq!(methods("/v1/messages/count_tokens"), Some(WRITE));
        assert_eq!(methods("/v1/responses/resp_1"), Some("GET, HEAD, DELETE"));
        assert_eq!(methods("/v1/responses/resp_1/input_items"), Some(READ));
        assert_eq!(methods("/v1/responses/resp_1/cancel"), Some(WRITE));
        for path in ["", "/v1", "/v1/model", "/healthy", "//", "*"] {
            assert_eq!(methods(path), None, "{path}");
        }
    }

    #[test]
    fn the_errors_of_a_page_are_written_as_its_api_writes_them() {
        let error = ApiError::unavailable("Layers are missing.");
        let kind = |path| {
            let body: serde_json::Value = serde_json::from_str(&error_writer(path)(&error, "req_1")).unwrap();
            body["error"]["type"].as_str().unwrap().to_owned()
        };
        for path in ["/v1/messages", "/v1/messages/", "/v1/messages/count_tokens"] {
            assert_eq!(kind(path), "overloaded_error", "{path}");
        }
        for path in ["/v1/chat/completions", "/health", "/", "/nowhere"] {
            assert_eq!(kind(path), "unavailable_error", "{path}");
        }
    }
}
