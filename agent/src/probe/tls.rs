//! Whom an `https` probe trusts.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use squall_experiments::probe::Tls;

/// The configuration for a probe. The system's certificates are read once, by the first probe that needs them.
///
/// An error says why nobody can be trusted: no certificates, or a file that cannot be read.
pub(crate) fn configuration(tls: Option<&Tls>) -> Result<Arc<ClientConfig>, String> {
    static SYSTEM: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    match tls {
        Some(Tls { insecure: true, .. }) => everybody(),
        Some(Tls { ca: Some(path), .. }) => trusting(from_file(path)?),
        _ => SYSTEM.get_or_init(|| trusting(from_system()?)).clone(),
    }
}

fn from_file(path: &str) -> Result<RootCertStore, String> {
    let unusable = |why: String| format!("certificate file `{path}`: {why}");
    let pem = std::fs::read(path).map_err(|error| unusable(super::tcp::words(&error)))?;
    from_pem(&pem).map_err(unusable)
}

/// Who is trusted by certificates in PEM; an error says why nobody is.
pub(crate) fn from_pem(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("it holds no certificate (PEM is expected)".to_owned()) } else { Ok(roots) }
}

/// Certificates that cannot be used are passed over, as every client does; none at all is an error.
fn from_system() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if !roots.is_empty() {
        return Ok(roots);
    }
    let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
    Err(format!("this system has no trusted certificates{why}; install `ca-certificates` or set `tls.ca`"))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Trusts these alone.
pub(crate) fn trusting(roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let versions = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// Trusts any certificate.
pub(crate) fn everybody() -> Result<Arc<ClientConfig>, String> {
    let versions = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| error.to_string())?.dangerous();
    Ok(Arc::new(
        builder.with_custom_certificate_verifier(Arc::new(Credulous(provider()))).with_no_client_auth(),
    ))
}

/// Believes every certificate, as `tls.insecure` asks, but still checks that the server holds its key.
#[derive(Debug)]
struct Credulous(Arc<CryptoProvider>);

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
