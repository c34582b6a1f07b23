//! Checks the `Origin` of requests. Web pages of this machine and of this server may use it. Pages of others may use it
//! only if a setting lists them. Programs that are not browsers send no `Origin`.

use std::str::FromStr;

use http::header::{HeaderValue, ORIGIN};
use http::request::Parts;

use super::allowed::Allowed;
use super::host::{authority, host_of, is_local};
use crate::http::error::{ApiError, cut};

/// Longest origin that a setting may list, in bytes.
const ORIGIN_BYTES_MAX: usize = 300;

/// Web pages that may use this server, besides those of this machine.
pub type AllowedOrigin = Allowed<Origin>;

/// The origin of web pages, in lower case and without a port that its scheme implies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

/// A text that is not usable as an allowed origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("origin {found:?} is not usable: expected <scheme>://<host>, with a port where it has one, or * for any")]
pub struct OriginError {
    /// The text as it was given, cut to its first characters.
    found: String,
}

/// The decision about a request's origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OriginVerdict {
    /// The request has none: it comes from no browser, or from a page that only reads and cannot see the answer.
    None,
    /// The origin may use the server. The value is for `Access-Control-Allow-Origin`.
    Allowed(HeaderValue),
    /// The origin may not use the server. The text is for the error message.
    Foreign(String),
}

/// Decides if the origin of `request` may use the server. `allowed` lists the origins of the settings.
pub(crate) fn evaluate(request: &Parts, allowed: &[AllowedOrigin]) -> OriginVerdict {
    let mut origins = request.headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else { return OriginVerdict::None };
    if allowed.contains(&AllowedOrigin::Any) {
        return OriginVerdict::Allowed(HeaderValue::from_static("*"));
    }
    let text = origin.to_str().unwrap_or_default();
    let host = authority(request).ok().flatten();
    let is_known = is_of_this_machine(text) || host.is_some_and(|host| is_same(text, host)) || {
        let text = normalize(text);
        allowed.iter().any(|allowed| allowed.admits(&text))
    };
    if is_known && origins.next().is_none() {
        OriginVerdict::Allowed(origin.clone())
    } else {
        OriginVerdict::Foreign(cut(&String::from_utf8_lossy(origin.as_bytes())))
    }
}

/// Refuses a request that changes something or makes work, if it comes from a page that may not use the server. A
/// browser sends some of these requests without a preflight request.
///
/// # Errors
/// 403 that names the setting to allow it.
pub(crate) fn check(request: &Parts, verdict: &OriginVerdict) -> Result<(), ApiError> {
    match verdict {
        OriginVerdict::Foreign(found) if !request.method.is_safe() => {
            let flag = AllowedOrigin::from_str(found).map_or_else(|_| "'*'".to_owned(), |origin| origin.to_string());
            Err(ApiError::foreign_origin(found, &flag))
        }
        _ => Ok(()),
    }
}

/// The host and port of an origin with the scheme `http` or `https`.
fn web_authority(origin: &str) -> Option<&str> {
    let (scheme, authority) = origin.split_once("://")?;
    ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web)).then_some(authority)
}

fn is_of_this_machine(origin: &str) -> bool {
    let host = web_authority(origin).and_then(host_of);
    host.is_some_and(|host| is_local(&host.to_ascii_lowercase()))
}

/// True if the page came from the host that its request names, perhaps through a proxy that terminates TLS.
pub(crate) fn is_same(origin: &str, host: &str) -> bool {
    let bare = |authority: &str| {
        let authority = authority.to_ascii_lowercase();
        let bare = authority.strip_suffix(":80").or_else(|| authority.strip_suffix(":443"));
        bare.unwrap_or(&authority).to_owned()
    };
    web_authority(origin).is_some_and(|authority| bare(authority) == bare(host))
}

