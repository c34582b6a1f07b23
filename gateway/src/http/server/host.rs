//! Checks the `Host` of requests against DNS rebinding. In this attack, the name of a foreign web page changes its
//! address to this machine's. The page then reaches this server as if it were the page's own, and only `Host` shows the
//! foreign name. So a host name must be a known one. An IP address is accepted, because it cannot be rebound.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use engine::view::ClusterView;
use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, Version};

use super::allowed::Allowed;
use crate::http::error::{ApiError, cut};

/// Longest name in DNS, in bytes.
const NAME_BYTES_MAX: usize = 253;

/// A host that requests may name, besides this machine's own names and those of the cluster.
pub type AllowedHost = Allowed<HostName>;

/// A host name or an address, in lower case and without a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(String);

/// A text that is not usable as an allowed host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("host {found:?} is not usable: expected a host name without a port, or * for any")]
pub struct HostError {
    /// The text as it was given, cut to its first characters.
    found: String,
}

/// The hosts that this server answers for, beside addresses and names of this machine that are the same everywhere.
pub(crate) struct KnownHosts<'a> {
    /// Names of this machine.
    pub(crate) own: &'a [String],
    /// Names that the operator allows.
    pub(crate) allowed: &'a [AllowedHost],
    /// Returns the clusters, whose machines' names count, too. Called only for a host that nothing else admits.
    pub(crate) views: &'a dyn Fn() -> Vec<Arc<ClusterView>>,
}

/// Refuses a request whose host is not this server's.
///
/// # Errors
/// 400 if the host that HTTP/1.1 requires is missing or not usable, 403 if it is a foreign one.
pub(crate) fn check(request: &Parts, known: &KnownHosts<'_>) -> Result<(), ApiError> {
    let Some(authority) = authority(request)? else { return Ok(()) };
    let host = host_of(authority).unwrap_or(authority).to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    let is_known = is_local(host)
        || host.parse::<IpAddr>().is_ok()
        || known.own.iter().any(|own| is_same_machine(own, host))
        || known.allowed.iter().any(|allowed| allowed.admits(host))
        || (known.views)().iter().any(|view| is_of_cluster(view, host));
    if is_known {
        return Ok(());
    }
    let flag = AllowedHost::from_str(host).map_or_else(|_| "NAME".to_owned(), |host| host.to_string());
    Err(ApiError::foreign_host(&cut(host), &flag))
}

/// The host and port that a request names. `None` if it names none and need not.
///
/// # Errors
/// 400 if it names none but must, or if it names several.
pub(crate) fn authority(request: &Parts) -> Result<Option<&str>, ApiError> {
    if let Some(authority) = request.uri.authority() {
        return Ok(Some(authority.as_str()));
    }
    match named(&request.headers) {
        Some(Ok("")) => Ok(None),
        Some(named) => named.map(Some),
        None if request.version < Version::HTTP_11 => Ok(None),
        None => Err(ApiError::bad_request("invalid_host", "The request has no Host header: HTTP/1.1 asks for one.")),
    }
}

fn named(headers: &HeaderMap) -> Option<Result<&str, ApiError>> {
    let mut hosts = headers.get_all(HOST).iter();
    let first = hosts.next()?;
    let text = first.to_str().ok().filter(|_| hosts.next().is_none());
    let message = "The Host header is not usable: expected one, with a name or an address.";
    Some(text.ok_or_else(|| ApiError::bad_request("invalid_host", message)))
}

/// The host in `host`, `host:port` or `[host]:port`, without brackets and IPv6 zone.
pub(crate) fn host_of(authority: &str) -> Option<&str> {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        let host = host.split_once('%').map_or(host, |(host, _)| host);
        return (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(host);
    }
    match authority.split_once(':') {
        Some((host, port)) => is_port(port).then_some(host),
        None => Some(authority),
    }
}

