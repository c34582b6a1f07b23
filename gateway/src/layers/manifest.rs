//! The manifest of a model: a BLAKE3 hash of each chunk of its files. Whoever has it can take bytes from anybody.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use schema::Fingerprint;
use serde::{Deserialize, Serialize};
use stages::weights::ModelFile;

use super::limits::CHUNK_BYTES;
use crate::models::limits::{FILE_BYTES_MAX, FILES_MAX};

/// Key-derivation context of a manifest's digest.
const ROOT_CONTEXT: &str = "baton 2026-12 manifest of a model: fingerprint, length and chunks of each file";

/// The hashes of a model's chunks, of `CHUNK_BYTES` bytes each, the last of a file perhaps shorter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct ChunkManifest {
    fingerprint: Fingerprint,
    parts: Vec<PartChunks>,
}

/// The chunks of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PartChunks {
    bytes: u64,
    hashes: Vec<blake3::Hash>,
}

/// A manifest as it is sent and kept.
#[derive(Serialize, Deserialize)]
struct Written {
    fingerprint: Fingerprint,
    chunk_bytes: u64,
    parts: Vec<WrittenPart>,
}

#[derive(Serialize, Deserialize)]
struct WrittenPart {
    bytes: u64,
    /// The hashes in hex, one after the other.
    chunks: String,
}

// === impl ChunkManifest ===

impl ChunkManifest {
    /// Reads `file` whole, and tells `progress` the number of bytes after each chunk. Blocking: as long as its disk and
    /// one processor take.
    ///
    /// # Errors
    /// The system's reason if a file cannot be read.
    pub fn compute(file: &ModelFile, progress: &mut dyn FnMut(u64)) -> io::Result<Self> {
        let parts = file.files().map(|file| PartChunks::compute(file, progress)).collect::<io::Result<_>>()?;
        Ok(Self { fingerprint: file.fingerprint().clone(), parts })
    }

    /// The model that it is about.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// Length of each file, in bytes.
    pub fn part_bytes(&self) -> impl ExactSizeIterator<Item = u64> {
        self.parts.iter().map(|part| part.bytes)
    }

    /// A digest of all of it.
    pub fn root(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key(ROOT_CONTEXT);
        hasher.update(self.fingerprint.0.as_bytes());
        for part in &self.parts {
            hasher.update(&part.bytes.to_le_bytes());
            for hash in &part.hashes {
                hasher.update(hash.as_bytes());
            }
        }
        hasher.finalize().to_hex().to_string()
    }

    /// The bytes of chunk `index` of file `part`, which has it.
    pub(super) fn chunk(&self, part: usize, index: u64) -> Range<u64> {
        let start = index * CHUNK_BYTES;
        start..(start + CHUNK_BYTES).min(self.parts[part].bytes)
    }

    /// Checks that `bytes` are chunk `index` of file `part`. The error is the expected and the found hash.
    pub(super) fn check(&self, part: usize, index: u64, bytes: &[u8]) -> Result<(), (String, String)> {
        let expected = self.parts[part].hashes[index as usize];
        let found = blake3::hash(bytes);
        if found == expected {
            return Ok(());
        }
        Err((expected.to_hex().to_string(), found.to_hex().to_string()))
    }
}

impl PartChunks {
    fn compute(file: &std::fs::File, progress: &mut dyn FnMut(u64)) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        let (mut hashes, mut buffer) = (Vec::new(), vec![0; CHUNK_BYTES as usize]);
        for start in (0..bytes).step_by(CHUNK_BYTES as usize) {
            let chunk = &mut buffer[..CHUNK_BYTES.min(bytes - start) as usize];
            file.read_exact_at(chunk, start)?;
            hashes.push(blake3::hash(chunk));
            progress(chunk.len() as u64);
        }
        Ok(Self { bytes, hashes })
    }
}

impl From<ChunkManifest> for Written {
    fn from(manifest: ChunkManifest) -> Self {
        let parts = manifest.parts.into_iter().map(|PartChunks { bytes, hashes }| {
            let chunks = hashes.iter().map(|hash| hash.to_hex().to_string()).collect();
            WrittenPart { bytes, chunks }
        });
        Self { fingerprint: manifest.fingerprint, chunk_bytes: CHUNK_BYTES, parts: parts.collect() }
    }
}

impl TryFrom<Written> for ChunkManifest {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { fingerprint, chunk_bytes, parts } = written;
        if chunk_bytes != CHUNK_BYTES {
            return Err(format!("chunk_bytes is {chunk_bytes}: expected {CHUNK_BYTES}"));
        }
        if parts.is_empty() || parts.len() > FILES_MAX {
            return Err(format!("{} files: expected 1 to {FILES_MAX}", parts.len()));
        }
        let parts = parts.into_iter().map(PartChunks::try_from).collect::<Result<_, _>>()?;
        Ok(Self { fingerprint, parts })
    }
}

impl TryFrom<WrittenPart> for PartChunks {
    type Error = String;

    fn try_from(WrittenPart { bytes, chunks }: WrittenPart) -> Result<Self, String> {
        if bytes == 0 || bytes > FILE_BYTES_MAX {
            return Err(format!("a file of {bytes} bytes: expected 1 to {FILE_BYTES_MAX}"));
        }
        let characters = 2 * blake3::OUT_LEN;
        let hashes = chunks.as_bytes().chunks(characters).map(blake3::Hash::from_hex).collect::<Result<Vec<_>, _>>();
        let hashes = hashes.map_err(|error| format!("a hash of a chunk: {error}"))?;
        if hashes.len() as u64 != bytes.div_ceil(CHUNK_BYTES) {
            return Err(format!("{} chunks of a file of {bytes} bytes", hashes.len()));
        }
        Ok(Self { bytes, hashes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        serde_json::from_str::<ChunkManifest>(text).unwrap_err().to_string()
    }

    #[test]
    fn a_manifest_that_no_model_has_is_refused() {
        let part = |bytes: u64, chunks: &str| {
            format!(r#"{{"fingerprint":"f","chunk_bytes":1048576,"parts":[{{"bytes":{bytes},"chunks":"{chunks}"}}]}}"#)
        };
        let hash = "0".repeat(64);
        assert!(serde_json::from_str::<ChunkManifest>(&part(1, &hash)).is_ok());
        assert!(refusal(&part(0, "")).contains("expected 1 to"));
        assert!(refusal(&part(u64::MAX, &hash)).contains("expected 1 to"));
        assert!(refusal(&part(1 << 21, &hash)).contains("1 chunks of a file of 2097152 bytes"));
        assert!(refusal(&part(1, &hash[1..])).contains("a hash of a chunk"));
        assert!(refusal(&part(1, &"é".repeat(32))).contains("a hash of a chunk"));
        assert!(refusal(r#"{"fingerprint":"f","chunk_bytes":7,"parts":[]}"#).contains("expected 1048576"));
        assert!(refusal(r#"{"fingerprint":"f","chunk_bytes":1048576,"parts":[]}"#).contains("0 files"));
    }
}
