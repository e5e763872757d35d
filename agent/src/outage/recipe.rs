//! How the proxy does what a task says: which of its proxies it makes, with which toxic.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};
use squall_experiments::ailment::{Ailment, Handshake, Requests};
use squall_experiments::quantity::Period;

use super::order::Task;
use crate::proxy::control::{Wanted, WantedTls, WantedToxic};
use crate::proxy::tls::WantedOrigin;

/// A name that nobody has (RFC 2606 section 2).
const NOBODY: &str = "wrong-name.invalid";

/// A proxy for one address of a dependency. Where it is observed, requests are told wherever they can be read.
pub(super) fn wanted(upstream: SocketAddr, task: &Task, observed: bool) -> Wanted {
    let handshakes = matches!(task.ailment, Ailment::Handshake(_));
    let reads = task.ailment.is_of_requests() || task.ailment.is_of_either() || (observed && !handshakes);
    let inside = task.tls.as_ref().filter(|_| task.ailment.is_of_requests());
    Wanted {
        name: upstream.to_string(),
        upstream: upstream.to_string(),
        protocol: if reads { "http" } else { "tcp" }.to_owned(),
        handshakes,
        tls: inside.map(|tls| WantedTls {
            cert: tls.cert.clone(),
            key: tls.key.clone(),
            authority: tls.authority,
        }),
        upstream_tls: inside
            .map(|tls| WantedOrigin { ca: tls.ca.clone().unwrap_or_default(), ..WantedOrigin::default() }),
        toxics: toxics(upstream, task),
        ..Wanted::default()
    }
}

/// The toxics that do it.
fn toxics(upstream: SocketAddr, task: &Task) -> Vec<WantedToxic> {
    let toxic = toxic(upstream, task);
    let Ailment::Late { delay, jitter, by_request: true } = &task.ailment else { return vec![toxic] };
    let attributes = json!({ "delay": ms(delay), "jitter": ms(jitter) });
    let of_requests = WantedToxic {
        kind: "http_delay".to_owned(),
        attributes: attributes.as_object().cloned().unwrap_or_default(),
        ..toxic.clone()
    };
    vec![of_requests, WantedToxic { foreign: true, ..toxic }]
}

fn ms(period: &Period) -> u64 {
    u64::try_from(period.get().as_millis()).unwrap_or(u64::MAX)
}

/// The toxic that does it, to what the dependency answers.
fn toxic(upstream: SocketAddr, task: &Task) -> WantedToxic {
    let (kind, attributes) = match &task.ailment {
        Ailment::Reset { after } => ("reset_data", json!({ "bytes": after.bytes() })),
        Ailment::Hang { after } => ("hang_data", json!({ "bytes": after.bytes() })),
        Ailment::Close { after } => ("limit_data", json!({ "bytes": after.bytes() })),
        Ailment::Slow { rate } => ("bandwidth", json!({ "rate": rate.bytes() / 1000 })),
        Ailment::Late { delay, jitter, .. } => {
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
    use squall_experiments::quantity::Size;

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
            (Ailment::Late { delay, jitter, by_request: false }, "latency", 2000),
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

    #[test]
    fn a_brownout_is_of_requests_and_of_connections_without_any() {
        let (delay, jitter) = (Period::from_secs(2), Period::from_millis(7));
        let ailment = Ailment::Late { delay, jitter, by_request: true };
        let wanted = wanted(
            "10.0.0.7:80".parse().expect("an address"),
            &Task { ailment, share: 0.2, tls: None },
            false,
        );
        assert_eq!(wanted.protocol, "http");
        let toxics: Vec<_> = wanted
            .toxics
            .iter()
            .map(|toxic| {
                let read = toxic.read(Understood { requests: true, handshakes: false });
                (
                    read.expect("the proxy takes it").name,
                    toxic.foreign,
                    toxic.toxicity,
                    toxic.attributes.clone(),
                )
            })
            .collect();
        let values = |name: &str| json!({ name: 2000, "jitter": 7 }).as_object().cloned().expect("an object");
        assert_eq!(
            toxics,
            [
                ("http_delay_downstream".to_owned(), false, Some(0.2), values("delay")),
                ("latency_downstream".to_owned(), true, Some(0.2), values("latency")),
            ]
        );
    }

    #[test]
    fn requests_are_read_where_they_are_wanted_and_only_there() {
        let reads = |ailment: Ailment, observed| {
            let task = Task { ailment, share: 1.0, tls: None };
            wanted("10.0.0.7:80".parse().expect("an address"), &task, observed).protocol == "http"
        };
        let after = Size::from_bytes(0);
        assert!(!reads(Ailment::Hang { after }, false) && reads(Ailment::Hang { after }, true));
        assert!(!reads(Ailment::Handshake(Handshake::Refused), true));
        assert!(reads(Ailment::Truncate { after, of: Requests::default() }, false));
    }
}
