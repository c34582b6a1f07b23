//! The pages for browsers: the dashboard at `/`, the chat at `/chat`, and their scripts and styles below `/web/`.
//!
//! The files lie in `gateway/web` and are a part of the program. No tool builds them, and nothing in them comes from
//! another host. Their policy forbids scripts in the page, other hosts, and markup made from text.

use std::sync::LazyLock;

use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{Method, StatusCode};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reply::{Reply, Response};

use super::error::ApiError;
use super::page::{Page, READ};

pub(super) const PAGES: &[Page] = &[
    Page { path: "/chat", methods: READ, description: "a chat in the browser" },
    Page { path: "/web/{id}", methods: READ, description: "the scripts and styles of the pages for browsers" },
];

/// `trusted-types` makes browsers refuse any markup that a script makes from text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";
const CROSS_ORIGIN_OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// The dashboard.
const DASHBOARD: File = file("/", HTML, include_str!("../../web/dashboard.html"));

/// The other files, by their paths.
const FILES: &[File] = &[
    file("/chat", HTML, include_str!("../../web/chat.html")),
    script("/web/dashboard.js", include_str!("../../web/dashboard.js")),
    script("/web/boundary.js", include_str!("../../web/boundary.js")),
    script("/web/pipeline.js", include_str!("../../web/pipeline.js")),
    script("/web/colours.js", include_str!("../../web/colours.js")),
    script("/web/dense.js", include_str!("../../web/dense.js")),
    script("/web/machines.js", include_str!("../../web/machines.js")),
    script("/web/plots.js", include_str!("../../web/plots.js")),
    script("/web/requests.js", include_str!("../../web/requests.js")),
    script("/web/links.js", include_str!("../../web/links.js")),
    script("/web/log.js", include_str!("../../web/log.js")),
    script("/web/live.js", include_str!("../../web/live.js")),
    script("/web/sse.js", include_str!("../../web/sse.js")),
    script("/web/merge.js", include_str!("../../web/merge.js")),
    script("/web/api.js", include_str!("../../web/api.js")),
    script("/web/dom.js", include_str!("../../web/dom.js")),
    script("/web/drill.js", include_str!("../../web/drill.js")),
    script("/web/units.js", include_str!("../../web/units.js")),
    script("/web/chat.js", include_str!("../../web/chat.js")),
    script("/web/answer.js", include_str!("../../web/answer.js")),
    script("/web/conversations.js", include_str!("../../web/conversations.js")),
    script("/web/markdown.js", include_str!("../../web/markdown.js")),
    script("/web/math.js", include_str!("../../web/math.js")),
    script("/web/code.js", include_str!("../../web/code.js")),
    file("/web/base.css", STYLE, include_str!("../../web/base.css")),
    file("/web/dashboard.css", STYLE, include_str!("../../web/dashboard.css")),
    file("/web/chat.css", STYLE, include_str!("../../web/chat.css")),
    file("/web/icon.svg", IMAGE, include_str!("../../web/icon.svg")),
];

/// The digest of each file, as its `ETag`, in the order of [`FILES`]; the dashboard's is the last.
static TAGS: LazyLock<Vec<HeaderValue>> = LazyLock::new(|| FILES.iter().chain([&DASHBOARD]).map(File::tag).collect());

struct File {
    path: &'static str,
    media_type: &'static str,
    text: &'static str,
}

const fn file(path: &'static str, media_type: &'static str, text: &'static str) -> File {
    File { path, media_type, text }
}

const fn script(path: &'static str, text: &'static str) -> File {
    file(path, SCRIPT, text)
}

/// The filters for these files. That of the dashboard matches only clients that ask for HTML.
pub(super) fn filters() -> Vec<BoxedFilter<(Response,)>> {
    let dashboard =
        warp::path::end().and(warp::get()).and(warp::header::headers_cloned()).and_then(async |headers: HeaderMap| {
            match wants_html(&headers) {
                true => Ok(DASHBOARD.response(TAGS.last(), &headers)),
                false => Err(warp::reject::not_found()),
            }
        });
    let others = warp::path::full().and(warp::get()).and(warp::header::headers_cloned()).and_then(
        async |path: FullPath, headers: HeaderMap| match find(path.as_str()) {
            Some(position) => Ok(FILES[position].response(TAGS.get(position), &headers)),
            None if path.as_str().starts_with("/web/") => Ok(ApiError::no_such_path(path.as_str()).into_response()),
            None => Err(warp::reject::not_found()),
        },
    );
    vec![dashboard.boxed(), others.boxed()]
}

