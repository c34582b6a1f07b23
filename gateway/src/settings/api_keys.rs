//! Collects the API keys of the HTTP server: those of `--api-key` or, without any, of `BATON_API_KEY`, and those of the
//! key file.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::secret::{self, SecretError, SecretText};
use crate::http::{
    API_KEYS_MAX, API_SECRET_BYTES_MAX, ApiKeyError, FileWatch, GivenKey, KEY_NAME_BYTES_MAX, KeyFileError, KeyLimits,
    KeyRing, Limit, parse_key, parse_key_file,
};

/// Most bytes of a key file: the longest line that makes sense for each key, and as much again for comments.
const FILE_BYTES_MAX: u64 = 2 * (API_KEYS_MAX * (KEY_NAME_BYTES_MAX + API_SECRET_BYTES_MAX + 100)) as u64;

/// The reason that the API keys cannot be used. No text contains a secret.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeysError {
    /// The key file cannot be read.
    #[error(transparent)]
    Read(#[from] SecretError),
    /// The key file has something that is no key.
    #[error("cannot use the key file {path}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        cause: KeyFileError,
    },
    /// A key of the command line cannot be used.
    #[error("cannot use what --api-key says")]
    Flag(#[source] ApiKeyError),
    /// A key of the environment cannot be used.
    #[error("cannot use what BATON_API_KEY says")]
    Variable(#[source] ApiKeyError),
    /// The keys exclude each other.
    #[error(transparent)]
    Together(#[from] ApiKeyError),
}

/// A file of API keys that may change while the server runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile {
    path: PathBuf,
    /// The state of the file before it was read.
    watch: FileWatch,
    /// The keys that do not come from it.
    others: Vec<GivenKey>,
    /// The limits of keys that set none for themselves.
    limits: KeyLimits,
}

/// All keys, each with its own limits or those of `limits`, and the file that some of them come from.
///
/// # Errors
/// [`ApiKeysError`] names the source of the key that cannot be used.
pub(super) fn collect(
    flags: &[SecretText],
    file: Option<&Path>,
    environment: &Environment,
    limits: KeyLimits,
) -> Result<(KeyRing, Option<KeyFile>), ApiKeysError> {
    let keys = match (flags, &environment.api_key) {
        ([], None) => Vec::new(),
        ([], Some(text)) => parse_list(text).map_err(ApiKeysError::Variable)?,
        (flags, _) => {
            let keys = flags.iter().map(|flag| parse_list(flag.expose())).collect::<Result<Vec<_>, _>>();
            keys.map_err(ApiKeysError::Flag)?.concat()
        }
    };
    let Some(path) = file else { return Ok((KeyRing::new(keys, limits)?, None)) };
    let watch = FileWatch::new(vec![path.to_owned()]);
    let file = KeyFile { path: path.to_owned(), watch, others: keys, limits };
    Ok((file.load()?, Some(file)))
}

// === impl KeyFile ===

impl KeyFile {
    /// All keys again, if the file has changed since it was read, and is the same as at the last look.
    pub(crate) fn look(&mut self) -> Option<Result<KeyRing, ApiKeysError>> {
        self.watch.look().then(|| self.load())
    }

    fn load(&self) -> Result<KeyRing, ApiKeysError> {
        let text = secret::read(&self.path, "the API keys", FILE_BYTES_MAX)?;
        let cause = |cause| ApiKeysError::File { path: self.path.clone(), cause };
        let keys = parse_key_file(&text).map_err(cause)?;
        Ok(KeyRing::new([self.others.clone(), keys].concat(), self.limits)?)
    }
}

/// Keys with commas between them.
fn parse_list(text: &str) -> Result<Vec<GivenKey>, ApiKeyError> {
    text.split(',').map(|key| parse_key(key.trim())).collect()
}

/// A limit of all keys. `None` means that there is none.
pub(super) fn limit(number: Option<u32>) -> Limit {
    number.and_then(NonZeroU32::new).map_or(Limit::Unlimited, Limit::AtMost)
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbb";
    const C: &str = "cccccccccccccccc";

    fn environment(api_key: Option<&str>) -> Environment {
        Environment { api_key: api_key.map(str::to_owned), ..Environment::default() }
    }

    fn names(flags: &[&str], file: Option<&Path>, variable: Option<&str>) -> Result<Vec<String>, ApiKeysError> {
        let flags: Vec<_> = flags.iter().map(|flag| flag.parse().unwrap()).collect();
        let (ring, _) = collect(&flags, file, &environment(variable), KeyLimits::default())?;
        Ok(ring.names().map(ToString::to_string).collect())
    }

    fn key_file(folder: &tempfile::TempDir, text: &str) -> PathBuf {
        let path = folder.path().join("api.keys");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    #[test]
    fn keys_come_from_flags_before_the_environment_and_from_the_file_too() {
        let folder = tempfile::tempdir().unwrap();
        let file = key_file(&folder, &format!("carol:{C}\n"));
        let (flags, variable) = ([&*format!("alice:{A},{B}")], format!("dave:{B}, {A}"));
        assert_eq!(names(&flags, Some(&file), Some(&variable)).unwrap(), ["alice", "key-1", "carol"]);
        assert_eq!(names(&[], Some(&file), Some(&variable)).unwrap(), ["dave", "key-1", "carol"]);
        assert!(names(&[], None, None).unwrap().is_empty());
    }

    #[test]
    fn a_file_that_changes_gives_its_new_keys_beside_those_of_other_sources() {
        let folder = tempfile::tempdir().unwrap();
        let path = key_file(&folder, &format!("carol:{C}\n"));
        let flags = [format!("alice:{A}").parse().unwrap()];
        let (_, file) = collect(&flags, Some(&path), &environment(None), KeyLimits::default()).unwrap();
        let mut file = file.unwrap();
        let mut looked = || {
            assert!(file.look().is_none(), "it may still be being written");
            file.look().map(|ring| ring.map(|ring| ring.names().map(ToString::to_string).collect::<Vec<_>>()))
        };
        key_file(&folder, &format!("bob:{B}\ndave:{C}\n"));
        assert_eq!(looked().unwrap().unwrap(), ["alice", "bob", "dave"]);
        key_file(&folder, "# nobody\n");
        assert!(matches!(looked(), Some(Err(ApiKeysError::File { cause: KeyFileError::Empty, .. }))));
        assert!(looked().is_none(), "a file that cannot be used is read once");
        fs::remove_file(&path).unwrap();
        assert!(matches!(looked(), Some(Err(ApiKeysError::Read(SecretError::Read { .. })))));
    }

    #[test]
    fn a_client_s_variable_may_repeat_a_key_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = key_file(&folder, &format!("carol:{C}\n"));
        assert_eq!(names(&[], Some(&file), Some(C)).unwrap(), ["carol"]);
    }

    #[test]
    fn an_error_names_its_source_and_shows_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let file = key_file(&folder, "alice:s3cr3t\n");
        for (found, expected) in [
            (names(&["s3cr3t"], None, None), "--api-key"),
            (names(&[""], None, None), "--api-key"),
            (names(&[], None, Some("bob:s3cr3t")), "BATON_API_KEY"),
            (names(&[], None, Some("s3cr3t\u{fffd}s3cr3ts3cr3t")), "BATON_API_KEY"),
            (names(&[], Some(&file), None), "api.keys"),
        ] {
            let error = found.unwrap_err();
            let text = format!("{error}: {error:?} {}", error.source().unwrap());
            assert!(text.contains(expected) && !text.contains("s3cr3t"), "{text}");
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(names(&[], Some(&file), None), Err(ApiKeysError::Read(SecretError::Open { .. }))));
    }

    #[test]
    fn a_key_file_without_keys_does_not_open_the_server() {
        let folder = tempfile::tempdir().unwrap();
        let file = key_file(&folder, "# nobody yet\n");
        assert!(matches!(names(&[], Some(&file), None), Err(ApiKeysError::File { cause: KeyFileError::Empty, .. })));
    }
}
