//! The address of a model file at any web server. Pure.

use std::fmt;

use sha2::{Digest, Sha256};

use super::checksum::hex;
use super::source::plain;

/// Characters of an address's digest in the name of its folder.
const DIGEST_CHARACTERS: usize = 16;

/// `http://` or `https://`, a host, and a path that ends in a GGUF file's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileUrl {
    /// Everything before the file's name, with the slash.
    base: String,
    /// The file's name.
    file: String,
    /// Everything behind it: nothing, or a query with its question mark.
    query: String,
}

// === impl FileUrl ===

impl FileUrl {
    /// True if `text` begins as an address does.
    pub fn is_meant(text: &str) -> bool {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        matches!(scheme.as_deref(), Some("http" | "https"))
    }

    /// Parses an address. The file's name becomes a path, so that only plain characters are accepted in it. Names and
    /// passwords are not: they would be shown.
    pub fn parse(text: &str) -> Option<Self> {
        let (path, query) = match text.find('?') {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let (base, file) = path.rsplit_once('/')?;
        let host = base.split_once("://")?.1.split('/').next().unwrap_or_default();
        let usable = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        let is_one = Self::is_meant(text) && !host.is_empty() && !host.contains('@') && usable(text);
        let named = plain(file) && file.ends_with(".gguf");
        (is_one && named).then(|| Self { base: format!("{base}/"), file: file.to_owned(), query: query.to_owned() })
    }

    /// The address of another file beside it.
    pub fn beside(&self, file: &str) -> Self {
        Self { file: file.to_owned(), ..self.clone() }
    }

    /// The file's name.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Scheme and host.
    pub fn origin(&self) -> &str {
        let host = self.base.find("://").map_or(0, |at| at + 3);
        let end = self.base[host..].find('/').map_or(self.base.len(), |at| host + at);
        &self.base[..end]
    }

    /// The name of the folder of all files beside this one.
    pub fn folder_name(&self) -> String {
        let digest = hex(&Sha256::digest(self.base.as_bytes()));
        format!("url-{}", &digest[..DIGEST_CHARACTERS])
    }
}

impl fmt::Display for FileUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.base, self.file, self.query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_gguf_file_is_taken_apart_and_put_together() {
        for (text, file) in [
            ("https://example.org/m.gguf", "m.gguf"),
            ("http://127.0.0.1:8000/a/b/m-Q4_0.gguf?download=true&x=/y", "m-Q4_0.gguf"),
        ] {
            let url = FileUrl::parse(text).unwrap();
            assert_eq!((url.file(), url.to_string().as_str()), (file, text));
        }
        let part = FileUrl::parse("https://a/b/m-00001-of-00002.gguf?k=1").unwrap().beside("m-00002-of-00002.gguf");
        assert_eq!(part.to_string(), "https://a/b/m-00002-of-00002.gguf?k=1");
        let (one, other) =
            (FileUrl::parse("https://a/x/m.gguf").unwrap(), FileUrl::parse("https://b/x/m.gguf").unwrap());
        assert_eq!((one.origin(), other.origin()), ("https://a", "https://b"));
        assert_ne!(one.folder_name(), other.folder_name());
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "https://a/m.bin",
            "https://a/",
            "https:///m.gguf",
            "https://m.gguf",
            "ftp://a/m.gguf",
            "https://user:secret@a/m.gguf",
            "https://a/.gguf",
            "https://a/..%2fm.gguf",
            "https://a/b c/m.gguf",
            "https://a/m.gguf#x",
        ] {
            assert_eq!(FileUrl::parse(text), None, "{text}");
        }
    }
}
