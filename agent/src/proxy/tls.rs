//! TLS at the proxy: towards clients with a certificate that they trust, and towards the dependency.

use std::fmt;
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig};

use super::authority::Issuing;
pub use super::authority::{Authority, Issue};
use crate::probe::tls as trust;

/// Material that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadTls {
    /// No certificate, no key, or not of each other.
    #[error("the certificate or its key cannot be used: {0}")]
    Certificate(String),
    /// Nobody can be trusted by it, or it names nobody.
    #[error("the dependency's TLS cannot be used: {0}")]
    Origin(String),
}

/// How TLS is spoken to the dependency, as it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedOrigin {
    /// The name that its certificate must carry; empty is the one the client asks for, or the host of the upstream.
    pub name: String,
    /// Who may have signed it (PEM); empty is whom the system trusts.
    pub ca: String,
    /// Any certificate will do.
    pub insecure: bool,
}

/// How TLS is spoken to the dependency.
pub struct Origin {
    /// The name that its certificate must carry.
    pub name: Option<ServerName<'static>>,
    config: Arc<ClientConfig>,
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Origin {
    /// Understands what is asked for.
    pub fn new(wanted: &WantedOrigin) -> Result<Self, BadTls> {
        let name = match wanted.name.as_str() {
            "" => None,
            name => Some(server_name(name).ok_or_else(|| {
                BadTls::Origin(format!("`{name}` is not a name that a certificate can carry"))
            })?),
        };
        let config = if wanted.insecure {
            trust::everybody()
        } else if wanted.ca.is_empty() {
            trust::configuration(None)
        } else {
            trust::from_pem(wanted.ca.as_bytes()).and_then(trust::trusting)
        };
        Ok(Origin { name, config: config.map_err(BadTls::Origin)? })
    }

    /// For one connection, on which one of these protocols is to be spoken.
    pub fn config(&self, protocols: Vec<Vec<u8>>) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = protocols;
        Arc::new(config)
    }
}

/// A name or an address that a certificate can carry.
pub fn server_name(name: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(name.trim_start_matches('[').trim_end_matches(']').to_owned()).ok()
}

/// Towards clients, with a certificate (chain) and its key, both PEM.
pub fn server(cert: &str, key: &str) -> Result<Arc<ServerConfig>, BadTls> {
    let bad = |why: &dyn fmt::Display| BadTls::Certificate(why.to_string());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert.as_bytes()).collect();
    let chain = chain.map_err(|error| bad(&error))?;
    if chain.is_empty() {
        return Err(bad(&"`cert` holds no certificate (PEM is expected)"));
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| bad(&error))?;
    let config = builder()?.with_no_client_auth().with_single_cert(chain, key);
    Ok(Arc::new(config.map_err(|error| bad(&error))?))
}

/// Towards clients, with certificates that an authority (PEM) issues for whom they ask for.
pub fn issuing(cert: &str, key: &str, issue: Issue) -> Result<Arc<ServerConfig>, BadTls> {
    let issuing = Issuing::new(Authority::new(cert, key)?, issue);
    Ok(Arc::new(builder()?.with_no_client_auth().with_cert_resolver(Arc::new(issuing))))
}

/// The host of `host:port`, as a certificate names it.
pub fn host(upstream: &str) -> &str {
    let host = upstream.rsplit_once(':').map_or(upstream, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Towards clients, with a certificate for a name, which nobody trusts: it is made now.
pub fn untrusted(name: &str) -> Result<Arc<ServerConfig>, BadTls> {
    let bad = |error: rcgen::Error| BadTls::Certificate(error.to_string());
    let mut wanted = CertificateParams::new([name.to_owned()]).map_err(bad)?;
    wanted.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().map_err(bad)?;
    let certificate = wanted.self_signed(&key).map_err(bad)?;
    server(&certificate.pem(), &key.serialize_pem())
}

/// Towards clients that are to see their handshake fail.
pub fn refusing() -> Result<Arc<ServerConfig>, BadTls> {
    Ok(Arc::new(builder()?.with_no_client_auth().with_cert_resolver(Arc::new(Nobody))))
}

fn builder() -> Result<rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>, BadTls> {
    let provider = Arc::new(ring::default_provider());
    let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    versions.map_err(|error| BadTls::Certificate(error.to_string()))
}

/// Has no certificate for anybody: the handshake ends with an alert.
#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}
