//! The address of an endpoint.

use std::fmt;
use std::str::FromStr;

use super::scheme::Scheme;

/// An OpenAI-compatible endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    scheme: Scheme,
    /// Host and port, in the form of a `Host` header.
    authority: String,
    /// Path before `/v1/…`. It is empty, or begins with a slash and does not end with one.
    prefix: String,
}

// === impl Endpoint ===

impl Endpoint {
    /// HTTP, with TLS or without.
    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host and port.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// The port.
    pub(crate) fn port(&self) -> Option<&str> {
        self.authority.rsplit_once(':').map(|(_, port)| port)
    }

    /// The path of `/<path>` at this endpoint.
    pub(crate) fn page(&self, path: &str) -> String {
        format!("{}/{path}", self.prefix)
    }

    /// The path of `/v1/<name>` at this endpoint.
    pub(crate) fn path(&self, name: &str) -> String {
        format!("{}/v1/{name}", self.prefix)
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected http://<host>[:<port>] or https://<host>[:<port>], found {text:?}");
        let (scheme, rest) = Scheme::split(text).unwrap_or((Scheme::Http, text));
        if scheme == Scheme::Https && !cfg!(feature = "tls") {
            return Err(format!("expected http://…, found {text:?}: this baton was built without `--features tls`"));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let authority: http::uri::Authority = authority.parse().map_err(|_| wrong())?;
        if authority.as_str().contains('@') || text.contains(['?', '#']) || authority.host().is_empty() {
            return Err(wrong());
        }
        // The path is parsed too, because requests contain it unchanged.
        let path: http::uri::PathAndQuery = if path.is_empty() { "/" } else { path }.parse().map_err(|_| wrong())?;
        let path = path.as_str().trim_end_matches('/');
        let prefix = path.strip_suffix("/v1").unwrap_or(path).to_owned();
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() == authority.host() => scheme.default_port(),
            None => return Err(wrong()),
        };
        Ok(Self { scheme, authority: format!("{}:{port}", authority.host()), prefix })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_a_scheme_a_port_and_a_path() {
        for (text, url, path) in [
            ("http://127.0.0.1:8100", "http://127.0.0.1:8100", "/v1/models"),
            ("mini-1:8100/", "http://mini-1:8100", "/v1/models"),
            ("http://mini-1/v1", "http://mini-1:80", "/v1/models"),
            ("http://[::1]:8100/some/where/v1/", "http://[::1]:8100/some/where", "/some/where/v1/models"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((endpoint.to_string().as_str(), endpoint.path("models").as_str()), (url, path));
        }
    }

    #[test]
    #[cfg(feature = "tls")]
    fn an_address_may_be_https() {
        for (text, url) in [("https://mini-1/v1", "https://mini-1:443"), ("https://[::1]:8100", "https://[::1]:8100")] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((endpoint.to_string().as_str(), endpoint.scheme()), (url, Scheme::Https));
        }
    }

    #[test]
    fn an_address_that_is_not_http_is_refused() {
        for text in [
            "",
            "ftp://mini-1:8100",
            "http://",
            "https://",
            "http://me@mini-1",
            "http://a:b",
            "http://a:99999",
            "http://a:1/?x",
            "http://a b",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text} was accepted");
        }
    }
}
