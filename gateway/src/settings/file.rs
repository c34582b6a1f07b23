//! The settings file `baton.toml`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::options::{
    ClusterOptions, ComputeOptions, GatewayOptions, GlobalOptions, MemberOptions, ModelOptions, NetworkOptions,
    StageOptions, UpOptions,
};

/// Maximum length of the settings file, in bytes. The example `etc/baton.toml` has 7 KiB.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// The contents of the settings file. Each group is a table.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FileOptions {
    /// `[global]`
    pub global: GlobalOptions,
    /// `[cluster]`
    pub cluster: ClusterOptions,
    /// `[member]`
    pub member: MemberOptions,
    /// `[model]`
    pub model: ModelOptions,
    /// `[compute]`
    pub compute: ComputeOptions,
    /// `[stage]`
    pub stage: StageOptions,
    /// `[gateway]`
    pub gateway: GatewayOptions,
    /// `[up]`
    pub up: UpOptions,
    /// `[network]`
    pub network: NetworkOptions,
}

/// The reason that the settings file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("cannot read the settings in {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// The file is too long.
    #[error("{path} has {found} bytes: expected settings of at most {FILE_BYTES_MAX}", path = path.display())]
    Long {
        /// The file.
        path: PathBuf,
        /// Its length, in bytes.
        found: u64,
    },
    /// The file has an unknown key or an illegal value.
    #[error("cannot use the settings in {path}: {reason}", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The text of [`FileOptions::parse`].
        reason: String,
    },
}

// === impl FileOptions ===

impl FileOptions {
    /// Reads the file `named` on the command line, which must exist. Without one, reads the first file of `others` that
    /// exists. If none does, no option is set.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be read or has an unknown key or an illegal value.
    pub fn read(named: Option<&Path>, others: &[PathBuf]) -> Result<Self, FileError> {
        let Some(path) = named.or_else(|| others.iter().map(PathBuf::as_path).find(|path| path.exists())) else {
            return Ok(Self::default());
        };
        let failed = |source| FileError::Read { path: path.to_owned(), source };
        let found = fs::metadata(path).map_err(failed)?.len();
        if found > FILE_BYTES_MAX {
            return Err(FileError::Long { path: path.to_owned(), found });
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        Self::parse(&text).map_err(|reason| FileError::Content { path: path.to_owned(), reason })
    }

    /// Parses the text of a settings file.
    ///
    /// # Errors
    /// A text with the line, the key, and the values that would be accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_with_those_that_are_known() {
        let error = FileOptions::parse("[gateway]\nlisten_on = \"127.0.0.1:1\"\n").unwrap_err();
        assert!(error.contains("line 2") && error.contains("`listen_on`"), "{error}");
        assert!(error.contains("`listen`") && error.contains("`request_deadline_s`"), "{error}");
        let error = FileOptions::parse("[gatway]\n").unwrap_err();
        assert!(error.contains("`gateway`") && error.contains("`compute`"), "{error}");
    }

    #[test]
    fn an_illegal_value_is_refused_with_what_was_expected() {
        for (text, expected) in [
            ("[compute]\nmemory = \"6gb\"", "expected a number and one of"),
            ("[compute]\ndevice = \"tpu\"", "`cpu`"),
            ("[cluster]\netcd = [\"ftp://a:1\"]", "http(s)://<host>:<port>"),
            ("[cluster]\ncluster = \"a/b\"", "starting with a letter"),
            ("[gateway]\nlisten = 8100", "invalid type"),
        ] {
            let error = FileOptions::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text} gave {error}");
        }
    }

    #[test]
    fn a_named_file_must_exist_and_the_others_need_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("baton.toml");
        assert!(matches!(FileOptions::read(Some(&path), &[]), Err(FileError::Read { .. })));
        assert_eq!(FileOptions::read(None, std::slice::from_ref(&path)).unwrap(), FileOptions::default());
        fs::write(&path, "[up]\nstages = 3\n").unwrap();
        let later = folder.path().join("other.toml");
        fs::write(&later, "[up]\nstages = 4\n").unwrap();
        assert_eq!(FileOptions::read(None, &[path, later]).unwrap().up.stages, Some(3));
    }
}
