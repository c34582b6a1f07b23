//! The text of one API key: `NAME:SECRET`, or `SECRET` alone.

use super::error::ApiKeyError;
use super::key_digest::KeyDigest;
use super::key_limits::OwnLimits;
use super::key_name::KeyName;
use super::key_ring::GivenKey;
use crate::http::limits::{API_SECRET_BYTES_MAX, API_SECRET_BYTES_MIN};

/// Parses the text of a key. Keeps the digest of its secret only.
///
/// # Errors
/// [`ApiKeyError`] if name or secret cannot be used. Its text shows nothing of either.
pub fn parse(text: &str) -> Result<GivenKey, ApiKeyError> {
    let (name, secret) = match text.split_once(':') {
        Some((name, secret)) => (Some(name.parse::<KeyName>()?), secret),
        None => (None, text),
    };
    check(secret)?;
    Ok(GivenKey { name, digest: KeyDigest::of(secret.as_bytes()), own_limits: OwnLimits::default() })
}

/// The secret in the text of a key, for the program's own clients. They also have keys of other servers, so any text
/// without a name before a colon is a secret.
pub(crate) fn secret_of(text: &str) -> &str {
    match text.split_once(':') {
        Some((name, secret)) if name.parse::<KeyName>().is_ok() => secret,
        _ => text,
    }
}

fn check(secret: &str) -> Result<(), ApiKeyError> {
    let illegal = |letter: char| !letter.is_ascii_graphic() || letter == ',';
    if let Some(at) = secret.chars().position(illegal) {
        return Err(ApiKeyError::Character { at: at + 1 });
    }
    if !(API_SECRET_BYTES_MIN..=API_SECRET_BYTES_MAX).contains(&secret.len()) {
        return Err(ApiKeyError::Length { found: secret.len() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef";

    fn named(text: &str) -> Option<String> {
        parse(text).unwrap().name.map(|name| name.to_string())
    }

    #[test]
    fn a_name_stands_before_the_first_colon() {
        assert_eq!(named(SECRET), None);
        assert_eq!(named(&format!("alice:{SECRET}")).as_deref(), Some("alice"));
        assert_eq!(named(&format!("alice:{SECRET}:more")).as_deref(), Some("alice"));
        assert_eq!(parse(&format!("a:{SECRET}")).unwrap().digest, parse(SECRET).unwrap().digest);
        assert_ne!(parse(&format!("a:{SECRET}:")).unwrap().digest, parse(SECRET).unwrap().digest);
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        for (text, expected) in [
            ("", ApiKeyError::Length { found: 0 }),
            ("alice:", ApiKeyError::Length { found: 0 }),
            ("0123456789abcde", ApiKeyError::Length { found: 15 }),
            (&"x".repeat(257), ApiKeyError::Length { found: 257 }),
            ("0123456789 abcdef", ApiKeyError::Character { at: 11 }),
            ("0123456789,abcdef", ApiKeyError::Character { at: 11 }),
            ("schlüssel0123456789", ApiKeyError::Character { at: 5 }),
            ("s3cr3t/s3cr3t:0123456789abcdef", ApiKeyError::Name),
            (":0123456789abcdef", ApiKeyError::Name),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error, expected, "{text:?}");
            assert!(!error.to_string().contains("s3cr3t"), "{error}");
        }
        let key = parse("alice:s3cr3ts3cr3ts3cr3t").unwrap();
        assert!(!format!("{key:?}").contains("s3cr3t"), "{key:?}");
    }

    #[test]
    fn a_client_sends_the_secret_without_the_name() {
        for (text, secret) in [("alice:abc", "abc"), ("abc", "abc"), ("sk-x/y:z", "sk-x/y:z"), ("a:b:c", "b:c")] {
            assert_eq!(secret_of(text), secret);
        }
    }
}
