//! The metadata that says how a text is changed before it is divided into tokens.

use stages::gguf::{Metadata, Value};

use super::TextError;

/// Longest table of replacements, in bytes: about eight times that of multilingual models (237,539).
const CHARSMAP_BYTES_MAX: usize = 2 << 20;

/// The unchecked fields. An absent one has the default of its kind of vocabulary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NormalizerFields {
    /// `tokenizer.ggml.add_space_prefix`: true if a text gets a space in front.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.ggml.remove_extra_whitespaces`: true if spaces at both ends are removed, and runs become one.
    pub remove_extra_whitespaces: Option<bool>,
    /// `tokenizer.ggml.precompiled_charsmap`: SentencePiece's table of characters and their replacements, or nothing.
    pub precompiled_charsmap: Vec<u8>,
    /// `tokenizer.ggml.normalizer.lowercase`: true if letters become small.
    pub lowercase: Option<bool>,
    /// `tokenizer.ggml.normalizer.strip_accents`: true if accents are removed. Absent: as `lowercase`.
    pub strip_accents: Option<bool>,
}

// === impl NormalizerFields ===

impl NormalizerFields {
    /// Reads the fields from a model file's metadata.
    pub(super) fn read(metadata: &Metadata) -> Result<Self, TextError> {
        let flag = |name: &str| metadata.get_bool(&format!("tokenizer.ggml.{name}"));
        Ok(Self {
            add_space_prefix: flag("add_space_prefix")?,
            remove_extra_whitespaces: flag("remove_extra_whitespaces")?,
            precompiled_charsmap: charsmap(metadata)?,
            lowercase: flag("normalizer.lowercase")?,
            strip_accents: flag("normalizer.strip_accents")?,
        })
    }
}

/// The table of replacements. Files have it as an array of signed or of unsigned bytes.
fn charsmap(metadata: &Metadata) -> Result<Vec<u8>, TextError> {
    const KEY: &str = "tokenizer.ggml.precompiled_charsmap";
    if let Some(Value::Numbers(numbers)) = metadata.get(KEY)
        && numbers.len() > CHARSMAP_BYTES_MAX
    {
        let message = format!("expected at most {CHARSMAP_BYTES_MAX} bytes in {KEY}, found {}", numbers.len());
        return Err(TextError::Vocabulary(message));
    }
    let numbers = metadata.get_i32_array(KEY)?.unwrap_or_default();
    let byte = |number: &i32| match number {
        -128..=255 => Ok((number & 0xFF) as u8),
        _ => Err(TextError::Vocabulary(format!("expected bytes in {KEY}, found {number}"))),
    };
    numbers.iter().map(byte).collect()
}
