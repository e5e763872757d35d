//! What a dependency does in its handshakes, and inside TLS.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CertifiedKey, IsCa, KeyPair, date_time_ymd,
    generate_simple_self_signed,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use squall_tests::client::connect;
use squall_tests::needs;
use squall_tests::world::World;

use super::{LONG, outage};
use crate::trial::{evidence, impaired};

type Certified = CertifiedKey<KeyPair>;

fn certified() -> Certified {
    generate_simple_self_signed(["shop".to_owned()]).expect("a certificate")
}

/// Reads one head of HTTP.
fn head(stream: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => head.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// A dependency that answers one request on each connection, inside TLS. It ends when it is dropped.
struct Shop {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Shop {
    fn start(world: &World, of: &Certified) -> Self {
        let place = SocketAddr::new(world.hosts[1].v4, 443);
        let listener = world.hosts[1].netns.inside(|| TcpListener::bind(place)).expect("the port is free");
        listener.set_nonblocking(true).expect("it is a socket");
        let key = PrivateKeyDer::try_from(of.signing_key.serialize_der()).expect("a key");
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![of.cert.der().clone()], key).expect("a configuration");
        let (config, ended) = (Arc::new(config), Arc::new(AtomicBool::new(false)));
        let over = ended.clone();
        let thread = thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => drop(serve(stream, &config)),
                    Err(_) => thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        Shop { ended, thread: Some(thread) }
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

fn serve(stream: TcpStream, config: &Arc<ServerConfig>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LONG))?;
    let connection = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    head(&mut stream)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    stream.conn.send_close_notify();
    stream.flush()
}

/// One request over a connection of its own, trusting this alone: the status.
fn ask(world: &World, trusted: &CertificateDer<'static>, path: &str) -> io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).map_err(io::Error::other)?;
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = "shop".try_into().map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let stream = connect(&world.hosts[0].netns, (world.hosts[1].v4, 443).into(), LONG)?;
    let mut stream = StreamOwned::new(connection, stream);
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n").as_bytes())?;
    Ok(head(&mut stream)?.split(' ').nth(1).unwrap_or_default().to_owned())
}

#[test]
fn a_handshake_is_refused_or_a_certificate_is_not_to_be_believed_and_nothing_is_needed_for_it() {
    needs!(Root, Cgroup2, Bpf);
    let world = World::new(2);
    let theirs = certified();
    let _shop = Shop::start(&world, &theirs);
    assert_eq!(ask(&world, theirs.cert.der(), "/").expect("answered before the faults"), "200");
    for (how, said) in
        [("handshake: refused", "alert"), ("certificate: untrusted", "invalid peer certificate")]
    {
        let trial = outage(&world, 443, &format!("tls, {how}"), "");
        let error = ask(&world, theirs.cert.der(), "/").expect_err("the handshake must fail");
        assert!(error.to_string().contains(said), "{how}: {error}");
        let report = trial.halted();
        assert_eq!((impaired(&report), &evidence(&report)["matched"]), (1, &1.into()), "{report:#}");
    }
    assert_eq!(ask(&world, theirs.cert.der(), "/").expect("answered after the faults"), "200");
}

#[test]
fn requests_inside_tls_are_answered_with_errors_where_callers_trust_the_certificate_that_is_given() {
    needs!(Root, Cgroup2, Bpf);
    let world = World::new(2);
    let (theirs, given) = (certified(), certified());
    let _shop = Shop::start(&world, &theirs);
    let quoted = |pem: String| serde_json::Value::from(pem).to_string();
    let material = format!(
        "cert: {}, key: {}, ca: {}",
        quoted(given.cert.pem()),
        quoted(given.signing_key.serialize_pem()),
        quoted(theirs.cert.pem())
    );
    let trial = outage(&world, 443, &format!("errors, status: 502, path: /pay, tls: {{ {material} }}"), "");
    assert_eq!(ask(&world, given.cert.der(), "/").expect("answered by the dependency"), "200");
    assert_eq!(ask(&world, given.cert.der(), "/pay").expect("answered by the proxy"), "502");
    let report = trial.halted();
    assert_eq!((impaired(&report), &evidence(&report)["matched"]), (1, &2.into()), "{report:#}");
}

/// A certificate with its key: of these names, until then, signed by this authority or by itself.
fn issued(names: &[&str], expired: bool, by: Option<&Authority>) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    if expired {
        params.not_after = date_time_ymd(2020, 1, 1);
    }
    let certificate = match by {
        Some(authority) => params.signed_by(&key, authority),
        None => params.self_signed(&key),
    };
    (certificate.expect("a certificate").pem(), key.serialize_pem())
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}

#[test]
fn callers_that_trust_an_authority_see_what_it_issues_or_what_is_given_expired_of_another_name_or_valid() {
    needs!(Root, Cgroup2, Bpf);
    let world = World::new(2);
    let theirs = certified();
    let _shop = Shop::start(&world, &theirs);
    let trusted = authority();
    let quoted = |pem: &str| serde_json::Value::from(pem).to_string();
    let material = |(cert, key): (String, String), more: &str| {
        format!("tls: {{ cert: {}, key: {}{more} }}", quoted(&cert), quoted(&key))
    };
    let key = || (trusted.pem(), trusted.key().serialize_pem());
    let (expired, named) = ("certificate: expired", "certificate: wrong-name");
    for (how, material, said) in [
        (expired, material(key(), ", authority: true"), "expired"),
        (named, material(key(), ", authority: true"), "not valid for name"),
        (expired, material(issued(&["shop"], true, Some(&trusted)), ""), "expired"),
        (named, material(issued(&["elsewhere"], false, Some(&trusted)), ""), "not valid for name"),
    ] {
        let trial = outage(&world, 443, &format!("tls, {how}, {material}"), "");
        let error = ask(&world, trusted.der(), "/").expect_err("the handshake must fail").to_string();
        assert!(error.contains("invalid peer certificate") && error.contains(said), "{how}: {error}");
        let report = trial.halted();
        assert_eq!((impaired(&report), &evidence(&report)["matched"]), (1, &1.into()), "{report:#}");
        assert!(!report.to_string().contains("PRIVATE KEY"), "the report tells the key");
    }
    let more = format!(", authority: true, ca: {}", quoted(&theirs.cert.pem()));
    let how = format!("errors, status: 502, path: /pay, {}", material(key(), &more));
    let trial = outage(&world, 443, &how, "");
    assert_eq!(ask(&world, trusted.der(), "/").expect("answered by the dependency"), "200");
    assert_eq!(ask(&world, trusted.der(), "/pay").expect("answered by the proxy"), "502");
    let report = trial.halted();
    assert_eq!((impaired(&report), &evidence(&report)["matched"]), (1, &2.into()), "{report:#}");
}
