//! The secrets that a request presents: `Authorization: Bearer` (OpenAI's clients) and `x-api-key` (Anthropic's).

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};

/// Header of Anthropic's clients.
pub(super) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Secrets of one request that are looked up: one of each header, as some clients send both.
const SECRETS_MAX: usize = 2;

/// The secrets in the headers, at most one of each header. A request without any presents none.
pub(crate) fn presented(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let bearer = headers.get_all(AUTHORIZATION).iter().find_map(|value| bearer(value.as_bytes()));
    let api_key = headers.get(API_KEY).map(|value| value.as_bytes().trim_ascii());
    bearer.into_iter().chain(api_key).take(SECRETS_MAX)
}

/// The secret of `Bearer <secret>`. The scheme is compared without regard to case (RFC 9110, section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let end = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, secret) = value.split_at(end);
    scheme.eq_ignore_ascii_case(b"bearer").then(|| secret.trim_ascii())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn found(headers: &[(&'static str, &str)]) -> Vec<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        presented(&map).map(|secret| String::from_utf8_lossy(secret).into_owned()).collect()
    }

    #[test]
    fn a_secret_comes_as_bearer_or_as_api_key() {
        assert_eq!(found(&[("authorization", "Bearer abc")]), ["abc"]);
        assert_eq!(found(&[("authorization", "bEARER   abc ")]), ["abc"]);
        assert_eq!(found(&[("x-api-key", "abc")]), ["abc"]);
        assert_eq!(found(&[("x-api-key", "abc"), ("authorization", "Bearer def")]), ["def", "abc"]);
        assert_eq!(found(&[("authorization", "Basic eA=="), ("authorization", "Bearer abc")]), ["abc"]);
    }

    #[test]
    fn anything_else_is_no_secret() {
        for value in ["", "Bearer", "Basic abc", "abc", "Bearerabc"] {
            assert!(found(&[("authorization", value)]).is_empty(), "{value:?}");
        }
        assert!(found(&[("cookie", "key=abc")]).is_empty());
    }
}
