//! The secret of an API key, as a client sends it.

use http::HeaderValue;

/// The value of `Authorization`: `Bearer`, and the secret. `Debug` does not show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiSecret(HeaderValue);

// === impl ApiSecret ===

impl ApiSecret {
    /// The key with this secret. `None` if no header can carry it.
    pub fn new(secret: &str) -> Option<Self> {
        let is_sendable = !secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic());
        let value = is_sendable.then(|| HeaderValue::try_from(format!("Bearer {secret}")).ok()).flatten();
        value.map(|mut value| {
            value.set_sensitive(true);
            Self(value)
        })
    }

    /// The secret itself, for a program that is started to send it.
    pub(crate) fn secret(&self) -> Option<&str> {
        self.0.to_str().ok()?.strip_prefix("Bearer ")
    }

    /// The value of the header `Authorization`.
    pub(crate) fn authorization(&self) -> HeaderValue {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_sent_and_not_shown() {
        let secret = ApiSecret::new("s3cr3t").unwrap();
        assert_eq!(secret.authorization(), "Bearer s3cr3t");
        assert_eq!(secret.secret(), Some("s3cr3t"));
        assert!(!format!("{secret:?}").contains("s3cr3t"), "{secret:?}");
        for unsendable in ["", "a b", "a\nb", "schlüssel"] {
            assert_eq!(ApiSecret::new(unsendable), None, "{unsendable:?}");
        }
    }
}
