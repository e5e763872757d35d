//! TLS probes: a handshake, and how long the server's certificate is still good for.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use squall_experiments::probe::compare::Found;
use squall_experiments::probe::{Comparison, Expect, TlsProbe};
use squall_experiments::quantity::Period;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::expect::{Seen, in_time};
use super::looks::shorter;
use super::stream::Secured;
use super::tcp::{self, Address, Stage, limited, words};
use super::value::Objection;

/// A TLS probe, ready to be sampled.
pub(super) struct CertificateLook {
    address: Address,
    tls: Secured,
    timeout: Duration,
    days_left: Option<Comparison>,
    within: Option<Period>,
}

impl CertificateLook {
    /// Understands the address and loads who is trusted; an error says why not.
    pub(super) fn new(probe: &TlsProbe, expect: &Expect) -> Result<Self, String> {
        let address = Address::new(&probe.address)?;
        let name = probe.server_name.as_ref().unwrap_or(&address.host);
        Ok(CertificateLook {
            tls: Secured::new(name, probe.tls.as_ref())?,
            address,
            timeout: probe.timeout.get(),
            days_left: expect.days_left.clone(),
            within: expect.within,
        })
    }

    /// Connects and shakes hands, as a client would that trusts the same.
    pub(super) async fn look(&self, left: Option<Duration>) -> Seen {
        let begun = Instant::now();
        let stage = Stage::new(tcp::RESOLVING);
        match limited(shorter(self.timeout, left), &stage, self.first_certificate(&stage)).await {
            Err(failure) => Seen::bad(failure),
            Ok(certificate) => self.judge(&certificate, begun.elapsed()),
        }
    }

    async fn first_certificate(&self, stage: &Stage) -> Result<Vec<u8>, String> {
        let stream = self.address.connect(stage).await?;
        stage.set("in the TLS handshake");
        let stream = self.tls.handshake(stream).await.map_err(|error| format!("TLS: {}", words(&error)))?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        certificates.first().map(|first| first.to_vec()).ok_or_else(|| "TLS: no certificate".to_owned())
    }

    fn judge(&self, certificate: &[u8], took: Duration) -> Seen {
        let Some(days) = days_left(certificate) else {
            return Seen::bad("the certificate cannot be read");
        };
        let expected = self.days_left.as_ref();
        let compared = expected.map(|expected| expected.judge(&Found::Typed(Value::from(days))));
        match compared.and_then(|compared| Objection::of(compared, "days left: ")) {
            Some(objection) => objection.into(),
            None => in_time(format_args!("{days} days left"), took, self.within),
        }
    }
}

/// Whole days until a certificate (DER) expires, negative ones since it did.
fn days_left(certificate: &[u8]) -> Option<i64> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let end = certificate.tbs_certificate.validity.not_after.to_unix_duration().as_secs();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some((i64::try_from(end).ok()? - i64::try_from(now).ok()?).div_euclid(86_400))
}
