//! The length of a header, by a file's first bytes. So the header of a file that lies elsewhere is fetched alone.

use super::cursor::Cursor;
use super::{GgufError, GgufHeader, Keep};

/// The length of a file's header, as far as its first bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The header takes so many bytes, and is sound.
    Whole(u64),
    /// At least so many bytes, counted from the file's start, must be read to go on.
    Needs(u64),
}

// === impl Extent ===

impl Extent {
    /// The extent of the header of a file of `file_bytes` bytes that begins with `prefix`.
    ///
    /// # Errors
    /// [`GgufError`] if the header is in error, whatever follows `prefix`.
    pub fn of(prefix: &[u8], file_bytes: u64) -> Result<Self, GgufError> {
        let mut cursor = Cursor::of_prefix(prefix, file_bytes);
        match GgufHeader::read(&mut cursor, file_bytes, Keep::NoVocabulary) {
            Ok(_) => Ok(Self::Whole(cursor.position())),
            Err(error) => cursor.needed().map(Self::Needs).ok_or(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::GgufWriter;
    use super::*;
    use crate::format::Format;

    fn file() -> Vec<u8> {
        let words: Vec<String> = (0..500).map(|word| format!("word{word}")).collect();
        let mut writer = GgufWriter::new()
            .metadata("general.architecture", "llama")
            .metadata("tokenizer.ggml.tokens", words.as_slice())
            .metadata("last", true);
        for name in ["a", "b"] {
            writer = writer.tensor(name, &[1024], Format::F32, vec![7; 4096]).unwrap();
        }
        writer.to_bytes().unwrap()
    }

    #[test]
    fn every_prefix_says_what_it_lacks_until_the_header_is_whole() {
        let file = file();
        let whole = file.len() as u64;
        let Ok(Extent::Whole(header)) = Extent::of(&file, whole) else { panic!("the file is sound") };
        assert!(header < whole - 8192 + 32 && header > whole - 8192 - 64, "{header} of {whole}");
        for length in 0..file.len() {
            let found = Extent::of(&file[..length], whole).unwrap();
            match found {
                Extent::Whole(found) => assert!(found == header && length as u64 >= header),
                Extent::Needs(bytes) => assert!(bytes > length as u64 && bytes <= header, "{length}: {bytes}"),
            }
        }
        // The same by asking for what is needed alone: it ends.
        let mut length = 0;
        let mut rounds = 0;
        while let Extent::Needs(bytes) = Extent::of(&file[..length], whole).unwrap() {
            length = bytes as usize;
            rounds += 1;
        }
        assert!(rounds > 500 && length as u64 == header);
    }

    #[test]
    fn a_header_that_no_file_could_have_is_refused_by_its_first_bytes() {
        let mut file = file();
        let whole = file.len() as u64;
        assert!(Extent::of(b"PK\x03\x04", whole).unwrap_err().to_string().starts_with("magic"));
        // The length of the first key.
        file[24..32].copy_from_slice(&(1u64 << 63).to_le_bytes());
        let error = Extent::of(&file[..64], whole).unwrap_err().to_string();
        assert!(
            error.contains("length of key of metadata entry 0") && error.contains("9223372036854775808"),
            "{error}"
        );
        let error = Extent::of(&super::tests::file(), whole - 1).unwrap_err().to_string();
        assert!(error.starts_with("data of tensor \"b\""), "{error}");
    }
}
