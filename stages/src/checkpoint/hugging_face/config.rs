//! A folder's `config.json`, read by key and type.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};

use crate::checkpoint::OpenError;

/// Largest accepted configuration, in bytes: ten times one that lists every matrix of a large model. Parsed, nested
/// lists take 144 times their bytes: 300 MB.
const CONFIG_BYTES_MAX: u64 = 2 << 20;

/// The configuration of a model of language. In one of several senses its keys are those of `text_config`, with the
/// keys around it for those that it lacks.
#[derive(Debug)]
pub(super) struct Config {
    path: PathBuf,
    text: Map<String, Json>,
    around: Map<String, Json>,
}

// === impl Config ===

impl Config {
    /// Reads the file at `path`.
    pub(super) fn read(path: &Path) -> Result<Self, OpenError> {
        let Some(mut around) = read_optional(path)? else {
            return Err(OpenError::Folder {
                path: path.to_owned(),
                field: "file".to_owned(),
                expected: "a JSON object".to_owned(),
                found: "no such file".to_owned(),
            });
        };
        let text = match around.remove("text_config") {
            Some(Json::Object(text)) => text,
            _ => Map::new(),
        };
        Ok(Self { path: path.to_owned(), text, around })
    }

    /// The error of a key.
    #[expect(clippy::needless_pass_by_value, reason = "numbers and texts alike are given at the call")]
    pub(super) fn wrong(&self, key: &str, expected: String, found: impl ToString) -> OpenError {
        OpenError::Folder { path: self.path.clone(), field: key.to_owned(), expected, found: found.to_string() }
    }

    /// The value of `key`. `None` if it is absent or null.
    pub(super) fn get(&self, key: &str) -> Option<&Json> {
        self.text.get(key).or_else(|| self.around.get(key)).filter(|value| !value.is_null())
    }

    /// The count under the first of `keys` that is there.
    pub(super) fn count(&self, keys: &[&str]) -> Result<Option<u32>, OpenError> {
        let Some((key, value)) = self.first(keys) else { return Ok(None) };
        let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
        count.map(Some).ok_or_else(|| self.wrong(key, "a whole number below 2^32".to_owned(), shown(value)))
    }

    /// The count under the first of `keys`, one of which must be there.
    pub(super) fn required(&self, keys: &[&str]) -> Result<u32, OpenError> {
        let absent = || self.wrong(keys[0], "a whole number".to_owned(), "no such key");
        self.count(keys)?.ok_or_else(absent)
    }

    /// The number under the first of `keys` that is there.
    pub(super) fn number(&self, keys: &[&str]) -> Result<Option<f32>, OpenError> {
        let Some((key, value)) = self.first(keys) else { return Ok(None) };
        self.finite(key, value).map(|number| Some(number as f32))
    }

    /// The number in `value`, which `key` names.
    pub(super) fn finite(&self, key: &str, value: &Json) -> Result<f64, OpenError> {
        let number = value.as_f64().filter(|number| (*number as f32).is_finite());
        number.ok_or_else(|| self.wrong(key, "a number".to_owned(), shown(value)))
    }

    /// The flag under `key`.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, OpenError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(key, "true or false".to_owned(), shown(value)))
    }

    /// The text under `key`.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, OpenError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, "a text".to_owned(), shown(value)))
    }

    fn first<'a>(&self, keys: &[&'a str]) -> Option<(&'a str, &Json)> {
        keys.iter().find_map(|key| Some((*key, self.get(key)?)))
    }
}

/// The JSON object in the file at `path`. `None` if there is no such file.
pub(super) fn read_optional(path: &Path) -> Result<Option<Map<String, Json>>, OpenError> {
    let Some(bytes) = read_bounded(path, CONFIG_BYTES_MAX)? else { return Ok(None) };
    let object = serde_json::from_slice(&bytes);
    object.map(Some).map_err(|cause| OpenError::Folder {
        path: path.to_owned(),
        field: "file".to_owned(),
        expected: "a JSON object".to_owned(),
        found: cause.to_string(),
    })
}

/// The bytes of the file at `path`, which may be at most `bytes_max`. `None` if there is no such file.
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, OpenError> {
    let failed = |cause| OpenError::Read { path: path.to_owned(), cause };
    match std::fs::metadata(path) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(failed(cause)),
        Ok(metadata) if metadata.len() > bytes_max => Err(OpenError::Folder {
            path: path.to_owned(),
            field: "file".to_owned(),
            expected: format!("at most {bytes_max} bytes"),
            found: metadata.len().to_string(),
        }),
        Ok(_) => std::fs::read(path).map(Some).map_err(failed),
    }
}

/// A value on one line, cut to 96 characters.
pub(super) fn shown(value: &Json) -> String {
    const CHARACTERS_MAX: usize = 96;
    let text = value.to_string();
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
