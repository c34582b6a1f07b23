//! A cluster's own certificate authority: made once, on the machine that carries the store, and the only one that the
//! shared port and its clients trust.

use std::net::IpAddr;
use std::sync::Arc;

use engine::link::ClusterKey;
use rand::Rng;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber, SignatureAlgorithm,
};
use schema::ClusterName;
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};

use super::folder::{ClusterFolder, FolderError};
use super::token::{AuthorityPin, PIN_BYTES};
use crate::layers::LAYERS_PROTOCOL;
use crate::models::hex;

/// A name in every certificate of a store, by which members check it whatever address they reach it at.
pub const STORE_NAME: &str = "store.baton.internal";
/// The protocols of the shared port (ALPN): etcd's API, and joining.
pub(super) const ETCD_PROTOCOL: &[u8] = b"h2";
pub(super) const JOIN_PROTOCOL: &[u8] = b"baton-join/1";
/// The number in [`JOIN_PROTOCOL`], as it is announced.
pub(super) const JOIN_VERSION: u32 = 1;
/// TLS as it is spoken at the shared port.
pub(super) const TLS_VERSIONS: &[&SupportedProtocolVersion] = &[&version::TLS13];
/// Days for which certificates are made. Nobody could renew those of a machine that is off for long; whoever is to lose
/// the right to the store needs another cluster key, too, and that means a new authority.
const VALID_DAYS: i64 = 3650;
/// Days before now from which they are valid, for machines whose clocks are behind.
const BACKDATED_DAYS: i64 = 1;
/// Bytes of a public key on the curve P-256, uncompressed.
const PUBLIC_KEY_BYTES: usize = 65;

/// The authority with its key.
pub struct Authority {
    cluster: ClusterName,
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

/// The public key of a machine that joins.
pub(super) struct MachineKey(Vec<u8>);

// === impl Authority ===

impl Authority {
    /// The authority of `cluster`, which is made in `folder` if there is none yet.
    ///
    /// # Errors
    /// [`FolderError`] if a file cannot be read, made or used.
    pub fn ensure(folder: &ClusterFolder, cluster: &ClusterName) -> Result<Self, FolderError> {
        folder.make()?;
        let failed = |name| move |_: rcgen::Error| folder.unusable(name, "a private key in PEM form");
        let key = folder.read_or_make(ClusterFolder::AUTHORITY_KEY, || {
            Ok(KeyPair::generate().map_err(failed(ClusterFolder::AUTHORITY_KEY))?.serialize_pem())
        })?;
        let key = KeyPair::from_pem(&key).map_err(failed(ClusterFolder::AUTHORITY_KEY))?;
        let pem = folder.read_or_make(ClusterFolder::AUTHORITY, || {
            let certificate = authority_params(cluster).self_signed(&key).map_err(failed(ClusterFolder::AUTHORITY))?;
            Ok(certificate.pem())
        })?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes());
        let certificate =
            certificate.map_err(|_| folder.unusable(ClusterFolder::AUTHORITY, "a certificate in PEM form"))?;
        pin_of(&certificate).ok_or_else(|| folder.unusable(ClusterFolder::AUTHORITY, "a certificate in PEM form"))?;
        Ok(Self { cluster: cluster.clone(), certificate, key })
    }

    /// The digest of its public key.
    pub fn pin(&self) -> AuthorityPin {
        // `ensure` has read the key already.
        pin_of(&self.certificate).unwrap_or(AuthorityPin([0; PIN_BYTES]))
    }

    fn issuer(&self) -> Issuer<'static, &KeyPair> {
        Issuer::new(authority_params(&self.cluster), &self.key)
    }

    /// The certificate of a member, in PEM form.
    pub(super) fn member(&self, name: &str, key: &impl PublicKeyData) -> Result<String, rcgen::Error> {
        let mut params = params(name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok(params.signed_by(key, &self.issuer())?.pem())
    }

    /// The certificate and key that this machine shows to its own shared port, for `etcdctl`.
    ///
    /// # Errors
    /// [`FolderError`] if a file cannot be read or made.
    pub fn ensure_client(&self, folder: &ClusterFolder) -> Result<(), FolderError> {
        let failed = |_: rcgen::Error| folder.unusable(ClusterFolder::CLIENT_KEY, "a private key in PEM form");
        let key = folder
            .read_or_make(ClusterFolder::CLIENT_KEY, || Ok(KeyPair::generate().map_err(failed)?.serialize_pem()))?;
        let key = KeyPair::from_pem(&key).map_err(failed)?;
        folder.read_or_make(ClusterFolder::CLIENT, || self.member("client", &key).map_err(failed))?;
        Ok(())
    }

    /// The TLS of a shared port with `names`: with a new key, and for clients with a certificate of this authority, or
    /// without one.
    pub(super) fn server_config(&self, names: &[String]) -> Result<ServerConfig, String> {
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let key = KeyPair::generate().map_err(|error| error.to_string())?;
        let chain = vec![self.server(names, &key).map_err(|error| error.to_string())?, self.certificate.clone()];
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).map_err(|error| error.to_string())?;
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let clients = clients.allow_unauthenticated().build().map_err(|error| error.to_string())?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(str::to_owned)?;
        let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(TLS_VERSIONS);
        let config = config.map(|config| config.with_client_cert_verifier(clients));
        let mut config = config.and_then(|config| config.with_single_cert(chain, key)).map_err(|e| e.to_string())?;
        config.alpn_protocols = [ETCD_PROTOCOL, JOIN_PROTOCOL, LAYERS_PROTOCOL].map(<[u8]>::to_vec).into();
        Ok(config)
    }

    fn server(&self, names: &[String], key: &KeyPair) -> Result<CertificateDer<'static>, rcgen::Error> {
        let usable = |name: &&String| ServerName::try_from(name.as_str()).is_ok();
        let mut all: Vec<String> = vec![STORE_NAME.to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned()];
        all.extend(names.iter().filter(usable).cloned());
        all.dedup();
        let subject_alt_names = CertificateParams::new(all)?.subject_alt_names;
        let mut params = params("store");
        params.subject_alt_names = subject_alt_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Ok(params.signed_by(key, &self.issuer())?.der().clone())
    }
}

