//! How the proxy does what a task says: which of its proxies it makes, with which toxic.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};
use squall_experiments::ailment::{Ailment, Handshake, Requests};

use super::order::Task;
use crate::proxy::control::{Wanted, WantedTls, WantedToxic};
use crate::proxy::tls::WantedOrigin;

/// A name that nobody has (RFC 2606 section 2).
const NOBODY: &str = "wrong-name.invalid";

/// A proxy for one address of a dependency.
pub(super) fn wanted(upstream: SocketAddr, task: &Task) -> Wanted {
    let inside = task.tls.as_ref().filter(|_| task.ailment.is_of_requests());
    Wanted {
        name: upstream.to_string(),
        upstream: upstream.to_string(),
        protocol: if task.ailment.is_of_requests() { "http" } else { "tcp" }.to_owned(),
        handshakes: matches!(task.ailment, Ailment::Handshake(_)),
        tls: inside.map(|tls| WantedTls {
            cert: tls.cert.clone(),
            key: tls.key.clone(),
            authority: tls.authority,
        }),
        upstream_tls: inside
            .map(|tls| WantedOrigin { ca: tls.ca.clone().unwrap_or_default(), ..WantedOrigin::default() }),
        toxics: vec![toxic(upstream, task)],
        ..Wanted::default()
    }
}

/// The toxic that does it, to what the dependency answers.
fn toxic(upstream: SocketAddr, task: &Task) -> WantedToxic {
    let (kind, attributes) = match &task.ailment {
        Ailment::Reset { after } => ("reset_data", json!({ "bytes": after.bytes() })),
        Ailment::Hang { after } => ("hang_data", json!({ "bytes": after.bytes() })),
        Ailment::Close { after } => ("limit_data", json!({ "bytes": after.bytes() })),
        Ailment::Slow { rate } => ("bandwidth", json!({ "rate": rate.bytes() / 1000 })),
        Ailment::Late { delay, jitter } => {
            let ms = |period: &squall_experiments::quantity::Period| {
                u64::try_from(period.get().as_millis()).unwrap_or(u64::MAX)
            };
            ("latency", json!({ "latency": ms(delay), "jitter": ms(jitter) }))
        }
        Ailment::Errors { status, grpc, body, .. } => {
            ("http_status", json!({ "status": status, "grpc": grpc, "body": body }))
        }
        Ailment::Truncate { after, .. } => ("http_body", json!({ "truncate": after.bytes() })),
        // Questions do not come to a proxy for connections.
        Ailment::Lookup { .. } => ("noop", json!({})),
        Ailment::Handshake(Handshake::Refused) => ("tls_refuse", json!({})),
        Ailment::Handshake(Handshake::Untrusted) => {
            ("tls_untrusted", json!({ "name": upstream.ip().to_string() }))
        }
        Ailment::Handshake(Handshake::Expired | Handshake::WrongName) => {
            let (cert, key) = task.tls.as_ref().map_or(("", ""), |tls| (&tls.cert, &tls.key));
            if task.tls.as_ref().is_some_and(|tls| tls.authority) {
                let expired = task.ailment == Ailment::Handshake(Handshake::Expired);
                let name = if expired { "" } else { NOBODY };
                (
                    "tls_issued",
                    json!({ "cert": cert, "key": key, "name": name, "expired": u8::from(expired) }),
                )
            } else {
                ("tls_certificate", json!({ "cert": cert, "key": key }))
            }
        }
    };
    let attributes = match attributes {
        Value::Object(attributes) => attributes,
        _ => Map::new(),
    };
    let concerns = match &task.ailment {
        Ailment::Errors { of, .. } | Ailment::Truncate { of, .. } => matcher(of),
        _ => Value::Null,
    };
    let toxicity = Some(task.share);
    WantedToxic { kind: kind.to_owned(), attributes, concerns, toxicity, ..WantedToxic::default() }
}

/// Requests, as a toxic understands them.
fn matcher(of: &Requests) -> Value {
    let named = [("path", &of.path), ("method", &of.method)].into_iter();
    let named = named.filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?))));
    Value::Object(named.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::control::Understood;
    use crate::proxy::toxics::Kind;
    use squall_experiments::quantity::{Period, Size};

    #[test]
    fn every_ailment_has_a_toxic_with_attributes_that_exist() {
        let after = Size::from_bytes(9);
        let rate = "2kB/s".parse().expect("a rate");
        let (delay, jitter) = (Period::from_secs(2), Period::from_millis(7));
        let of = Requests { path: Some("/pay/*".to_owned()), method: None };
        for (ailment, attribute, value) in [
            (Ailment::Reset { after }, "bytes", 9),
            (Ailment::Hang { after }, "bytes", 9),
            (Ailment::Close { after }, "bytes", 9),
            (Ailment::Slow { rate }, "rate", 2),
            (Ailment::Late { delay, jitter }, "latency", 2000),
            (Ailment::Errors { status: 502, grpc: 14, body: "no".to_owned(), of: of.clone() }, "status", 502),
            (Ailment::Truncate { after, of: of.clone() }, "truncate", 9),
        ] {
            let task = Task { ailment, share: 0.5, tls: None };
            let toxic = toxic("10.0.0.7:443".parse().expect("an address"), &task);
            let ailment = task.ailment;
            let kind = Kind::named(&toxic.kind).unwrap_or_else(|| panic!("no toxic `{}`", toxic.kind));
            assert_eq!(toxic.attributes[attribute], json!(value), "{ailment}");
            for name in toxic.attributes.keys() {
                assert!(kind.attributes.iter().any(|(known, _)| known == name), "{ailment}: `{name}`");
            }
            let understood = Understood { requests: ailment.is_of_requests(), handshakes: true };
            let read = toxic.read(understood).expect("the proxy takes it");
            assert_eq!(read.concerns.names_requests(), ailment.is_of_requests(), "{ailment}");
        }
    }
}
