//! Parses a MODEL of the command line.

use std::fmt;
use std::path::PathBuf;

use super::catalogue::{self, Entry, catalogue};
use super::error::ModelError;
use super::file_url::FileUrl;
use super::ollama::OllamaName;

/// The source of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A name of the catalogue.
    Catalogue(&'static Entry),
    /// A file on this machine.
    File(PathBuf),
    /// A file of a model hub's repository.
    Hub(HubFile),
    /// A repository of a model hub, of which the files are chosen.
    Repository(HubRepository),
    /// A file of any web server.
    Url(FileUrl),
    /// A model in Ollama's store.
    Ollama(OllamaName),
}

/// A repository of a model hub, and the quantisation that is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubRepository {
    /// `OWNER/REPO`.
    pub repository: String,
    /// The quantisation as file names spell it, in either case. `None` for the usual one.
    pub quant: Option<String>,
}

/// One file of a repository of a model hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubFile {
    /// `OWNER/REPO`.
    pub repository: String,
    /// The file's path in the repository.
    pub file: String,
}

// === impl Source ===

impl Source {
    /// Parses a MODEL.
    ///
    /// # Errors
    /// [`ModelError::Unknown`] for a name that is neither in the catalogue nor a path, [`ModelError::HubName`] for a
    /// malformed `hf:` name, [`ModelError::Url`] for a malformed address, [`ModelError::OllamaName`] for
    /// a malformed `ollama:` name.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        if let Some(rest) = text.strip_prefix("hf:") {
            let file = HubFile::parse(rest).map(Self::Hub);
            let source = file.or_else(|| HubRepository::parse(rest).map(Self::Repository));
            return source.ok_or_else(|| ModelError::HubName { found: text.to_owned() });
        }
        if let Some(rest) = text.strip_prefix("ollama:") {
            let name = OllamaName::parse(rest).map(Self::Ollama);
            return name.ok_or_else(|| ModelError::OllamaName { found: text.to_owned() });
        }
        if FileUrl::is_meant(text) {
            return FileUrl::parse(text).map(Self::Url).ok_or_else(|| ModelError::Url { found: text.to_owned() });
        }
        if text.contains('/') {
            return Ok(Self::File(text.into()));
        }
        if let Some(entry) = catalogue::find(text) {
            return Ok(Self::Catalogue(entry));
        }
        if text.ends_with(".gguf") {
            return Ok(Self::File(text.into()));
        }
        let known = catalogue().iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>().join(", ");
        Err(ModelError::Unknown { found: text.to_owned(), known })
    }
}

// === impl HubFile ===

impl HubFile {
    /// Parses `OWNER/REPO/FILE.gguf`. The file may lie in folders. Only plain characters are accepted, because the
    /// parts become paths.
    fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let usable = parts.len() >= 3 && parts.iter().all(|part| plain(part)) && text.ends_with(".gguf");
        usable.then(|| Self { repository: parts[..2].join("/"), file: parts[2..].join("/") })
    }
}

// === impl HubRepository ===

impl HubRepository {
    /// Parses `OWNER/REPO` or `OWNER/REPO:QUANT`, as llama.cpp's `-hf` takes it.
    fn parse(text: &str) -> Option<Self> {
        let (repository, quant) = match text.split_once(':') {
            Some((repository, quant)) => (repository, Some(quant)),
            None => (text, None),
        };
        let (owner, name) = repository.split_once('/')?;
        let usable = plain(owner) && plain(name) && quant.is_none_or(plain) && !name.ends_with(".gguf");
        usable.then(|| Self { repository: repository.to_owned(), quant: quant.map(str::to_owned) })
    }
}

impl fmt::Display for HubRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}", self.repository)?;
        self.quant.iter().try_for_each(|quant| write!(f, ":{quant}"))
    }
}

/// True for a part of a name that may become a part of a path.
pub(super) fn plain(part: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !part.is_empty() && part.len() <= 200 && !part.starts_with('.') && part.bytes().all(legal)
}

impl fmt::Display for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}/{}", self.repository, self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_a_name_a_path_or_a_hub_file() {
        assert!(matches!(Source::parse("smollm2"), Ok(Source::Catalogue(_))));
        assert!(matches!(Source::parse("SmolLM2-135M-Instruct.Q4_1"), Ok(Source::Catalogue(_))));
        assert_eq!(Source::parse("./smollm2").unwrap(), Source::File("./smollm2".into()));
        assert_eq!(Source::parse("mine.gguf").unwrap(), Source::File("mine.gguf".into()));
        let hub = HubFile { repository: "Qwen/Qwen3-14B-GGUF".to_owned(), file: "q4/Qwen3.gguf".to_owned() };
        assert_eq!(Source::parse("hf:Qwen/Qwen3-14B-GGUF/q4/Qwen3.gguf").unwrap(), Source::Hub(hub.clone()));
        assert_eq!(hub.to_string(), "hf:Qwen/Qwen3-14B-GGUF/q4/Qwen3.gguf");
        for (text, quant) in [("hf:Qwen/Qwen3-14B-GGUF", None), ("hf:Qwen/Qwen3-14B-GGUF:q8_0", Some("q8_0"))] {
            let Ok(Source::Repository(found)) = Source::parse(text) else { panic!("{text}") };
            assert_eq!((found.repository.as_str(), found.quant.as_deref()), ("Qwen/Qwen3-14B-GGUF", quant));
            assert_eq!(found.to_string(), text);
        }
        assert!(matches!(Source::parse("ollama:qwen3:0.6b"), Ok(Source::Ollama(_))));
        assert!(matches!(Source::parse("ollama:../x"), Err(ModelError::OllamaName { .. })));
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_names_that_are_known() {
        let error = Source::parse("gpt5").unwrap_err().to_string();
        assert!(error.contains("\"gpt5\"") && error.contains("smollm2") && error.contains(".gguf"), "{error}");
    }

    #[test]
    fn a_hub_name_that_could_leave_the_cache_is_refused() {
        for text in [
            "hf:",
            "hf:a",
            "hf:a/b.gguf",
            "hf:a/b:",
            "hf:a/b:../c",
            "hf:a/b:Q4/x",
            "hf:../b:Q4_0",
            "hf:/b",
            "hf:a/../x.gguf",
            "hf:../b/x.gguf",
            "hf:a/b/../x.gguf",
            "hf:/a/b.gguf",
            "hf:a/b/x.bin",
            "hf:a//x.gguf",
            "hf:a/b/x y.gguf",
            "hf:a/b/.gguf",
            "hf:a/b/x?.gguf",
        ] {
            assert!(matches!(Source::parse(text), Err(ModelError::HubName { .. })), "{text} was accepted");
        }
    }
}