/// The origin in lower case, without a port that its scheme implies.
fn normalize(origin: &str) -> String {
    let origin = origin.to_ascii_lowercase();
    let implied = match origin.split_once("://") {
        Some(("http", _)) => origin.strip_suffix(":80"),
        Some(("https", _)) => origin.strip_suffix(":443"),
        _ => None,
    };
    implied.unwrap_or(&origin).to_owned()
}

// === impl Origin ===

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let origin = text.strip_suffix('/').unwrap_or(text);
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._:[]".contains(&byte);
        let is_origin = origin.len() <= ORIGIN_BYTES_MAX
            && origin.split_once("://").is_some_and(|(scheme, rest)| {
                !scheme.is_empty() && !rest.is_empty() && scheme.bytes().chain(rest.bytes()).all(legal)
            });
        if is_origin { Ok(Self(normalize(origin))) } else { Err(OriginError { found: cut(text) }) }
    }
}

impl AsRef<str> for Origin {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluate_request(host: &str, origins: &[&str], allowed: &[&str]) -> OriginVerdict {
        let mut request = http::Request::builder().header("host", host);
        for origin in origins {
            request = request.header("origin", *origin);
        }
        let allowed: Vec<AllowedOrigin> = allowed.iter().map(|origin| origin.parse().unwrap()).collect();
        evaluate(&request.body(()).unwrap().into_parts().0, &allowed)
    }

    fn is_allowed(host: &str, origin: &str, allowed: &[&str]) -> bool {
        match evaluate_request(host, &[origin], allowed) {
            OriginVerdict::Allowed(value) => value == origin,
            OriginVerdict::Foreign(found) => {
                assert_eq!(found, origin);
                false
            }
            OriginVerdict::None => panic!("there is an origin"),
        }
    }

    #[test]
    fn pages_of_this_machine_are_allowed_on_any_port() {
        for origin in [
            "http://localhost",
            "https://localhost:3000",
            "http://127.0.0.1:8080",
            "http://[::1]:1",
            "http://127.1.2.3",
        ] {
            assert!(is_allowed("localhost:8100", origin, &[]), "{origin}");
        }
    }

    #[test]
    fn pages_of_others_are_foreign_and_so_is_null() {
        for origin in [
            "null",
            "",
            "http://evil.example",
            "http://localhost.evil.example",
            "http://evil.example:80@localhost",
            "https://10.0.0.1",
            "file://",
            "localhost",
            "ftp://localhost",
            "http://[::1].evil.example",
        ] {
            assert!(!is_allowed("localhost:8100", origin, &["https://chat.example"]), "{origin}");
        }
        assert!(matches!(
            evaluate_request("localhost", &["http://localhost", "http://a"], &[]),
            OriginVerdict::Foreign(_)
        ));
        assert_eq!(evaluate_request("localhost", &[], &[]), OriginVerdict::None);
    }

    #[test]
    fn pages_of_this_server_are_allowed_under_each_of_its_names() {
        assert!(is_allowed("mini-1.local:8100", "http://mini-1.local:8100", &[]));
        assert!(is_allowed("Chat.Example", "https://chat.example", &[]));
        assert!(!is_allowed("mini-1.local:8100", "http://mini-1.local:9000", &[]));
    }

    #[test]
    fn listed_pages_are_allowed_without_the_port_their_scheme_implies() {
        assert!(is_allowed("localhost", "https://chat.example", &["https://Chat.example:443/"]));
        assert!(is_allowed("localhost", "app://obsidian.md", &["http://a", "app://obsidian.md"]));
        assert!(!is_allowed("localhost", "http://chat.example", &["https://chat.example"]));
        assert_eq!(
            evaluate_request("localhost", &["null"], &["*"]),
            OriginVerdict::Allowed(HeaderValue::from_static("*"))
        );
    }

    #[test]
    fn a_text_that_is_not_an_origin_is_refused() {
        for invalid in ["", "chat.example", "https://", "https://a/b", "://a", "https://a b", "null"] {
            let error = invalid.parse::<AllowedOrigin>().unwrap_err();
            assert!(error.to_string().contains("<scheme>://<host>"), "{error}");
        }
    }
}
