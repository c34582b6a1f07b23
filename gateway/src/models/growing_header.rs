//! The growth of what is read of a GGUF file, from its start until its header is whole. Pure: who reads, and from
//! where, is not known here.

use stages::gguf::{Extent, GgufError};

use super::limits::GGUF_HEADER_BYTES_MAX;

/// Bytes of a GGUF file that are asked for first.
pub(crate) const FIRST_BYTES: u64 = 64 << 10;
/// Maximum number of bytes by which the part that is read grows beyond what is known to be needed: so many bytes of
/// weights may come along with the end of a header.
const STEP_BYTES_MAX: u64 = 4 << 20;

/// The next step of whoever reads a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderStep {
    /// The header takes so many bytes, which are there.
    Whole(u64),
    /// The bytes up to `end` are to be read next. At least those up to `needed` belong to the header.
    Read { needed: u64, end: u64 },
}

/// The reason for which a file has no usable header.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderFault {
    #[error(transparent)]
    Unsound(#[from] GgufError),
    #[error("a header of at least {needed} bytes: expected at most {GGUF_HEADER_BYTES_MAX} bytes")]
    TooLong { needed: u64 },
}

// === impl HeaderStep ===

impl HeaderStep {
    /// The step after the first bytes of a file of `file_bytes` bytes are read.
    ///
    /// # Errors
    /// [`HeaderFault`] if the header is in error, whatever follows, or longer than any model's.
    pub(crate) fn after(bytes: &[u8], file_bytes: u64) -> Result<Self, HeaderFault> {
        let needed = match Extent::of(bytes, file_bytes)? {
            Extent::Whole(header) => return Ok(Self::Whole(header)),
            Extent::Needs(needed) => needed,
        };
        let length = bytes.len() as u64;
        // Four times as many, so that a long header takes few requests, and a short one few bytes.
        let end = needed.max(length + (3 * length).clamp(FIRST_BYTES, STEP_BYTES_MAX)).min(file_bytes);
        if needed > GGUF_HEADER_BYTES_MAX || end <= length {
            return Err(HeaderFault::TooLong { needed });
        }
        Ok(Self::Read { needed, end: end.min(GGUF_HEADER_BYTES_MAX) })
    }
}

#[cfg(test)]
mod tests {
    use stages::format::Format;
    use stages::gguf::GgufWriter;

    use super::*;

    /// A file with a header of about so many bytes, and weights.
    fn file(header_bytes: usize) -> Vec<u8> {
        let words: Vec<String> = (0..header_bytes / 16).map(|word| format!("{word:08}")).collect();
        let writer = GgufWriter::new().metadata("general.architecture", "llama");
        let writer = writer.metadata("tokenizer.ggml.tokens", words.as_slice());
        writer.tensor("a", &[1 << 20], Format::F32, vec![7; 4 << 20]).unwrap().to_bytes().unwrap()
    }

    /// Reads `file` by steps, and returns the header's bytes, the bytes that were read, and the number of reads.
    fn read(file: &[u8]) -> (u64, u64, usize) {
        let (mut end, mut reads) = (0, 0);
        loop {
            match HeaderStep::after(&file[..end as usize], file.len() as u64).unwrap() {
                HeaderStep::Whole(header) => return (header, end, reads),
                HeaderStep::Read { needed, end: next } => {
                    assert!(next > end && needed > end && needed <= next && next <= file.len() as u64);
                    (end, reads) = (next, reads + 1);
                }
            }
        }
    }

    #[test]
    fn a_header_comes_with_few_reads_and_few_bytes_of_weights() {
        for header_bytes in [100, 60 << 10, 1 << 20, 30 << 20] {
            let file = file(header_bytes);
            let Ok(Extent::Whole(header)) = Extent::of(&file, file.len() as u64) else { panic!("the file is sound") };
            let (found, came, reads) = read(&file);
            assert_eq!(found, header);
            assert!(came <= (4 * header).max(FIRST_BYTES) && came <= header + STEP_BYTES_MAX, "{came} for {header}");
            assert!(reads <= 12, "{reads} reads of {header} bytes");
        }
    }

    #[test]
    fn a_file_without_a_header_or_with_one_that_does_not_end_is_refused() {
        assert!(matches!(HeaderStep::after(b"HTML", 4000), Err(HeaderFault::Unsound(_))));
        let file = file(GGUF_HEADER_BYTES_MAX as usize + (2 << 20));
        let start = &file[..GGUF_HEADER_BYTES_MAX as usize];
        let refused = HeaderStep::after(start, file.len() as u64).unwrap_err().to_string();
        assert!(refused.contains("expected at most 134217728 bytes"), "{refused}");
    }
}
