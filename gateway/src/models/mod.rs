//! Model files: the meaning of a MODEL on the command line, the path of its file, and the ways to fetch it.
//!
//! This module handles packages, hubs and the cache. Of a model file's contents it knows the architecture only.

mod cache;
mod catalogue;
mod checksum;
mod choice;
mod elsewhere;
mod error;
mod file_url;
pub(crate) mod file_use;
#[cfg(any(feature = "hub", feature = "tls"))]
pub(crate) mod growing_header;
#[cfg(feature = "hub")]
mod hub;
#[cfg(feature = "hub")]
mod hub_reader;
#[cfg(any(feature = "hub", feature = "tls"))]
pub(crate) mod limits;
#[cfg(not(feature = "hub"))]
mod no_remote_header;
mod noted;
mod ollama;
mod origin;
mod package;
mod pip;
mod progress;
#[cfg(feature = "hub")]
mod remote_header;
#[cfg(feature = "hub")]
mod repository;
mod source;
mod space;
#[cfg(feature = "hub")]
mod web_file;
mod whole;

use std::path::PathBuf;

pub use cache::{Access, Cache, Cached};
pub use catalogue::{DEFAULT, Entry, HubOrigin, Origin, Package, catalogue};
pub(crate) use checksum::hex;
pub use elsewhere::OtherCaches;
pub use error::ModelError;
pub use file_url::FileUrl;
#[cfg(not(feature = "hub"))]
pub use no_remote_header::RemoteHeader;
pub use noted::{note_path, noted_path};
pub use ollama::OllamaName;
pub use progress::{Console, Progress, Silent};
#[cfg(feature = "hub")]
pub use remote_header::RemoteHeader;
pub use source::{HubFile, HubRepository, Source};
pub use whole::WholeEntry;
#[cfg(feature = "tls")]
pub(crate) use {choice::part_name, space::check as check_space};

/// Path of `model`: a catalogue name, the path of a `.gguf` file or of a folder, `hf:OWNER/REPO[:QUANT]` or
/// `hf:OWNER/REPO/FILE.gguf`, `http(s)://HOST/PATH/NAME.gguf`, `ollama:NAME[:TAG]`, or the default
/// model if `None`. What neither the cache nor the folders of other programs have is fetched. Blocking.
///
/// # Errors
/// [`ModelError`] names the missing thing and the remedy.
pub fn resolve(model: Option<&str>, cache: &Cache, progress: &mut dyn Progress) -> Result<PathBuf, ModelError> {
    let model = model.unwrap_or(DEFAULT);
    let source = match Source::parse(model) {
        // A hub file that was fetched once is also found by its name.
        Err(unknown @ ModelError::Unknown { .. }) => return locate(model, cache).ok_or(unknown),
        source => source?,
    };
    match source {
        Source::File(path) => local_file(path),
        Source::Catalogue(entry) => origin::fetch(entry, cache, progress),
        Source::Ollama(name) => ollama::find(&name, cache),
        Source::Hub(file) => match cached(&file, cache) {
            Some(path) => Ok(path),
            None => fetch_file(&file, cache, progress),
        },
        Source::Url(url) => fetch_url(&url, cache, progress),
        Source::Repository(repository) => match elsewhere::find(&repository, cache) {
            Some(path) => Ok(path),
            None => fetch_repository(&repository, cache, progress),
        },
    }
}

#[cfg(feature = "hub")]
fn fetch_file(file: &HubFile, cache: &Cache, progress: &mut dyn Progress) -> Result<PathBuf, ModelError> {
    repository::fetch_file(file, cache, progress)
}

#[cfg(feature = "hub")]
fn fetch_repository(
    repository: &HubRepository,
    cache: &Cache,
    progress: &mut dyn Progress,
) -> Result<PathBuf, ModelError> {
    repository::fetch(repository, cache, progress)
}

#[cfg(feature = "hub")]
fn fetch_url(url: &FileUrl, cache: &Cache, progress: &mut dyn Progress) -> Result<PathBuf, ModelError> {
    web_file::fetch(url, cache, progress)
}

#[cfg(not(feature = "hub"))]
fn fetch_url(url: &FileUrl, _: &Cache, _: &mut dyn Progress) -> Result<PathBuf, ModelError> {
    Err(ModelError::NoHub { file: url.to_string() })
}

