//! TLS between members: with a shared port, whose certificate has the store's name, and with other members, of which
//! each is as good as any other, since the authority made the certificates of all and every chunk is checked.

use std::sync::Arc;

use engine::store::{EtcdAccess, EtcdTls};
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme, SupportedProtocolVersion,
    version,
};

use super::error::LayersError;
use super::protocol::LAYERS_PROTOCOL;

const VERSIONS: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// This machine's certificate, and the authority that made it.
pub(super) struct MemberTls {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// The name in the certificate of a shared port.
    pub(super) name: ServerName<'static>,
}

/// Takes the certificate of any member for a server's. Members' are made for clients, and name no address.
#[derive(Debug)]
struct AnyMember(Arc<dyn ClientCertVerifier>);

// === impl MemberTls ===

impl MemberTls {
    /// Those of `access`. `None` if it has none.
    ///
    /// # Errors
    /// [`LayersError::Certificates`] if they cannot be used.
    pub(super) fn new(access: &EtcdAccess) -> Result<Option<Self>, LayersError> {
        let EtcdTls { authority: Some(authority), identity: Some((certificate, key)), server_name: Some(name) } =
            &access.tls
        else {
            return Ok(None);
        };
        let unusable = |what: &str| LayersError::Certificates(what.to_owned());
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(authority.as_bytes());
        let authority = authority.map_err(|_| unusable("the authority is no certificate in PEM form"))?;
        roots.add(authority).map_err(|error| unusable(&error.to_string()))?;
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|_| unusable("its own is no certificate in PEM form"))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
        let key = key.map_err(|_| unusable("its own key is not one in PEM form"))?;
        let name = ServerName::try_from(name.clone()).map_err(|error| unusable(&error.to_string()))?;
        let provider = Arc::new(ring::default_provider());
        Ok(Some(Self { provider, roots: Arc::new(roots), chain, key, name }))
    }

    /// The side that asks a shared port.
    pub(super) fn for_shared_ports(&self) -> Result<Arc<ClientConfig>, LayersError> {
        let config = ClientConfig::builder_with_provider(self.provider.clone()).with_protocol_versions(VERSIONS);
        let config = config.map(|config| config.with_root_certificates(self.roots.clone()));
        let config = config.and_then(|config| config.with_client_auth_cert(self.chain.clone(), self.key.clone_key()));
        finished(config)
    }

    /// The side that asks another member.
    pub(super) fn for_members(&self) -> Result<Arc<ClientConfig>, LayersError> {
        let members = Arc::new(AnyMember(self.members()?));
        let config = ClientConfig::builder_with_provider(self.provider.clone()).with_protocol_versions(VERSIONS);
        let config = config.map(|config| config.dangerous().with_custom_certificate_verifier(members));
        let config = config.and_then(|config| config.with_client_auth_cert(self.chain.clone(), self.key.clone_key()));
        finished(config)
    }

    /// The side that answers members, and nobody else.
    pub(super) fn server(&self) -> Result<Arc<ServerConfig>, LayersError> {
        let members = self.members()?;
        let config = ServerConfig::builder_with_provider(self.provider.clone()).with_protocol_versions(VERSIONS);
        let config = config.map(|config| config.with_client_cert_verifier(members));
        let config = config.and_then(|config| config.with_single_cert(self.chain.clone(), self.key.clone_key()));
        let mut config = config.map_err(|error| LayersError::Certificates(error.to_string()))?;
        config.alpn_protocols = vec![LAYERS_PROTOCOL.to_vec()];
        Ok(Arc::new(config))
    }

    fn members(&self) -> Result<Arc<dyn ClientCertVerifier>, LayersError> {
        let members = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), self.provider.clone());
        members.build().map_err(|error| LayersError::Certificates(error.to_string()))
    }
}

fn finished(config: Result<ClientConfig, Error>) -> Result<Arc<ClientConfig>, LayersError> {
    let mut config = config.map_err(|error| LayersError::Certificates(error.to_string()))?;
    config.alpn_protocols = vec![LAYERS_PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}

// === impl AnyMember ===

impl ServerCertVerifier for AnyMember {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0.verify_client_cert(end_entity, intermediates, now).map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
