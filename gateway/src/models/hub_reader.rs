//! Reads parts of files of a hub or of another web server by HTTP range requests, each bounded in bytes and in time.
//! Nothing is kept.

use std::fmt;
use std::io::Read;
use std::time::Duration;

use ureq::config::RedirectAuthHeaders;
use ureq::{Agent, Body, http};

use super::cache::Cache;
use super::error::ModelError;
use super::file_url::FileUrl;
use super::hub;
use super::source::HubFile;

/// Longest wait for a name to be resolved, and for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest wait for the head of a response.
const RESPONSE: Duration = Duration::from_secs(15);
/// Longest time of one request with its redirects and its body: 8 MiB over a line of a megabit a second.
const REQUEST: Duration = Duration::from_secs(70);
/// Maximum number of redirects of a request. The hub answers with one or two.
const REDIRECTS_MAX: u32 = 5;

/// A hub, asked for parts of files.
pub(super) struct HubReader {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// A part of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The bytes that were asked for, fewer only at the file's end.
    pub(super) bytes: Vec<u8>,
    /// The length of the whole file, in bytes.
    pub(super) file_bytes: u64,
    /// The file's state by the server's headers: its entity tag and the time of its last change.
    pub(super) state: String,
}

/// A file at a hub or another web server. It is shown in messages.
pub(super) trait RemoteFile: fmt::Display + Sync {
    /// Its address, where the hub is at `endpoint`.
    fn url(&self, endpoint: &str) -> String;
    /// Its path in its repository, or its name.
    fn path(&self) -> &str;
}

// === impl RemoteFile ===

impl RemoteFile for HubFile {
    /// The characters that may not stand in an address are encoded.
    fn url(&self, endpoint: &str) -> String {
        format!("{endpoint}/{}/resolve/main/{}", self.repository, encoded(&self.file))
    }

    fn path(&self) -> &str {
        &self.file
    }
}

impl RemoteFile for FileUrl {
    fn url(&self, _: &str) -> String {
        self.to_string()
    }

    fn path(&self) -> &str {
        self.file()
    }
}

// === impl HubReader ===

impl HubReader {
    /// A reader of the hub that `cache` is set up with.
    pub(super) fn new(cache: &Cache) -> Self {
        Self::with(hub::endpoint(cache), cache.access().hub_token.clone())
    }

    /// A reader of the server of `url`, which gets no token.
    pub(super) fn of(url: &FileUrl) -> Self {
        Self::with(url.origin().to_owned(), None)
    }

