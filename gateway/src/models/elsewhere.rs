//! Models that other programs keep on this machine: the hub's own cache and LM Studio's folder. They are used where
//! they lie, and never written.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use stages::safetensors::SafetensorsIndex;

use super::cache::{Cache, Cached};
use super::choice::{self, Choice};
use super::source::{HubFile, HubRepository};

/// Depth to which a repository's folders are searched.
const DEPTH_MAX: usize = 4;
/// Maximum number of files of a repository that are looked at.
const FILES_MAX: usize = 10_000;

/// Folders of other programs.
#[derive(Debug, Clone, Default)]
pub struct OtherCaches {
    /// The hub's own cache (`HF_HUB_CACHE`, or `hub` in `HF_HOME`).
    pub hub: Vec<PathBuf>,
    /// LM Studio's models, by owner and repository.
    pub lm_studio: Vec<PathBuf>,
    /// Ollama's stores (`OLLAMA_MODELS`).
    pub ollama: Vec<PathBuf>,
}

/// The model of `repository` on this machine.
pub(super) fn find(repository: &HubRepository, cache: &Cache) -> Option<PathBuf> {
    let quant = repository.quant.as_deref();
    places(&repository.repository, cache).into_iter().find_map(|place| match choice::choose(&files(&place), quant)? {
        Choice::Gguf(files) => files.first().map(|first| place.join(first)),
        Choice::Folder(_) => is_complete(&place).then_some(place),
    })
}

/// The hub's `file` on this machine, if all parts of its model are there.
pub(super) fn find_file(file: &HubFile, cache: &Cache) -> Option<PathBuf> {
    let parts = choice::parts(&file.file);
    let place = places(&file.repository, cache).into_iter();
    let mut place = place.filter(|place| parts.iter().all(|part| place.join(part).is_file()));
    place.next().map(|place| place.join(&file.file))
}

/// Every model in the folders of other programs, and the folders of models in baton's own cache of the hub.
pub(super) fn list(cache: &Cache) -> Vec<Cached> {
    let others = &cache.access().others;
    let mut found = Vec::new();
    let own = cache.hub_folder();
    for (root, ggufs) in others.hub.iter().map(|root| (root, true)).chain([(&own, false)]) {
        for repository in folders(root).iter().filter_map(|path| Some((path, hub_repository(path)?))) {
            let (path, name) = repository;
            if let Some(place) = snapshot(path) {
                list_repository(&place, &name, ggufs, &mut found);
            }
        }
    }
    for owner in others.lm_studio.iter().flat_map(|root| folders(root)) {
        for repository in folders(&owner) {
            let name = repository.file_name().unwrap_or_default().to_string_lossy().into_owned();
            list_repository(&repository, &name, true, &mut found);
        }
    }
    found
}

/// Adds the models in the folder `place` of the repository `name`.
fn list_repository(place: &Path, name: &str, ggufs: bool, found: &mut Vec<Cached>) {
    let files = files(place);
    let mut seen = BTreeSet::new();
    for file in files.iter().filter(|file| ggufs && file.ends_with(".gguf")) {
        let parts = choice::parts(file);
        if parts.iter().all(|part| files.contains(part)) && seen.insert(parts[0].clone()) {
            let bytes = parts.iter().map(|part| length(&place.join(part))).sum();
            let (path, file_name) = (place.join(&parts[0]), file.rsplit('/').next().unwrap_or(file));
            found.push(Cached { name: choice::stem(file_name).to_owned(), path, bytes, sha256: None });
        }
    }
    let without: Vec<String> = files.iter().filter(|file| !file.ends_with(".gguf")).cloned().collect();
    if let Some(Choice::Folder(own)) = choice::choose(&without, None)
        && is_complete(place)
    {
        let bytes = own.iter().map(|file| length(&place.join(file))).sum();
        found.push(Cached { name: name.to_owned(), path: place.to_owned(), bytes, sha256: None });
    }
}

/// The folders of `repository` on this machine: baton's own first.
fn places(repository: &str, cache: &Cache) -> Vec<PathBuf> {
    let others = &cache.access().others;
    let hub = [cache.hub_folder()].into_iter().chain(others.hub.iter().cloned());
    let name = format!("models--{}", repository.replace('/', "--"));
    let snapshots = hub.filter_map(|hub| snapshot(&hub.join(&name)));
    let lm_studio = others.lm_studio.iter().map(|root| root.join(repository)).filter(|place| place.is_dir());
    snapshots.chain(lm_studio).collect()
}

/// The files of a repository in the hub's layout: those of the commit that `main` is at, or of the only one.
fn snapshot(repository: &Path) -> Option<PathBuf> {
    let snapshots = repository.join("snapshots");
    let commit = fs::read_to_string(repository.join("refs/main")).ok();
    let of_main = commit.map(|commit| snapshots.join(commit.trim())).filter(|place| place.is_dir());
    of_main.or_else(|| match folders(&snapshots).as_slice() {
        [only] => Some(only.clone()),
        _ => None,
    })
}

/// The name of the repository whose folder in the hub's layout is `path`.
fn hub_repository(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_prefix("models--")?;
    Some(name.rsplit_once("--").map_or(name, |(_, name)| name).to_owned())
}

/// True if all files that the folder's list names are there. A folder without a list has one file of weights.
fn is_complete(folder: &Path) -> bool {
    let path = folder.join(SafetensorsIndex::NAME);
    let Ok(metadata) = fs::metadata(&path) else { return folder.join("model.safetensors").is_file() };
    if metadata.len() > SafetensorsIndex::BYTES_MAX {
        return false;
    }
    let index = fs::read(&path).ok().and_then(|bytes| SafetensorsIndex::parse(&bytes).ok());
    index.is_some_and(|index| index.files().iter().all(|name| folder.join(name).is_file()))
}

