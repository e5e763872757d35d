//! Certificates that an outage is given: that they are what they are said to be is looked at before anything is done.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use squall_experiments::ailment::{Ailment, Handshake, Material};
use squall_experiments::change::Redirect;
use squall_experiments::peer::PeerHost;
use squall_experiments::protocol::Refusal;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::proxy::tls::{self, Authority};

fn refused(what: impl Into<String>, help: &str) -> Refusal {
    Refusal::new(what, help)
}

/// Whether the material of a redirect can be used for what it is meant for. Reads nothing but it.
pub(super) fn check(redirect: &Redirect) -> Result<(), Refusal> {
    let Some(material) = &redirect.tls else { return Ok(()) };
    if material.authority {
        return check_authority(material);
    }
    let usable = tls::server(&material.cert, &material.key);
    usable.map_err(|error| {
        refused(error.to_string(), "`tls` holds a certificate and its own key, both as PEM")
    })?;
    let host = redirect.flow.to.first().map(|peer| &peer.host);
    let name = match host {
        Some(PeerHost::Name(name)) => name.to_string(),
        Some(PeerHost::Net(address, _)) => address.to_string(),
        _ => return Ok(()),
    };
    let expired = has_expired(material)?;
    let named = is_for(material, &name)?;
    let is_address = name.parse::<IpAddr>().is_ok();
    match redirect.ailment {
        Ailment::Handshake(Handshake::Expired) if !expired => Err(refused(
            "the certificate that is to be shown has not expired",
            "give one that has: `certificate: expired` shows it as it is",
        )),
        Ailment::Handshake(Handshake::WrongName) if named => Err(refused(
            format!("the certificate that is to be shown is one of `{name}`"),
            "give one of another name: `certificate: wrong-name` shows it as it is",
        )),
        Ailment::Handshake(_) => Ok(()),
        _ if expired => Err(refused(
            "the certificate in `tls` has expired: callers would not speak to the proxy",
            "give one that is valid",
        )),
        // Who calls an address may still ask for a name.
        _ if !named && !is_address => Err(refused(
            format!("the certificate in `tls` is not one of `{name}`: callers would not speak to the proxy"),
            "give one of the dependency's name",
        )),
        _ => Ok(()),
    }
}

/// Names and times are the proxy's choice, so that only the authority itself has to be one.
fn check_authority(material: &Material) -> Result<(), Refusal> {
    let usable = Authority::new(&material.cert, &material.key);
    let authority = usable.map_err(|error| {
        refused(
            error.to_string(),
            "with `authority: true`, `tls` holds the certificate of an authority and its key, both as PEM",
        )
    })?;
    if authority.expires() < now() {
        return Err(refused(
            "the authority's certificate has expired: callers would trust nothing that it issues",
            "give one that is valid",
        ));
    }
    Ok(())
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn first(material: &Material) -> Result<CertificateDer<'static>, Refusal> {
    CertificateDer::from_pem_slice(material.cert.as_bytes())
        .map_err(|error| refused(format!("the certificate cannot be read: {error}"), "PEM is expected"))
}

fn has_expired(material: &Material) -> Result<bool, Refusal> {
    let certificate = Certificate::from_der(&first(material)?)
        .map_err(|error| refused(format!("the certificate cannot be read: {error}"), "X.509 is expected"))?;
    Ok(certificate.tbs_certificate.validity.not_after.to_unix_duration() < now())
}

fn is_for(material: &Material, name: &str) -> Result<bool, Refusal> {
    let der = first(material)?;
    let certificate = ParsedCertificate::try_from(&der)
        .map_err(|error| refused(format!("the certificate cannot be read: {error}"), "X.509 is expected"))?;
    let name = ServerName::try_from(name.to_owned());
    Ok(name.is_ok_and(|name| rustls::client::verify_server_name(&certificate, &name).is_ok()))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use squall_experiments::ailment::Requests;
    use squall_experiments::flow::Flow;
    use squall_experiments::quantity::Percent;

    use super::*;

    fn material(name: &str, expired: bool) -> Material {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        if expired {
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let cert = params.self_signed(&key).unwrap().pem();
        Material { cert, key: key.serialize_pem(), ca: None, authority: false }
    }

    #[test]
    fn material_is_what_it_is_said_to_be() {
        let errors = Ailment::Errors { status: 503, grpc: 14, body: String::new(), of: Requests::default() };
        let (expired, named) = (Handshake::Expired, Handshake::WrongName);
        let other = Material { key: material("shop", false).key, ..material("shop", false) };
        for (ailment, tls, said) in [
            (errors.clone(), material("shop", false), None),
            (errors.clone(), other, Some("the certificate or its key cannot be used")),
            (errors.clone(), material("shop", true), Some("the certificate in `tls` has expired")),
            (errors, material("elsewhere", false), Some("the certificate in `tls` is not one of `shop`")),
            (Ailment::Handshake(expired), material("shop", true), None),
            (
                Ailment::Handshake(expired),
                material("shop", false),
                Some("the certificate that is to be shown has not"),
            ),
            (Ailment::Handshake(named), material("elsewhere", false), None),
            (
                Ailment::Handshake(named),
                material("shop", false),
                Some("the certificate that is to be shown is one of"),
            ),
        ] {
            let flow = Flow { to: vec!["shop:443".parse().unwrap()], ..Flow::default() };
            let found =
                check(&Redirect { flow, ailment: ailment.clone(), share: Percent::ALL, tls: Some(tls) });
            match said {
                None => assert_eq!(found, Ok(()), "{ailment}"),
                Some(said) => {
                    assert!(found.clone().unwrap_err().what.starts_with(said), "{ailment}: {found:?}")
                }
            }
        }
    }
}
