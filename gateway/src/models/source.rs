//! Parses a MODEL of the command line.

use std::fmt;
use std::path::PathBuf;

use super::catalogue::{self, Entry, catalogue};
use super::error::ModelError;

/// The source of a model file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A name of the catalogue.
    Catalogue(&'static Entry),
    /// A file on this machine.
    File(PathBuf),
    /// A file of a model hub's repository.
    Hub(HubFile),
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
    /// malformed `hf:` name.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        if let Some(rest) = text.strip_prefix("hf:") {
            return HubFile::parse(rest).map(Self::Hub).ok_or_else(|| ModelError::HubName { found: text.to_owned() });
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
        let plain = |part: &str| {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            !part.is_empty() && part.len() <= 200 && !part.starts_with('.') && part.bytes().all(legal)
        };
        let parts: Vec<&str> = text.split('/').collect();
        let usable = parts.len() >= 3 && parts.iter().all(|part| plain(part)) && text.ends_with(".gguf");
        usable.then(|| Self { repository: parts[..2].join("/"), file: parts[2..].join("/") })
    }
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
            "hf:a/b",
            "hf:a/b.gguf",
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
