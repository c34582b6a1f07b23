//! Damage to an input: to the values of JSON, to the bytes and numbers of binary files, and to the lines of texts. The
//! same number always gives the same damage.

use serde_json::Value;

use crate::mutator::{Mutator, keys};

/// Most bytes that damage lets a file grow to.
const FILE_BYTES_MAX: usize = 1 << 20;
/// Numbers at which something may break.
const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    3,
    7,
    8,
    0x7f,
    0xff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 32,
    1 << 40,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// The form of a file, by which it is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Binary,
    Text,
}

/// One file of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) form: Form,
    pub(crate) bytes: Vec<u8>,
}

// === impl Piece ===

impl Piece {
    pub(crate) fn json(value: &Value) -> Self {
        Self { form: Form::Json, bytes: value.to_string().into_bytes() }
    }

    pub(crate) fn binary(bytes: Vec<u8>) -> Self {
        Self { form: Form::Binary, bytes }
    }

    pub(crate) fn text(text: &str) -> Self {
        Self { form: Form::Text, bytes: text.as_bytes().to_vec() }
    }
}

/// `input` with damage to one of its files, to each as often. `other` is another input of the same kind, of which parts
/// are taken.
pub(crate) fn damaged(input: &[Piece], other: &[Piece], mutator: &mut Mutator) -> Vec<Piece> {
    let mut input = input.to_vec();
    let at = mutator.below(input.len());
    let from = other.get(at).map_or(&[][..], |piece| &piece.bytes);
    let piece = &mut input[at];
    piece.bytes = match piece.form {
        // Bytes that are no JSON any more are damaged as bytes.
        Form::Json => match serde_json::from_slice(&piece.bytes) {
            Ok(value) => mutator.damaged(value, &names(from)),
            Err(_) => bytes(std::mem::take(&mut piece.bytes), from, mutator),
        },
        Form::Binary => bytes(std::mem::take(&mut piece.bytes), from, mutator),
        Form::Text => text(&piece.bytes, from, mutator),
    };
    piece.bytes.truncate(FILE_BYTES_MAX);
    input
}

/// Some of the names in a JSON value.
fn names(bytes: &[u8]) -> Vec<String> {
    let mut names = serde_json::from_slice(bytes).map(|value| keys(&value)).unwrap_or_default();
    names.truncate(500);
    names
}

/// `bytes` with one to four changes.
fn bytes(mut bytes: Vec<u8>, other: &[u8], mutator: &mut Mutator) -> Vec<u8> {
    for _ in 0..=mutator.below(4) {
        let length = bytes.len();
        // Headers lie at the start: half of the changes are there.
        let reach = if mutator.below(2) == 0 { length.min(256) } else { length };
        let at = mutator.below(reach + 1);
        let size = [1, 2, 4, 8, 16, 64, 1024][mutator.below(7)];
        let end = (at + size).min(length);
        match mutator.below(8) {
            0 if at < length => bytes[at] ^= 1 << mutator.below(8),
            1 => write(&mut bytes, at, &NUMBERS[mutator.below(NUMBERS.len())].to_le_bytes()),
            2 => write(&mut bytes, at, &(NUMBERS[mutator.below(NUMBERS.len())] as u32).to_le_bytes()),
            3 => write(&mut bytes, at, &(mutator.below(48) as u32).to_le_bytes()),
            4 => bytes.truncate(at),
            5 => drop(bytes.drain(at..end)),
            6 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            _ if !other.is_empty() => {
                let from = mutator.below(other.len());
                let piece = &other[from..(from + size).min(other.len())];
                write(&mut bytes, at, piece);
            }
            _ => bytes.push(mutator.below(256) as u8),
        }
    }
    bytes
}

/// Overwrites the bytes at `at`, as far as there are any.
fn write(bytes: &mut [u8], at: usize, with: &[u8]) {
    bytes.iter_mut().skip(at).zip(with).for_each(|(byte, with)| *byte = *with);
}

/// A text with one to four changes of its pieces between spaces, braces and quotes.
fn text(source: &[u8], other: &[u8], mutator: &mut Mutator) -> Vec<u8> {
    const WORDS: [&str; 20] = [
        "{%",
        "%}",
        "{{",
        "}}",
        "{#",
        "for",
        "endfor",
        "if",
        "endif",
        "set",
        "macro",
        "[",
        "]",
        "(",
        ")",
        "|",
        "-",
        "9999999999",
        "~",
        "loop.index0",
    ];
    let source = String::from_utf8_lossy(source).into_owned();
    let other = String::from_utf8_lossy(other).into_owned();
    let mut words: Vec<&str> = source.split_inclusive([' ', '\n', '}', ')', '\'']).collect();
    let others: Vec<&str> = other.split_inclusive([' ', '\n', '}', ')', '\'']).collect();
    for _ in 0..=mutator.below(4) {
        let at = mutator.below(words.len() + 1);
        let end = (at + 1 + mutator.below(8)).min(words.len());
        match mutator.below(5) {
            0 => drop(words.drain(at.min(end)..end)),
            1 => {
                let piece = words[at.min(end)..end].repeat(1 + mutator.below(20));
                drop(words.splice(at..at, piece));
            }
            2 => words.insert(at, WORDS[mutator.below(WORDS.len())]),
            3 if !others.is_empty() => words.insert(at, others[mutator.below(others.len())]),
            _ if at < words.len() => words[at] = WORDS[mutator.below(WORDS.len())],
            _ => words.truncate(at),
        }
    }
    words.concat().into_bytes()
}
