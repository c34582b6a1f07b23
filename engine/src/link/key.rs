//! The cluster key: a process that has it belongs to the cluster.

use std::fmt;
use std::str::FromStr;

use rand::TryRngCore;
use schema::ClusterName;

/// Bytes in a key: the length of a pre-shared key in Noise.
const KEY_BYTES: usize = 32;

/// Context of key derivation. It separates the keys of clusters from everything else that is derived from the same key.
const CLUSTER_CONTEXT: &str = "baton 1 key of a cluster";

/// The secret that the processes of a cluster share. Its text form is 64 hex digits.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey([u8; KEY_BYTES]);

/// Text that is no cluster key. The error says nothing of the text itself, which may be most of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is not as long as a key.
    #[error("cluster key of {found} characters: expected 64 hex digits, as `baton key` prints them")]
    Length {
        /// Its length without surrounding white space.
        found: usize,
    },
    /// A character is no hex digit.
    #[error("cluster key has no hex digit at character {at}: expected 64 of 0-9 and a-f, as `baton key` prints them")]
    Digit {
        /// The position of the character, counted from 1.
        at: usize,
    },
}

// === impl ClusterKey ===

impl ClusterKey {
    /// A new key from the operating system's random numbers.
    ///
    /// # Errors
    /// An I/O error if the operating system cannot supply random numbers.
    pub fn generate() -> Result<Self, std::io::Error> {
        let mut bytes = [0; KEY_BYTES];
        rand::rngs::OsRng.try_fill_bytes(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Self(bytes))
    }

    /// The key as 64 hex digits, for the one place that shows it: `baton key`.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The key that the processes of `cluster` use. Clusters that were given the same key still cannot connect to each
    /// other.
    #[must_use]
    pub fn of_cluster(&self, cluster: &ClusterName) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(CLUSTER_CONTEXT);
        hasher.update(&self.0).update(cluster.as_str().as_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl FromStr for ClusterKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        if let Some(at) = text.chars().position(|digit| !digit.is_ascii_hexdigit()) {
            return Err(KeyError::Digit { at: at + 1 });
        }
        if text.len() != 2 * KEY_BYTES {
            return Err(KeyError::Length { found: text.len() });
        }
        let mut bytes = [0; KEY_BYTES];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = digits.iter().fold(0, |value, digit| value << 4 | nibble(*digit));
        }
        Ok(Self(bytes))
    }
}

fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20).wrapping_sub(b'a').wrapping_add(10),
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(64 hex digits, not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_reads_back_from_its_text() {
        let key = ClusterKey::generate().unwrap();
        assert_eq!(key.to_hex().len(), 64);
        assert_eq!(format!(" {}\n", key.to_hex().to_uppercase()).parse::<ClusterKey>().unwrap(), key);
        assert_ne!(ClusterKey::generate().unwrap(), key);
    }

    #[test]
    fn clusters_with_the_same_key_do_not_know_each_other() {
        let key = ClusterKey::generate().unwrap();
        let of = |cluster: &str| key.of_cluster(&cluster.parse().unwrap());
        assert_eq!(of("home"), of("home"));
        assert!(of("home") != of("work") && of("home") != key);
    }

    #[test]
    fn hex_digits_have_their_values() {
        let key: ClusterKey = "00ff1a".repeat(11)[..64].parse().unwrap();
        assert_eq!(key.bytes()[..4], [0x00, 0xff, 0x1a, 0x00]);
    }

    #[test]
    fn a_short_a_long_and_a_foreign_text_are_no_key() {
        assert_eq!("ab".parse::<ClusterKey>(), Err(KeyError::Length { found: 2 }));
        assert_eq!("a".repeat(65).parse::<ClusterKey>(), Err(KeyError::Length { found: 65 }));
        assert_eq!("".parse::<ClusterKey>(), Err(KeyError::Length { found: 0 }));
        assert_eq!(format!("ab{}", "g".repeat(62)).parse::<ClusterKey>(), Err(KeyError::Digit { at: 3 }));
        assert_eq!("ä".repeat(32).parse::<ClusterKey>(), Err(KeyError::Digit { at: 1 }));
    }

    #[test]
    fn a_key_is_never_shown_by_debug_or_in_an_error() {
        let key: ClusterKey = "5e".repeat(32).parse().unwrap();
        assert!(!format!("{key:?}").contains("5e"));
        let error = format!("{}z", "5e".repeat(31)).parse::<ClusterKey>().unwrap_err();
        assert!(!format!("{error:?} {error}").contains("5e5e"));
    }
}
