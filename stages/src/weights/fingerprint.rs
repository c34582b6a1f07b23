//! A digest that distinguishes model files without reading them whole.
//!
//! It is a BLAKE3 digest over the file's length, all bytes before the tensor data, and the first 4 KiB of each tensor.
//! It takes milliseconds for a file of gigabytes and distinguishes any two models, quantisations and tokenizers. It
//! does not detect a byte changed deep inside a tensor, so it is not a checksum for a download.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use schema::Fingerprint;

use crate::gguf::Header;

/// Number of bytes of each tensor that the digest covers.
const SAMPLE_BYTES: u64 = 4096;

/// Key-derivation context of the digest. A change of the digest's input needs another context.
const DIGEST_CONTEXT: &str = "baton 2026-11 model fingerprint: length, header, 4096 bytes of each tensor";

/// Digests `file`, whose header is `header`.
pub(super) fn fingerprint(file: &File, header: &Header) -> io::Result<Fingerprint> {
    let mut hasher = blake3::Hasher::new_derive_key(DIGEST_CONTEXT);
    hasher.update(&header.file_bytes.to_le_bytes());
    let mut buffer = vec![0; 1 << 16];
    let header_bytes = header.data_offset.min(header.file_bytes);
    add(&mut hasher, file, 0, header_bytes, &mut buffer)?;
    for tensor in &header.tensors {
        add(&mut hasher, file, tensor.offset, tensor.bytes.min(SAMPLE_BYTES), &mut buffer)?;
    }
    Ok(Fingerprint(hasher.finalize().to_hex().to_string()))
}

fn add(hasher: &mut blake3::Hasher, file: &File, mut offset: u64, bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
    let end = offset + bytes;
    while offset < end {
        let chunk = (end - offset).min(buffer.len() as u64) as usize;
        file.read_exact_at(&mut buffer[..chunk], offset)?;
        hasher.update(&buffer[..chunk]);
        offset += chunk as u64;
    }
    Ok(())
}