/// True if the request gets one of these files, which are no secrets.
pub(super) fn is_page(request: &Parts) -> bool {
    let is_read = request.method == Method::GET || request.method == Method::HEAD;
    let path = request.uri.path();
    is_read && (find(path).is_some() || path == "/" && wants_html(&request.headers))
}

fn find(path: &str) -> Option<usize> {
    let path = if path == "/chat/" { "/chat" } else { path };
    FILES.iter().position(|file| file.path == path)
}

/// True if the client is a browser that shows a page. Others get the list of pages.
fn wants_html(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    accepted.any(|accept| accept.split([',', ';']).any(|kind| kind.trim().eq_ignore_ascii_case("text/html")))
}

// === impl File ===

impl File {
    fn tag(&self) -> HeaderValue {
        let digest = blake3::hash(self.text.as_bytes()).to_hex();
        HeaderValue::try_from(format!("\"{}\"", &digest[..16])).unwrap_or(HeaderValue::from_static("\"0\""))
    }

    /// The file, or 304 if the client has it.
    fn response(&self, tag: Option<&HeaderValue>, request: &HeaderMap) -> Response {
        let is_known = |known: &HeaderValue| {
            let (known, tag) = (known.to_str().unwrap_or_default(), tag.and_then(|tag| tag.to_str().ok()));
            tag.is_some_and(|tag| known.split(',').any(|known| known.trim().trim_start_matches("W/") == tag))
        };
        let mut response = match request.get(IF_NONE_MATCH).is_some_and(is_known) {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => self.text.into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(CROSS_ORIGIN_OPENER_POLICY, HeaderValue::from_static("same-origin"));
        headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(VARY, HeaderValue::from_static("Accept"));
        headers.extend(tag.map(|tag| (ETAG, tag.clone())));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that a visit of both pages may take: the whole of them loads in a second over 3 Mbit/s.
    const BYTES_MAX: usize = 300 << 10;

    #[test]
    fn the_pages_are_small_and_name_no_other_host() {
        let all = FILES.iter().chain([&DASHBOARD]);
        let bytes: usize = all.clone().map(|file| file.text.len()).sum();
        assert!(bytes <= BYTES_MAX, "{bytes}");
        for file in all {
            for scheme in ["http://", "https://"] {
                // The namespaces of SVG and MathML are names and not addresses.
                let foreign = file.text.match_indices(scheme).find(|(at, _)| {
                    let rest = &file.text[at + scheme.len()..];
                    rest.starts_with(|letter: char| letter.is_ascii_alphanumeric()) && !rest.starts_with("www.w3.org/")
                });
                assert_eq!(foreign, None, "{}", file.path);
            }
            for unsafe_call in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!file.text.contains(unsafe_call), "{} has {unsafe_call}", file.path);
            }
        }
    }

    #[test]
    fn every_script_and_style_that_a_page_names_is_there() {
        for file in FILES.iter().chain([&DASHBOARD]) {
            let quoted = file.text.split('"').skip(1).step_by(2);
            for name in quoted.filter(|text| text.starts_with("/web/") || text.starts_with("./")) {
                let path = name.strip_prefix("./").map_or(name.to_owned(), |name| format!("/web/{name}"));
                assert!(find(&path).is_some(), "{} names {name}", file.path);
            }
        }
    }

    #[test]
    fn only_a_client_that_asks_for_html_gets_the_dashboard() {
        let wants =
            |accept: &'static str| wants_html(&HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]));
        assert!(wants("text/html,application/xhtml+xml,*/*;q=0.8") && wants("Text/HTML; q=0.9"));
        assert!(!wants("*/*") && !wants("application/json") && !wants("text/htmlx") && !wants_html(&HeaderMap::new()));
    }
}
