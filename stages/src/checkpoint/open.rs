//! An open checkpoint: its files, its header and its fingerprint.

use std::path::{Path, PathBuf};

use schema::Fingerprint;

use super::gguf_set;
use super::hugging_face;
use super::{FileChanged, Header, OpenError, Part};
use crate::gguf::Metadata;

/// A model's files with checked headers, none of them mapped.
#[derive(Debug)]
pub struct Checkpoint {
    pub(super) name: String,
    pub(super) parts: Vec<Part>,
    pub(super) header: Header,
    pub(super) fingerprint: Fingerprint,
    /// The folder of a model in Hugging Face's form.
    pub(super) folder: Option<PathBuf>,
}

// === impl Checkpoint ===

impl Checkpoint {
    /// Opens the model at `path` and checks the headers of its files: a GGUF file; one part of a split one, with which
    /// the other parts are opened; or a folder in Hugging Face's form. The vocabulary is checked but not kept.
    ///
    /// # Errors
    /// [`OpenError`] when a file cannot be read, is not usable, or does not belong to the others.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        if hugging_face::is_in(path) { hugging_face::open(path) } else { gguf_set::open(path, None) }
    }

    /// Opens a GGUF model of which the headers lie at `path` and in the other parts' files, and of the weights perhaps
    /// only some, with more to be written. So its `fingerprint`, which is made of all tensors, has to be known.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_partial(path: &Path, fingerprint: &Fingerprint) -> Result<Self, OpenError> {
        let mut checkpoint = gguf_set::open(path, Some(fingerprint))?;
        checkpoint.parts.iter_mut().for_each(|part| part.is_partial = true);
        Ok(checkpoint)
    }

    /// The model's name: that of the file without its ending and without the number of its part.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Metadata and tensors, without the arrays of `tokenizer.*`.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The folder of a model in Hugging Face's form, in which its vocabulary lies.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// The metadata with the vocabulary, read again. For a folder the same as in the header.
    ///
    /// # Errors
    /// [`OpenError`] when the file can no longer be read or has been damaged.
    pub fn vocabulary_metadata(&self) -> Result<Metadata, OpenError> {
        match (&self.folder, self.parts.first()) {
            (None, Some(part)) => gguf_set::vocabulary_metadata(part),
            _ => Ok(self.header.metadata.clone()),
        }
    }

    /// Digest that distinguishes this model from others.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// Length of all files together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.stamp.bytes).sum()
    }

    /// Checks that the open files still have the contents they were opened with.
    ///
    /// # Errors
    /// [`FileChanged`] with the first file that has not, its expected and its found state.
    pub fn check_unchanged(&self) -> Result<(), FileChanged> {
        self.parts.iter().try_for_each(Part::check_unchanged)
    }

    /// The open files, in the order in which pieces of tensors count them.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }
}
