//! Writes GGUF files, version 3: test fixtures, and models with random weights for speed measurements.

use std::io::{self, Write};
use std::path::Path;

use super::limits::{ALIGNMENT_DEFAULT, DIMENSIONS_MAX, TENSOR_NAME_BYTES_MAX};
use super::tensor::bytes_of;
use super::value::{Value, ValueKind};
use crate::format::Format;

/// A GGUF file under construction.
#[derive(Default)]
pub struct GgufWriter {
    entries: Vec<(String, Value)>,
    tensors: Vec<PendingTensor>,
}

struct PendingTensor {
    name: String,
    dims: Vec<u64>,
    /// Number of its format in files.
    format: u32,
    bytes: u64,
    source: TensorSource,
}

/// Source of a tensor's bytes.
pub enum TensorSource {
    /// Bytes in memory.
    Bytes(Vec<u8>),
    /// A function that writes the bytes while the file is written, so that a model may be larger than memory.
    Stream(TensorStream),
}

/// Writes all bytes of a tensor.
pub type TensorStream = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()>>;

/// Errors of a file that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A tensor that the format cannot represent.
    #[error("tensor {name:?}: expected {expected}, found {found}")]
    Tensor {
        /// Its name.
        name: String,
        /// The accepted values.
        expected: String,
        /// The given value.
        found: String,
    },
    /// A value that only the reader produces.
    #[error("metadata key {key:?}: expected a value that can be written, found {found}")]
    Value {
        /// The key.
        key: String,
        /// The given value.
        found: String,
    },
    /// Writing to the destination failed.
    #[error("cannot write the file")]
    Io(#[from] io::Error),
}

// === impl GgufWriter ===

impl GgufWriter {
    /// A file without metadata and tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a metadata entry.
    #[must_use]
    pub fn metadata(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.entries.push((key.to_owned(), value.into()));
        self
    }

    /// Adds a tensor whose bytes are in memory. `dims` are in ggml's order: the row's length first.
    ///
    /// # Errors
    /// [`WriteError::Tensor`] when the name or the dimensions do not fit the format, or the length of `bytes` does not
    /// fit both.
    pub fn tensor(self, name: &str, dims: &[u64], format: Format, bytes: Vec<u8>) -> Result<Self, WriteError> {
        self.tensor_from(name, dims, format, TensorSource::Bytes(bytes))
    }

    /// Adds a tensor from any source.
    ///
    /// # Errors
    /// As [`Self::tensor`]. A stream of the wrong length fails later, when the file is written.
    pub fn tensor_from(
        mut self,
        name: &str,
        dims: &[u64],
        format: Format,
        source: TensorSource,
    ) -> Result<Self, WriteError> {
        let wrong = |expected: String, found: String| WriteError::Tensor { name: name.to_owned(), expected, found };
        if name.is_empty() || name.len() as u64 > TENSOR_NAME_BYTES_MAX {
            return Err(wrong(format!("a name of 1 to {TENSOR_NAME_BYTES_MAX} bytes"), name.len().to_string()));
        }
        if dims.is_empty() || dims.len() > DIMENSIONS_MAX as usize || dims.contains(&0) {
            return Err(wrong(format!("1 to {DIMENSIONS_MAX} dimensions, none zero"), format!("{dims:?}")));
        }
        let Some(number) = format.ggml() else {
            return Err(wrong("a format of GGUF files".to_owned(), format.name().to_owned()));
        };
        let bytes = bytes_of(format, dims).map_err(|(expected, found)| wrong(expected, found))?;
        if let TensorSource::Bytes(given) = &source
            && given.len() as u64 != bytes
        {
            return Err(wrong(format!("{bytes} bytes for {dims:?} in {}", format.name()), given.len().to_string()));
        }
        self.tensors.push(PendingTensor { name: name.to_owned(), dims: dims.to_vec(), format: number, bytes, source });
        Ok(self)
    }

