//! Metadata values, as the reader keeps them and the writer takes them.
//!
//! Arrays are stored compactly, because a vocabulary has 100,000 entries: numbers as the file's own bytes, texts (the
//! format calls them strings) one after the other in one buffer, with the end of each. Functions that read take a
//! closure `field`, which names the field if it is in error.

use super::GgufError;
use super::cursor::{Cursor, error};
use super::error::quoted;
use super::limits::NESTING_MAX;

/// The type of a value, with the number the file uses for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the format's own")]
pub enum ValueKind {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// An integer of the given type, within its range.
    Integer(ValueKind, i128),
    /// A float of the given type, which has 32 or 64 bits in the file.
    Float(ValueKind, f64),
    /// True or false.
    Bool(bool),
    /// A text.
    String(Box<str>),
    /// An array of integers, floats or booleans.
    Numbers(Numbers),
    /// An array of texts.
    Strings(Strings),
    /// An array of arrays. It is checked when it is read, but not kept, because no model family uses one.
    Nested {
        /// Number of inner arrays.
        count: u64,
    },
}

/// An array of numbers, as the file's own bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbers {
    kind: ValueKind,
    bytes: Box<[u8]>,
}

/// An array of texts in one buffer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Strings {
    text: Box<str>,
    /// End of each text in `text`, in bytes. A text starts at the end of the one before.
    ends: Box<[usize]>,
}

// === impl ValueKind ===

impl ValueKind {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::String,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number)
    }

    /// Minimum size of a value in the file, in bytes. It is exact except for texts, of which it counts the length (8
    /// bytes), and for arrays, of which it counts the elements' type (4) and count (8).
    pub(super) fn bytes_min(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
            Self::Array => 12,
        }
    }

    /// The kind's name in error messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }

    /// Reads a type's number.
    fn read(cursor: &mut Cursor<'_>, field: &dyn Fn() -> String) -> Result<Self, GgufError> {
        let offset = cursor.position();
        let number = cursor.u32(field)?;
        Self::from_number(number).ok_or_else(|| error(field(), offset, "a value type from 0 to 12", number.to_string()))
    }

    /// Decodes the scalar in `bytes`, whose length is the kind's size.
    fn decode(self, bytes: &[u8]) -> Value {
        fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
            let mut array = [0; N];
            array.copy_from_slice(&bytes[..N]);
            array
        }
        match self {
            Self::U8 => Value::Integer(self, bytes[0].into()),
            Self::I8 => Value::Integer(self, i8::from_le_bytes(fixed(bytes)).into()),
            Self::U16 => Value::Integer(self, u16::from_le_bytes(fixed(bytes)).into()),
            Self::I16 => Value::Integer(self, i16::from_le_bytes(fixed(bytes)).into()),
            Self::U32 => Value::Integer(self, u32::from_le_bytes(fixed(bytes)).into()),
            Self::I32 => Value::Integer(self, i32::from_le_bytes(fixed(bytes)).into()),
            Self::U64 => Value::Integer(self, u64::from_le_bytes(fixed(bytes)).into()),
            Self::I64 => Value::Integer(self, i64::from_le_bytes(fixed(bytes)).into()),
            Self::F32 => Value::Float(self, f32::from_le_bytes(fixed(bytes)).into()),
            Self::F64 => Value::Float(self, f64::from_le_bytes(fixed(bytes))),
            Self::Bool => Value::Bool(bytes[0] == 1),
            Self::String | Self::Array => unreachable!("only called for scalars"),
        }
    }
}

// === impl Value ===

impl Value {
    /// Reads the type and the value of `key`. If `keep_arrays` is false, an array is checked but not kept, and the
    /// result is `None`.
    pub(super) fn read(cursor: &mut Cursor<'_>, key: &str, keep_arrays: bool) -> Result<Option<Self>, GgufError> {
        let kind = ValueKind::read(cursor, &|| format!("value type of metadata key {}", quoted(key)))?;
        let field = || format!("value of metadata key {}", quoted(key));
        match kind {
            ValueKind::String => Ok(Some(Self::String(cursor.string(&field)?.into()))),
            ValueKind::Array => Self::read_array(cursor, &field, keep_arrays, 1),
            scalar => {
                let offset = cursor.position();
                let bytes = cursor.take(scalar.bytes_min(), &field)?;
                check_bools(scalar, bytes, &field, offset)?;
                Ok(Some(scalar.decode(bytes)))
            }
        }
    }

    /// Reads an array whose type was read already. `depth` is 1 for an array that is in no other. If `keep` is false,
    /// the result is `None`.
    fn read_array(
        cursor: &mut Cursor<'_>,
        field: &dyn Fn() -> String,
        keep: bool,
        depth: u32,
    ) -> Result<Option<Self>, GgufError> {
        if depth > NESTING_MAX {
            let expected = format!("arrays nested at most {NESTING_MAX} deep");
            return Err(error(field(), cursor.position(), expected, "a deeper one"));
        }
        let kind = ValueKind::read(cursor, &|| format!("element type of the {}", field()))?;
        let count = cursor.count(kind.bytes_min(), &|| format!("element count of the {}", field()))?;
        match kind {
            ValueKind::Array => {
                for _ in 0..count {
                    Self::read_array(cursor, field, false, depth + 1)?;
                }
                Ok(keep.then_some(Self::Nested { count }))
            }
            ValueKind::String => {
                let strings = Strings::read(cursor, count, field, keep)?;
                Ok(keep.then_some(Self::Strings(strings)))
            }
            scalar => {
                let offset = cursor.position();
                // The count fits the rest of the file, so the product cannot overflow.
                let bytes = cursor.take(count * scalar.bytes_min(), field)?;
                check_bools(scalar, bytes, field, offset)?;
                Ok(keep.then(|| Self::Numbers(Numbers { kind: scalar, bytes: bytes.into() })))
            }
        }
    }

