//! The text of a token: what a machine needs to join a cluster, but the address.
//!
//! `bt1-` and base32 of: the length of the cluster's name and the name, the pin, the id, the secret, and a checksum of
//! all of these. Letters that are easily taken for digits are read as those.

use std::fmt;
use std::str::FromStr;

use rand::TryRngCore;
use schema::{ClusterName, TokenId};

use crate::models::hex;

/// The beginning of a token, which tells its version.
const PREFIX: &str = "bt1-";
/// The digits of base32: no I, L, O or U (Crockford's alphabet).
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Bytes of the pin: a SHA-256.
pub(super) const PIN_BYTES: usize = 32;
/// Bytes of the secret. 128 random bits are not guessed.
const SECRET_BYTES: usize = 16;
/// Bytes of the id, which has two hex digits for each.
const ID_BYTES: usize = 4;
const CHECKSUM_BYTES: usize = 4;
/// Context of the hash by which the store knows a secret.
const SECRET_CONTEXT: &str = "baton 1 secret of a join token";

/// The digest of the public key of a cluster's authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthorityPin(pub [u8; PIN_BYTES]);

/// A pin in hex.
pub fn hex_pin(pin: AuthorityPin) -> String {
    hex(&pin.0)
}

/// The proof of the right to join.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; SECRET_BYTES]);

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The cluster.
    pub cluster: ClusterName,
    /// Its authority.
    pub pin: AuthorityPin,
    /// Its name in the store.
    pub id: TokenId,
    /// The proof.
    pub secret: Secret,
}

/// Text that is no token. The error never repeats it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin like one.
    #[error(
        "this is no token: expected text that begins with {PREFIX}, as `baton up --share` and `baton token create` \
         print it"
    )]
    Prefix,
    /// A character is no digit of a token.
    #[error("the token has {found:?} at character {at}, which no token has: it was mistyped")]
    Digit {
        /// The character.
        found: char,
        /// Its position, counted from 1.
        at: usize,
    },
    /// The checksum is another.
    #[error("the token was mistyped or is not whole: its checksum does not fit ({found} characters)")]
    Checksum {
        /// Its length.
        found: usize,
    },
}

// === impl JoinToken ===

impl JoinToken {
    /// True for text that is meant as a token, though it may be mistyped.
    pub fn begins(text: &str) -> bool {
        text.trim_start().starts_with(PREFIX)
    }

    /// A new token with a random id and secret.
    ///
    /// # Errors
    /// An I/O error if the operating system has no random numbers.
    pub fn generate(cluster: ClusterName, pin: AuthorityPin) -> std::io::Result<Self> {
        let (mut id, mut secret) = ([0; ID_BYTES], [0; SECRET_BYTES]);
        let fill = |bytes: &mut [u8]| rand::rngs::OsRng.try_fill_bytes(bytes).map_err(std::io::Error::other);
        fill(&mut id)?;
        fill(&mut secret)?;
        Ok(Self { cluster, pin, id: id_text(id), secret: Secret(secret) })
    }
}

fn id_text(bytes: [u8; ID_BYTES]) -> TokenId {
    hex(&bytes).parse().expect("hex digits are a legal name")
}

fn id_bytes(id: &TokenId) -> [u8; ID_BYTES] {
    u32::from_str_radix(id.as_str(), 16).unwrap_or_default().to_be_bytes()
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.cluster.as_str().as_bytes();
        let mut bytes = vec![u8::try_from(name.len()).unwrap_or(u8::MAX)];
        bytes.extend(name);
        bytes.extend(self.pin.0);
        bytes.extend(id_bytes(&self.id));
        bytes.extend(self.secret.0);
        bytes.extend(checksum(&bytes));
        write!(f, "{PREFIX}{}", encode(&bytes))
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let digits = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let wrong = TokenError::Checksum { found: text.chars().count() };
        let bytes = decode(digits)?;
        let (whole, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(wrong.clone())?;
        if checksum(whole) != *sum {
            return Err(wrong);
        }
        // From here on the text is one that a baton wrote, unless somebody computed the checksum of something else.
        let (secret, rest) = whole.split_last_chunk().map(|(rest, secret)| (*secret, rest)).ok_or(wrong.clone())?;
        let (id, rest) = rest.split_last_chunk().map(|(rest, id)| (*id, rest)).ok_or(wrong.clone())?;
        let (pin, rest) = rest.split_last_chunk().map(|(rest, pin)| (*pin, rest)).ok_or(wrong.clone())?;
        let name = rest.split_first().filter(|(length, name)| usize::from(**length) == name.len());
        let name = name.and_then(|(_, name)| std::str::from_utf8(name).ok()?.parse().ok());
        Ok(Self { cluster: name.ok_or(wrong)?, pin: AuthorityPin(pin), id: id_text(id), secret: Secret(secret) })
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECKSUM_BYTES]);
    sum
}

