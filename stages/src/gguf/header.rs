//! A file's header: metadata and tensor descriptions, all checked.

use std::collections::HashMap;

use super::cursor::{Cursor, error};
use super::error::quoted;
use super::limits::{
    ALIGNMENT_DEFAULT, ALIGNMENT_MAX, ALIGNMENT_MIN, KEY_BYTES_MAX, METADATA_ENTRIES_MAX, TENSORS_MAX,
};
use super::tensor::DESCRIPTION_BYTES_MIN;
use super::{GgufError, Metadata, TensorInfo, Value};

/// The header of a GGUF file. Every tensor lies inside the file, overlaps no other tensor and has a unique name.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufHeader {
    /// The format's version: 2 or 3.
    pub version: u32,
    /// The metadata.
    pub metadata: Metadata,
    /// The tensors in the file's order. Their offsets count from the file's start.
    pub tensors: Vec<TensorInfo>,
    /// Offset at which the tensors' bytes begin.
    pub data_offset: u64,
    /// The file's length in bytes.
    pub file_bytes: u64,
    by_name: HashMap<Box<str>, u32>,
}

/// Selects the metadata to keep. All of it is checked in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Everything.
    Everything,
    /// Everything except the arrays under `tokenizer.*`: a stage does not need megabytes of vocabulary.
    NoVocabulary,
}

// === impl GgufHeader ===

impl GgufHeader {
    /// Reads the header of a file. `bytes` is the whole file.
    ///
    /// # Errors
    /// [`GgufError`] with the field, its offset, the expected and the found value.
    pub fn parse(bytes: &[u8]) -> Result<Self, GgufError> {
        Self::parse_keeping(bytes, Keep::Everything)
    }

    /// As [`Self::parse`], but keeps only the metadata that `keep` selects.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_keeping(bytes: &[u8], keep: Keep) -> Result<Self, GgufError> {
        Self::read(&mut Cursor::new(bytes), bytes.len() as u64, keep)
    }

    /// Reads the header of a file of `file_bytes` bytes.
    pub(super) fn read(cursor: &mut Cursor<'_>, file_bytes: u64, keep: Keep) -> Result<Self, GgufError> {
        let version = read_version(cursor)?;
        let tensor_count = bounded(cursor, DESCRIPTION_BYTES_MIN, TENSORS_MAX, "tensor count")?;
        let entry_count = bounded(cursor, ENTRY_BYTES_MIN, METADATA_ENTRIES_MAX, "metadata count")?;
        let ReadMetadata { metadata, alignment } = read_metadata(cursor, entry_count, keep)?;

        let mut tensors = Vec::new();
        let mut by_name = HashMap::new();
        for index in 0..tensor_count {
            let offset = cursor.position();
            let tensor = TensorInfo::read(cursor, index, alignment)?;
            if by_name.insert(tensor.name.as_str().into(), index as u32).is_some() {
                let field = format!("name of tensor {index}");
                return Err(error(field, offset, "a name of its own", format!("a second {}", quoted(&tensor.name))));
            }
            tensors.push(tensor);
        }
        let data_offset = cursor.position().next_multiple_of(alignment);
        for tensor in &mut tensors {
            tensor.resolve_offset(data_offset, file_bytes)?;
        }
        refuse_overlap(&tensors)?;
        Ok(Self { version, metadata, tensors, data_offset, file_bytes, by_name })
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(*self.by_name.get(name)? as usize)
    }
}

/// Minimum size of a metadata entry, in bytes: key length, one byte of key, type, one byte of value.
const ENTRY_BYTES_MIN: u64 = 8 + 1 + 4 + 1;

