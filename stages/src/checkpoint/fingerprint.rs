//! A digest that distinguishes models without reading their files whole.
//!
//! For one GGUF file it is a BLAKE3 digest over the file's length, all bytes before the tensor data, and the first
//! 4 KiB of each tensor. For several it is a digest over these of all files, in order. It takes milliseconds for
//! gigabytes and distinguishes any two models, quantisations and tokenizers. It does not detect a byte changed deep
//! inside a tensor, so it is not a checksum for a download.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use schema::Fingerprint;

/// Number of bytes of each tensor that the digest covers.
const SAMPLE_BYTES: u64 = 4096;

/// Key-derivation context of one file's digest. A change of the digest's input needs another context.
const FILE_CONTEXT: &str = "baton 2026-11 model fingerprint: length, header, 4096 bytes of each tensor";
/// Key-derivation context of a digest over those of several files.
const SET_CONTEXT: &str = "baton 2026-12 fingerprint of a model in several files: theirs, in order";

/// Digests `file` of `file_bytes` bytes, of which the first `header_bytes` are its header. `tensors` are the ranges of
/// its tensors, in the file's order.
pub(super) fn of_file(
    file: &File,
    file_bytes: u64,
    header_bytes: u64,
    tensors: impl Iterator<Item = Range<u64>>,
) -> io::Result<Fingerprint> {
    let mut hasher = blake3::Hasher::new_derive_key(FILE_CONTEXT);
    hasher.update(&file_bytes.to_le_bytes());
    let mut buffer = vec![0; 1 << 16];
    add(&mut hasher, file, 0..header_bytes.min(file_bytes), &mut buffer)?;
    for tensor in tensors {
        let end = tensor.end.min(tensor.start + SAMPLE_BYTES);
        add(&mut hasher, file, tensor.start..end, &mut buffer)?;
    }
    Ok(Fingerprint(hasher.finalize().to_hex().to_string()))
}

/// Digests the fingerprints of several files.
pub(super) fn of_set<'a>(files: impl Iterator<Item = &'a Fingerprint>) -> Fingerprint {
    let mut hasher = blake3::Hasher::new_derive_key(SET_CONTEXT);
    for file in files {
        hasher.update(file.0.as_bytes());
    }
    Fingerprint(hasher.finalize().to_hex().to_string())
}

fn add(hasher: &mut blake3::Hasher, file: &File, mut range: Range<u64>, buffer: &mut [u8]) -> io::Result<()> {
    while range.start < range.end {
        let chunk = (range.end - range.start).min(buffer.len() as u64) as usize;
        file.read_exact_at(&mut buffer[..chunk], range.start)?;
        hasher.update(&buffer[..chunk]);
        range.start += chunk as u64;
    }
    Ok(())
}
