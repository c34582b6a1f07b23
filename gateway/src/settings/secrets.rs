//! All secrets that this process can know, so that texts for others can be cleared of them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::environment::Environment;
use super::file::FileOptions;
use crate::http::secret_of;

/// Most bytes of a file of keys that are read for this.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The secrets in the environment, and those in the files of keys that the settings name. A file that cannot be read
/// has no secret that this process could tell.
pub(crate) fn secrets(options: &FileOptions, environment: &Environment) -> Vec<String> {
    let mut secrets = Vec::new();
    let keys = environment.api_key.iter().flat_map(|keys| keys.split(','));
    secrets.extend(keys.map(|key| secret_of(key.trim()).to_owned()));
    secrets.extend(environment.cluster_key.clone());
    secrets.extend(environment.etcd_password.clone());
    secrets.extend(environment.access.hub_token.clone());
    let files = [
        &options.member.cluster_key_file,
        &options.gateway.api_key_file,
        &options.gateway.tls_key,
        &options.cluster.etcd_key,
        &options.cluster.etcd_password_file,
    ];
    for text in files.into_iter().flatten().filter_map(|path| read(path)) {
        let words = text.lines().filter_map(|line| line.split_whitespace().next());
        secrets.extend(words.filter(|word| !word.starts_with('#')).map(|word| secret_of(word).to_owned()));
    }
    secrets
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_from_the_environment_and_from_files_of_keys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.keys");
        std::fs::write(&path, "# for the house\nalice:s3cr3t-a requests_per_minute=3\ns3cr3t-b\n").unwrap();
        let mut options = FileOptions::default();
        options.gateway.api_key_file = Some(path);
        options.member.cluster_key_file = Some("/nowhere".into());
        let environment = Environment { api_key: Some("bob:s3cr3t-c, s3cr3t-d".to_owned()), ..Environment::default() };
        assert_eq!(secrets(&options, &environment), ["s3cr3t-c", "s3cr3t-d", "s3cr3t-a", "s3cr3t-b"]);
    }
}
