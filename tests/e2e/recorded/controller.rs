//! A host of then, and the controller of today.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SigningKey};
use serde_json::{Value, json};
use squall_controller::fleet::join::join;
use squall_controller::fleet::listener::Peer;
use squall_controller::fleet::registry::{Member, Registry};
use squall_controller::fleet::{Authority, Hub, Listener, Roll, Terms};
use squall_experiments::fleet::{Frame, Join, JoinToken, hex, proof};
use squall_experiments::protocol::Refusal;
use squall_tests::wait::PATIENCE;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;

use super::{RECORDED, Wire, alone, connection, lines, number, parts, says, text};

fn authority(name: &str) -> Arc<Authority> {
    let directory = std::env::temp_dir().join(format!("squall-recorded-{name}-{}", std::process::id()));
    let authority = Arc::new(Authority::open(&directory).expect("an authority"));
    std::fs::remove_dir_all(directory).expect("it is ours");
    authority
}

/// A host that joins as it did then is told the same; gives how many lines that took.
async fn joins(lines: &[(bool, Value)], authority: &Authority) -> usize {
    let Some((_, asked)) = lines.first().filter(|(_, frame)| parts(frame).0 == "join") else { return 0 };
    let roll = Roll::default();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let token = JoinToken::new([5; 32], authority.fingerprint());
    let mut asked = asked.clone();
    // Nobody signs with a key that was recorded.
    let (point, name) = (hex(key.der_bytes()), asked["join"]["name"].as_str().expect("a name").to_owned());
    let signed = key.sign(&proof(&token, &name, &point)).expect("a signature");
    asked["join"]["token"] = json!(token.secret());
    asked["join"]["proof"] = json!(hex(&signed));
    asked["join"]["key"] = json!(point);
    let wanted = || -> Join {
        match Frame::read(&asked.to_string()).expect("it is understood") {
            Frame::Join(join) => join,
            other => panic!("{other:?}"),
        }
    };
    // The first was refused, and the second let in.
    for (by_controller, answer) in &lines[1..3] {
        assert!(by_controller);
        let answered = match join(wanted(), authority, &roll, Duration::from_secs(3600)).await {
            Ok(joined) => Frame::Joined(joined),
            Err(refusal) => Frame::Refused(refusal),
        };
        let answered = serde_json::from_str(&answered.text()).expect("JSON");
        assert!(says(answer, &answered, ""), "{answer} was said, and now {answered}");
        roll.allow(&token.hash(), 1);
    }
    3
}

/// A stream that the real controller wants opened.
type Wanted = JoinHandle<Result<DuplexStream, Refusal>>;

/// Waits for a text at the local end of a stream.
async fn reads(local: &mut DuplexStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    let read = timeout(PATIENCE, local.read_exact(&mut bytes)).await;
    read.unwrap_or_else(|_| panic!("`{text}` does not come")).expect("the stream goes on");
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

/// Waits for the end of a stream.
async fn ends(local: Option<&mut DuplexStream>) {
    let read = timeout(PATIENCE, local.expect("it was opened").read(&mut [0; 1])).await;
    assert_eq!(read.expect("it ends").expect("in order"), 0);
}

async fn a_host_of_then(name: &str, recorded: &str) {
    let lines = lines(recorded);
    let authority = authority(&name.replace(' ', "-"));
    let joined = joins(&lines, &authority).await;
    let (roll, hub) = (Arc::new(Roll::default()), Hub::new());
    roll.allow("token", 1);
    let member = Member { name: "web-1".to_owned(), serial: "1".to_owned(), ..Member::default() };
    roll.enrol("token", member).await.expect("it may join");
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key").der_bytes().to_vec();
    let listener = Listener::new(authority, roll, hub.clone(), Terms::default()).expect("a listener");
    let listener = Rc::new(listener);
    let mut wire: Option<Wire> = None;
    let mut session = Value::Null;
    let mut wanted: BTreeMap<u64, Wanted> = BTreeMap::new();
    let mut locals: BTreeMap<u64, DuplexStream> = BTreeMap::new();
    for (by_controller, frame) in &lines[joined..] {
        let (kind, said) = parts(frame);
        if !by_controller {
            if kind == "hello" {
                let (ours, theirs) = connection();
                let until = SystemTime::now() + Duration::from_secs(86_400);
                let peer = Peer { host: "web-1".to_owned(), serial: "1".to_owned(), key: key.clone(), until };
                let from = "127.0.0.1:1".parse().expect("an address");
                let listener = Rc::clone(&listener);
                spawn_local(async move { listener.serve_known(theirs, peer, from).await });
                let shaken = tokio_tungstenite::client_async("wss://controller/agents", ours).await;
                if let Some(before) =
                    wire.replace(Wire { socket: shaken.expect("it is there").0, heard: VecDeque::new() })
                {
                    before.is_all();
                }
            }
            let mut frame = frame.clone();
            if said["session"].is_object() {
                frame["hello"]["session"]["number"] = session.clone();
            }
            let wire = wire.as_mut().expect("a host greets first");
            wire.say(&frame).await;
            match kind.as_str() {
                "opened" => {
                    let opened = wanted.remove(&number(&said)).expect("it was asked to open it");
                    let local = opened.await.expect("it does not panic").expect("it was opened");
                    locals.insert(number(&said), local);
                }
                "data" => {
                    let local = locals.get_mut(&number(&said)).expect("it was opened");
                    reads(local, text(&said)).await;
                }
                "end" => ends(locals.get_mut(&number(&said))).await,
                "close" => match wanted.remove(&number(&said)) {
                    Some(refused) => {
                        let why = refused.await.expect("it does not panic").expect_err("it was refused");
                        assert_eq!(json!(why), said["why"], "{name}");
                    }
                    None => ends(locals.get_mut(&number(&said))).await,
                },
                _ => {}
            }
            continue;
        }
        // What made the controller of then say this makes that of today say it.
        match kind.as_str() {
            "open" => {
                let (hub, to) = (hub.clone(), said["to"].clone());
                let user = to["prober"]["user"].as_str().map(str::to_owned);
                wanted.insert(
                    number(&said),
                    spawn_local(async move {
                        match to == "agent" {
                            true => hub.agent("web-1").await,
                            false => hub.prober("web-1", user.as_deref()).await,
                        }
                    }),
                );
            }
            "data" => {
                let local = locals.get_mut(&number(&said)).expect("it was opened");
                local.write_all(text(&said).as_bytes()).await.expect("there is room");
            }
            "end" => {
                let local = locals.get_mut(&number(&said)).expect("it was opened");
                local.shutdown().await.expect("it is open");
            }
            _ => {}
        }
        let heard = wire.as_mut().expect("a host greets first").hears(frame).await;
        if kind == "welcome" {
            session = heard["welcome"]["session"]["number"].clone();
        }
    }
    let wire = wire.expect("there was a connection");
    wire.is_all();
    let host = hub.hosts().remove(0);
    assert!(host.connected, "{name}: {host:?}");
}

#[test]
fn a_host_of_each_version_has_the_same_conversation_with_the_controller_of_today() {
    for (name, recorded) in RECORDED {
        alone(a_host_of_then(name, recorded));
    }
}
