//! Models in Hugging Face's form: a folder with `config.json` and the weights in `model.safetensors`, or in several
//! files that `model.safetensors.index.json` lists.
//!
//! The configuration becomes the metadata, and the tensors get the names, that model families read from GGUF files. No
//! weight of floats in rows is copied: where llama.cpp's converter reorders or changes weights, the translation says so
//! in the metadata or in the tensor's description. Quantised weights, and experts whose columns lie one after the
//! other, are described as copies (`coded.rs`). `families.rs` has a line for each kind of model.

mod coded;
mod config;
mod describe;
mod encoders;
mod families;
mod family;
mod files;
mod gemma4;
mod lfm2;
mod llama4;
mod metadata;
mod names;
mod pooling;
mod quantisation;
mod rope;
mod stored;
mod tensors;

use std::path::{Path, PathBuf};

use super::{Checkpoint, Header, OpenError, Part, fingerprint};
use config::Config;
use family::Family;
use files::WeightFile;
use quantisation::Quantisation;

/// Name of the configuration in a folder.
const CONFIG: &str = "config.json";

/// Files of a folder that belong to the model besides configuration and weights, if they are there.
const TEXT_FILES: [&str; 6] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    pooling::MODULES,
    pooling::POOLING,
];

/// True if `folder` has a model in this form.
pub(super) fn is_in(folder: &Path) -> bool {
    folder.join(CONFIG).is_file()
}

/// Opens the model in `folder`.
pub(super) fn open(folder: &Path) -> Result<Checkpoint, OpenError> {
    let config = Config::read(&folder.join(CONFIG))?;
    let family = Family::of(&config)?;
    // Before the files: one may be refused by its configuration alone.
    let quantisation = Quantisation::of(&config)?;
    let files = files::open(folder)?;
    let mut metadata = metadata::translate(&config, family)?;
    if let Some(generation) = config::read_optional(&folder.join(TEXT_FILES[0]))? {
        metadata::recommended_sampling(&generation, &mut metadata);
    }
    pooling::describe(folder, family, &mut metadata)?;
    let mut tensors = tensors::translate(&config, family, &quantisation, &files)?;
    tensors.extend(rope::factors(&config)?);
    let header = Header::new(metadata, tensors)
        .map_err(|index| config.wrong("tensors", "names of their own".to_owned(), format!("number {index} twice")))?;
    let fingerprint = digest(folder, &files)?;
    let parts = files.into_iter().map(|file| file.part).collect();
    Ok(Checkpoint { name: name_of(folder), parts, header, fingerprint, folder: Some(folder.to_owned()) })
}

/// Digests the configuration, the files of text that are there, and the weights.
fn digest(folder: &Path, files: &[WeightFile]) -> Result<schema::Fingerprint, OpenError> {
    let mut digests = Vec::new();
    for name in [CONFIG].iter().chain(&TEXT_FILES) {
        let path = folder.join(name);
        if path.is_file() {
            let part = Part::open(&path)?;
            digests.push(fingerprint::of_file(&part.file, part.stamp.bytes, part.stamp.bytes, std::iter::empty()));
        }
    }
    for file in files {
        let tensors = file.header.tensors.iter().map(|tensor| tensor.range.clone());
        let (part, header_bytes) = (&file.part, file.header.data_offset);
        digests.push(fingerprint::of_file(&part.file, part.stamp.bytes, header_bytes, tensors));
    }
    let failed = |cause| OpenError::Read { path: folder.to_owned(), cause };
    let digests = digests.into_iter().collect::<Result<Vec<_>, _>>().map_err(failed)?;
    Ok(fingerprint::of_set(digests.iter()))
}

/// The model's name: the repository's in the hub's cache (`models--<owner>--<name>/snapshots/<commit>`), or the
/// folder's.
fn name_of(folder: &Path) -> String {
    let text = |path: Option<&Path>| {
        path.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let resolved: PathBuf = match folder.file_name() {
        Some(_) => folder.to_owned(),
        // `.` and `..` have no name.
        None => folder.canonicalize().unwrap_or_default(),
    };
    let repository = resolved.parent().filter(|snapshots| text(Some(snapshots)) == "snapshots").and_then(Path::parent);
    match text(repository).strip_prefix("models--").and_then(|name| name.rsplit_once("--")) {
        Some((_, name)) => name.to_owned(),
        None => text(Some(&resolved)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_the_hubs_cache_has_the_repositorys_name() {
        assert_eq!(name_of(Path::new("/cache/models--Qwen--Qwen3-0.6B/snapshots/c0ffee")), "Qwen3-0.6B");
        assert_eq!(name_of(Path::new("/models/Qwen3-0.6B/")), "Qwen3-0.6B");
        assert_eq!(name_of(Path::new("/models/other/snapshots/x")), "x");
    }
}
