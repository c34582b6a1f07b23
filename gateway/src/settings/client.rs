//! Settings of the program's own HTTP clients (`doctor`, `status --watch`, `bench`). They come from the environment.

use super::environment::Environment;
use super::resolved::SettingsError;
use crate::client::{ApiSecret, TrustedCertificates};
use crate::http::{TlsFiles, secret_of};

/// The key a client presents to a gateway, and the certificates it trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientSettings {
    /// The key to send, if there is one.
    pub api_key: Option<ApiSecret>,
    /// The certificates to trust, besides those of the public authorities.
    pub trusted: TrustedCertificates,
}

// === impl ClientSettings ===

impl ClientSettings {
    /// Resolves the settings. Of several keys in `BATON_API_KEY`, the first is sent, without its name.
    ///
    /// # Errors
    /// [`SettingsError::ClientKey`] if the key cannot be sent in a header.
    pub fn new(environment: &Environment) -> Result<Self, SettingsError> {
        let first = environment.api_key.as_deref().and_then(|keys| keys.split(',').next()).map(str::trim);
        let api_key = first.map(|key| ApiSecret::new(secret_of(key)).ok_or(SettingsError::ClientKey)).transpose()?;
        let own = environment.tls_folder().map(|folder| TlsFiles::self_signed(&folder).certificate);
        Ok(Self { api_key, trusted: TrustedCertificates { file: environment.ca_file.clone(), own } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(variable: &str) -> Result<Option<ApiSecret>, SettingsError> {
        let environment = Environment { api_key: Some(variable.to_owned()), ..Environment::default() };
        ClientSettings::new(&environment).map(|settings| settings.api_key)
    }

    #[test]
    fn a_client_sends_the_first_key_without_its_name() {
        for variable in ["abc", "alice:abc", " alice:abc ,bob:def"] {
            assert_eq!(key(variable).unwrap(), ApiSecret::new("abc"), "{variable}");
        }
        assert_eq!(ClientSettings::new(&Environment::default()).unwrap(), ClientSettings::default());
        assert!(matches!(key("a\u{fffd}"), Err(SettingsError::ClientKey)));
    }

    #[test]
    fn a_client_trusts_the_certificate_that_this_user_s_gateway_made() {
        let environment = Environment { data: Some("/data".into()), ..Environment::default() };
        let trusted = ClientSettings::new(&environment).unwrap().trusted;
        assert_eq!(trusted.own, Some("/data/tls/cert.pem".into()));
    }
}
