//! A self-signed certificate and its key, in a folder of the user. The key is made once and stays, so that clients can
//! pin it; the certificate is made again with the same key before it ends, or for a new name that the operator gives.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::Rng;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SerialNumber,
};
use tempfile::NamedTempFile;
use time::OffsetDateTime;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::pair::{self, cannot};
use super::provider;
use crate::http::server::tls_source::{TlsError, TlsFiles, TlsNames};
use crate::new_file;

/// Names that mean this machine on every machine.
const LOOPBACK_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Days for which a certificate is made: Apple's systems refuse those of servers that are for more than 825.
const VALID_DAYS: i64 = 820;
/// Days before now from which it is valid, for clients whose clocks are behind.
const BACKDATED_DAYS: i64 = 1;
/// Time before its end from which a certificate is made again at a start.
const RENEWAL_TIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// Longest common name in a certificate, in characters (X.520).
const COMMON_NAME_CHARS_MAX: usize = 64;

/// The pair in `folder`, which is made if there is none that can be used.
///
/// # Errors
/// [`TlsError`] if the folder or a file in it cannot be used, or if a given name cannot stand in a certificate.
pub(super) fn ensure(folder: &Path, names: &TlsNames) -> Result<TlsFiles, TlsError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|cause| cannot("make the folder", folder, cause))?;
    let files = TlsFiles::self_signed(folder);
    let key = key(folder, &files.key)?;
    match pair::load(&files) {
        Ok(pair) if is_good(pair.certificate(), names) => {}
        Err(open @ TlsError::Open { .. }) => return Err(open),
        _ => {
            let certificate = certificate(&key, names).map_err(|error| generate(&error))?;
            let file = temporary(folder, &certificate)?;
            let path = &files.certificate;
            file.persist(path).map_err(|error| cannot("write", path, error.error))?;
        }
    }
    Ok(files)
}

/// The key at `path`, which is made if it is missing. Of two processes that make one at the same time, the first wins.
fn key(folder: &Path, path: &Path) -> Result<KeyPair, TlsError> {
    if let Some(key) = read_key(path)? {
        return Ok(key);
    }
    let key = KeyPair::generate().map_err(|error| generate(&error))?;
    match temporary(folder, &key.serialize_pem())?.persist_noclobber(path) {
        Ok(_) => Ok(key),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {
            read_key(path)?.ok_or_else(|| cannot("read", path, ErrorKind::NotFound.into()))
        }
        Err(error) => Err(cannot("write", path, error.error)),
    }
}

fn read_key(path: &Path) -> Result<Option<KeyPair>, TlsError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(cannot("read", path, cause)),
    };
    // The parser's error is left out, because it may repeat what stands in the file.
    KeyPair::from_pem(&text).map(Some).map_err(|_| TlsError::Pem {
        path: path.to_owned(),
        expected: "private key",
        reason: "remove it to have a new one made, which clients have to be told of".to_owned(),
    })
}

/// A file in `folder` that only its owner can read, with `text` in it.
fn temporary(folder: &Path, text: &str) -> Result<NamedTempFile, TlsError> {
    new_file::written(folder, text.as_bytes()).map_err(|cause| cannot("write in", folder, cause))
}

/// The names that clients use. Those that the system reports are not among them, because a certificate that changes
/// with the network could not be pinned.
fn required(names: &TlsNames) -> impl Iterator<Item = &str> {
    LOOPBACK_NAMES.into_iter().chain(names.given.iter().map(String::as_str))
}

/// True if a client that trusts `certificate` would accept it for every required name, now and at its renewal.
fn is_good(certificate: &CertificateDer<'_>, names: &TlsNames) -> bool {
    let mut roots = RootCertStore::empty();
    let verifier = roots
        .add(certificate.clone())
        .ok()
        .and_then(|()| WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().ok());
    let Some(verifier) = verifier else { return false };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    required(names).all(|name| {
        let accepts = |name: &ServerName<'_>, time: Duration| {
            let time = UnixTime::since_unix_epoch(time);
            verifier.verify_server_cert(certificate, &[], name, &[], time).is_ok()
        };
        ServerName::try_from(name).is_ok_and(|name| accepts(&name, now) && accepts(&name, now + RENEWAL_TIME))
    })
}

