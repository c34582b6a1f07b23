//! All API keys of one server.

use subtle::ConditionallySelectable;

use super::error::ApiKeyError;
use super::key_digest::KeyDigest;
use super::key_limits::{KeyLimits, OwnLimits};
use super::key_name::KeyName;
use crate::http::limits::API_KEYS_MAX;

/// One key as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenKey {
    pub(super) name: Option<KeyName>,
    pub(super) digest: KeyDigest,
    pub(super) own_limits: OwnLimits,
}

/// The keys of one server. Names and secrets are all different. Without any key, the server is open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyRing(Vec<RingKey>);

/// One key, with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RingKey {
    pub(super) name: KeyName,
    pub(super) digest: KeyDigest,
    pub(super) limits: KeyLimits,
}

/// The position that stands for no key.
const NO_KEY: u32 = u32::MAX;

// === impl KeyRing ===

impl KeyRing {
    /// Collects `given` keys. A key without a name gets the first `key-<number>` that is free. A secret that comes
    /// twice counts once, unless it comes with two names. `shared` has the limits of keys that set none for themselves.
    ///
    /// # Errors
    /// [`ApiKeyError`] if there are too many keys, or if a name or a secret comes twice.
    pub fn new(given: Vec<GivenKey>, shared: KeyLimits) -> Result<Self, ApiKeyError> {
        let given = without_repetitions(given)?;
        if given.len() > API_KEYS_MAX {
            return Err(ApiKeyError::Many { found: given.len() });
        }
        let mut names: Vec<KeyName> = given.iter().filter_map(|key| key.name.clone()).collect();
        names.sort();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ApiKeyError::NameTwice { name: twice[0].clone() });
        }
        let mut free = (1..).map(KeyName::numbered).filter(|name| !names.contains(name));
        let name = |GivenKey { name, digest, own_limits }: GivenKey| {
            let name = name.or_else(|| free.next())?;
            Some(RingKey { name, digest, limits: own_limits.or(shared) })
        };
        Ok(Self(given.into_iter().filter_map(name).collect()))
    }

    /// True if there is no key, so that the server is open.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names of the keys.
    pub fn names(&self) -> impl Iterator<Item = &KeyName> {
        self.0.iter().map(|key| &key.name)
    }

    /// The keys in order.
    pub(super) fn keys(&self) -> &[RingKey] {
        &self.0
    }

    /// The position of the key with this secret. It compares with every key, by operations whose time does not depend
    /// on the secrets, so the time tells neither whether there is such a key nor which one it is.
    pub(super) fn find(&self, secret: &[u8]) -> Option<usize> {
        let digest = KeyDigest::of(secret);
        let mut found = NO_KEY;
        for (position, key) in (0..).zip(&self.0) {
            found.conditional_assign(&position, key.digest.matches(&digest));
        }
        (found != NO_KEY).then_some(found as usize)
    }
}

/// The keys without those whose secret came before. Of two that agree, the one with a name stays.
fn without_repetitions(given: Vec<GivenKey>) -> Result<Vec<GivenKey>, ApiKeyError> {
    let mut keys: Vec<GivenKey> = Vec::new();
    for key in given {
        let Some(same) = keys.iter_mut().find(|other| other.digest == key.digest) else {
            keys.push(key);
            continue;
        };
        match (&same.name, &key.name) {
            (Some(first), Some(second)) if first != second => {
                return Err(ApiKeyError::SecretTwice { first: first.clone(), second: second.clone() });
            }
            (None, Some(_)) => *same = key,
            _ => {}
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::super::key_limits::Limit;
    use super::super::{key_file, key_text};
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbb";
    const C: &str = "cccccccccccccccc";

    fn ring(texts: &[&str]) -> Result<KeyRing, ApiKeyError> {
        KeyRing::new(texts.iter().map(|text| key_text::parse(text).unwrap()).collect(), KeyLimits::default())
    }

    fn names(ring: &KeyRing) -> Vec<&str> {
        ring.names().map(KeyName::as_str).collect()
    }

    #[test]
    fn a_key_is_found_by_its_whole_secret_only() {
        let ring = ring(&[&format!("a:{A}"), B, C]).unwrap();
        assert_eq!([A, B, C].map(|secret| ring.find(secret.as_bytes())), [Some(0), Some(1), Some(2)]);
        for wrong in ["", "a", &A[1..], &format!("{A}a"), &format!("a:{A}"), &A.to_uppercase()] {
            assert_eq!(ring.find(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(KeyRing::default().find(b""), None);
    }

    #[test]
    fn keys_without_a_name_get_numbers_that_are_free() {
        assert_eq!(names(&ring(&[A, &format!("key-1:{B}"), C]).unwrap()), ["key-2", "key-1", "key-3"]);
    }

    #[test]
    fn a_secret_that_comes_twice_counts_once_and_keeps_its_name() {
        let (named, other) = (format!("alice:{A}"), format!("bob:{A}"));
        assert_eq!(names(&ring(&[A, &named, A]).unwrap()), ["alice"]);
        assert!(matches!(ring(&[&named, &other]), Err(ApiKeyError::SecretTwice { .. })));
        assert!(matches!(ring(&[&named, &format!("alice:{B}")]), Err(ApiKeyError::NameTwice { .. })));
    }

    #[test]
    fn there_is_a_bound_on_the_number_of_keys() {
        let texts: Vec<_> = (0..=API_KEYS_MAX).map(|number| format!("{number:016}")).collect();
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        assert!(ring(&texts[1..]).is_ok());
        assert_eq!(ring(&texts), Err(ApiKeyError::Many { found: API_KEYS_MAX + 1 }));
    }

    #[test]
    fn a_key_has_its_own_limits_or_the_shared_ones() {
        let at_most = |number| NonZeroU32::new(number).map(Limit::AtMost).unwrap();
        let shared = KeyLimits { requests_per_minute: at_most(9), concurrent_requests: at_most(2) };
        let given = key_file::parse(&format!("{A}\n{B} requests_per_minute=unlimited\n{C} concurrent_requests=5\n"));
        let ring = KeyRing::new(given.unwrap(), shared).unwrap();
        let limits: Vec<_> = ring.keys().iter().map(|key| key.limits).collect();
        let own = [
            shared,
            KeyLimits { requests_per_minute: Limit::Unlimited, ..shared },
            KeyLimits { concurrent_requests: at_most(5), ..shared },
        ];
        assert_eq!(limits, own);
    }
}
