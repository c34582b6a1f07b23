//! The list that stands beside several files of one model: which of them holds each tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::SafetensorsError;
use super::error::quoted;
use super::limits::FILES_MAX;

/// The list of a folder's files. It names 1 to 1024 files, all in the folder itself.
///
/// It is read without a tree of its JSON: in such a tree a list that is made for it takes 144 times its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SafetensorsIndex {
    /// The file of each tensor, by the tensor's name.
    pub places: BTreeMap<String, String>,
}

// === impl SafetensorsIndex ===

impl SafetensorsIndex {
    /// Name of the list in its folder.
    pub const NAME: &str = "model.safetensors.index.json";

    /// Longest list, in bytes: seven times that of the largest known model.
    pub const BYTES_MAX: u64 = 64 << 20;

    /// Reads a list.
    ///
    /// # Errors
    /// [`SafetensorsError`] with the key, the expected and the found value.
    pub fn parse(bytes: &[u8]) -> Result<Self, SafetensorsError> {
        if bytes.len() as u64 > Self::BYTES_MAX {
            return Err(SafetensorsError::new("list", format!("at most {} bytes", Self::BYTES_MAX), bytes.len()));
        }
        let document: Document = serde_json::from_slice(bytes)
            .map_err(|cause| SafetensorsError::new("list", "a JSON object with a weight_map", cause))?;
        let Some(Places(places)) = document.weight_map else {
            return Err(SafetensorsError::new("weight_map", "an object of tensors and their files", "none"));
        };
        let is_plain = |name: &str| !name.is_empty() && !name.contains(['/', '\\', '\0']) && !name.starts_with('.');
        if let Some((tensor, file)) = places.iter().find(|(_, file)| !is_plain(file)) {
            let field = format!("weight_map of {}", quoted(tensor));
            return Err(SafetensorsError::new(field, "the name of a file in the same folder", quoted(file)));
        }
        let index = Self { places };
        let count = index.files().len();
        if count == 0 || count > FILES_MAX {
            return Err(SafetensorsError::new("weight_map", format!("1 to {FILES_MAX} files"), count));
        }
        Ok(index)
    }

    /// The names of the files, each once.
    #[must_use]
    pub fn files(&self) -> BTreeSet<&str> {
        self.places.values().map(String::as_str).collect()
    }
}

/// The list as JSON. Its other keys say nothing of the files.
#[derive(Deserialize)]
struct Document {
    weight_map: Option<Places>,
}

/// The file of each tensor.
struct Places(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Places {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PlacesVisitor)
    }
}

struct PlacesVisitor;

impl<'de> Visitor<'de> for PlacesVisitor {
    type Value = Places;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors and their files")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Places, A::Error> {
        let mut places = BTreeMap::new();
        while let Some(tensor) = map.next_key::<String>()? {
            let file = map.next_value::<String>();
            let file = file.map_err(|cause| A::Error::custom(format!("weight_map of {}: {cause}", quoted(&tensor))))?;
            if let Some(other) = places.insert(tensor, file) {
                return Err(A::Error::custom(format!("a tensor twice, first in {}", quoted(&other))));
            }
        }
        Ok(Places(places))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str) -> String {
        SafetensorsIndex::parse(json.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_list_names_the_file_of_each_tensor() {
        let json = br#"{"metadata": {"total_size": 3, "x": [[[]]]}, "weight_map": {"a": "1", "b": "2", "c": "1"}}"#;
        let index = SafetensorsIndex::parse(json).unwrap();
        assert_eq!(index.places["c"], "1");
        assert_eq!(index.files().into_iter().collect::<Vec<_>>(), ["1", "2"]);
    }

    #[test]
    fn what_is_no_list_is_refused_with_the_tensor() {
        assert!(refused("[]").starts_with("list: expected a JSON object with a weight_map, found"));
        assert_eq!(refused("{}"), "weight_map: expected an object of tensors and their files, found none");
        assert_eq!(refused(r#"{"weight_map": {}}"#), "weight_map: expected 1 to 1024 files, found 0");
        let path = r#"{"weight_map": {"a": "1", "b": "../2"}}"#;
        let expected = r#"weight_map of "b": expected the name of a file in the same folder, found "../2""#;
        assert_eq!(refused(path), expected);
        assert!(refused(r#"{"weight_map": {"a": 1}}"#).contains(r#"weight_map of "a": invalid type: integer `1`"#));
        assert!(refused(r#"{"weight_map": {"a": "1", "a": "2"}}"#).contains(r#"a tensor twice, first in "1""#));
        let many: Vec<_> = (0..=FILES_MAX).map(|file| format!(r#""{file}": "{file}""#)).collect();
        let many = format!(r#"{{"weight_map": {{{}}}}}"#, many.join(","));
        assert_eq!(refused(&many), "weight_map: expected 1 to 1024 files, found 1025");
    }
}