/// True if `host`, in lower case, means the local machine on every machine, so that no other can be reached by it.
pub(crate) fn is_local(host: &str) -> bool {
    let is_name = host == "localhost" || host.ends_with(".localhost");
    is_name || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// True if `host` is `own`, or the first label of `own`, or that label with mDNS's `.local`.
fn is_same_machine(own: &str, host: &str) -> bool {
    let own = own.strip_suffix('.').unwrap_or(own);
    if own.eq_ignore_ascii_case(host) {
        return true;
    }
    let label = own.split('.').next().unwrap_or_default();
    let is_address = own.parse::<IpAddr>().is_ok();
    !is_address && !label.is_empty() && host.strip_suffix(".local").unwrap_or(host).eq_ignore_ascii_case(label)
}

/// True if a gateway or a stage of the cluster is reached by `host`.
fn is_of_cluster(view: &ClusterView, host: &str) -> bool {
    let gateways = view.gateways.values().map(|gateway| &gateway.value);
    let gateways = gateways.flat_map(|gateway| [&*gateway.host, &gateway.url, &gateway.endpoint]);
    let stages = view.stages.values().map(|stage| &stage.value);
    let mut hosts = gateways.chain(stages.flat_map(|stage| [&*stage.host, &stage.endpoint]));
    hosts.any(|found| {
        let authority = found.split_once("://").map_or(found, |(_, rest)| rest.split('/').next().unwrap_or_default());
        host_of(authority).is_some_and(|found| is_same_machine(found, host))
    })
}

// === impl HostName ===

impl FromStr for HostName {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let is_name = (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(legal);
        if is_name || text.parse::<IpAddr>().is_ok() {
            Ok(Self(text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase()))
        } else {
            Err(HostError { found: cut(text) })
        }
    }
}

impl AsRef<str> for HostName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_read_with_and_without_its_port() {
        for (authority, host) in [
            ("localhost", "localhost"),
            ("a.example:8100", "a.example"),
            ("[::1]:8100", "::1"),
            ("[fe80::1%25en0]", "fe80::1"),
            ("10.0.0.1:", "10.0.0.1"),
        ] {
            assert_eq!(host_of(authority), Some(host));
        }
        for invalid in ["a:b", "a:1:2", "[::1", "[::1]x", "localhost:80@evil.example"] {
            assert_eq!(host_of(invalid), None, "{invalid}");
        }
    }

    #[test]
    fn only_names_that_always_mean_this_machine_are_local() {
        for host in ["localhost", "app.localhost", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(is_local(host), "{host}");
        }
        for host in ["localhost.evil.example", "notlocalhost", "10.0.0.1", "0.0.0.0", "", "local"] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn a_machine_has_its_name_its_first_label_and_its_mdns_name() {
        for (own, host) in [
            ("mini-1", "mini-1"),
            ("mini-1", "mini-1.local"),
            ("Mini-1.local", "mini-1"),
            ("mini-1.lan.example", "mini-1.local"),
            ("mini-1.lan.example", "mini-1.lan.example"),
        ] {
            assert!(is_same_machine(own, host), "{own} {host}");
        }
        for (own, host) in [
            ("mini-1", "mini-2"),
            ("mini-1", "mini-1.evil.example"),
            ("mini-1.lan", "mini-1.example"),
            ("10.0.0.1", "10"),
            ("", ".local"),
            (".x", ".local"),
        ] {
            assert!(!is_same_machine(own, host), "{own} {host}");
        }
    }

    #[test]
    fn a_name_is_allowed_in_any_case_and_a_port_is_refused() {
        let named = |name: &str| AllowedHost::Named(HostName(name.to_owned()));
        assert_eq!("Chat.Example".parse(), Ok(named("chat.example")));
        assert_eq!("*".parse(), Ok(AllowedHost::Any));
        for invalid in ["", "a:80", "http://a", "*.example", "a b"] {
            let error = invalid.parse::<AllowedHost>().unwrap_err();
            assert!(error.to_string().contains("without a port"), "{error}");
        }
    }
}
