//! Handshakes on both sides.

use std::io;

use rcgen::{CertificateParams, CertifiedKey, KeyPair, date_time_ymd, generate_simple_self_signed};
use rustls::ServerConfig;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::proxy::control::WantedTls;
use crate::proxy::tls::{Origin, WantedOrigin, server, server_name};

pub(super) fn certificate(name: &str) -> CertifiedKey<KeyPair> {
    generate_simple_self_signed([name.to_owned()]).expect("a certificate")
}

fn expired() -> CertifiedKey<KeyPair> {
    let signing_key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    params.not_after = date_time_ymd(2020, 1, 1);
    CertifiedKey { cert: params.self_signed(&signing_key).expect("a certificate"), signing_key }
}

fn pem(of: &CertifiedKey<KeyPair>) -> WantedTls {
    WantedTls { cert: of.cert.pem(), key: of.signing_key.serialize_pem(), authority: false }
}

pub(super) fn trusting(of: &CertifiedKey<KeyPair>) -> WantedOrigin {
    WantedOrigin { ca: of.cert.pem(), ..WantedOrigin::default() }
}

pub(super) fn acceptor(of: &CertifiedKey<KeyPair>, protocols: &[&str]) -> TlsAcceptor {
    let wanted = pem(of);
    let mut config = ServerConfig::clone(&server(&wanted.cert, &wanted.key).expect("a configuration"));
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// A client's handshake.
async fn shake(
    listen: SocketAddr,
    trusted: &CertifiedKey<KeyPair>,
    protocols: &[&str],
) -> io::Result<TlsStream<TcpStream>> {
    connect(listen, &trusting(trusted), "localhost", protocols).await
}

/// A client's handshake, which asks for this name.
pub(super) async fn connect(
    listen: SocketAddr,
    trusted: &WantedOrigin,
    name: &str,
    protocols: &[&str],
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(listen).await?;
    let origin = Origin::new(trusted).expect("a configuration");
    let protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let name = server_name(name).expect("a name");
    TlsConnector::from(origin.config(protocols)).connect(name, stream).await
}

#[test]
fn requests_are_read_between_two_handshakes_in_the_protocol_that_both_peers_speak() {
    run(async {
        let (mine, theirs) = (certificate("localhost"), certificate("localhost"));
        for (spoken, agreed) in [(&["h2", "http/1.1"][..], "h2"), (&["http/1.1"], "http/1.1")] {
            let asked = Arc::new(AtomicU64::new(0));
            let upstream = dependency(asked.clone(), Some(acceptor(&theirs, spoken))).await;
            let wanted = Wanted {
                protocol: "http".to_owned(),
                tls: Some(pem(&mine)),
                upstream_tls: Some(trusting(&theirs)),
                ..Wanted::default()
            };
            let world = World::before(upstream, asked, wanted);
            world.toxic("http_status", "downstream", &json!({ "status": 500 }), json!({ "nth": 2 }));
            let stream = shake(world.listen, &mine, &["h2", "http/1.1"]).await.expect("a handshake");
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(agreed.as_bytes()));
            let stream = TokioIo::new(stream);
            let mut statuses = Vec::new();
            if agreed == "h2" {
                let builder = http2::Builder::new(TokioExecutor::new());
                let (mut sender, connection) = builder.handshake(stream).await.expect("a connection");
                tokio::spawn(connection);
                for _ in 0..2 {
                    let response = sender.send_request(over_second("/", "x")).await.expect("an answer");
                    statuses.push(response.status().as_u16());
                }
            } else {
                let (mut sender, connection) = http1::handshake(stream).await.expect("a connection");
                tokio::spawn(connection);
                for _ in 0..2 {
                    sender.ready().await.expect("it stays open");
                    let response = sender.send_request(post("/", "x")).await.expect("an answer");
                    statuses.push(response.status().as_u16());
                    let _ = text(response).await.expect("a body");
                }
            }
            assert_eq!((statuses, world.asked.load(Ordering::Relaxed)), (vec![200, 500], 1));
        }
    });
}

