//! An authority whose key is given: it issues certificates for whatever name a client asks for.
//!
//! A certificate is built from the authority's own one, so that issuer and key identifier are the same bytes (RFC 5280
//! sections 4.1.2.4 and 4.2.1.1), and signed by the key as TLS would sign with it.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{KeyPair, PublicKeyData};
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::certificate::{Certificate, TbsCertificate, Version};
use x509_cert::der::asn1::{BitString, Ia5String, OctetString, SetOfVec, UtcTime};
use x509_cert::der::oid::{AssociatedOid, ObjectIdentifier};
use x509_cert::der::{Any, Decode, Encode, Tag};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, SubjectAltName, SubjectKeyIdentifier,
};
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};

use super::tls::BadTls;

/// How an authority signs: TLS's name of it, X.509's (RFC 4055, 5758, 8410), and whether that has a `NULL` behind it.
const SIGNATURES: [(SignatureScheme, ObjectIdentifier, bool); 5] = [
    (SignatureScheme::ECDSA_NISTP256_SHA256, ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"), false),
    (SignatureScheme::ECDSA_NISTP384_SHA384, ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3"), false),
    (SignatureScheme::ECDSA_NISTP521_SHA512, ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4"), false),
    (SignatureScheme::ED25519, ObjectIdentifier::new_unwrap("1.3.101.112"), false),
    (SignatureScheme::RSA_PKCS1_SHA256, ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11"), true),
];
/// `id-kp-serverAuth` and `id-at-commonName`.
const SERVER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// The longest common name (RFC 5280 appendix A.1).
const LONGEST: usize = 64;
const DAY: Duration = Duration::from_secs(86_400);
/// Clocks differ: it is valid since yesterday, and for longer than any fault lasts.
const VALID: Duration = Duration::from_secs(7 * 86_400);
/// So many certificates are kept; a client that asks for ever other names has them made anew.
const KEPT: usize = 256;

/// Of whom the certificates are that an authority issues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Issue {
    /// Who asks for no name is shown one of this.
    pub name: String,
    /// Whatever is asked for, they are of this one; empty is none.
    pub instead: String,
    /// They were valid until yesterday.
    pub expired: bool,
}

/// A certificate of an authority, and its key.
pub struct Authority {
    certificate: Certificate,
    chain: Vec<CertificateDer<'static>>,
    signer: Arc<dyn SigningKey>,
    /// Of all that it issues.
    key: KeyPair,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.certificate.tbs_certificate.subject.to_string();
        f.debug_struct("Authority").field("subject", &subject).finish_non_exhaustive()
    }
}

fn bad(why: impl fmt::Display) -> BadTls {
    BadTls::Certificate(why.to_string())
}

impl From<x509_cert::der::Error> for BadTls {
    fn from(error: x509_cert::der::Error) -> Self {
        bad(error)
    }
}

impl Authority {
    /// Reads a certificate, with those behind it that lead to one that clients trust, and its key, both as PEM.
    ///
    /// # Errors
    /// It is not one of an authority, the key is another's, or of a kind that cannot sign.
    pub fn new(cert: &str, key: &str) -> Result<Self, BadTls> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert.as_bytes()).collect();
        let chain = chain.map_err(bad)?;
        let first = chain.first().ok_or_else(|| bad("`cert` holds no certificate (PEM is expected)"))?;
        let certificate = Certificate::from_der(first).map_err(bad)?;
        let constraints = certificate.tbs_certificate.get::<BasicConstraints>().map_err(bad)?;
        if !constraints.is_some_and(|(_, constraints)| constraints.ca) {
            return Err(bad("it is not the certificate of an authority (`CA:TRUE`)"));
        }
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(bad)?;
        let signer = any_supported_type(&key).map_err(bad)?;
        CertifiedKey::new(chain.clone(), signer.clone()).keys_match().map_err(bad)?;
        let key = KeyPair::generate().map_err(bad)?;
        Ok(Authority { certificate, chain, signer, key })
    }

    /// Until when its own certificate is valid, since 1970.
    pub fn expires(&self) -> Duration {
        self.certificate.tbs_certificate.validity.not_after.to_unix_duration()
    }

    /// A certificate for a name or an address, with its key, as TLS wants it.
    fn issue(&self, name: &str, expired: bool) -> Result<Arc<CertifiedKey>, BadTls> {
        let mut chain = vec![CertificateDer::from(self.build(name, expired)?)];
        chain.extend(self.chain.iter().cloned());
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).map_err(bad)?;
        Ok(Arc::new(CertifiedKey::new(chain, any_supported_type(&key).map_err(bad)?)))
    }

    fn build(&self, name: &str, expired: bool) -> Result<Vec<u8>, BadTls> {
        let mut each = SIGNATURES.iter();
        let found = each.find_map(|(scheme, oid, null)| {
            let signature = AlgorithmIdentifierOwned { oid: *oid, parameters: null.then(Any::null) };
            Some((self.signer.choose_scheme(&[*scheme])?, signature))
        });
        let (signer, signature) =
            found.ok_or_else(|| bad("the authority's key is of a kind that cannot sign certificates"))?;
        let own = &self.certificate.tbs_certificate;
        let certificate = TbsCertificate {
            version: Version::V3,
            serial_number: SerialNumber::new(&serial())?,
            signature: signature.clone(),
            issuer: own.subject.clone(),
            validity: validity(expired)?,
            subject: subject(name)?,
            subject_public_key_info: SubjectPublicKeyInfoOwned::from_der(
                &self.key.subject_public_key_info(),
            )?,
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(self.extensions(name)?),
        };
        let signed = signer.sign(&certificate.to_der()?).map_err(bad)?;
        let certificate = Certificate {
            tbs_certificate: certificate,
            signature_algorithm: signature,
            signature: BitString::from_bytes(&signed)?,
        };
        Ok(certificate.to_der()?)
    }

    fn extensions(&self, name: &str) -> Result<Vec<Extension>, BadTls> {
        let named = match name.parse::<IpAddr>() {
            Ok(IpAddr::V4(v4)) => GeneralName::IpAddress(OctetString::new(v4.octets())?),
            Ok(IpAddr::V6(v6)) => GeneralName::IpAddress(OctetString::new(v6.octets())?),
            Err(_) => GeneralName::DnsName(Ia5String::new(name)?),
        };
        let mut extensions = vec![
            extension(&SubjectAltName(vec![named]), false)?,
            extension(&BasicConstraints { ca: false, path_len_constraint: None }, true)?,
            extension(&ExtendedKeyUsage(vec![SERVER]), false)?,
        ];
        if let Some((_, SubjectKeyIdentifier(of))) = self.certificate.tbs_certificate.get()? {
            let issuer =
                AuthorityKeyIdentifier { key_identifier: Some(of), ..AuthorityKeyIdentifier::default() };
            extensions.push(extension(&issuer, false)?);
        }
        Ok(extensions)
    }
}

