//! Models in Ollama's store, read where they lie: a manifest names the blob that is the model's GGUF file.
//!
//! A blob's name is its digest, so a link in baton's cache gives it the model's name, by which the cluster knows it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::cache::{Cache, create_folder};
use super::checksum;
use super::error::ModelError;
use super::source::plain;

/// The registry and the namespace of a name that has none.
const REGISTRY: &str = "registry.ollama.ai";
const NAMESPACE: &str = "library";
/// The tag of a name that has none.
const TAG: &str = "latest";
/// Longest manifest, in bytes: fifty times the usual. Parsed, it may take 200 times as many.
const MANIFEST_BYTES_MAX: u64 = 64 << 10;
/// The kind of the layer that is a model, and of one that changes it.
const MODEL_LAYER: &str = "application/vnd.ollama.image.model";
const ADAPTER_LAYER: &str = "application/vnd.ollama.image.adapter";

/// A name in Ollama's store: `[[REGISTRY/]NAMESPACE/]MODEL[:TAG]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OllamaName {
    registry: String,
    namespace: String,
    model: String,
    tag: String,
}

/// The model's blob, through a link with its name.
pub(super) fn find(name: &OllamaName, cache: &Cache) -> Result<PathBuf, ModelError> {
    let stores = &cache.access().others.ollama;
    let wrong = |expected: String, found: String| ModelError::Ollama { name: name.to_string(), expected, found };
    let place = |store: &PathBuf| {
        let path = store.join("manifests").join(&name.registry).join(&name.namespace).join(&name.model).join(&name.tag);
        path.is_file().then(|| (store.clone(), path))
    };
    let Some((store, manifest)) = stores.iter().find_map(place) else {
        let searched: Vec<String> = stores.iter().map(|store| store.display().to_string()).collect();
        let expected = format!("a manifest of it below {}", searched.join(" or "));
        return Err(wrong(expected, "none; fetch it by `ollama pull`, or set OLLAMA_MODELS".to_owned()));
    };
    let digest = digest(&manifest, &wrong)?;
    let blob = ['-', ':'].map(|between| store.join("blobs").join(format!("sha256{between}{digest}")));
    let Some(blob) = blob.into_iter().find(|blob| blob.is_file()) else {
        let expected = format!("the blob sha256-{digest} in {}", store.join("blobs").display());
        return Err(wrong(expected, "none; fetch it again by `ollama pull`".to_owned()));
    };
    link(name, &blob, cache)
}

/// SHA-256 of the model in the manifest at `path`, in hex.
fn digest(path: &Path, wrong: &dyn Fn(String, String) -> ModelError) -> Result<String, ModelError> {
    let length = fs::metadata(path).map_err(|error| ModelError::io("read", path, error))?.len();
    if length > MANIFEST_BYTES_MAX {
        return Err(wrong(format!("a manifest of at most {MANIFEST_BYTES_MAX} bytes"), format!("{length}")));
    }
    let bytes = fs::read(path).map_err(|error| ModelError::io("read", path, error))?;
    let manifest: Json = serde_json::from_slice(&bytes)
        .map_err(|cause| wrong(format!("a manifest in JSON at {}", path.display()), cause.to_string()))?;
    let layers = manifest["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of = |kind: &str| layers.iter().filter(|layer| layer["mediaType"] == kind).collect::<Vec<_>>();
    if !of(ADAPTER_LAYER).is_empty() {
        return Err(wrong("a model without adapters".to_owned(), "one with an adapter (LoRA)".to_owned()));
    }
    let models = of(MODEL_LAYER);
    let [model] = models.as_slice() else {
        return Err(wrong("one layer of weights in its manifest".to_owned(), models.len().to_string()));
    };
    let digest = model["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:"));
    let digest = digest.filter(|digest| checksum::is_sha256(digest)).map(str::to_owned);
    digest.ok_or_else(|| wrong("a SHA-256 as the digest of its weights".to_owned(), model["digest"].to_string()))
}

/// A link to `blob` in the cache, with the model's name.
fn link(name: &OllamaName, blob: &Path, cache: &Cache) -> Result<PathBuf, ModelError> {
    let folder = cache.links_folder();
    create_folder(&folder)?;
    let path = folder.join(format!("{}-{}.gguf", name.model, name.tag));
    if fs::read_link(&path).is_ok_and(|target| target == blob) {
        return Ok(path);
    }
    // Renamed over an older link, so that another process never finds none.
    let fresh = folder.join(format!(".{}-{}.{}", name.model, name.tag, std::process::id()));
    let _ = fs::remove_file(&fresh);
    std::os::unix::fs::symlink(blob, &fresh).map_err(|error| ModelError::io("make the link", &fresh, error))?;
    fs::rename(&fresh, &path).map_err(|error| ModelError::io("make the link", &path, error))?;
    Ok(path)
}

// === impl OllamaName ===