/// The digest of the public key in a certificate. `None` if it is none.
pub(super) fn pin_of(certificate: &CertificateDer<'_>) -> Option<AuthorityPin> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone().into_owned()).ok()?;
    Some(AuthorityPin(Sha256::digest(&roots.roots.first()?.subject_public_key_info).into()))
}

/// Notes where the cluster is shared, for `baton token create`.
///
/// # Errors
/// [`FolderError`] if the file cannot be written.
pub fn note_address(folder: &ClusterFolder, address: &str) -> Result<(), FolderError> {
    folder.write(ClusterFolder::SHARE_ADDRESS, &format!("{address}\n"))
}

/// The address at which this machine shares the cluster, and the pin of its authority.
///
/// # Errors
/// [`FolderError`] if it does not share it, or if a file cannot be used.
pub fn shared_address(folder: &ClusterFolder) -> Result<(String, AuthorityPin), FolderError> {
    let read = |name| folder.read(name)?.ok_or_else(|| folder.unusable(name, "the file of a shared cluster"));
    let address = read(ClusterFolder::SHARE_ADDRESS)?;
    let certificate = CertificateDer::from_pem_slice(read(ClusterFolder::AUTHORITY)?.as_bytes()).ok();
    let pin = certificate.as_ref().and_then(pin_of);
    let pin = pin.ok_or_else(|| folder.unusable(ClusterFolder::AUTHORITY, "a certificate in PEM form"))?;
    Ok((address.trim().to_owned(), pin))
}

/// The cluster key in `folder`, which is made if there is none yet.
///
/// # Errors
/// [`FolderError`] if the file cannot be read, made or used.
pub fn ensure_cluster_key(folder: &ClusterFolder) -> Result<ClusterKey, FolderError> {
    folder.make()?;
    let make = || {
        let key = ClusterKey::generate();
        let path = folder.path(ClusterFolder::CLUSTER_KEY);
        key.map(|key| key.to_hex()).map_err(|cause| FolderError::Io { doing: "make a key for", path, cause })
    };
    let text = folder.read_or_make(ClusterFolder::CLUSTER_KEY, make)?;
    text.parse().map_err(|_| folder.unusable(ClusterFolder::CLUSTER_KEY, "a cluster key of 64 hex digits"))
}

/// The parts that all certificates have.
fn params(name: &str) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "baton");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = now - Duration::days(BACKDATED_DAYS);
    params.not_after = now + Duration::days(VALID_DAYS);
    params.serial_number = Some(SerialNumber::from(rand::rng().random::<[u8; 16]>().to_vec()));
    params
}

fn authority_params(cluster: &ClusterName) -> CertificateParams {
    let mut params = params(&format!("authority of {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

/// An address as it stands in a certificate and in an endpoint.
pub(super) fn host_text(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => host.to_owned(),
    }
}

// === impl MachineKey ===

impl MachineKey {
    /// Reads a public key in hex.
    pub(super) fn from_hex(text: &str) -> Option<Self> {
        let bytes = text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        let bytes: Vec<u8> = bytes.collect::<Option<_>>()?;
        (bytes.len() == PUBLIC_KEY_BYTES && bytes[0] == 4).then_some(Self(bytes))
    }

    /// The public key of a pair, in hex.
    pub(super) fn to_hex(key: &KeyPair) -> String {
        hex(key.public_key_raw())
    }
}

impl PublicKeyData for MachineKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_authority_is_made_once_and_its_files_are_the_user_s_alone() {
        let state = tempfile::tempdir().unwrap();
        let cluster = "home".parse().unwrap();
        let folder = ClusterFolder::new(state.path(), &cluster);
        let first = Authority::ensure(&folder, &cluster).unwrap();
        first.ensure_client(&folder).unwrap();
        let key = ensure_cluster_key(&folder).unwrap();
        let again = Authority::ensure(&folder, &cluster).unwrap();
        assert_eq!((first.pin(), &first.certificate), (again.pin(), &again.certificate));
        assert_eq!(ensure_cluster_key(&folder).unwrap(), key);
        for entry in std::fs::read_dir(folder.path("")).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600);
        }
        std::fs::write(folder.path(ClusterFolder::CLUSTER_KEY), "no key").unwrap();
        assert!(ensure_cluster_key(&folder).unwrap_err().to_string().contains("expected a cluster key"));
    }

    #[test]
    fn only_a_public_key_of_the_right_form_is_taken() {
        let key = KeyPair::generate().unwrap();
        let text = MachineKey::to_hex(&key);
        assert_eq!(MachineKey::from_hex(&text).unwrap().der_bytes(), key.public_key_raw());
        for text in ["", "04", "zz", &text[2..], &format!("05{}", &text[2..]), "é"] {
            assert!(MachineKey::from_hex(text).is_none(), "{text}");
        }
    }
}
