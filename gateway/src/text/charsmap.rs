//! SentencePiece's table of characters and their replacements (`precompiled_charsmap`), mostly Unicode's compatibility
//! forms.
//!
//! The table begins with the length of a double array in bytes, 32 bits, little endian. The array is a trie of the
//! UTF-8 bytes of what is replaced, in units of 32 bits as Darts has them: bits 0 to 7 are a node's label, bit 8 tells
//! that a key ends there, bits 10 and up are the offset to its children, in steps of 256 if bit 9 is set; a value has
//! bit 31 set. The values are offsets into the rest of the table, where the replacements lie, each ended by a zero.

use super::TextError;

const LABEL: u32 = 1 << 31 | 0xFF;
const VALUE: u32 = (1 << 31) - 1;

/// A checked table.
#[derive(Debug, Default)]
pub(super) struct Charsmap {
    units: Vec<u32>,
    replacements: String,
}

// === impl Charsmap ===

impl Charsmap {
    /// Reads a table. An empty one replaces nothing.
    ///
    /// # Errors
    /// [`TextError::Vocabulary`] when the lengths do not fit, or the replacements are not UTF-8 or have no end.
    pub(super) fn new(table: &[u8]) -> Result<Self, TextError> {
        let bad = |message: String| TextError::Vocabulary(format!("bad precompiled_charsmap: {message}"));
        if table.is_empty() {
            return Ok(Self::default());
        }
        let Some((length, rest)) = table.split_first_chunk::<4>() else {
            return Err(bad(format!("expected at least 4 bytes, found {}", table.len())));
        };
        let length = u32::from_le_bytes(*length) as usize;
        if !length.is_multiple_of(4) || length == 0 || length > rest.len() {
            return Err(bad(format!("expected an array of 4 to {} bytes in units of 4, found {length}", rest.len())));
        }
        let (array, replacements) = rest.split_at(length);
        let units = array.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        let replacements = String::from_utf8(replacements.to_vec())
            .map_err(|error| bad(format!("expected replacements in UTF-8, found {error}")))?;
        if !replacements.is_empty() && !replacements.ends_with('\0') {
            return Err(bad("expected a zero behind the last replacement, found none".to_owned()));
        }
        Ok(Self { units, replacements })
    }

    /// `text` with everything replaced that the table replaces, the longest matches first.
    pub(super) fn apply(&self, text: &str) -> String {
        let mut normalized = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let consumed = match self.longest(rest) {
                Some((bytes, replacement)) => {
                    normalized.push_str(replacement);
                    bytes
                }
                None => {
                    normalized.push(first);
                    first.len_utf8()
                }
            };
            rest = &rest[consumed..];
        }
        normalized
    }

    /// The longest beginning of `text` that the table replaces, in bytes, and its replacement.
    fn longest(&self, text: &str) -> Option<(usize, &str)> {
        let mut found = None;
        let mut node = offset(*self.units.first()?);
        for (index, byte) in text.bytes().enumerate() {
            node ^= u32::from(byte);
            // A zero ends keys in the trie, so that it is no label.
            let unit = self.unit(node).filter(|unit| byte != 0 && unit & LABEL == u32::from(byte));
            let Some(unit) = unit else { break };
            node ^= offset(unit);
            if unit >> 8 & 1 == 1 && text.is_char_boundary(index + 1) {
                let replacement = self.unit(node).and_then(|value| self.replacement(value & VALUE));
                found = replacement.map(|replacement| (index + 1, replacement)).or(found);
            }
        }
        found
    }

    fn unit(&self, node: u32) -> Option<u32> {
        self.units.get(node as usize).copied()
    }

    fn replacement(&self, start: u32) -> Option<&str> {
        let rest = self.replacements.get(start as usize..)?;
        rest.find('\0').map(|end| &rest[..end])
    }
}

/// The distance from a node to its children.
fn offset(unit: u32) -> u32 {
    (unit >> 10) << ((unit & 1 << 9) >> 6)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A table that replaces `a` by `bc` and `ab` by nothing.
    fn table() -> Vec<u8> {
        let mut units = vec![0_u32; 512];
        let children = |offset: u32| offset << 10;
        // The root's children begin at 256, those of `a` at 256 ^ 'a' ^ 128.
        units[0] = children(256);
        let a = 256 ^ u32::from(b'a');
        units[a as usize] = children(128) | 1 << 8 | u32::from(b'a');
        units[(a ^ 128) as usize] = 1 << 31;
        let ab = a ^ 128 ^ u32::from(b'b');
        units[ab as usize] = children(2) | 1 << 8 | u32::from(b'b');
        units[(ab ^ 2) as usize] = 1 << 31 | 3;
        let mut table = 2048_u32.to_le_bytes().to_vec();
        table.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        table.extend(b"bc\0\0");
        table
    }

    #[test]
    fn the_longest_match_is_replaced() {
        let charsmap = Charsmap::new(&table()).unwrap();
        assert_eq!(charsmap.apply("a ab b é\0ca"), "bc  b é\0cbc");
        assert_eq!(Charsmap::default().apply("a ab"), "a ab");
    }

    #[test]
    fn a_damaged_table_is_refused() {
        for (cut, part) in [(3, "at least 4 bytes"), (2000, "expected an array of 4 to 1996 bytes"), (2053, "a zero")] {
            let error = Charsmap::new(&table()[..cut]).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let mut table = table();
        table[2052] = 0xFF;
        assert!(Charsmap::new(&table).unwrap_err().to_string().contains("UTF-8"));
    }

    proptest! {
        #[test]
        fn no_array_makes_it_panic(units in proptest::collection::vec(any::<u32>(), 1..600), text in "\\PC{0,20}") {
            let mut table = (units.len() as u32 * 4).to_le_bytes().to_vec();
            table.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
            table.extend("bé\0".bytes());
            Charsmap::new(&table).unwrap().apply(&text);
        }
    }
}