impl OllamaName {
    /// Parses `[[REGISTRY/]NAMESPACE/]MODEL[:TAG]` of plain characters, because the parts become paths.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (path, last) = match text.rsplit_once('/') {
            Some((path, last)) => (Some(path), last),
            None => (None, text),
        };
        let (model, tag) = last.split_once(':').unwrap_or((last, TAG));
        let (registry, namespace) = match path {
            None => (REGISTRY, NAMESPACE),
            Some(path) => path.split_once('/').unwrap_or((REGISTRY, path)),
        };
        let usable = [registry, namespace, model, tag].iter().all(|part| plain(part));
        usable.then(|| Self {
            registry: registry.to_owned(),
            namespace: namespace.to_owned(),
            model: model.to_owned(),
            tag: tag.to_owned(),
        })
    }
}

impl fmt::Display for OllamaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ollama:")?;
        if self.registry != REGISTRY {
            write!(f, "{}/", self.registry)?;
        }
        if self.registry != REGISTRY || self.namespace != NAMESPACE {
            write!(f, "{}/", self.namespace)?;
        }
        write!(f, "{}:{}", self.model, self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Access, OtherCaches};

    const DIGEST: &str = "ab00000000000000000000000000000000000000000000000000000000000000";

    /// A store with the model `qwen3:0.6b`, whose manifest is `manifest`.
    fn store(manifest: &str) -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("models/manifests/registry.ollama.ai/library/qwen3");
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("0.6b"), manifest).unwrap();
        fs::create_dir_all(folder.path().join("models/blobs")).unwrap();
        fs::write(folder.path().join(format!("models/blobs/sha256-{DIGEST}")), b"GGUF and so on").unwrap();
        let others = OtherCaches { ollama: vec![folder.path().join("models")], ..OtherCaches::default() };
        let cache = Cache::new(folder.path().join("cache"), Access { others, ..Access::default() });
        (folder, cache)
    }

    fn manifest(kind: &str, digest: &str) -> String {
        let layers = serde_json::json!([
            {"mediaType": "application/vnd.ollama.image.license", "digest": "sha256:00"},
            {"mediaType": kind, "digest": digest, "size": 14},
        ]);
        serde_json::json!({"schemaVersion": 2, "layers": layers}).to_string()
    }

    #[test]
    fn names_are_read_as_ollama_reads_them() {
        for (text, shown) in [
            ("qwen3", "ollama:qwen3:latest"),
            ("qwen3:0.6b", "ollama:qwen3:0.6b"),
            ("me/mine:v1", "ollama:me/mine:v1"),
            ("hf.co/bartowski/x-GGUF:Q4_K_M", "ollama:hf.co/bartowski/x-GGUF:Q4_K_M"),
        ] {
            assert_eq!(OllamaName::parse(text).unwrap().to_string(), shown);
        }
        for text in ["", ":x", "a:", "../a", "a/../b", "a/b/c/d", "a b", "/a", "a/", ".a", "a:b:c"] {
            assert!(OllamaName::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_blob_is_read_where_it_lies_by_a_link_with_the_models_name() {
        let (_folder, cache) = store(&manifest(MODEL_LAYER, &format!("sha256:{DIGEST}")));
        let name = OllamaName::parse("qwen3:0.6b").unwrap();
        let path = find(&name, &cache).unwrap();
        assert_eq!(path.file_name().unwrap(), "qwen3-0.6b.gguf");
        assert_eq!(fs::read(&path).unwrap(), b"GGUF and so on");
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink(), "it is not copied");
        assert_eq!(find(&name, &cache).unwrap(), path);
        assert_eq!(cache.list()[0].name, "qwen3-0.6b", "the cluster's name of it is found again");
        fs::remove_file(fs::read_link(&path).unwrap()).unwrap();
        let message = find(&name, &cache).unwrap_err().to_string();
        assert!(message.contains("expected the blob sha256-ab00") && message.contains("ollama pull"), "{message}");
        assert_eq!(cache.list(), [], "a link that points nowhere is no model");
    }

    #[test]
    fn manifests_that_name_no_model_are_refused() {
        for (manifest, expected) in [
            ("{".to_owned(), "a manifest in JSON"),
            ("{}".to_owned(), "expected one layer of weights in its manifest, found 0"),
            (manifest("application/vnd.ollama.image.template", "sha256:00"), "found 0"),
            (manifest(ADAPTER_LAYER, "sha256:00"), "expected a model without adapters"),
            (manifest(MODEL_LAYER, "sha256:../../etc/passwd"), "expected a SHA-256"),
            (manifest(MODEL_LAYER, &format!("sha512:{DIGEST}")), "expected a SHA-256"),
        ] {
            let (_folder, cache) = store(&manifest);
            let message = find(&OllamaName::parse("qwen3:0.6b").unwrap(), &cache).unwrap_err().to_string();
            assert!(message.contains(expected), "{manifest}: {message}");
        }
        let (_folder, cache) = store("{}");
        let message = find(&OllamaName::parse("other").unwrap(), &cache).unwrap_err().to_string();
        assert!(message.starts_with("ollama:other:latest is not usable: expected a manifest of it below"), "{message}");
    }
}
