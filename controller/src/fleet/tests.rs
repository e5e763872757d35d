//! The real listener over loopback, and hosts that behave or do not.

mod joins;
mod late;
mod room;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{ClientConfig, RootCertStore};
use squall_experiments::fleet::frame::{LONGEST_FRAME, LONGEST_TEXT};
use squall_experiments::fleet::{CONTROLLER, Frame, Held, Hello, Inventory, JoinToken, Kind, Session, hex};
use squall_experiments::protocol::Refusal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::authority::Issued;
use super::registry::{Answer, Member, Roll};
use super::{Authority, Hub, Listener, Registry, Terms};

const PATIENCE: Duration = Duration::from_secs(20);

/// A fleet, served in this test's runtime.
struct Fleet {
    authority: Arc<Authority>,
    roll: Arc<Roll>,
    hub: Hub,
    address: SocketAddr,
}

/// A host's key and certificate.
struct Card {
    key: KeyPair,
    issued: Issued,
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

async fn fleet(name: &str, terms: Terms) -> Fleet {
    fleet_in(name, terms, Hub::new()).await
}

async fn fleet_in(name: &str, terms: Terms, hub: Hub) -> Fleet {
    let directory = std::env::temp_dir().join(format!("squall-fleet-{name}-{}", std::process::id()));
    let authority = Arc::new(Authority::open(&directory).unwrap());
    std::fs::remove_dir_all(directory).unwrap();
    let roll = Arc::new(Roll::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let agents = Listener::new(authority.clone(), roll.clone(), hub.clone(), terms).unwrap();
    tokio::spawn(async move { agents.serve(listener).await });
    Fleet { authority, roll, hub, address }
}

impl Fleet {
    /// A host that has joined.
    async fn member(&self, name: &str) -> Card {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let issued = self.authority.issue(name, key.der_bytes(), Duration::from_secs(3600)).unwrap();
        let token = JoinToken::new(rand::random(), self.authority.fingerprint());
        self.roll.allow(&token.hash(), 1);
        let (serial, key_digits) = (issued.serial.clone(), hex(key.der_bytes()));
        let member = Member { name: name.to_owned(), key: key_digits, serial, ..Member::default() };
        self.roll.enrol(&token.hash(), member).await.unwrap();
        Card { key, issued }
    }

    async fn dial(&self, member: Option<&Card>) -> Result<Socket, String> {
        self.dial_at(member, Arc::new(DefaultTimeProvider)).await
    }

    /// [`Fleet::dial`] from a host whose clock says something else.
    async fn dial_at(&self, member: Option<&Card>, clock: Arc<dyn TimeProvider>) -> Result<Socket, String> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_details(provider, clock);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let configuration = match member {
            Some(Card { key, issued }) => {
                let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from(CONTROLLER).unwrap();
        let stream = TlsConnector::from(Arc::new(configuration)).connect(name, stream).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let shaken = tokio_tungstenite::client_async("wss://controller/agents", stream).await;
        shaken.map(|(socket, _)| socket).map_err(|error| error.to_string())
    }

    /// A host that has been welcomed.
    async fn connect(&self, member: &Card) -> Socket {
        let mut socket = self.dial(Some(member)).await.unwrap();
        say(&mut socket, &hello(vec![1])).await;
        assert!(matches!(next(&mut socket).await, Some(Frame::Welcome(_))));
        socket
    }

    /// A stream that the host has opened, and its number.
    async fn opened(&self, host: &str, socket: &mut Socket) -> (tokio::io::DuplexStream, u64) {
        let opening = self.hub.agent(host);
        let answering = async {
            let Some(Frame::Open { stream, to: Kind::Agent }) = next(socket).await else {
                panic!("no stream")
            };
            say(socket, &Frame::Opened { stream }).await;
            stream
        };
        let (local, stream) = tokio::join!(opening, answering);
        (local.unwrap(), stream)
    }

    async fn until(&self, what: &str, holds: impl Fn(&Hub) -> bool) {
        let waited = timeout(PATIENCE, async {
            while !holds(&self.hub) {
                sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(waited.await.is_ok(), "waited in vain for {what}: {:?}", self.hub.hosts());
    }
}

fn hello(versions: Vec<u32>) -> Frame {
    let inventory = Inventory { zone: Some("a".to_owned()), ..Inventory::default() };
    Frame::Hello(Hello { versions, inventory, session: None })
}

async fn say(socket: &mut Socket, frame: &Frame) {
    // Whether the other side still listens is seen by what it answers.
    let _ = socket.send(Message::text(frame.text())).await;
}

/// The next frame but heartbeats; `None` is the end.
async fn next(socket: &mut Socket) -> Option<Frame> {
    loop {
        match timeout(PATIENCE, socket.next()).await.expect("a frame, or the end") {
            Some(Ok(Message::Text(text))) => return Some(Frame::read(&text).unwrap()),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
            Some(Ok(_)) => {}
        }
    }
}

async fn refusal(socket: &mut Socket) -> String {
    match next(socket).await {
        Some(Frame::Refused(Refusal { what, .. })) => what,
        other => panic!("{other:?} instead of a refusal"),
    }
}

/// A clock that is wrong by so many seconds.
#[derive(Debug)]
struct Wrong(i64);

impl TimeProvider for Wrong {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = UnixTime::now().as_secs().checked_add_signed(self.0)?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

#[tokio::test]
async fn a_host_whose_clock_is_an_hour_off_is_connected_and_one_of_the_wrong_decade_is_not() {
    const HOUR: i64 = 3600;
    let fleet = fleet("clock", Terms::default()).await;
    let member = fleet.member("web-1").await;
    for wrong in [-HOUR, HOUR, -23 * HOUR] {
        let mut socket = fleet.dial_at(Some(&member), Arc::new(Wrong(wrong))).await.unwrap();
        say(&mut socket, &hello(vec![1])).await;
        assert!(matches!(next(&mut socket).await, Some(Frame::Welcome(_))), "{wrong} s");
    }
    for wrong in [-10 * 365 * 24 * HOUR, 20 * 365 * 24 * HOUR] {
        let refused = fleet.dial_at(Some(&member), Arc::new(Wrong(wrong))).await;
        assert!(refused.is_err_and(|why| why.contains("certificate")), "{wrong} s");
    }
}

#[tokio::test]
async fn without_a_certificate_a_host_can_only_join() {
    let fleet = fleet("stranger", Terms::default()).await;
    let mut socket = fleet.dial(None).await.unwrap();
    say(&mut socket, &hello(vec![1])).await;
    assert!(refusal(&mut socket).await.contains("without a certificate"));
    assert!(fleet.hub.hosts().is_empty());
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_none() {
    let (ours, theirs) = (fleet("ours", Terms::default()).await, fleet("theirs", Terms::default()).await);
    let member = theirs.member("web-1").await;
    // TLS 1.3 tells a client only after its handshake that its certificate is refused.
    if let Ok(mut socket) = ours.dial(Some(&member)).await {
        say(&mut socket, &hello(vec![1])).await;
        assert_eq!(next(&mut socket).await, None);
    }
    assert!(ours.hub.hosts().is_empty());
}

#[tokio::test]
async fn who_a_host_is_stands_in_its_certificate_and_it_is_listed_by_that_name() {
    let fleet = fleet("listed", Terms::default()).await;
    let member = fleet.member("web-1").await;
    let mut socket = fleet.dial(Some(&member)).await.unwrap();
    // A greeting has no name; one that brings another along is heard without it.
    let mut lie: serde_json::Value = serde_json::from_str(&hello(vec![7, 1]).text()).unwrap();
    lie["hello"]["host"] = "db-1".into();
    lie["hello"]["inventory"]["name"] = "db-1".into();
    socket.send(Message::text(lie.to_string())).await.unwrap();
    let Some(Frame::Welcome(welcome)) = next(&mut socket).await else { panic!("no welcome") };
    assert_eq!((welcome.version, welcome.host.as_str()), (1, "web-1"));
    let hosts = fleet.hub.hosts();
    assert_eq!((hosts.len(), hosts[0].name.as_str(), hosts[0].connected), (1, "web-1", true));
    assert_eq!(hosts[0].zone.as_deref(), Some("a"));
    assert!(hosts[0].last_contact_ms > 0);
    assert!(fleet.hub.agent("db-1").await.is_err());
    drop(socket);
    fleet.until("the host to be gone", |hub| !hub.hosts()[0].connected).await;
    let gone = fleet.hub.agent("web-1").await.unwrap_err();
    assert!(gone.what.contains("not connected"), "{gone}");
}

#[tokio::test]
async fn a_host_that_speaks_no_common_version_is_refused() {
    let fleet = fleet("versions", Terms::default()).await;
    let member = fleet.member("web-1").await;
    let mut socket = fleet.dial(Some(&member)).await.unwrap();
    say(&mut socket, &hello(vec![3, 4])).await;
    assert!(refusal(&mut socket).await.contains("none of the versions"));
}

#[tokio::test]
async fn a_newer_connection_of_the_same_host_ends_the_older() {
    let fleet = fleet("newer", Terms::default()).await;
    let member = fleet.member("web-1").await;
    let mut older = fleet.connect(&member).await;
    let mut newer = fleet.connect(&member).await;
    assert!(refusal(&mut older).await.contains("connected anew"));
    assert_eq!(next(&mut older).await, None);
    fleet.opened("web-1", &mut newer).await;
}

#[tokio::test]
async fn a_revoked_host_is_cut_off_at_once_with_its_streams_and_does_not_come_back() {
    let fleet = fleet("revoked", Terms::default()).await;
    let member = fleet.member("web-1").await;
    let mut socket = fleet.connect(&member).await;
    let (mut local, _) = fleet.opened("web-1", &mut socket).await;
    fleet.roll.revoke("web-1");
    fleet.hub.cut_off("web-1");
    assert!(refusal(&mut socket).await.contains("revoked"));
    assert_eq!(timeout(PATIENCE, local.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    let mut again = fleet.dial(Some(&member)).await.unwrap();
    say(&mut again, &hello(vec![1])).await;
    assert!(refusal(&mut again).await.contains("revoked"));
}

#[tokio::test]
async fn what_is_replayed_or_too_much_ends_its_stream_and_no_other() {
    let fleet = fleet("replayed", Terms::default()).await;
    let member = fleet.member("web-1").await;
    let mut socket = fleet.connect(&member).await;
    let (mut one, replayed) = fleet.opened("web-1", &mut socket).await;
    let (mut two, overrun) = fleet.opened("web-1", &mut socket).await;
    let (mut three, good) = fleet.opened("web-1", &mut socket).await;
    for _ in 0..2 {
        say(&mut socket, &Frame::Data { stream: replayed, seq: 1, text: "a".to_owned() }).await;
    }
    let text = "x".repeat(LONGEST_TEXT + 1);
    say(&mut socket, &Frame::Data { stream: overrun, seq: 1, text }).await;
    say(&mut socket, &Frame::Data { stream: good, seq: 1, text: "b".to_owned() }).await;
    say(&mut socket, &Frame::End { stream: good, seq: 2 }).await;
    let mut all = String::new();
    timeout(PATIENCE, one.read_to_string(&mut all)).await.unwrap().unwrap();
    assert!(all.len() <= 1, "handed on twice: {all}");
    assert_eq!(timeout(PATIENCE, two.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    let mut all = String::new();
    timeout(PATIENCE, three.read_to_string(&mut all)).await.unwrap().unwrap();
    assert_eq!(all, "b");
    let mut closed = Vec::new();
    while closed.len() < 2 {
        match next(&mut socket).await.expect("the connection goes on") {
            Frame::Close { stream, why: Some(why) } => closed.push((stream, why.what)),
            Frame::Ack { .. } | Frame::End { .. } | Frame::Close { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(closed[0], (replayed, "text 1 of the stream came a second time".to_owned()));
    assert_eq!(closed[1].0, overrun);
    assert!(fleet.hub.hosts()[0].connected);
}

#[tokio::test]
async fn who_says_what_is_not_its_to_say_or_too_much_at_once_is_cut_off() {
    let fleet = fleet("wrong", Terms::default()).await;
    let member = fleet.member("web-1").await;
    let long = Frame::Renewed { certificate: "x".repeat(LONGEST_FRAME) };
    for wrong in [Frame::Open { stream: 1, to: Kind::Agent }, hello(vec![1]), long] {
        let mut socket = fleet.connect(&member).await;
        say(&mut socket, &wrong).await;
        while next(&mut socket).await.is_some_and(|frame| matches!(frame, Frame::Refused(_))) {}
        fleet.until("it to be cut off", |hub| !hub.hosts()[0].connected).await;
    }
    let mut socket = fleet.connect(&member).await;
    socket.send(Message::text("nonsense")).await.unwrap();
    assert!(refusal(&mut socket).await.contains("not understood"));
}

#[tokio::test]
async fn a_host_that_refuses_a_stream_says_why() {
    let fleet = fleet("refused", Terms::default()).await;
    let member = fleet.member("web-1").await;
    let mut socket = fleet.connect(&member).await;
    let opening = fleet.hub.prober("web-1", Some("shop"));
    let answering = async {
        let Some(Frame::Open { stream, to }) = next(&mut socket).await else { panic!("no stream") };
        assert_eq!(to, Kind::Prober { user: Some("shop".to_owned()) });
        say(&mut socket, &Frame::Close { stream, why: Some(Refusal::bare("the policy says no")) }).await;
    };
    let (opened, ()) = tokio::join!(opening, answering);
    assert_eq!(opened.unwrap_err().what, "the policy says no");
}

#[tokio::test]
async fn a_host_that_is_silent_is_gone() {
    let terms = Terms { heartbeat: Duration::from_millis(300), ..Terms::default() };
    let fleet = fleet("silent", terms).await;
    let member = fleet.member("web-1").await;
    let mut socket = fleet.connect(&member).await;
    assert_eq!(next(&mut socket).await, None, "it may come back: it is refused nothing");
    fleet.until("the host to be gone", |hub| !hub.hosts()[0].connected).await;
}

#[tokio::test]
async fn the_hosts_of_a_large_fleet_beat_less_often() {
    let fleet = fleet("beats", Terms::default()).await;
    let told = async |name: &str| {
        let mut socket = fleet.dial(Some(&fleet.member(name).await)).await.unwrap();
        say(&mut socket, &hello(vec![1])).await;
        let Some(Frame::Welcome(welcome)) = next(&mut socket).await else { panic!("not welcome") };
        welcome.heartbeat_ms
    };
    assert_eq!(told("web-1").await, 5_000);
    (2..=6_000).for_each(|number| fleet.hub.know(&format!("web-{number}"), Inventory::default()));
    assert_eq!(told("web-2").await, 6_000);
    assert_eq!(told("web-7000").await, 6_001);
}

#[tokio::test]
async fn a_new_certificate_for_the_same_key_replaces_the_old_one_from_its_first_use_on() {
    let fleet = fleet("renewed", Terms::default()).await;
    let member = fleet.member("web-1").await;
    let mut socket = fleet.connect(&member).await;
    say(&mut socket, &Frame::Renew).await;
    let Some(Frame::Renewed { certificate }) = next(&mut socket).await else { panic!("no certificate") };
    let newer = Card {
        key: KeyPair::from_pem(&member.key.serialize_pem()).unwrap(),
        issued: Issued { certificate, serial: String::new() },
    };
    // Its answer may have been lost: until the new one has been used, the old one is good.
    drop(fleet.connect(&member).await);
    drop(fleet.connect(&newer).await);
    let mut old = fleet.dial(Some(&member)).await.unwrap();
    say(&mut old, &hello(vec![1])).await;
    assert!(refusal(&mut old).await.contains("revoked"));
    drop(fleet.connect(&newer).await);
}

/// A greeting in the newest version, of a host that had these streams; gives its session.
async fn greet(fleet: &Fleet, member: &Card, had: Option<Session>) -> (Socket, Session) {
    let mut socket = fleet.dial(Some(member)).await.unwrap();
    let Frame::Hello(plain) = hello(vec![1, 2]) else { unreachable!() };
    say(&mut socket, &Frame::Hello(Hello { session: had, ..plain })).await;
    let Some(Frame::Welcome(welcome)) = next(&mut socket).await else { panic!("no welcome") };
    (socket, welcome.session.expect("it knows of sessions"))
}

#[tokio::test]
async fn streams_go_on_over_the_next_connection_and_nothing_is_lost_or_comes_twice() {
    let fleet = fleet("resumed", Terms::default()).await;
    let member = fleet.member("web-1").await;
    let (mut socket, session) = greet(&fleet, &member, None).await;
    assert!(session.streams.is_empty());
    let (mut kept, stream) = fleet.opened("web-1", &mut socket).await;
    let (mut unknown, other) = fleet.opened("web-1", &mut socket).await;
    kept.write_all(b"asked").await.unwrap();
    assert!(matches!(next(&mut socket).await, Some(Frame::Data { seq: 1, .. })));
    say(&mut socket, &Frame::Data { stream, seq: 1, text: "an".to_owned() }).await;
    let mut came = [0; 6];
    timeout(PATIENCE, kept.read_exact(&mut came[..2])).await.unwrap().unwrap();
    drop(socket);
    fleet.until("the host to be gone", |hub| !hub.hosts()[0].connected).await;
    kept.write_all(b" again").await.unwrap();

    // The host did not get the first text, and has not heard that its own was handed on.
    let held = |stream| Held { stream, received: 0, ended: false };
    let had = Session { number: session.number.clone(), streams: vec![held(stream)] };
    let (mut socket, again) = greet(&fleet, &member, Some(had)).await;
    let theirs = Held { received: 1, ..held(stream) };
    assert_eq!(again, Session { number: session.number.clone(), streams: vec![theirs] });
    assert_eq!(timeout(PATIENCE, unknown.read(&mut [0; 1])).await.unwrap().unwrap(), 0, "{other} is over");
    assert_eq!(next(&mut socket).await, Some(Frame::Ack { stream, seq: 1 }));
    let mut said = String::new();
    while said.len() < "asked again".len() {
        match next(&mut socket).await {
            Some(Frame::Data { text, .. }) => said.push_str(&text),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(said, "asked again");
    say(&mut socket, &Frame::Data { stream, seq: 2, text: "swer".to_owned() }).await;
    timeout(PATIENCE, kept.read_exact(&mut came[2..])).await.unwrap().unwrap();
    assert_eq!(&came, b"answer");

    // One that has forgotten the session has forgotten its streams; so has one that knows of none.
    let (mut newer, fresh) = greet(&fleet, &member, None).await;
    assert!(fresh.streams.is_empty() && fresh.number != session.number);
    assert_eq!(timeout(PATIENCE, kept.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    let (mut local, _) = fleet.opened("web-1", &mut newer).await;
    let older = fleet.connect(&member).await;
    assert_eq!(timeout(PATIENCE, local.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    drop(older);
}

#[tokio::test]
async fn a_host_that_is_away_and_revoked_has_no_streams_left() {
    let fleet = fleet("away", Terms::default()).await;
    let member = fleet.member("web-1").await;
    let (mut socket, _) = greet(&fleet, &member, None).await;
    let (mut local, _) = fleet.opened("web-1", &mut socket).await;
    drop(socket);
    fleet.until("the host to be gone", |hub| !hub.hosts()[0].connected).await;
    fleet.hub.cut_off("web-1");
    assert_eq!(timeout(PATIENCE, local.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
}

/// A registry whose store does not answer.
struct Broken;

impl Registry for Broken {
    fn enrol<'a>(&'a self, _: &'a str, _: Member) -> Answer<'a, ()> {
        Box::pin(std::future::ready(Err(Refusal::bare("away"))))
    }

    fn admit<'a>(&'a self, _: &'a str, _: &'a str) -> Answer<'a, ()> {
        Box::pin(std::future::ready(Err(Refusal::bare("away"))))
    }

    fn renew<'a>(&'a self, _: &'a str, _: &'a str, _: &'a str) -> Answer<'a, ()> {
        Box::pin(std::future::ready(Err(Refusal::bare("away"))))
    }
}

#[tokio::test]
async fn where_nobody_can_say_who_belongs_to_the_fleet_nobody_comes_in() {
    let mut fleet = fleet("broken", Terms::default()).await;
    let member = fleet.member("web-1").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    fleet.address = listener.local_addr().unwrap();
    let (authority, hub) = (fleet.authority.clone(), fleet.hub.clone());
    let agents = Listener::new(authority, Arc::new(Broken), hub, Terms::default()).unwrap();
    tokio::spawn(async move { agents.serve(listener).await });
    let mut socket = fleet.dial(Some(&member)).await.unwrap();
    say(&mut socket, &hello(vec![1])).await;
    assert_eq!(refusal(&mut socket).await, "away");
}
