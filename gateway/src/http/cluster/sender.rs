//! The senders that may change the cluster over HTTP: pages of this server, and programs that are no browsers.

use http::HeaderValue;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, ORIGIN};

use crate::http::error::ApiError;
use crate::http::server::origin;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses what a page of another site could send: a browser says in `Sec-Fetch-Site` and `Origin` where a request
/// comes from, and sends JSON to another site only if that allows it.
pub(super) fn check(headers: &HeaderMap) -> Result<(), ApiError> {
    let media_type = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        let message = format!("Expected the header Content-Type: application/json, found {media_type:?}.");
        return Err(ApiError::bad_request("invalid_content_type", message));
    }
    let is_same_site = headers.get(SEC_FETCH_SITE).is_none_or(|site| site == "same-origin" || site == "none");
    let is_same_origin = headers.get(ORIGIN).is_none_or(|origin| is_own(origin, headers));
    if is_same_site && is_same_origin {
        return Ok(());
    }
    let message = "Only pages of this server may do this: expected a request of the same origin.";
    Err(ApiError::forbidden("origin_not_allowed", message))
}

/// True if the page came from the host that the request asks for.
fn is_own(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let text = |value: &HeaderValue| value.to_str().map(str::to_owned).unwrap_or_default();
    headers.get(HOST).is_some_and(|host| origin::is_same(&text(origin), &text(host)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(headers: &[(&str, &str)]) -> Result<(), &'static str> {
        let mut request = http::Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(request.body(()).unwrap().headers()).map_err(|error| error.code().unwrap())
    }

    #[test]
    fn only_json_of_the_same_origin_or_of_no_browser_may_change_the_cluster() {
        let json = ("content-type", "application/json; charset=utf-8");
        let (host, own) = (("host", "mini-1:8100"), ("origin", "http://mini-1:8100"));
        assert_eq!(checked(&[json]), Ok(()), "curl");
        assert_eq!(checked(&[json, host, own, ("sec-fetch-site", "same-origin")]), Ok(()));
        assert_eq!(checked(&[json, host, ("sec-fetch-site", "none")]), Ok(()));
        for site in ["cross-site", "same-site", "nonsense"] {
            assert_eq!(checked(&[json, host, ("sec-fetch-site", site)]), Err("origin_not_allowed"), "{site}");
        }
        for origin in ["http://mini-1:9000", "http://localhost:8100", "null", "http://evil.example"] {
            assert_eq!(checked(&[json, host, ("origin", origin)]), Err("origin_not_allowed"), "{origin}");
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded", ""] {
            assert_eq!(checked(&[("content-type", kind), host, own]), Err("invalid_content_type"), "{kind}");
        }
        assert_eq!(checked(&[]), Err("invalid_content_type"));
    }
}
