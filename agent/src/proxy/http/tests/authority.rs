//! Certificates that the proxy issues itself, with the key of an authority that clients trust.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, DnValue, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm,
};

use super::tls::{acceptor, certificate, connect, trusting};
use super::*;
use crate::proxy::control::WantedTls;
use crate::proxy::tls::{Authority, WantedOrigin};

fn authority(algorithm: &'static SignatureAlgorithm, is_ca: IsCa) -> WantedTls {
    let key = KeyPair::generate_for(algorithm).expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = is_ca;
    // Written in two ways, as authorities do: the issuer of what is issued must be the same bytes.
    params.distinguished_name.push(DnType::OrganizationName, "Ünder Test");
    let printable = DnValue::PrintableString("Authority 1".try_into().expect("printable"));
    params.distinguished_name.push(DnType::CommonName, printable);
    let cert = params.self_signed(&key).expect("a certificate").pem();
    WantedTls { cert, key: key.serialize_pem(), authority: true }
}

fn constrained() -> IsCa {
    IsCa::Ca(BasicConstraints::Constrained(0))
}

fn trusted(authority: &WantedTls) -> WantedOrigin {
    WantedOrigin { ca: authority.cert.clone(), ..WantedOrigin::default() }
}

#[test]
fn whoever_trusts_the_authority_believes_the_certificate_of_the_name_that_it_asks_for() {
    run(async {
        let theirs = certificate("localhost");
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let authority = authority(algorithm, constrained());
            let asked = Arc::new(AtomicU64::new(0));
            let upstream = dependency(asked.clone(), Some(acceptor(&theirs, &["http/1.1"]))).await;
            let wanted = Wanted {
                protocol: "http".to_owned(),
                tls: Some(authority.clone()),
                upstream_tls: Some(WantedOrigin { name: "localhost".to_owned(), ..trusting(&theirs) }),
                ..Wanted::default()
            };
            let world = World::before(upstream, asked, wanted);
            world.toxic("http_status", "downstream", &json!({ "status": 418 }), json!({ "path": "/tea" }));
            for name in ["shop.internal", "other.example", "localhost"] {
                let stream = connect(world.listen, &trusted(&authority), name, &[]).await.expect(name);
                let (mut sender, connection) =
                    http1::handshake(TokioIo::new(stream)).await.expect("a connection");
                tokio::spawn(connection);
                let mut statuses = Vec::new();
                for path in ["/", "/tea"] {
                    sender.ready().await.expect("it stays open");
                    let response = sender.send_request(post(path, "x")).await.expect("an answer");
                    statuses.push(response.status().as_u16());
                    let _ = text(response).await.expect("a body");
                }
                assert_eq!(statuses, [200, 418], "{name}");
            }
            let other = super::tls::certificate("localhost");
            let refused = connect(world.listen, &trusting(&other), "localhost", &[]).await.map(drop);
            assert!(refused.is_err(), "somebody else's authority must not be believed");
        }
    });
}

#[test]
fn what_an_authority_issues_has_expired_or_another_name_where_a_toxic_says_so() {
    run(async {
        let theirs = certificate("localhost");
        let upstream = dependency(Arc::default(), Some(acceptor(&theirs, &["http/1.1"]))).await;
        let world = World::before(upstream, Arc::default(), Wanted { handshakes: true, ..Wanted::default() });
        let authority = authority(&PKCS_ECDSA_P256_SHA256, constrained());
        let attributes = |more: Value| {
            let mut all = json!({ "cert": authority.cert, "key": authority.key });
            let more = more.as_object().cloned().unwrap_or_default();
            all.as_object_mut().expect("an object").extend(more);
            all
        };
        for (more, said) in [
            (json!({ "expired": 1 }), Some("Expired")),
            (json!({ "name": "wrong-name.invalid" }), Some("NotValidForName")),
            (json!({}), None),
        ] {
            world.toxic("tls_issued", "downstream", &attributes(more), Value::Null);
            let shown = serde_json::to_string(&world.control.get("shop").expect("it is there"));
            assert!(!shown.expect("JSON").contains("PRIVATE"), "the key is shown");
            let shaken = connect(world.listen, &trusted(&authority), "localhost", &[]).await;
            match (shaken, said) {
                (Ok(first), None) => {
                    // It is issued once for each name, as by the proxy itself.
                    let again = connect(world.listen, &trusted(&authority), "localhost", &[]).await;
                    let [first, again] = [first, again.expect("as before")].map(|stream| {
                        stream.get_ref().1.peer_certificates().map(<[_]>::to_vec).unwrap_or_default()
                    });
                    assert!(!first.is_empty() && first == again, "another certificate");
                }
                (Err(error), Some(said)) => assert!(format!("{error:?}").contains(said), "{error:?}"),
                (shaken, said) => panic!("{said:?}: {:?}", shaken.map(drop)),
            }
            world.remove("tls_issued_downstream");
        }
    });
}

#[test]
fn what_is_no_authority_issues_nothing() {
    let (one, other) = (
        authority(&PKCS_ECDSA_P256_SHA256, constrained()),
        authority(&PKCS_ECDSA_P256_SHA256, constrained()),
    );
    let leaf = authority(&PKCS_ECDSA_P256_SHA256, IsCa::ExplicitNoCa);
    let plain = authority(&PKCS_ECDSA_P256_SHA256, IsCa::NoCa);
    assert!(Authority::new(&one.cert, &one.key).is_ok());
    for (cert, key, said) in [
        (&one.cert, &other.key, "cannot be used"),
        (&leaf.cert, &leaf.key, "not the certificate of an authority"),
        (&plain.cert, &plain.key, "not the certificate of an authority"),
        (&one.key, &one.key, "no certificate"),
    ] {
        let error = Authority::new(cert, key).map(drop).expect_err("it is none").to_string();
        assert!(error.contains(said), "{error}");
    }
}
