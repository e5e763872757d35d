//! The fleet's own authority: made by itself at the first start, known by the SHA-256 of its certificate.
//!
//! ECDSA on P-256 throughout. A certificate of the controller serves servers alone and one of a host clients alone (RFC
//! 5280, 4.2.1.12), so that no host can pass for the controller.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber,
    SignatureAlgorithm,
};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use squall_experiments::fleet::{CONTROLLER, hex};

/// The file in the data directory: key and certificate together, so that neither is ever there alone.
const FILE: &str = "authority.pem";
/// What its certificates call it.
const NAME: &str = "Squall fleet";
/// How long the authority's own certificate is good for, and one of the controller, which is made anew at each start.
const TEN_YEARS: Duration = Duration::from_secs(3650 * 86_400);
/// How far a host's clock may be behind.
const SKEW: Duration = Duration::from_secs(86_400);

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The file cannot be read or written.
    #[error("`{}` cannot be used: {cause}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Others may read the key.
    #[error("`{}` holds the fleet's key, and others may read it", .0.display())]
    Open(PathBuf),
    /// It holds something else.
    #[error("`{}` holds no key and certificate of an authority", .0.display())]
    Strange(PathBuf),
    /// A certificate cannot be made.
    #[error("a certificate cannot be made: {0}")]
    Made(#[from] rcgen::Error),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// The key and the certificate. `Debug` shows the fingerprint.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("fingerprint", &hex(&self.fingerprint())).finish_non_exhaustive()
    }
}

/// A certificate that was issued to a host.
#[derive(Clone, Debug)]
pub struct Issued {
    /// PEM.
    pub certificate: String,
    /// Its serial number, in hexadecimal digits.
    pub serial: String,
}

/// A public key of another's: the uncompressed point.
struct Point<'a>(&'a [u8]);

impl PublicKeyData for Point<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// The serial number of a certificate: of chance, so that no two controllers need to agree.
pub(super) struct Serial([u8; 16]);

impl Serial {
    pub(super) fn new() -> Self {
        Serial(std::array::from_fn(|at| if at == 0 { 1 } else { rand::random() }))
    }

    /// In hexadecimal digits.
    pub(super) fn digits(&self) -> String {
        hex(&self.0)
    }
}