/// Base32, with zero bits at the end where five do not fit.
fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    let (mut bits, mut count) = (0u32, 0);
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            text.push(char::from(DIGITS[(bits >> count & 31) as usize]));
        }
    }
    if count > 0 {
        text.push(char::from(DIGITS[(bits << (5 - count) & 31) as usize]));
    }
    text
}

fn decode(text: &str) -> Result<Vec<u8>, TokenError> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0u32, 0);
    for (at, found) in text.chars().enumerate() {
        let digit = match found.to_ascii_lowercase() {
            'o' => '0',
            'i' | 'l' => '1',
            other => other,
        };
        let value = DIGITS.iter().position(|known| char::from(*known) == digit);
        let value = value.ok_or(TokenError::Digit { found, at: at + 1 + PREFIX.len() })?;
        bits = bits << 5 | value as u32;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Ok(bytes)
}

// === impl Secret ===

impl Secret {
    /// The hash by which the store knows it.
    pub fn hash(&self) -> String {
        blake3::Hasher::new_derive_key(SECRET_CONTEXT).update(&self.0).finalize().to_hex().to_string()
    }

    /// Hex digits, for the encrypted way to the cluster.
    pub(super) fn to_hex(&self) -> String {
        hex(&self.0)
    }

    pub(super) fn from_hex(text: &str) -> Option<Self> {
        let bytes = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 2 * SECRET_BYTES)?;
        Some(Self(bytes.to_be_bytes()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken::generate("home".parse().unwrap(), AuthorityPin([7; PIN_BYTES])).unwrap()
    }

    #[test]
    fn a_token_reads_back_from_its_text_however_it_was_typed() {
        for name in ["a", "home", &"x".repeat(63)] {
            let token = JoinToken { cluster: name.parse().unwrap(), ..token() };
            let text = token.to_string();
            assert_eq!(text.parse(), Ok(token.clone()));
            let typed =
                format!(" {PREFIX}{}\n", text[PREFIX.len()..].to_uppercase().replace('0', "O").replace('1', "L"));
            assert_eq!(typed.parse(), Ok(token));
        }
        assert_eq!(Secret::from_hex(&token().secret.to_hex()).unwrap().to_hex().len(), 32);
    }

    #[test]
    fn every_typo_is_noticed_and_named() {
        let text = token().to_string();
        let digits: Vec<char> = text.chars().collect();
        for at in PREFIX.len()..digits.len() {
            let mut typo = digits.clone();
            typo[at] = if typo[at] == '7' { '8' } else { '7' };
            let typo: String = typo.into_iter().collect();
            // The last digit has bits that mean nothing.
            let read = typo.parse::<JoinToken>();
            assert!(read.is_err() || (at + 1 == digits.len() && read == text.parse()), "{at}");
        }
        assert_eq!("bt1-12!4".parse::<JoinToken>(), Err(TokenError::Digit { found: '!', at: 7 }));
        assert_eq!(text[..40].parse::<JoinToken>(), Err(TokenError::Checksum { found: 40 }));
        assert_eq!(text.replace("bt1", "bt2").parse::<JoinToken>(), Err(TokenError::Prefix));
        for text in ["bt1-", "bt1-0", "bt1-zzzz", ""] {
            assert!(text.parse::<JoinToken>().is_err());
        }
    }

    #[test]
    fn a_secret_is_neither_in_debug_nor_in_an_error() {
        let token = token();
        let secret = token.secret.to_hex();
        assert!(!format!("{token:?}").contains(&secret));
        assert_ne!(token.secret.hash(), secret);
    }
}
