//! An open model with checked headers and nothing mapped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schema::Fingerprint;
use schema::record::{KvRoom, ModelRecord};

use super::record::{self, NotALanguageModel};
use super::tensor_role::{EMBEDDING, OUTPUT};
use crate::checkpoint::{Checkpoint, FileChanged, Header, OpenError, Part, TensorInfo};
use crate::format::Format;
use crate::gguf::Metadata;

/// A model's file, or its files, with checked headers. Cheap to clone. The files stay open, so replacing one at its
/// path does not change the bytes that are read.
#[derive(Debug, Clone)]
pub struct ModelFile {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    checkpoint: Checkpoint,
}

// === impl ModelFile ===

impl ModelFile {
    /// Opens the model at `path` and checks the headers of its files, as [`Checkpoint::open`] does. The vocabulary is
    /// checked but not kept, because a stage does not need it.
    ///
    /// # Errors
    /// [`OpenError`] when a file cannot be read or is not usable.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let checkpoint = Checkpoint::open(path)?;
        Ok(Self { inner: Arc::new(Inner { path: path.to_owned(), checkpoint }) })
    }

    /// Opens a GGUF model of which only the headers and some of the weights are here yet, as
    /// [`Checkpoint::open_partial`] does.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_partial(path: &Path, fingerprint: &Fingerprint) -> Result<Self, OpenError> {
        let checkpoint = Checkpoint::open_partial(path, fingerprint)?;
        Ok(Self { inner: Arc::new(Inner { path: path.to_owned(), checkpoint }) })
    }

    /// Metadata and tensors, without the arrays of `tokenizer.*`.
    pub fn header(&self) -> &Header {
        self.inner.checkpoint.header()
    }

    /// The folder of a model in Hugging Face's form, in which its vocabulary lies.
    pub fn folder(&self) -> Option<&Path> {
        self.inner.checkpoint.folder()
    }

    /// The metadata with the vocabulary, read from the file again. A folder's has none.
    ///
    /// # Errors
    /// [`OpenError`] when the file can no longer be read or has been damaged.
    pub fn vocabulary_metadata(&self) -> Result<Metadata, OpenError> {
        self.inner.checkpoint.vocabulary_metadata()
    }

    /// Digest that distinguishes this model from others. `checkpoint/fingerprint.rs` describes its input.
    pub fn fingerprint(&self) -> &Fingerprint {
        self.inner.checkpoint.fingerprint()
    }

    /// Checks that the open files still have the contents they were opened with, by length and modification time.
    /// Another file under the same path is no change, because the opened file is the one that is mapped.
    ///
    /// # Errors
    /// [`FileChanged`] with the expected and the found state.
    pub fn check_unchanged(&self) -> Result<(), FileChanged> {
        self.inner.checkpoint.check_unchanged()
    }

    /// The path that it was opened at.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The model's name, as [`Checkpoint::name`].
    pub fn name(&self) -> String {
        self.inner.checkpoint.name().to_owned()
    }

    /// Length of all its files together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.inner.checkpoint.bytes()
    }

    /// The cluster's record of the model. Its `scratch_bytes` are 0: [`crate::model_record()`] computes and fills them
    /// in.
    ///
    /// # Errors
    /// [`NotALanguageModel`] when the metadata or the tensors are not those of a language model.
    pub fn record(&self, room: KvRoom, stages_min: u32) -> Result<ModelRecord, NotALanguageModel> {
        record::record(self.header(), self.name(), self.fingerprint().clone(), room, stages_min)
    }

    /// The matrices that activations are multiplied with, in all parts of the model. An embedding table that is used
    /// for lookup only is left out.
    pub fn matrices(&self) -> impl Iterator<Item = &TensorInfo> {
        let looked_up = self.header().tensor(OUTPUT).is_some();
        let infos = self.header().tensors.iter();
        infos.filter(move |info| info.dims.len() > 1 && !(looked_up && info.name == EMBEDDING))
    }

    /// The formats of [`Self::matrices`], each once.
    pub fn matrix_formats(&self) -> Vec<Format> {
        let formats: Vec<_> = self.matrices().map(|info| info.format).collect();
        Format::ALL.into_iter().filter(|format| formats.contains(format)).collect()
    }

    /// Its open files, in the order in which pieces of tensors count them.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        self.parts().iter().map(|part| &part.file)
    }

    /// The same as parts of the checkpoint.
    pub(super) fn parts(&self) -> &[Part] {
        self.inner.checkpoint.parts()
    }
}