#[test]
fn handshakes_fail_as_toxics_say_and_then_no_more() {
    run(async {
        let mine = certificate("localhost");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let upstream = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut reader, mut writer) = stream.split();
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                    let _ = writer.shutdown().await;
                });
            }
        });
        // Bytes in TLS, and nothing understood of them.
        let wanted = Wanted { tls: Some(pem(&mine)), ..Wanted::default() };
        let world = World::before(upstream, Arc::default(), wanted);
        let works = async || {
            let mut stream = shake(world.listen, &mine, &[]).await.expect("a handshake");
            stream.write_all(b"bytes").await.expect("sent");
            stream.shutdown().await.expect("its half can be closed");
            let mut back = Vec::new();
            stream.read_to_end(&mut back).await.expect("an orderly end");
            assert_eq!(back, b"bytes");
        };
        works().await;
        world.toxic("tls_refuse", "downstream", &json!({}), Value::Null);
        let refused = shake(world.listen, &mine, &[]).await.map(drop).expect_err("an alert");
        assert!(refused.to_string().contains("alert"), "{refused}");
        world.remove("tls_refuse_downstream");
        for other in [certificate("localhost"), expired(), certificate("elsewhere")] {
            let wanted = pem(&other);
            let attributes = json!({ "cert": wanted.cert, "key": wanted.key });
            world.toxic("tls_certificate", "downstream", &attributes, json!({ "nth": 1 }));
            let shown =
                serde_json::to_string(&world.control.get("shop").expect("it is there")).expect("JSON");
            assert!(shown.contains("***") && !shown.contains("PRIVATE"), "{shown}");
            let refused = shake(world.listen, &mine, &[]).await.map(drop).expect_err("not trusted");
            assert!(refused.to_string().starts_with("invalid peer certificate"), "{refused}");
            works().await;
            world.remove("tls_certificate_downstream");
        }
        // Who trusts it by itself still minds that it has expired, or has another name.
        for (other, said) in [(expired(), "xpired"), (certificate("elsewhere"), "NotValidForName")] {
            let wanted = pem(&other);
            let attributes = json!({ "cert": wanted.cert, "key": wanted.key });
            world.toxic("tls_certificate", "downstream", &attributes, Value::Null);
            let refused = shake(world.listen, &other, &[]).await.map(drop).expect_err("not valid");
            let refused = format!("{refused:?}");
            assert!(refused.contains(said) || refused.contains("not valid for name"), "{refused}");
            world.remove("tls_certificate_downstream");
        }
    });
}

#[test]
fn between_two_who_shake_hands_themselves_only_handshakes_that_are_meant_fail() {
    run(async {
        let theirs = certificate("localhost");
        let upstream = dependency(Arc::default(), Some(acceptor(&theirs, &["http/1.1"]))).await;
        let world = World::before(upstream, Arc::default(), Wanted { handshakes: true, ..Wanted::default() });
        let works = async || {
            let stream = shake(world.listen, &theirs, &["http/1.1"]).await.expect("the dependency's own");
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.expect("a connection");
            tokio::spawn(connection);
            let response = sender.send_request(post("/", "x")).await.expect("an answer");
            assert_eq!(response.status(), 200);
        };
        works().await;
        let shown = [("tls_refuse", "alert"), ("tls_untrusted", "invalid peer certificate: UnknownIssuer")];
        for (kind, said) in shown {
            world.toxic(kind, "downstream", &json!({}), json!({ "nth": 1 }));
            let refused = shake(world.listen, &theirs, &[]).await.map(drop).expect_err("it fails");
            assert!(refused.to_string().contains(said), "{kind}: {refused}");
            works().await;
            world.remove(&format!("{kind}_downstream"));
        }
        // Who believes anything is carried on.
        world.toxic("tls_untrusted", "downstream", &json!({}), Value::Null);
        let stream = TcpStream::connect(world.listen).await.expect("it listens");
        let origin = WantedOrigin { insecure: true, ..WantedOrigin::default() };
        let config = Origin::new(&origin).expect("a configuration").config(Vec::new());
        let name = server_name("localhost").expect("a name");
        let stream = TlsConnector::from(config).connect(name, stream).await.expect("it is believed");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("a connection");
        tokio::spawn(connection);
        assert_eq!(sender.send_request(post("/", "x")).await.expect("an answer").status(), 200);
        let counters = world.control.get("shop").expect("it is there").counters;
        let (harmed, believed) = (&counters.harmed, &counters.believed);
        assert_eq!((harmed.load(Ordering::Relaxed), believed.load(Ordering::Relaxed)), (3, 1));
    });
}

#[test]
fn a_dependency_that_is_not_who_it_should_be_is_not_spoken_to() {
    run(async {
        let (mine, theirs) = (certificate("localhost"), certificate("elsewhere"));
        for (wanted, works) in [
            (trusting(&theirs), false),
            (WantedOrigin { name: "elsewhere".to_owned(), ..trusting(&theirs) }, true),
            (WantedOrigin { name: "elsewhere".to_owned(), ..trusting(&mine) }, false),
            (WantedOrigin { insecure: true, ..WantedOrigin::default() }, true),
        ] {
            let asked = Arc::new(AtomicU64::new(0));
            let upstream = dependency(asked.clone(), Some(acceptor(&theirs, &[]))).await;
            let wanted =
                Wanted { protocol: "http".to_owned(), upstream_tls: Some(wanted), ..Wanted::default() };
            let world = World::before(upstream, asked, wanted);
            let mut sender = world.first().await;
            let answered = sender.send_request(post("/", "x")).await;
            assert_eq!(answered.is_ok(), works, "{answered:?}");
        }
    });
}

#[test]
fn material_that_cannot_be_used_is_refused() {
    let (one, other) = (pem(&certificate("localhost")), pem(&certificate("localhost")));
    for (cert, key) in [("", ""), ("x", "y"), (&*one.cert, ""), ("", &one.key), (&*one.cert, &other.key)] {
        assert!(server(cert, key).is_err(), "{cert} {key}");
    }
    for wanted in [
        WantedOrigin { name: "a b".to_owned(), insecure: true, ..WantedOrigin::default() },
        WantedOrigin { ca: "x".to_owned(), ..WantedOrigin::default() },
    ] {
        assert!(Origin::new(&wanted).is_err(), "{wanted:?}");
    }
}