    /// The value's type in words, for error messages.
    pub fn describe(&self) -> String {
        match self {
            Self::Integer(kind, value) => format!("{} {value}", kind.name()),
            Self::Float(kind, value) => format!("{} {value}", kind.name()),
            Self::Bool(value) => format!("bool {value}"),
            Self::String(text) => format!("string {}", quoted(text)),
            Self::Numbers(numbers) => format!("array of {} {}", numbers.len(), numbers.kind.name()),
            Self::Strings(strings) => format!("array of {} string", strings.len()),
            Self::Nested { count } => format!("array of {count} arrays"),
        }
    }
}

/// Checks the bytes of one or more values if `kind` is [`ValueKind::Bool`]. All bytes of other scalars are valid.
/// `offset` is where `bytes` start in the file.
fn check_bools(kind: ValueKind, bytes: &[u8], field: &dyn Fn() -> String, offset: u64) -> Result<(), GgufError> {
    match bytes.iter().position(|byte| kind == ValueKind::Bool && *byte > 1) {
        Some(at) => Err(error(field(), offset + at as u64, "a bool, 0 or 1", bytes[at].to_string())),
        None => Ok(()),
    }
}

/// Makes `Value` from Rust types. Each line has a type, a name for its value, and the `Value` made of it.
macro_rules! from {
    ($($from:ty => |$name:ident| $value:expr;)*) => {
        $(impl From<$from> for Value {
            fn from($name: $from) -> Self {
                $value
            }
        })*
    };
}

from! {
    u32 => |value| Self::Integer(ValueKind::U32, value.into());
    u64 => |value| Self::Integer(ValueKind::U64, value.into());
    i32 => |value| Self::Integer(ValueKind::I32, value.into());
    f32 => |value| Self::Float(ValueKind::F32, value.into());
    bool => |value| Self::Bool(value);
    &str => |text| Self::String(text.into());
    String => |text| Self::String(text.into());
    &[&str] => |texts| Self::Strings(texts.iter().copied().collect());
    &[String] => |texts| Self::Strings(texts.iter().map(String::as_str).collect());
    &[u32] => |values| Self::Numbers(Numbers::new(ValueKind::U32, values.iter().flat_map(|value| value.to_le_bytes())));
    &[bool] => |values| Self::Numbers(Numbers::new(ValueKind::Bool, values.iter().map(|value| u8::from(*value))));
    &[i32] => |values| Self::Numbers(Numbers::new(ValueKind::I32, values.iter().flat_map(|value| value.to_le_bytes())));
    &[f32] => |values| Self::Numbers(Numbers::new(ValueKind::F32, values.iter().flat_map(|value| value.to_le_bytes())));
}

// === impl Numbers ===

impl Numbers {
    fn new(kind: ValueKind, bytes: impl Iterator<Item = u8>) -> Self {
        Self { kind, bytes: bytes.collect() }
    }

    /// An array of flags.
    pub fn bools(flags: &[bool]) -> Self {
        Self::new(ValueKind::Bool, flags.iter().map(|flag| u8::from(*flag)))
    }

    /// The elements' type.
    pub fn kind(&self) -> ValueKind {
        self.kind
    }

    /// The bytes of all elements, as in the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.kind.bytes_min() as usize
    }

    /// True if the array is empty.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The elements, each as a scalar value.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Value> {
        self.bytes.chunks_exact(self.kind.bytes_min() as usize).map(|bytes| self.kind.decode(bytes))
    }
}

// === impl Strings ===

impl Strings {
    /// Reads `count` texts. The caller has checked that the rest of the file can hold that many. If `keep` is false,
    /// they are only checked, and the result is empty.
    fn read(cursor: &mut Cursor<'_>, count: u64, field: &dyn Fn() -> String, keep: bool) -> Result<Self, GgufError> {
        let mut text = String::new();
        let mut ends = Vec::new();
        for index in 0..count {
            let string = cursor.string(&|| format!("element {index} of the {}", field()))?;
            if keep {
                text.push_str(string);
                ends.push(text.len());
            }
        }
        Ok(Self { text: text.into(), ends: ends.into() })
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True if the array is empty.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The text at `index`.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        self.text.get(start..end)
    }

    /// The texts in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|index| self.get(index).unwrap_or_default())
    }
}

impl<'a> FromIterator<&'a str> for Strings {
    fn from_iter<I: IntoIterator<Item = &'a str>>(texts: I) -> Self {
        let mut text = String::new();
        let ends = texts.into_iter().map(|one| {
            text.push_str(one);
            text.len()
        });
        let ends = ends.collect();
        Self { text: text.into(), ends }
    }
}
