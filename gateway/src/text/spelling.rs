//! The two ways in which vocabularies spell the bytes of their tokens.

use super::alphabet;
use super::token_kind::TokenKind;

/// The sign that stands for a space in SentencePiece's vocabularies, U+2581 (lower one eighth block).
pub(super) const SPACE: &str = "\u{2581}";

/// The rule by which a token's bytes follow from its spelling, and its spelling from its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// One character of the byte alphabet for each byte, as in `Ġthe`: byte-level BPE.
    ByteAlphabet,
    /// The text itself with spaces as ▁, as in `▁the`; tokens of one byte as `<0x0A>`: all vocabularies that come from
    /// SentencePiece, and WordPiece as model files have it.
    MarkedSpaces,
}

// === impl Spelling ===

impl Spelling {
    /// Appends the bytes of a token to `bytes`. Tokens that are not text have none.
    pub(super) fn decode(self, token: &str, kind: TokenKind, bytes: &mut Vec<u8>) {
        match (kind, self) {
            (TokenKind::Control | TokenKind::Unknown | TokenKind::Unused, _) => {}
            // Tokens added by hand after training are stored as plain text.
            (TokenKind::UserDefined, _) => bytes.extend_from_slice(token.as_bytes()),
            (_, Self::ByteAlphabet) => match alphabet::bytes(token) {
                Some(decoded) => bytes.extend_from_slice(&decoded),
                None => bytes.extend_from_slice(token.as_bytes()),
            },
            (kind, Self::MarkedSpaces) => match named_byte(token).filter(|_| kind == TokenKind::Byte) {
                Some(byte) => bytes.push(byte),
                None => bytes.extend_from_slice(token.replace(SPACE, " ").as_bytes()),
            },
        }
    }

    /// The spelling of the token that stands for `bytes`, if it is an ordinary one.
    pub(super) fn spell(self, bytes: &[u8]) -> String {
        match self {
            Self::ByteAlphabet => bytes.iter().copied().map(alphabet::spell_byte).collect(),
            Self::MarkedSpaces => mark_spaces(&String::from_utf8_lossy(bytes)),
        }
    }
}

/// `text` with spaces as ▁.
pub(super) fn mark_spaces(text: &str) -> String {
    text.replace(' ', SPACE)
}

/// The byte that a token such as `<0x0A>` names.
pub(super) fn named_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let plain = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if plain { u8::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(spelling: Spelling, token: &str, kind: TokenKind) -> Vec<u8> {
        let mut bytes = Vec::new();
        spelling.decode(token, kind, &mut bytes);
        bytes
    }

    #[test]
    fn the_two_rules_read_the_same_token_differently() {
        assert_eq!(decoded(Spelling::ByteAlphabet, "Ġé", TokenKind::Normal), [b' ', 0xE9]);
        assert_eq!(decoded(Spelling::MarkedSpaces, "▁é▁", TokenKind::Normal), " é ".as_bytes());
        assert_eq!(decoded(Spelling::MarkedSpaces, "<0xE2>", TokenKind::Byte), [0xE2]);
        assert_eq!(decoded(Spelling::MarkedSpaces, "<0xE2>", TokenKind::Normal), b"<0xE2>");
        assert_eq!(decoded(Spelling::ByteAlphabet, "<0xE2>", TokenKind::Byte), b"<0xE2>");
    }

    #[test]
    fn tokens_added_by_hand_are_text_and_control_tokens_are_none() {
        for spelling in [Spelling::ByteAlphabet, Spelling::MarkedSpaces] {
            assert_eq!(decoded(spelling, "Ġ▁", TokenKind::UserDefined), "Ġ▁".as_bytes());
            assert_eq!(decoded(spelling, "<s>", TokenKind::Control), b"");
        }
    }

    #[test]
    fn only_two_hexadecimal_digits_name_a_byte() {
        assert_eq!(named_byte("<0x0a>"), Some(10));
        for token in ["<0xA>", "<0x00A>", "<0x+A>", "0x0A", "<0xGG>", "<0xé>", ""] {
            assert_eq!(named_byte(token), None, "{token}");
        }
    }
}