/// A new certificate for `key`, in PEM form.
fn certificate(key: &KeyPair, names: &TlsNames) -> Result<String, rcgen::Error> {
    let label = names.host.split('.').next().unwrap_or_default();
    let of_system = [names.host.clone(), format!("{label}.local")];
    let of_system =
        of_system.into_iter().filter(|name| !label.is_empty() && ServerName::try_from(name.as_str()).is_ok());
    let mut subjects: Vec<String> = required(names).map(str::to_owned).chain(of_system).collect();
    subjects.sort();
    subjects.dedup();
    let mut parameters = CertificateParams::new(subjects)?;
    let now = OffsetDateTime::now_utc();
    parameters.not_before = now - time::Duration::days(BACKDATED_DAYS);
    parameters.not_after = now + time::Duration::days(VALID_DAYS);
    parameters.serial_number = Some(serial_number());
    parameters.distinguished_name = DistinguishedName::new();
    let common_name: String = format!("baton on {label}").chars().take(COMMON_NAME_CHARS_MAX).collect();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(parameters.self_signed(key)?.pem())
}

/// A random number, as two certificates of one issuer must not have the same. Positive, and of full length.
fn serial_number() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::rng().random();
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn generate(error: &rcgen::Error) -> TlsError {
    TlsError::Generate { reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(given: Option<&str>) -> TlsNames {
        TlsNames { host: "Mini-1.lan".to_owned(), given: given.map(str::to_owned).into_iter().collect() }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_pair_is_made_once_and_only_its_owner_can_read_it() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("data/tls");
        let files = ensure(&folder, &names(None)).unwrap();
        assert_eq!([&folder, &files.certificate, &files.key].map(|path| mode(path)), [0o700, 0o600, 0o600]);
        let first = pair::load(&files).unwrap();
        ensure(&folder, &names(None)).unwrap();
        // Another name of the system does not change the certificate, so that clients can pin it.
        ensure(&folder, &TlsNames { host: "elsewhere".to_owned(), given: Vec::new() }).unwrap();
        assert_eq!(pair::load(&files).unwrap().fingerprint(), first.fingerprint());
        assert!(is_good(first.certificate(), &names(None)));
        assert_eq!(first.fingerprint().len(), 32 * 3 - 1);
    }

    #[test]
    fn a_new_name_of_the_operator_makes_a_new_certificate_with_the_same_key() {
        let folder = tempfile::tempdir().unwrap();
        let files = ensure(folder.path(), &names(None)).unwrap();
        let (first, key) = (pair::load(&files).unwrap(), fs::read(&files.key).unwrap());
        for given in ["models.example", "10.0.0.7", "fd00::7"] {
            let names = names(Some(given));
            assert!(!is_good(first.certificate(), &names), "{given}");
            ensure(folder.path(), &names).unwrap();
            assert!(is_good(pair::load(&files).unwrap().certificate(), &names), "{given}");
        }
        assert_eq!(fs::read(&files.key).unwrap(), key);
    }

    #[test]
    fn a_certificate_of_another_key_is_made_again_and_a_broken_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let files = ensure(folder.path(), &names(None)).unwrap();
        fs::remove_file(&files.key).unwrap();
        ensure(folder.path(), &names(None)).unwrap();
        assert!(pair::load(&files).is_ok());
        fs::write(&files.certificate, "nothing").unwrap();
        ensure(folder.path(), &names(None)).unwrap();
        assert!(pair::load(&files).is_ok());
        fs::write(&files.key, "nothing").unwrap();
        assert!(matches!(ensure(folder.path(), &names(None)), Err(TlsError::Pem { .. })));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let files = ensure(folder.path(), &names(None)).unwrap();
        let certificate = fs::read(&files.certificate).unwrap();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(ensure(folder.path(), &names(None)), Err(TlsError::Open { mode: 0o644, .. })));
        assert_eq!(fs::read(&files.certificate).unwrap(), certificate);
    }

    #[test]
    fn a_name_that_no_certificate_can_have_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(ensure(folder.path(), &names(Some("jürgen"))), Err(TlsError::Generate { .. })));
    }
}