    fn with(endpoint: String, token: Option<String>) -> Self {
        let config = Agent::config_builder()
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(RESPONSE))
            .timeout_global(Some(REQUEST))
            .max_redirects(REDIRECTS_MAX)
            // The token is for the hub, not for the servers that it refers to.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .http_status_as_error(false)
            // Compressed, a range would be one of other bytes.
            .accept_encoding("identity")
            .build();
        Self { agent: config.into(), endpoint, token }
    }

    /// The `count` bytes of `file` from `start` on.
    ///
    /// # Errors
    /// [`ModelError::Hub`] if the hub does not answer; [`ModelError::RemoteFile`] if it does not answer with this range
    /// alone. The body of such an answer is not read.
    pub(super) fn range(&self, file: &dyn RemoteFile, start: u64, count: u64) -> Result<Piece, ModelError> {
        let last = start.saturating_add(count.saturating_sub(1));
        let wanted = format!("bytes={start}-{last}");
        let response = self.get(&file.to_string(), &file.url(&self.endpoint), Some(&wanted))?;
        let wrong = |expected: String, found: String| self.wrong(&file.to_string(), expected, found);
        let expected = || format!("status 206 with bytes {start}-{last}");
        if response.status() != http::StatusCode::PARTIAL_CONTENT {
            let whole = if response.status().is_success() { ", an answer that is no range of the file" } else { "" };
            return Err(wrong(expected(), format!("status {}{whole}", response.status().as_u16())));
        }
        let field = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let header = field("content-range");
        let state = format!("{} {}", field("etag"), field("last-modified"));
        let Some((first, end, file_bytes)) = content_range(header) else {
            return Err(wrong("a content-range such as \"bytes 0-99/1000\"".to_owned(), format!("{header:?}")));
        };
        if first != start || end > last || end >= file_bytes || (end < last && end + 1 != file_bytes) {
            return Err(wrong(expected(), format!("content-range {header:?}")));
        }
        let bytes = self.body(&file.to_string(), response, end - first + 1)?;
        if bytes.len() as u64 != end - first + 1 {
            return Err(wrong(format!("{} bytes", end - first + 1), format!("{} of them", bytes.len())));
        }
        Ok(Piece { bytes, file_bytes, state })
    }

    /// All of `file`, a small one.
    ///
    /// # Errors
    /// [`ModelError::Hub`] if the hub does not answer, [`ModelError::RemoteFile`] if it does not have the file or if
    /// that is longer than `bytes_max`.
    pub(super) fn whole(&self, file: &HubFile, bytes_max: u64) -> Result<Vec<u8>, ModelError> {
        self.page(&file.to_string(), &file.url(&self.endpoint), bytes_max)
    }

    /// The body of the hub's page `path`, such as `/api/models/OWNER/REPO`, about `what`.
    ///
    /// # Errors
    /// As [`Self::whole`].
    pub(super) fn api(&self, what: &str, path: &str, bytes_max: u64) -> Result<Vec<u8>, ModelError> {
        self.page(what, &format!("{}{path}", self.endpoint), bytes_max)
    }

    fn page(&self, what: &str, url: &str, bytes_max: u64) -> Result<Vec<u8>, ModelError> {
        let response = self.get(what, url, None)?;
        if response.status() != http::StatusCode::OK {
            let found = format!("status {}", response.status().as_u16());
            return Err(self.wrong(what, "status 200".to_owned(), found));
        }
        let bytes = self.body(what, response, bytes_max + 1)?;
        if bytes.len() as u64 > bytes_max {
            return Err(self.wrong(what, format!("at most {bytes_max} bytes"), "more".to_owned()));
        }
        Ok(bytes)
    }

    fn get(&self, what: &str, url: &str, range: Option<&str>) -> Result<http::Response<Body>, ModelError> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(range) = range {
            request = request.header("range", range);
        }
        request.call().map_err(|error| self.failed(what, error.into()))
    }

    /// At most `bytes_max` bytes of a body.
    fn body(&self, what: &str, response: http::Response<Body>, bytes_max: u64) -> Result<Vec<u8>, ModelError> {
        let mut bytes = Vec::new();
        let read = response.into_body().into_reader().take(bytes_max).read_to_end(&mut bytes);
        read.map_err(|error| self.failed(what, error.into()))?;
        Ok(bytes)
    }

    /// The error of an answer of the hub that does not say what was asked.
    pub(super) fn wrong(&self, what: &str, expected: String, found: String) -> ModelError {
        ModelError::RemoteFile { file: what.to_owned(), endpoint: self.endpoint.clone(), expected, found }
    }

    fn failed(&self, what: &str, source: Box<dyn std::error::Error + Send + Sync>) -> ModelError {
        ModelError::Hub { file: what.to_owned(), endpoint: self.endpoint.clone(), source }
    }
}

/// First and last byte of a range, and the file's length: `bytes 0-99/1000`.
fn content_range(header: &str) -> Option<(u64, u64, u64)> {
    let (range, length) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, length) = (first.parse().ok()?, last.parse().ok()?, length.parse().ok()?);
    (first <= last).then_some((first, last, length))
}

/// A path with all bytes but plain ones as `%XX`.
fn encoded(path: &str) -> String {
    let one = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    path.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_an_answer_is_read_or_refused() {
        assert_eq!(content_range("bytes 0-99/1000"), Some((0, 99, 1000)));
        for text in ["", "bytes */1000", "bytes 0-99/*", "bytes 9-1/100", "items 0-1/2", "bytes -1-2/3", "bytes 0-1"] {
            assert_eq!(content_range(text), None, "{text}");
        }
    }

    #[test]
    fn names_of_files_become_paths_of_addresses() {
        assert_eq!(encoded("q4/m-1.gguf"), "q4/m-1.gguf");
        assert_eq!(encoded("a b?c#d%é"), "a%20b%3Fc%23d%25%C3%A9");
    }
}
