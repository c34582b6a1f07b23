//! A file's header: the descriptions of its tensors, all checked.

use std::fmt;
use std::ops::Range;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::error::quoted;
use super::limits::{DIMENSIONS_MAX, HEADER_BYTES_MAX, TENSORS_MAX};
use super::{Dtype, SafetensorsError};

/// The header of a safetensors file. Every tensor lies inside the file, and together they fill it without gaps and
/// overlaps. Names are unique.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SafetensorsHeader {
    /// The tensors in the order of their bytes.
    pub tensors: Vec<StoredTensor>,
    /// Offset at which the tensors' bytes begin.
    pub data_offset: u64,
}

/// The place of a tensor in the file, and the type of its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// Its name, such as `model.layers.3.self_attn.q_proj.weight`.
    pub name: String,
    /// Type of its values.
    pub dtype: Dtype,
    /// Its dimensions: the last is the length of a row. None is zero; a scalar has none.
    pub shape: Vec<u64>,
    /// Its bytes, counted from the file's start.
    pub range: Range<u64>,
}

/// Bytes of the header's length.
const LENGTH_BYTES: u64 = 8;

// === impl SafetensorsHeader ===

impl SafetensorsHeader {
    /// Reads the header of a file. `bytes` is the whole file.
    ///
    /// # Errors
    /// [`SafetensorsError`] with the field, the expected and the found value.
    pub fn parse(bytes: &[u8]) -> Result<Self, SafetensorsError> {
        let file_bytes = bytes.len() as u64;
        let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
            return Err(SafetensorsError::new("file", "at least 8 bytes", format!("{file_bytes}")));
        };
        let data_offset = Self::extent(*length, file_bytes)?;
        let json = rest.get(..(data_offset - LENGTH_BYTES) as usize).unwrap_or_default();
        let Entries(entries) = serde_json::from_slice(json)
            .map_err(|cause| SafetensorsError::new("header", "a JSON object of tensors", cause))?;
        let check = |(name, entry): (String, Entry)| entry.check(name, data_offset, file_bytes);
        let mut tensors = entries.into_iter().map(check).collect::<Result<Vec<_>, _>>()?;
        refuse_doubles(&tensors)?;
        tensors.sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
        refuse_gaps(&tensors, data_offset, file_bytes)?;
        Ok(Self { tensors, data_offset })
    }

    /// Offset at which the tensors' bytes begin, by the first 8 bytes of a file of `file_bytes` bytes.
    ///
    /// # Errors
    /// [`SafetensorsError`] if the file cannot hold such a header, or if the header is longer than the format allows.
    pub fn extent(length: [u8; LENGTH_BYTES as usize], file_bytes: u64) -> Result<u64, SafetensorsError> {
        if length == *b"version " {
            let found = "text; a Git LFS pointer starts like this: fetch the file it points to";
            return Err(SafetensorsError::new("file", "a safetensors header", found));
        }
        let length = u64::from_le_bytes(length);
        let most = HEADER_BYTES_MAX.min(file_bytes.saturating_sub(LENGTH_BYTES));
        if length > most {
            return Err(SafetensorsError::new("length of the header", format!("at most {most} bytes"), length));
        }
        Ok(LENGTH_BYTES + length)
    }
}

fn refuse_doubles(tensors: &[StoredTensor]) -> Result<(), SafetensorsError> {
    let mut names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(SafetensorsError::new("header", "each name once", format!("{} twice", quoted(pair[0])))),
        None => Ok(()),
    }
}

/// Refuses tensors, in the order of their bytes, that overlap or leave bytes of the file to no tensor.
fn refuse_gaps(tensors: &[StoredTensor], data_offset: u64, file_bytes: u64) -> Result<(), SafetensorsError> {
    let mut end = data_offset;
    for tensor in tensors {
        if tensor.range.start != end {
            let field = format!("data of tensor {}", quoted(&tensor.name));
            let expected = format!("a start at byte {end}, where the tensor before it ends");
            return Err(SafetensorsError::new(field, expected, tensor.range.start));
        }
        end = tensor.range.end;
    }
    if end != file_bytes {
        return Err(SafetensorsError::new("file", format!("{end} bytes, as the tensors end there"), file_bytes));
    }
    Ok(())
}

/// A tensor's description, as the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    /// First byte and one past the last, counted from the end of the header.
    data_offsets: [u64; 2],
}

// === impl Entry ===

impl Entry {
    /// The checked description of the tensor `name`.
    fn check(self, name: String, data_offset: u64, file_bytes: u64) -> Result<StoredTensor, SafetensorsError> {
        let field = |what: &str| format!("{what} of tensor {}", quoted(&name));
        let Some(dtype) = Dtype::named(&self.dtype) else {
            return Err(SafetensorsError::new(
                field("dtype"),
                format!("one of {}", Dtype::names()),
                quoted(&self.dtype),
            ));
        };
        if self.shape.len() > DIMENSIONS_MAX || self.shape.contains(&0) {
            let expected = format!("at most {DIMENSIONS_MAX} dimensions, none of 0");
            return Err(SafetensorsError::new(field("shape"), expected, shown(&self.shape)));
        }
        let values = self.shape.iter().try_fold(1_u64, |values, dim| values.checked_mul(*dim));
        let Some(bytes) = values.and_then(|values| values.checked_mul(dtype.bytes())) else {
            return Err(SafetensorsError::new(field("shape"), "a product below 2^64", shown(&self.shape)));
        };
        let [start, end] = self.data_offsets;
        if end.checked_sub(start) != Some(bytes) {
            let expected = format!("{bytes} bytes, as shape {} of {} has", shown(&self.shape), dtype.name());
            return Err(SafetensorsError::new(field("data_offsets"), expected, format!("{start} to {end}")));
        }
        let range = data_offset.checked_add(start).zip(data_offset.checked_add(end));
        match range.filter(|(_, end)| *end <= file_bytes) {
            Some((start, end)) => Ok(StoredTensor { name, dtype, shape: self.shape, range: start..end }),
            None => {
                let expected = format!("an end within the {} bytes after the header", file_bytes - data_offset);
                Err(SafetensorsError::new(field("data_offsets"), expected, end))
            }
        }
    }
}

/// A shape, cut so that it fits one line.
fn shown(shape: &[u64]) -> String {
    match shape.get(..DIMENSIONS_MAX + 1) {
        Some(first) => format!("{first:?} and so on, {} dimensions", shape.len()),
        None => format!("{shape:?}"),
    }
}

/// The descriptions of a header in the file's order, names that occur twice included.
struct Entries(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        /// The file's own notes, which are no tensor.
        const NOTES: &str = "__metadata__";
        let mut entries = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == NOTES {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if entries.len() == TENSORS_MAX {
                return Err(serde::de::Error::custom(format!("more than {TENSORS_MAX} tensors")));
            }
            entries.push((name, map.next_value()?));
        }
        Ok(Entries(entries))
    }
}
