//! The scheme of an address.

use std::fmt;

/// The protocol of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

// === impl Scheme ===

impl Scheme {
    /// The scheme at the beginning of `url`, and what follows `://`. `None` if there is another scheme or none.
    pub fn split(url: &str) -> Option<(Self, &str)> {
        let http = url.strip_prefix("http://").map(|rest| (Self::Http, rest));
        http.or_else(|| url.strip_prefix("https://").map(|rest| (Self::Https, rest)))
    }

    /// The port of addresses that name none.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}
