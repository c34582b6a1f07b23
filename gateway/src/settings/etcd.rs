//! The way to the store: its endpoints, the certificates of TLS and the login, from settings and files.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use engine::store::{EtcdAccess, EtcdLogin, EtcdTls};

use super::environment::Environment;
use super::options::ClusterOptions;
use super::resolved::defaults;
use super::secret::{SecretError, read};

/// Most bytes of a file of certificates: a system's whole list of authorities has 220 KB.
const CERTIFICATES_BYTES_MAX: u64 = 1 << 20;
/// Most bytes of a file with a key or a password.
const SECRET_BYTES_MAX: u64 = 64 << 10;
/// The first line of a certificate in PEM form.
const CERTIFICATE_MARK: &str = "-----BEGIN CERTIFICATE-----";

/// The reason that the settings of the store are refused.
#[derive(Debug, thiserror::Error)]
pub enum EtcdSettingsError {
    /// Settings of TLS without an endpoint that has it.
    #[error("{name} is given, and none of the store's addresses has TLS: expected https://<host>:<port> (--etcd)")]
    NoTls {
        /// The setting.
        name: &'static str,
    },
    /// One of two settings that belong together.
    #[error("{found} is given without {expected}: expected both or neither")]
    Half {
        /// The setting that is given.
        found: &'static str,
        /// The setting that is missing.
        expected: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {name} from {path}", path = path.display())]
    Read {
        /// The setting.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// A file has no certificate.
    #[error(
        "{path} ({name}) has no certificate: expected PEM form, with a line {CERTIFICATE_MARK}",
        path = path.display()
    )]
    NoCertificate {
        /// The setting.
        name: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A secret cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// The way to the store that `options` name, or to the default one.
pub(super) fn access(options: &ClusterOptions, environment: &Environment) -> Result<EtcdAccess, EtcdSettingsError> {
    let endpoints = options.etcd.clone().map_or_else(|| vec![defaults::ETCD.to_owned()], super::EtcdUrls::into_vec);
    let has_tls = endpoints.iter().any(|endpoint| EtcdAccess::is_tls(endpoint));
    let of_tls = [("etcd_ca", &options.etcd_ca), ("etcd_cert", &options.etcd_cert), ("etcd_key", &options.etcd_key)];
    if let Some((name, _)) = of_tls.into_iter().find(|(_, given)| !has_tls && given.is_some()) {
        return Err(EtcdSettingsError::NoTls { name });
    }
    let login = login(options, environment)?;
    if login.is_some() && endpoints.iter().any(|endpoint| !EtcdAccess::is_tls(endpoint)) {
        tracing::warn!("the password of etcd's user crosses the network unencrypted: https:// addresses encrypt it");
    }
    Ok(EtcdAccess { tls: tls(options)?, login, endpoints })
}

fn tls(options: &ClusterOptions) -> Result<EtcdTls, EtcdSettingsError> {
    let authority = options.etcd_ca.as_deref().map(|path| certificates("etcd_ca", path)).transpose()?;
    let identity = match (&options.etcd_cert, &options.etcd_key) {
        (Some(certificate), Some(key)) => {
            let certificate = certificates("etcd_cert", certificate)?;
            Some((certificate, read(key, "the key of etcd's client certificate", SECRET_BYTES_MAX)?))
        }
        (None, None) => None,
        (Some(_), None) => return Err(EtcdSettingsError::Half { found: "etcd_cert", expected: "etcd_key" }),
        (None, Some(_)) => return Err(EtcdSettingsError::Half { found: "etcd_key", expected: "etcd_cert" }),
    };
    Ok(EtcdTls { authority, identity, server_name: None })
}

/// The password in the environment comes before the one in the file.
fn login(options: &ClusterOptions, environment: &Environment) -> Result<Option<EtcdLogin>, EtcdSettingsError> {
    let password = match (&environment.etcd_password, &options.etcd_password_file) {
        (Some(password), _) => Some(password.clone()),
        (None, Some(path)) => {
            let text = read(path, "the password of etcd's user", SECRET_BYTES_MAX)?;
            Some(text.trim_end_matches(['\n', '\r']).to_owned())
        }
        (None, None) => None,
    };
    match (options.etcd_user.clone(), password) {
        (Some(user), Some(password)) => Ok(Some(EtcdLogin { user, password })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(EtcdSettingsError::Half {
            found: "etcd_user",
            expected: "a password (etcd_password_file or BATON_ETCD_PASSWORD)",
        }),
        (None, Some(_)) => Err(EtcdSettingsError::Half { found: "the password of etcd's user", expected: "etcd_user" }),
    }
}

/// The text of a file of certificates.
fn certificates(name: &'static str, path: &Path) -> Result<String, EtcdSettingsError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(CERTIFICATES_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|source| EtcdSettingsError::Read { name, path: path.to_owned(), source })?;
    if text.contains(CERTIFICATE_MARK) {
        Ok(text)
    } else {
        Err(EtcdSettingsError::NoCertificate { name, path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn options(toml: &str) -> ClusterOptions {
        super::super::FileOptions::parse(&format!("[cluster]\n{toml}")).unwrap().cluster
    }

    fn error(toml: &str) -> String {
        access(&options(toml), &Environment::default()).unwrap_err().to_string()
    }

    #[test]
    fn settings_that_belong_together_come_together_and_with_tls() {
        assert!(error("etcd_ca = \"/ca.pem\"").contains("etcd_ca is given, and none of the store's addresses has TLS"));
        let https = "etcd = \"https://a:1\"\n";
        assert!(error(&format!("{https}etcd_cert = \"/c\"")).contains("etcd_cert is given without etcd_key"));
        assert!(error(&format!("{https}etcd_key = \"/k\"")).contains("etcd_key is given without etcd_cert"));
        assert!(error("etcd_user = \"baton\"").contains("BATON_ETCD_PASSWORD"));
        let environment = Environment { etcd_password: Some("p".to_owned()), ..Environment::default() };
        assert!(access(&options(""), &environment).unwrap_err().to_string().contains("without etcd_user"));
        let login = access(&options("etcd_user = \"baton\""), &environment).unwrap().login.unwrap();
        assert_eq!((login.user.as_str(), login.password.as_str()), ("baton", "p"));
    }

    #[test]
    fn a_file_without_a_certificate_and_a_password_that_others_can_read_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("ca.pem"), "no certificate").unwrap();
        let found = error(&format!("etcd = \"https://a:1\"\netcd_ca = {:?}", path("ca.pem")));
        assert!(found.contains("(etcd_ca) has no certificate"), "{found}");
        let login = format!("etcd_user = \"baton\"\netcd_password_file = {:?}", path("password"));
        std::fs::write(path("password"), "p w\n").unwrap();
        std::fs::set_permissions(path("password"), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(error(&login).contains("run `chmod 600`"), "{}", error(&login));
        std::fs::set_permissions(path("password"), std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(access(&options(&login), &Environment::default()).unwrap().login.unwrap().password, "p w");
    }
}
