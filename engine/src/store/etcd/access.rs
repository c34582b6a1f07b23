//! The way to a store: its endpoints, the certificates of TLS, and the user who logs in.
//!
//! Files and variables are read by others: certificates and keys are texts in PEM form here.

use std::fmt;

use etcd_client::ConnectOptions;
#[cfg(feature = "tls")]
use etcd_client::{Certificate, Identity, TlsOptions};

use crate::store::StoreError;

/// The scheme of an endpoint with TLS.
const TLS_SCHEME: &str = "https://";

/// Endpoints of one store, with all that it takes to be let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EtcdAccess {
    /// URLs such as `http://127.0.0.1:2379`. At least one. One that serves is enough.
    pub endpoints: Vec<String>,
    /// For `https://` endpoints.
    pub tls: EtcdTls,
    /// The user, where the store asks for one.
    pub login: Option<EtcdLogin>,
}

/// The certificates of a connection.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EtcdTls {
    /// The authorities to trust, in PEM form. `None` for the public ones.
    pub authority: Option<String>,
    /// The certificate to show and its key, both in PEM form.
    pub identity: Option<(String, String)>,
    /// The name that the store's certificate must have, if that is not the host of the endpoint.
    pub server_name: Option<String>,
}

/// A user of etcd's own authentication.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdLogin {
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

// === impl EtcdAccess ===

impl EtcdAccess {
    /// Endpoints without TLS and login.
    pub fn plain(endpoints: &[String]) -> Self {
        Self { endpoints: endpoints.to_vec(), ..Self::default() }
    }

    /// True if `endpoint` is one with TLS.
    pub fn is_tls(endpoint: &str) -> bool {
        endpoint.starts_with(TLS_SCHEME)
    }

    /// `options` with what `endpoint` needs of TLS.
    pub(super) fn secure(&self, endpoint: &str, options: ConnectOptions) -> Result<ConnectOptions, StoreError> {
        if Self::is_tls(endpoint) { self.tls.apply(options) } else { Ok(options) }
    }
}

// === impl EtcdTls ===

impl EtcdTls {
    #[cfg(feature = "tls")]
    fn apply(&self, options: ConnectOptions) -> Result<ConnectOptions, StoreError> {
        let mut tls = match &self.authority {
            Some(pem) => TlsOptions::new().ca_certificate(Certificate::from_pem(pem)),
            None => TlsOptions::new().with_webpki_roots(),
        };
        if let Some((certificate, key)) = &self.identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        if let Some(name) = &self.server_name {
            tls = tls.domain_name(name);
        }
        Ok(options.with_tls(tls))
    }

    #[cfg(not(feature = "tls"))]
    fn apply(&self, _: ConnectOptions) -> Result<ConnectOptions, StoreError> {
        let reason = "this baton was built without TLS: expected an http:// address, or a build with `--features tls`";
        Err(StoreError::Invalid { reason: reason.to_owned() })
    }
}

/// Without the key.
impl fmt::Debug for EtcdTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdTls")
            .field("has_authority", &self.authority.is_some())
            .field("has_identity", &self.identity.is_some())
            .field("server_name", &self.server_name)
            .finish()
    }
}

/// Without the password.
impl fmt::Debug for EtcdLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdLogin").field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_key_nor_password_is_shown_by_debug() {
        let access = EtcdAccess {
            endpoints: vec!["https://a:1".to_owned()],
            tls: EtcdTls { identity: Some(("cert".to_owned(), "s3cr3t-k".to_owned())), ..EtcdTls::default() },
            login: Some(EtcdLogin { user: "baton".to_owned(), password: "s3cr3t-p".to_owned() }),
        };
        let shown = format!("{access:?}");
        assert!(!shown.contains("s3cr3t") && shown.contains("baton") && shown.contains("https://a:1"), "{shown}");
    }
}