impl Authority {
    /// Opens that of a data directory, and makes both where they are not there.
    pub fn open(directory: &Path) -> Result<Self, AuthorityError> {
        let path = directory.join(FILE);
        let file = |cause| AuthorityError::File { path: path.clone(), cause };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(file)?;
        match fs::metadata(&path) {
            Ok(found) if found.mode() & 0o077 != 0 => return Err(AuthorityError::Open(path)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(directory, &path, &made()?).map_err(file)?;
            }
            Err(error) => return Err(file(error)),
        }
        // Of two who began at once, one was the first.
        let text = fs::read_to_string(&path).map_err(file)?;
        let strange = || AuthorityError::Strange(path.clone());
        let certificate = CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| strange())?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| strange())?;
        let key = KeyPair::try_from(&key).map_err(|_| strange())?;
        let at = text.find("-----BEGIN CERTIFICATE").ok_or_else(strange)?;
        Ok(Authority { issuer: Issuer::new(of_authority()?, key), certificate, pem: text[at..].to_owned() })
    }

    /// The SHA-256 of its certificate, by which a join token knows it.
    pub fn fingerprint(&self) -> [u8; 32] {
        sha256(&self.certificate)
    }

    /// Its certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Issues a certificate by which a host is known by this name for so long. The key is the uncompressed point, of which
    /// the host must have [proved](super::join) that it has the private half.
    pub fn issue(&self, host: &str, key: &[u8], lasts: Duration) -> Result<Issued, AuthorityError> {
        let serial = Serial::new();
        Ok(Issued { certificate: self.sign(host, key, lasts, &serial)?, serial: serial.digits() })
    }

    /// The same with a serial number that was [kept](super::Registry) before: nothing is signed for whom nobody knows.
    pub(super) fn sign(
        &self,
        host: &str,
        key: &[u8],
        lasts: Duration,
        serial: &Serial,
    ) -> Result<String, AuthorityError> {
        let mut of_host = parameters(host, lasts);
        of_host.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        of_host.serial_number = Some(SerialNumber::from_slice(&serial.0));
        Ok(of_host.signed_by(&Point(key), &self.issuer)?.pem())
    }

    /// How the controller shows itself to agents, and whom it lets in: hosts with a certificate of this authority, and
    /// those that have none yet, which may only join. Sessions are not resumed: each connection shows its certificate.
    pub fn for_agents(&self) -> Result<Arc<ServerConfig>, AuthorityError> {
        let tls = |error: &dyn std::fmt::Display| AuthorityError::Tls(error.to_string());
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).map_err(|error| tls(&error))?;
        let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
        let hosts = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let hosts = hosts.allow_unauthenticated().build().map_err(|error| tls(&error))?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let own = self.of_server(&[], &key)?;
        let chain = vec![own.der().clone(), self.certificate.clone()];
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder =
            builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(|error| tls(&error))?;
        let builder = builder.with_client_cert_verifier(hosts).with_single_cert(chain, key);
        let mut configuration = builder.map_err(|error| tls(&error))?;
        configuration.session_storage = Arc::new(NoServerSessionStorage {});
        configuration.send_tls13_tickets = 0;
        Ok(Arc::new(configuration))
    }

    /// How the controller shows itself to people who call it by these names and addresses: they show tokens, no
    /// certificates.
    pub fn for_people(&self, names: &[String]) -> Result<Arc<ServerConfig>, AuthorityError> {
        let tls = |error: &dyn std::fmt::Display| AuthorityError::Tls(error.to_string());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let own = self.of_server(names, &key)?;
        let chain = vec![own.der().clone(), self.certificate.clone()];
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| tls(&error))?;
        let configuration = builder.with_no_client_auth().with_single_cert(chain, key);
        Ok(Arc::new(configuration.map_err(|error| tls(&error))?))
    }

    /// Issues a certificate for the controller: for the name that agents ask for, and for these names and addresses.
    pub fn of_server(&self, names: &[String], key: &KeyPair) -> Result<Certificate, AuthorityError> {
        let mut of_server = parameters(CONTROLLER, TEN_YEARS);
        let mut all = vec![CONTROLLER.to_owned()];
        all.extend_from_slice(names);
        of_server.subject_alt_names = CertificateParams::new(all)?.subject_alt_names;
        of_server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Ok(of_server.signed_by(key, &self.issuer)?)
    }
}

/// The SHA-256 of bytes, by the implementation that TLS uses.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let suite = ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let hash = suite.tls13().map(|suite| suite.common.hash_provider.hash(bytes));
    let mut digest = [0; 32];
    if let Some(hash) = hash {
        digest.copy_from_slice(hash.as_ref());
    }
    digest
}

fn parameters(name: &str, lasts: Duration) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let start = rcgen::date_time_ymd(1970, 1, 1);
    parameters.not_before = start + now.saturating_sub(SKEW);
    parameters.not_after = start + now.saturating_add(lasts);
    parameters
}

fn of_authority() -> Result<CertificateParams, AuthorityError> {
    let mut parameters = parameters(NAME, TEN_YEARS);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    Ok(parameters)
}

/// Key and certificate of a new authority, PEM.
fn made() -> Result<String, AuthorityError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = of_authority()?.self_signed(&key)?;
    Ok(key.serialize_pem() + &certificate.pem())
}

/// Writes a file for its owner alone, whole or not at all. One that is there meanwhile stays.
fn create(directory: &Path, path: &Path, text: &str) -> io::Result<()> {
    let draft = directory.join(format!(".{FILE}.{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => File::open(directory)?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_is_made_once_for_its_owner_alone_and_stays_the_same() {
        let directory = std::env::temp_dir().join(format!("squall-authority-{}", std::process::id()));
        let first = Authority::open(&directory).unwrap();
        let file = directory.join(FILE);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        let again = Authority::open(&directory).unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());
        assert!(again.pem().starts_with("-----BEGIN CERTIFICATE"), "no key in {}", again.pem());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Authority::open(&directory), Err(AuthorityError::Open(_))));
        fs::write(&file, "nothing").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(Authority::open(&directory), Err(AuthorityError::Strange(_))));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn the_digest_is_sha_256() {
        // FIPS 180-2, appendix B.1.
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(&sha256(b"abc")), known);
    }
}