#[cfg(not(feature = "hub"))]
fn fetch_file(file: &HubFile, _: &Cache, _: &mut dyn Progress) -> Result<PathBuf, ModelError> {
    Err(ModelError::NoHub { file: file.to_string() })
}

#[cfg(not(feature = "hub"))]
fn fetch_repository(repository: &HubRepository, _: &Cache, _: &mut dyn Progress) -> Result<PathBuf, ModelError> {
    Err(ModelError::NoHub { file: repository.to_string() })
}

/// The cached file that a cluster's model `name` (a file's name without its ending, or a catalogue name) may mean. It
/// never fetches. The caller compares the fingerprint.
pub fn locate(name: &str, cache: &Cache) -> Option<PathBuf> {
    let known = catalogue::find(name);
    let is_it = |cached: &str| cached == name || known.is_some_and(|entry| entry.has_file(cached));
    cache.list().into_iter().find(|cached| is_it(&cached.name)).map(|cached| cached.path)
}

/// True for a MODEL that any machine can fetch: a name of the catalogue, a file of a hub, or an address. A path and a
/// model of another program's store are not.
pub fn is_fetchable(model: &str) -> bool {
    let source = Source::parse(model);
    matches!(source, Ok(Source::Catalogue(_) | Source::Hub(_) | Source::Repository(_) | Source::Url(_)))
}

/// The cached copy of a hub's file, if there is one. It never fetches.
pub fn cached(file: &HubFile, cache: &Cache) -> Option<PathBuf> {
    if let Some(path) = elsewhere::find_file(file, cache) {
        return Some(path);
    }
    let name = file.file.rsplit('/').next()?.strip_suffix(".gguf")?;
    let folder = format!("models--{}", file.repository.replace('/', "--"));
    let is_it = |path: &std::path::Path| path.components().any(|part| part.as_os_str() == folder.as_str());
    cache.list().into_iter().find(|cached| cached.name == name && is_it(&cached.path)).map(|cached| cached.path)
}

/// The file of an address, if it was fetched before. It never fetches.
#[cfg(feature = "hub")]
pub fn cached_url(url: &FileUrl, cache: &Cache) -> Option<PathBuf> {
    web_file::cached(url, cache)
}

/// No file: this build fetches none.
#[cfg(not(feature = "hub"))]
pub fn cached_url(_: &FileUrl, _: &Cache) -> Option<PathBuf> {
    None
}

/// The model of a hub's repository on this machine, if there is one. It never fetches.
pub fn cached_repository(repository: &HubRepository, cache: &Cache) -> Option<PathBuf> {
    elsewhere::find(repository, cache)
}

fn local_file(path: PathBuf) -> Result<PathBuf, ModelError> {
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => Ok(path),
        // A folder in Hugging Face's form is a model.
        Ok(metadata) if metadata.is_dir() && path.join("config.json").is_file() => Ok(path),
        Ok(_) => Err(ModelError::NotAFile { path }),
        Err(source) => Err(ModelError::Io { doing: "read", path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_as_it_is_and_a_missing_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("cache"), Access::default());
        let path = folder.path().join("own.gguf");
        let text = path.to_str().unwrap();
        let error = resolve(Some(text), &cache, &mut Silent).unwrap_err();
        assert!(matches!(error, ModelError::Io { doing: "read", .. }), "{error}");
        std::fs::write(&path, b"GGUF").unwrap();
        assert_eq!(resolve(Some(text), &cache, &mut Silent).unwrap(), path);
        assert!(!cache.root().exists(), "a local file needs no cache");
    }

    #[test]
    fn a_cluster_s_model_is_found_by_its_name_or_its_short_name() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_owned(), Access::default());
        assert_eq!(locate("SmolLM2-135M-Instruct.Q4_1", &cache), None);
        let path = cache.models_folder().join("SmolLM2-135M-Instruct.Q4_1.gguf");
        std::fs::create_dir_all(cache.models_folder()).unwrap();
        std::fs::write(&path, b"GGUF").unwrap();
        assert_eq!(locate("SmolLM2-135M-Instruct.Q4_1", &cache), Some(path.clone()));
        assert_eq!(locate("smollm2", &cache), Some(path));
        assert_eq!(locate("another", &cache), None);
    }
}
