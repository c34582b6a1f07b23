//! The endpoint of a process, as it stands in the store: `ipc:///path/in.sock` or `tcp://host:port`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::LinkError;
use super::limits::SOCKET_PATH_BYTES_MAX;

/// A parsed endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// A Unix socket of a process on this machine. Only processes of the same user can reach it.
    Ipc(PathBuf),
    /// The TCP port at which a process accepts the links of other machines. An IPv6 address is held here without
    /// brackets.
    Tcp { host: String, port: u16 },
}

// === impl Endpoint ===

impl Endpoint {
    /// The endpoint of the socket at `path`. An error if the path is too long for the address of a socket.
    pub(super) fn ipc(path: &Path) -> Result<Self, LinkError> {
        let bytes = path.as_os_str().len();
        if bytes > SOCKET_PATH_BYTES_MAX {
            return Err(LinkError::PathTooLong { path: path.to_owned(), found: bytes });
        }
        Ok(Self::Ipc(path.to_owned()))
    }
}

impl FromStr for Endpoint {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let unknown = || LinkError::Endpoint { found: text.chars().take(200).collect() };
        if let Some(path) = text.strip_prefix("ipc://") {
            return if path.starts_with('/') { Self::ipc(Path::new(path)) } else { Err(unknown()) };
        }
        let (host, port) =
            text.strip_prefix("tcp://").and_then(|address| address.rsplit_once(':')).ok_or_else(unknown)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(unknown)?;
        let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match in_brackets {
            Some(host) => Ok(Self::Tcp { host: host.to_owned(), port }),
            None if host.is_empty() || host.contains([':', '/', '[', ']', '@', ' ']) => Err(unknown()),
            None => Ok(Self::Tcp { host: host.to_owned(), port }),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipc(path) => write!(f, "ipc://{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_reads_back_as_itself() {
        for text in
            ["ipc:///tmp/baton-x/in.sock", "tcp://mini-1.local:7000", "tcp://10.0.0.2:1", "tcp://[fe80::1%en5]:65535"]
        {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_invalid_endpoint_is_refused_with_an_example() {
        for text in [
            "",
            "tcp://",
            "tcp://a",
            "tcp://a:0",
            "tcp://a:65536",
            "tcp://a:b:1",
            "ipc://relative",
            "udp://a:1",
            "tcp://:1",
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains("expected ipc:///path or tcp://host:port"), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_path_longer_than_a_socket_address_is_refused() {
        let text = format!("ipc:///{}", "x".repeat(SOCKET_PATH_BYTES_MAX));
        assert!(matches!(text.parse::<Endpoint>(), Err(LinkError::PathTooLong { found: 101, .. })));
    }
}
