//! Fetches a model of a hub's repository: the file that is named, or those that are chosen of its list of files.

use std::path::PathBuf;

use serde::Deserialize;

use super::cache::Cache;
use super::choice::{self, Choice};
use super::error::ModelError;
use super::hub;
use super::hub_reader::HubReader;
use super::progress::Progress;
use super::source::{HubFile, HubRepository};

/// Maximum number of files of a list that is accepted.
const FILES_MAX: usize = 100_000;
/// Longest list of files, in bytes.
const LIST_BYTES_MAX: u64 = 64 << 20;
/// Number of names that an error shows.
const NAMES_SHOWN: usize = 12;

/// A hub's answer about a repository. Its other keys are not read: parsed, they could take many times their bytes.
#[derive(Deserialize)]
struct RepositoryListing {
    #[serde(default)]
    siblings: Vec<ListedFile>,
}

/// A file of a repository, if it has a name.
#[derive(Deserialize)]
struct ListedFile {
    rfilename: Option<String>,
}

/// Fetches `file`, or all parts of the model that it is a part of, and returns its path.
pub(super) fn fetch_file(file: &HubFile, cache: &Cache, progress: &mut dyn Progress) -> Result<PathBuf, ModelError> {
    let mut own = None;
    for part in choice::parts(&file.file) {
        let is_own = part == file.file;
        let path = hub::fetch(&HubFile { repository: file.repository.clone(), file: part }, cache, progress)?;
        if is_own {
            own = Some(path);
        }
    }
    match own {
        Some(path) => Ok(path),
        None => hub::fetch(file, cache, progress),
    }
}

/// Fetches the model of `repository`: a GGUF file or its parts, or a folder. Returns the path of the first file, or of
/// the folder.
pub(super) fn fetch(
    repository: &HubRepository,
    cache: &Cache,
    progress: &mut dyn Progress,
) -> Result<PathBuf, ModelError> {
    let files = list(repository, &HubReader::new(cache))?;
    let (names, is_folder) = match chosen(repository, &files)? {
        Choice::Gguf(names) => (names, false),
        Choice::Folder(names) => (names, true),
    };
    let mut first = None;
    for file in names {
        let file = HubFile { repository: repository.repository.clone(), file };
        let path = hub::fetch(&file, cache, progress)?;
        first.get_or_insert(path);
    }
    let folder = |path: PathBuf| path.parent().map(PathBuf::from).unwrap_or(path);
    let nothing = || ModelError::NoSuchModel {
        repository: repository.to_string(),
        expected: "at least one file".to_owned(),
        found: "none".to_owned(),
    };
    first.map(|path| if is_folder { folder(path) } else { path }).ok_or_else(nothing)
}

/// The model of `repository` among its `files`.
///
/// # Errors
/// [`ModelError::NoSuchModel`] if there is none.
pub(super) fn chosen(repository: &HubRepository, files: &[String]) -> Result<Choice, ModelError> {
    choice::choose(files, repository.quant.as_deref()).ok_or_else(|| {
        let expected = match &repository.quant {
            Some(quant) => format!("a .gguf file with {quant:?} in its name, and all of its parts"),
            None => "a .gguf file, or config.json with model.safetensors".to_owned(),
        };
        ModelError::NoSuchModel { repository: repository.to_string(), expected, found: shown(files) }
    })
}

/// Those of `files` that may be a model's, sorted.
pub(super) fn usable(files: impl Iterator<Item = String>) -> Vec<String> {
    let mut files: Vec<String> = files.take(FILES_MAX).collect();
    // Names that could leave the cache are no files of a model.
    files.retain(|file| !file.split('/').any(|part| part.is_empty() || part.starts_with('.')));
    files.sort();
    files
}