fn bounded(cursor: &mut Cursor<'_>, bytes_each: u64, most: u64, name: &str) -> Result<u64, GgufError> {
    let offset = cursor.position();
    // Checked against all bytes after the count. For the tensor count these include the 8 bytes of the metadata count,
    // so the bound is slightly too high.
    let count = cursor.count(bytes_each, &|| name.to_owned())?;
    if count > most {
        return Err(error(name, offset, format!("at most {most}"), count.to_string()));
    }
    Ok(count)
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, GgufError> {
    let magic = cursor.take(4, &|| "magic".to_owned())?;
    if magic != b"GGUF" {
        let found = match magic {
            b"FUGG" => "\"FUGG\", the magic of a big-endian file".to_owned(),
            b"vers" => "text; a Git LFS pointer starts like this: fetch the file it points to".to_owned(),
            b"lmgg" | b"fmgg" | b"tjgg" | b"algg" => "a GGML file from before GGUF: convert it".to_owned(),
            other => format!("{:?}", other.escape_ascii().to_string()),
        };
        return Err(error("magic", 0, "\"GGUF\"", found));
    }
    let version = cursor.u32(&|| "version".to_owned())?;
    match version {
        2 | 3 => Ok(version),
        _ if matches!(version.swap_bytes(), 1..=3) => {
            let found = format!("{}, byte-swapped: a big-endian file", version.swap_bytes());
            Err(error("version", 4, "2 or 3, little endian", found))
        }
        _ => Err(error("version", 4, "2 or 3", version.to_string())),
    }
}

/// The metadata, and the alignment that it sets.
struct ReadMetadata {
    metadata: Metadata,
    alignment: u64,
}

fn read_metadata(cursor: &mut Cursor<'_>, count: u64, keep: Keep) -> Result<ReadMetadata, GgufError> {
    let mut metadata = Metadata::default();
    let mut seen = std::collections::HashSet::new();
    let mut alignment = ALIGNMENT_DEFAULT;
    for index in 0..count {
        let offset = cursor.position();
        let field = || format!("key of metadata entry {index}");
        let key = cursor.string(&field)?;
        if key.is_empty() || key.len() as u64 > KEY_BYTES_MAX {
            let expected = format!("1 to {KEY_BYTES_MAX} bytes");
            return Err(error(field(), offset, expected, format!("{} bytes", key.len())));
        }
        if !seen.insert(key) {
            return Err(error(field(), offset, "a key of its own", format!("a second {}", quoted(key))));
        }
        let value_offset = cursor.position();
        let keep_arrays = keep == Keep::Everything || !key.starts_with("tokenizer.");
        let value = Value::read(cursor, key, keep_arrays)?;
        if let ("general.alignment", Some(value)) = (key, &value) {
            alignment = check_alignment(value, value_offset)?;
        }
        if let Some(value) = value {
            metadata.insert(key, value);
        }
    }
    Ok(ReadMetadata { metadata, alignment })
}

fn check_alignment(value: &Value, offset: u64) -> Result<u64, GgufError> {
    let number = if let Value::Integer(_, number) = value { u64::try_from(*number).ok() } else { None };
    match number {
        Some(number) if number.is_power_of_two() && (ALIGNMENT_MIN..=ALIGNMENT_MAX).contains(&number) => Ok(number),
        _ => {
            let expected = format!("a power of two from {ALIGNMENT_MIN} to {ALIGNMENT_MAX}");
            Err(error("general.alignment", offset, expected, value.describe()))
        }
    }
}

fn refuse_overlap(tensors: &[TensorInfo]) -> Result<(), GgufError> {
    let mut by_offset: Vec<&TensorInfo> = tensors.iter().collect();
    by_offset.sort_unstable_by_key(|tensor| tensor.offset);
    for pair in by_offset.windows(2) {
        if pair[1].offset < pair[0].end() {
            let field = format!("data of tensor {}", quoted(&pair[1].name));
            let expected =
                format!("a start at or after the end of tensor {}, {}", quoted(&pair[0].name), pair[0].end());
            return Err(error(field, pair[1].offset, expected, pair[1].offset.to_string()));
        }
    }
    Ok(())
}
