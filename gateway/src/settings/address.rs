//! Addresses in the settings: the endpoints of the store, and the host under which others reach this machine.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Deserialize;

/// Maximum number of endpoints of one store: etcd clusters have three, five or seven members.
const ENDPOINTS_MAX: usize = 16;

/// The endpoints of the store: one or more of `http://<host>:<port>` and `https://<host>:<port>`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "OneOrMany")]
pub struct EtcdUrls(Vec<String>);

/// The two forms of the setting: a text of endpoints with commas between them, or an array of texts in `baton.toml`.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// A host name or address without a port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Host(String);

/// The place at which a cluster is shared, if it is: `on`, `off`, `HOST`, `HOST:PORT` or `:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum SharePlace {
    /// It is not.
    Off,
    /// It is: at this host and port, where they are given.
    At(Option<Host>, Option<u16>),
}

/// An address that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The text is not an address of a store.
    #[error(
        "store address {found:?} is not usable: expected http(s)://<host>:<port>, several with commas between them"
    )]
    Etcd {
        /// The given text.
        found: String,
    },
    /// The text has too many addresses.
    #[error("{found} store addresses: expected at most {ENDPOINTS_MAX}")]
    Many {
        /// Number of addresses.
        found: usize,
    },
    /// The text does not say where a cluster is to be shared.
    #[error("share is {found:?}: expected on, off, HOST, HOST:PORT or :PORT")]
    Share {
        /// The given text.
        found: String,
    },
    /// The text is not a host.
    #[error("host {found:?} is not usable: expected a host name or an address, without a port")]
    Host {
        /// The given text.
        found: String,
    },
}

// === impl EtcdUrls ===

impl EtcdUrls {
    fn new<'a>(urls: impl Iterator<Item = &'a str>) -> Result<Self, AddressError> {
        let urls: Vec<_> = urls.map(|url| endpoint(url.trim())).collect::<Result<_, _>>()?;
        match urls.len() {
            0 => Err(AddressError::Etcd { found: String::new() }),
            1..=ENDPOINTS_MAX => Ok(Self(urls)),
            found => Err(AddressError::Many { found }),
        }
    }

    /// The endpoints, each with its scheme.
    pub fn into_vec(self) -> Vec<String> {
        self.0
    }
}

/// Checks one endpoint. Adds `http://` if it is missing, and removes a slash at the end.
fn endpoint(text: &str) -> Result<String, AddressError> {
    // Cut, so that the message stays readable.
    let found = || text.chars().take(200).collect();
    let (scheme, authority) = match text.strip_prefix("https://") {
        Some(authority) => ("https", authority),
        None => ("http", text.strip_prefix("http://").unwrap_or(text)),
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let (host, port) = authority.rsplit_once(':').ok_or_else(|| AddressError::Etcd { found: found() })?;
    let port_is_good = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    // Only an IPv6 address stands in brackets.
    let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_is_good = match in_brackets {
        Some(address) => address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()),
        None => is_host_name(host),
    };
    if port_is_good && host_is_good {
        Ok(format!("{scheme}://{authority}"))
    } else {
        Err(AddressError::Etcd { found: found() })
    }
}

/// True for a host name or an IPv4 address. 253 bytes are DNS's limit.
fn is_host_name(host: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !host.is_empty() && host.len() <= 253 && host.bytes().all(legal)
}

impl FromStr for EtcdUrls {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::new(text.split(','))
    }
}

impl TryFrom<OneOrMany> for EtcdUrls {
    type Error = AddressError;
    fn try_from(urls: OneOrMany) -> Result<Self, AddressError> {
        match urls {
            OneOrMany::One(urls) => urls.parse(),
            OneOrMany::Many(urls) => Self::new(urls.iter().map(String::as_str)),
        }
    }
}

// === impl SharePlace ===

impl FromStr for SharePlace {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::Share { found: text.chars().take(200).collect() };
        match text {
            "on" => return Ok(Self::At(None, None)),
            "off" => return Ok(Self::Off),
            _ => {}
        }
        // A bare IPv6 address has colons, too; one with a port stands in brackets.
        if let Ok(host) = text.parse::<Host>() {
            return Ok(Self::At(Some(host), None));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let host = if host.is_empty() { None } else { Some(bare.parse().map_err(|_| wrong())?) };
        Ok(Self::At(host, Some(port)))
    }
}

impl TryFrom<String> for SharePlace {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

// === impl Host ===

impl Host {
    /// The host as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if the host is `localhost` or a loopback address, so that other machines cannot reach it. Other names are
    /// not resolved: they count as reachable.
    pub fn is_loopback(&self) -> bool {
        self.0 == "localhost" || self.0.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for Host {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        // 0.0.0.0 and :: stand for all addresses of this machine, so other machines cannot connect to them.
        let unspecified = text.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
        if (is_host_name(text) || text.parse::<IpAddr>().is_ok()) && !unspecified {
            Ok(Self(text.to_owned()))
        } else {
            Err(AddressError::Host { found: text.chars().take(200).collect() })
        }
    }
}

impl TryFrom<String> for Host {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_addresses_are_read_with_and_without_their_scheme() {
        let urls: EtcdUrls = "mini-1:2379, http://10.0.0.2:2379/,https://[fe80::1]:2379".parse().unwrap();
        assert_eq!(urls.into_vec(), ["http://mini-1:2379", "http://10.0.0.2:2379", "https://[fe80::1]:2379"]);
    }

    #[test]
    fn a_bad_store_address_is_refused() {
        for text in [
            "",
            "mini-1",
            "http://mini-1",
            "a:0",
            "a:99999",
            "a:+1",
            "ftp://a:1",
            "http://a:1/x",
            "a:1,,b:1",
            "[::g]:1",
        ] {
            assert!(matches!(text.parse::<EtcdUrls>(), Err(AddressError::Etcd { .. })), "{text} was accepted");
        }
        assert!(matches!(vec!["a:1"; 17].join(",").parse::<EtcdUrls>(), Err(AddressError::Many { found: 17 })));
    }

    #[test]
    fn a_place_to_share_a_cluster_has_a_host_or_a_port_or_both() {
        let host = |text: &str| Some(text.parse::<Host>().unwrap());
        for (text, share) in [
            ("off", SharePlace::Off),
            ("on", SharePlace::At(None, None)),
            ("mini-1.local", SharePlace::At(host("mini-1.local"), None)),
            ("mini-1:7000", SharePlace::At(host("mini-1"), Some(7000))),
            (":7000", SharePlace::At(None, Some(7000))),
            ("fe80::1", SharePlace::At(host("fe80::1"), None)),
            ("[fe80::1]:7000", SharePlace::At(host("fe80::1"), Some(7000))),
        ] {
            assert_eq!(text.parse::<SharePlace>().unwrap(), share, "{text}");
        }
        for text in ["", ":", ":0", "a:b", "a b", "0.0.0.0", "0.0.0.0:1", "a:70000"] {
            assert!(text.parse::<SharePlace>().is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn a_host_has_no_port_and_is_an_address_others_can_use() {
        for (text, loopback) in
            [("mini-1.local", false), ("10.0.0.2", false), ("::1", true), ("localhost", true), ("127.0.0.1", true)]
        {
            assert_eq!(text.parse::<Host>().unwrap().is_loopback(), loopback, "{text}");
        }
        for text in ["", "a:1", "a b", "tcp://a", "0.0.0.0", "::"] {
            assert!(text.parse::<Host>().is_err(), "{text} was accepted");
        }
    }
}