    /// The file as bytes.
    ///
    /// # Errors
    /// [`WriteError`] as for [`Self::write_to`].
    pub fn to_bytes(self) -> Result<Vec<u8>, WriteError> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes the file at `path` and overwrites an existing one.
    ///
    /// # Errors
    /// [`WriteError`] as for [`Self::write_to`].
    pub fn write_file(self, path: &Path) -> Result<(), WriteError> {
        let mut file = io::BufWriter::with_capacity(1 << 20, std::fs::File::create(path)?);
        self.write_to(&mut file)?;
        Ok(file.flush()?)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// [`WriteError`] when `out` fails, a stream has the wrong length, or a value cannot be written.
    pub fn write_to(self, out: &mut dyn Write) -> Result<(), WriteError> {
        let mut header = Vec::from(*b"GGUF");
        header.extend(3u32.to_le_bytes());
        header.extend((self.tensors.len() as u64).to_le_bytes());
        header.extend((self.entries.len() as u64).to_le_bytes());
        for (key, value) in &self.entries {
            put_text(&mut header, key);
            if !put_value(&mut header, value) {
                return Err(WriteError::Value { key: key.clone(), found: value.describe() });
            }
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            put_description(&mut header, tensor, offset);
            offset += tensor.bytes.next_multiple_of(ALIGNMENT_DEFAULT);
        }
        pad(&mut header);
        out.write_all(&header)?;
        for tensor in self.tensors {
            tensor.write_to(out)?;
        }
        Ok(())
    }
}

// === impl PendingTensor ===

impl PendingTensor {
    fn write_to(self, out: &mut dyn Write) -> Result<(), WriteError> {
        let mut counted = CountingWriter { out, bytes: 0 };
        match self.source {
            TensorSource::Bytes(bytes) => counted.write_all(&bytes)?,
            TensorSource::Stream(stream) => stream(&mut counted)?,
        }
        if counted.bytes != self.bytes {
            let (expected, found) = (format!("a stream of {} bytes", self.bytes), counted.bytes.to_string());
            return Err(WriteError::Tensor { name: self.name, expected, found });
        }
        let padding = self.bytes.next_multiple_of(ALIGNMENT_DEFAULT) - self.bytes;
        out.write_all(&[0; ALIGNMENT_DEFAULT as usize][..padding as usize])?;
        Ok(())
    }
}

/// Counts the bytes that are written through it.
struct CountingWriter<'a> {
    out: &'a mut dyn Write,
    bytes: u64,
}

impl Write for CountingWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Writes a value and returns true if that is possible. An array of arrays cannot be written, because the reader does
/// not keep it.
fn put_value(out: &mut Vec<u8>, value: &Value) -> bool {
    let mut kind = |kind: ValueKind| out.extend((kind as u32).to_le_bytes());
    match value {
        Value::Integer(of, value) => {
            kind(*of);
            // Two's complement: the low bytes of the wide integer are the narrow one.
            out.extend(&value.to_le_bytes()[..of.bytes_min() as usize]);
        }
        Value::Float(ValueKind::F64, value) => {
            kind(ValueKind::F64);
            out.extend(value.to_le_bytes());
        }
        Value::Float(_, value) => {
            kind(ValueKind::F32);
            out.extend((*value as f32).to_le_bytes());
        }
        Value::Bool(value) => {
            kind(ValueKind::Bool);
            out.push((*value).into());
        }
        Value::String(text) => {
            kind(ValueKind::String);
            put_text(out, text);
        }
        Value::Numbers(numbers) => {
            kind(ValueKind::Array);
            kind(numbers.kind());
            out.extend((numbers.len() as u64).to_le_bytes());
            out.extend(numbers.bytes());
        }
        Value::Strings(strings) => {
            kind(ValueKind::Array);
            kind(ValueKind::String);
            out.extend((strings.len() as u64).to_le_bytes());
            strings.iter().for_each(|text| put_text(out, text));
        }
        Value::Nested { .. } => return false,
    }
    true
}

fn put_description(out: &mut Vec<u8>, tensor: &PendingTensor, offset: u64) {
    put_text(out, &tensor.name);
    out.extend((tensor.dims.len() as u32).to_le_bytes());
    tensor.dims.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
    out.extend(tensor.format.to_le_bytes());
    out.extend(offset.to_le_bytes());
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(ALIGNMENT_DEFAULT as usize), 0);
}