fn extension<E: AssociatedOid + Encode>(of: &E, critical: bool) -> x509_cert::der::Result<Extension> {
    Ok(Extension { extn_id: E::OID, critical, extn_value: OctetString::new(of.to_der()?)? })
}

/// Positive, and of a length that everybody takes (RFC 5280 section 4.1.2.2).
fn serial() -> [u8; 16] {
    let mut serial: [u8; 16] = rand::random();
    serial[0] = serial[0] & 0x7f | 0x40;
    serial
}

fn validity(expired: bool) -> x509_cert::der::Result<Validity> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (begins, ends) = if expired {
        (now.saturating_sub(VALID), now.saturating_sub(DAY))
    } else {
        (now.saturating_sub(DAY), now + VALID)
    };
    let time = |at| UtcTime::from_unix_duration(at).map(Time::from);
    Ok(Validity { not_before: time(begins)?, not_after: time(ends)? })
}

/// For people only: clients look at the alternative name (RFC 9525 section 6.1).
fn subject(name: &str) -> x509_cert::der::Result<Name> {
    if name.len() > LONGEST {
        return Ok(RdnSequence::default());
    }
    let value = Any::new(Tag::Utf8String, name.as_bytes())?;
    let named = SetOfVec::try_from(vec![AttributeTypeAndValue { oid: COMMON_NAME, value }])?;
    Ok(RdnSequence(vec![RelativeDistinguishedName(named)]))
}

/// Shows whoever asks for a name a certificate of it.
#[derive(Debug)]
pub(super) struct Issuing {
    authority: Authority,
    issue: Issue,
    issued: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl Issuing {
    /// Such certificates of an authority.
    pub(super) fn new(authority: Authority, issue: Issue) -> Self {
        Issuing { authority, issue, issued: Mutex::default() }
    }
}

impl ResolvesServerCert for Issuing {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name().unwrap_or(&self.issue.name);
        let name = if self.issue.instead.is_empty() { asked } else { &self.issue.instead };
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = issued.get(name) {
            return Some(found.clone());
        }
        let made = self.authority.issue(name, self.issue.expired);
        let made = made.inspect_err(|error| tracing::warn!("no certificate for `{name}`: {error}")).ok()?;
        if issued.len() >= KEPT {
            issued.clear();
        }
        issued.insert(name.to_owned(), made.clone());
        Some(made)
    }
}