/// The files of the repository, sorted. The reader bounds the wait for them, which the hub's own client does not.
pub(super) fn list(repository: &HubRepository, hub: &HubReader) -> Result<Vec<String>, ModelError> {
    let name = repository.to_string();
    let path = format!("/api/models/{}/revision/main", repository.repository);
    let body = hub.api(&name, &path, LIST_BYTES_MAX)?;
    let listed: RepositoryListing = serde_json::from_slice(&body)
        .map_err(|error| hub.wrong(&name, "a list of files in JSON".to_owned(), error.to_string()))?;
    Ok(usable(listed.siblings.into_iter().filter_map(|file| file.rfilename)))
}

/// The names of models among `files`, cut to a few.
fn shown(files: &[String]) -> String {
    let models = files.iter().filter(|file| file.ends_with(".gguf") || file.ends_with(".safetensors"));
    let names: Vec<&str> = models.map(String::as_str).collect();
    match names.as_slice() {
        [] => format!("none among {} files", files.len()),
        [first @ .., _] if names.len() > NAMES_SHOWN => {
            format!("{} and {} more", first[..NAMES_SHOWN].join(", "), names.len() - NAMES_SHOWN)
        }
        all => all.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};

    use sha2::{Digest, Sha256};

    use super::*;
    use crate::models::{Access, Silent, resolve};

    /// A hub with one repository, `o/r`.
    struct Hub {
        endpoint: String,
        asked: Arc<Mutex<Vec<String>>>,
    }

    /// Starts a hub that serves these files, by their names.
    fn hub(files: &[(&str, &[u8])]) -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let files: BTreeMap<String, Vec<u8>> =
            files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = answer(stream.unwrap(), &files, &seen);
            }
        });
        Hub { endpoint, asked }
    }

    fn answer(
        mut stream: TcpStream,
        files: &BTreeMap<String, Vec<u8>>,
        asked: &Mutex<Vec<String>>,
    ) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let line = lines.next().unwrap()?;
        let path = line.split(' ').nth(1).unwrap().to_owned();
        let mut range = None;
        for line in lines {
            let line = line?.to_ascii_lowercase();
            if let Some((from, to)) = line.strip_prefix("range: bytes=").and_then(|range| range.split_once('-')) {
                range = Some((from.parse::<usize>().unwrap(), to.parse::<usize>().ok()));
            }
            if line.is_empty() {
                break;
            }
        }
        asked.lock().unwrap().push(path.clone());
        if path == "/api/models/o/r/revision/main" {
            let siblings: Vec<_> = files.keys().map(|name| serde_json::json!({"rfilename": name})).collect();
            let body = serde_json::json!({"sha": "c0ffee", "siblings": siblings}).to_string();
            return write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n\
                 {body}",
                body.len()
            );
        }
        let name = path.strip_prefix("/o/r/resolve/main/");
        let Some(bytes) = name.and_then(|name| files.get(name)) else {
            return write!(stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        };
        let (from, to) = range.map_or((0, bytes.len()), |(from, to)| (from, to.map_or(bytes.len(), |to| to + 1)));
        let etag = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let body = &bytes[from..to.min(bytes.len())];
        write!(
            stream,
            "HTTP/1.1 206 Partial Content\r\nx-repo-commit: c0ffee\r\netag: \"{etag}\"\r\ncontent-length: {}\r\n\
             content-range: bytes {from}-{}/{}\r\nconnection: close\r\n\r\n",
            body.len(),
            from + body.len() - 1,
            bytes.len()
        )?;
        stream.write_all(body)
    }

    fn cache(hub: &Hub) -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let access = Access { hub_endpoint: Some(hub.endpoint.clone()), ..Access::default() };
        let cache = Cache::new(folder.path().join("cache"), access);
        (folder, cache)
    }

    fn fetched(name: &str, cache: &Cache) -> Result<PathBuf, String> {
        resolve(Some(name), cache, &mut Silent).map_err(|error| error.to_string())
    }

    #[test]
    fn a_repositorys_file_is_chosen_as_llama_cpp_does_and_fetched_once() {
        let hub = hub(&[("m-Q4_K_M.gguf", b"four"), ("m-Q8_0.gguf", b"eight"), ("mmproj-F16.gguf", b"images")]);
        let (_folder, cache) = cache(&hub);
        let path = fetched("hf:o/r:q8_0", &cache).unwrap();
        assert_eq!(
            (path.file_name().unwrap().to_str().unwrap(), fs::read(&path).unwrap()),
            ("m-Q8_0.gguf", b"eight".to_vec())
        );
        let asked = hub.asked.lock().unwrap().len();
        assert_eq!(fetched("hf:o/r:Q8_0", &cache).unwrap(), path);
        assert_eq!(hub.asked.lock().unwrap().len(), asked, "the second time needs no network");
        let error = fetched("hf:o/r:Q2_K", &cache).unwrap_err();
        let expected = "hf:o/r:Q2_K has no such model: expected a .gguf file with \"Q2_K\" in its name";
        assert!(error.starts_with(expected) && error.contains("m-Q4_K_M.gguf, m-Q8_0.gguf"), "{error}");
    }

    #[test]
    fn the_usual_quantisation_is_taken_if_none_is_named() {
        let hub = hub(&[("a-Q2_K.gguf", b"two"), ("m-Q4_K_M.gguf", b"four")]);
        let (_folder, cache) = cache(&hub);
        assert_eq!(fs::read(fetched("hf:o/r", &cache).unwrap()).unwrap(), b"four");
    }

    #[test]
    fn a_split_model_is_fetched_as_a_set_by_its_repository_or_by_any_part() {
        let files: [(&str, &[u8]); 2] = [("q/m-00001-of-00002.gguf", b"one"), ("q/m-00002-of-00002.gguf", b"two")];
        for name in ["hf:o/r", "hf:o/r/q/m-00001-of-00002.gguf", "hf:o/r/q/m-00002-of-00002.gguf"] {
            let hub = hub(&files);
            let (_folder, cache) = cache(&hub);
            let path = fetched(name, &cache).unwrap();
            let folder = path.parent().unwrap();
            assert_eq!(fs::read(folder.join("m-00001-of-00002.gguf")).unwrap(), b"one", "{name}");
            assert_eq!(fs::read(folder.join("m-00002-of-00002.gguf")).unwrap(), b"two", "{name}");
            assert_eq!(cache.list().iter().map(|cached| cached.name.as_str()).collect::<Vec<_>>(), ["m"]);
        }
    }

    #[test]
    fn a_folder_is_fetched_with_all_that_belongs_to_it_and_nothing_else() {
        let hub = hub(&[
            ("config.json", b"{}"),
            ("model-00001-of-00002.safetensors", b"1"),
            ("model-00002-of-00002.safetensors", b"2"),
            ("model.safetensors.index.json", br#"{"weight_map": {"a": "model-00001-of-00002.safetensors"}}"#),
            ("tokenizer.json", b"{}"),
            ("pytorch_model.bin", b"old"),
        ]);
        let (_folder, cache) = cache(&hub);
        let path = fetched("hf:o/r", &cache).unwrap();
        assert!(path.is_dir() && path.join("config.json").is_file() && path.join("tokenizer.json").is_file());
        assert!(path.join("model-00002-of-00002.safetensors").is_file() && !path.join("pytorch_model.bin").exists());
        let asked = hub.asked.lock().unwrap().len();
        assert_eq!(fetched("hf:o/r", &cache).unwrap(), path);
        assert_eq!(hub.asked.lock().unwrap().len(), asked, "the second time needs no network");
        assert_eq!(cache.list()[0].name, "r");
    }

    #[test]
    fn a_repository_without_a_model_is_refused_with_what_it_has() {
        let hub = hub(&[("README.md", b"x")]);
        let (_folder, cache) = cache(&hub);
        let error = fetched("hf:o/r", &cache).unwrap_err();
        assert!(error.contains("expected a .gguf file, or config.json with model.safetensors"), "{error}");
        assert!(error.contains("found none among 1 files"), "{error}");
        assert!(fetched("hf:o/other", &cache).unwrap_err().contains("cannot read hf:o/other at"), "no such repository");
    }
}
