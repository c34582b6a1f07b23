//! The byte alphabet of byte-level BPE: one printable character for each of the 256 bytes.
//!
//! Vocabularies of this kind are written in it, so that every token is readable text. Printable Latin-1 bytes stand for
//! themselves. The other 68 are numbered upwards from U+0100 in byte order (published with GPT-2).

use std::sync::LazyLock;

static CHAR_OF_BYTE: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut next = 0x100_u32;
    std::array::from_fn(|byte| {
        let byte = byte as u8;
        if matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF) {
            return char::from(byte);
        }
        let stand_in = char::from_u32(next).unwrap_or(char::REPLACEMENT_CHARACTER);
        next += 1;
        stand_in
    })
});

/// The bytes of `text`, each written as its character.
pub(super) fn spell(text: &str) -> String {
    text.bytes().map(spell_byte).collect()
}

/// The bytes that `spelled` stands for. `None` if a character is not in the alphabet.
pub(super) fn bytes(spelled: &str) -> Option<Vec<u8>> {
    spelled.chars().map(byte).collect()
}

/// The character of one byte.
pub(super) fn spell_byte(byte: u8) -> char {
    CHAR_OF_BYTE[usize::from(byte)]
}

fn byte(character: char) -> Option<u8> {
    let code = u32::from(character);
    match code {
        // In byte order: 0x00..=0x20, 0x7F..=0xA0, 0xAD.
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121 + 0x7F) as u8),
        0x143 => Some(0xAD),
        _ => u8::try_from(code).ok().filter(|&byte| CHAR_OF_BYTE[usize::from(byte)] == character),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character_and_round_trips() {
        let mut seen = std::collections::HashSet::new();
        for (value, &character) in CHAR_OF_BYTE.iter().enumerate() {
            assert!(seen.insert(character));
            assert_eq!(byte(character), Some(value as u8));
        }
    }

    #[test]
    fn a_space_is_spelled_as_in_byte_level_vocabularies() {
        assert_eq!(spell(" the\n"), "ĠtheĊ");
        assert_eq!(bytes("ĠtheĊ").as_deref(), Some(" the\n".as_bytes()));
        assert_eq!(bytes("a b"), None);
        assert_eq!(bytes("日"), None);
    }
}