/// The files below `folder` by their paths in it, sorted.
fn files(folder: &Path) -> Vec<String> {
    fn collect(folder: &Path, prefix: &str, depth: usize, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            // `fs::metadata` follows the symbolic links of the hub's layout.
            let Ok(metadata) = fs::metadata(entry.path()) else { continue };
            if metadata.is_dir() && depth > 0 {
                collect(&entry.path(), &format!("{prefix}{name}/"), depth - 1, found);
            } else if metadata.is_file() && found.len() < FILES_MAX {
                found.push(format!("{prefix}{name}"));
            }
        }
    }
    let mut found = Vec::new();
    collect(folder, "", DEPTH_MAX, &mut found);
    found.sort();
    found
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Access, Silent, locate, resolve};

    fn write(root: &Path, file: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"GGUF").unwrap();
    }

    /// A machine with the hub's cache, LM Studio's folder, and no hub to fetch from.
    fn machine(hub: &[&str], lm_studio: &[&str]) -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let roots = [("hub", hub), ("lm", lm_studio)];
        for (root, files) in roots {
            files.iter().for_each(|file| write(&folder.path().join(root), file));
        }
        let others = OtherCaches {
            hub: vec![folder.path().join("hub")],
            lm_studio: vec![folder.path().join("lm")],
            ..OtherCaches::default()
        };
        let access = Access { others, hub_endpoint: Some("http://127.0.0.1:9".to_owned()), ..Access::default() };
        let cache = Cache::new(folder.path().join("cache"), access);
        (folder, cache)
    }

    fn resolved(name: &str, machine: &(tempfile::TempDir, Cache)) -> Option<String> {
        let path = resolve(Some(name), &machine.1, &mut Silent).ok()?;
        Some(path.strip_prefix(machine.0.path()).unwrap().to_str().unwrap().to_owned())
    }

    #[test]
    fn the_hubs_cache_and_lm_studios_folder_are_used_where_they_lie() {
        let machine = machine(
            &[
                "models--o--r/snapshots/c0ffee/m-Q8_0.gguf",
                "models--o--r/snapshots/c0ffee/m-Q4_K_M.gguf",
                "models--o--s/snapshots/c0ffee/q/m-00001-of-00002.gguf",
                "models--o--s/snapshots/c0ffee/q/m-00002-of-00002.gguf",
                "models--o--half/snapshots/c0ffee/m-00001-of-00002.gguf",
            ],
            &["o/lm/x.Q6_K.gguf"],
        );
        let place = "hub/models--o--r/snapshots/c0ffee/m-Q4_K_M.gguf";
        assert_eq!(resolved("hf:o/r", &machine).as_deref(), Some(place));
        assert_eq!(resolved("hf:o/r:q8_0", &machine).as_deref(), Some("hub/models--o--r/snapshots/c0ffee/m-Q8_0.gguf"));
        assert_eq!(resolved("hf:o/r/m-Q4_K_M.gguf", &machine).as_deref(), Some(place));
        let split = "hub/models--o--s/snapshots/c0ffee/q/m-00001-of-00002.gguf";
        assert_eq!(resolved("hf:o/s", &machine).as_deref(), Some(split));
        assert_eq!(resolved("hf:o/lm:Q6_K", &machine).as_deref(), Some("lm/o/lm/x.Q6_K.gguf"));
        assert!(!machine.1.hub_folder().exists(), "nothing was fetched");
        for absent in ["hf:o/r:Q2_K", "hf:o/half", "hf:o/none", "hf:o/half/m-00001-of-00002.gguf"] {
            assert_eq!(resolved(absent, &machine), None, "{absent} would have to be fetched");
        }
        let names: Vec<_> = machine.1.list().into_iter().map(|cached| cached.name).collect();
        assert_eq!(names, ["m", "m-Q4_K_M", "m-Q8_0", "x.Q6_K"]);
        assert_eq!(locate("m", &machine.1).unwrap(), machine.0.path().join(split), "a cluster's model is found, too");
    }

    #[test]
    fn a_folder_counts_if_all_files_of_its_list_are_there() {
        let place = "models--o--f/snapshots/c0ffee";
        let machine = machine(&[&format!("{place}/config.json"), &format!("{place}/a.safetensors")], &[]);
        let folder = machine.0.path().join("hub").join(place);
        assert_eq!(resolved("hf:o/f", &machine), None, "it has no weights");
        let index = |map: &str| fs::write(folder.join(SafetensorsIndex::NAME), map).unwrap();
        index(r#"{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}"#);
        assert_eq!(resolved("hf:o/f", &machine), None, "b.safetensors is missing");
        index("not JSON");
        assert_eq!(resolved("hf:o/f", &machine), None);
        index(r#"{"weight_map": {"x": "a.safetensors"}}"#);
        assert_eq!(resolved("hf:o/f", &machine).unwrap(), format!("hub/{place}"));
        assert_eq!(locate("f", &machine.1).unwrap(), folder);
    }

    #[test]
    fn of_several_commits_that_of_main_counts() {
        let machine = machine(&["models--o--r/snapshots/a/m.gguf", "models--o--r/snapshots/b/m.gguf"], &[]);
        assert_eq!(resolved("hf:o/r", &machine), None, "nothing says which is newer");
        let refs = machine.0.path().join("hub/models--o--r/refs");
        fs::create_dir_all(&refs).unwrap();
        fs::write(refs.join("main"), "b\n").unwrap();
        assert_eq!(resolved("hf:o/r", &machine).as_deref(), Some("hub/models--o--r/snapshots/b/m.gguf"));
    }
}
