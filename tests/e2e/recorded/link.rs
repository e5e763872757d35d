//! A controller of then, and the link of today: the process that holds the connection of an agent.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde_json::{Value, json};
use squall_agent::fleet::dial;
use squall_agent::fleet::errand::{Ask, Errands, Told};
use squall_agent::fleet::identity::Membership;
use squall_agent::fleet::session::{self, Lasting, Streams};
use squall_agent::line::Line;
use squall_experiments::fleet::Joined;
use squall_experiments::protocol::{Message as Answer, Reply};
use squall_tests::wait::PATIENCE;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::{RECORDED, Wire, alone, comes, connection, lines, number, parts, taken, text};

/// A certificate for a key, which ends in an hour.
fn certificate(key: &KeyPair) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let mut parameters = rcgen::CertificateParams::default();
    parameters.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now + 3600);
    parameters.self_signed(key).expect("a certificate").pem()
}

/// What stands for the worker beside the real link: it gives it sockets, and looks at their other ends.
struct Worker {
    errands: Errands,
    /// What the link asks the agent by itself.
    own: Option<UnixStream>,
    /// Kept open for as long as the link asks.
    answered: Vec<BufStream<tokio::net::UnixStream>>,
}

impl Worker {
    async fn hears(&self) -> Ask {
        let asked = timeout(PATIENCE, self.errands.hear::<Ask>()).await.expect("it asks in time");
        asked.expect("it can be heard").expect("it is there").0
    }

    /// Gives the link a socket that it asks for; gives to what, and the other end.
    async fn opens(&self) -> (Value, UnixStream) {
        let Ask::Open { number, to } = self.hears().await else { panic!("it asks for something else") };
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let told = Told::Opened { number, refused: None };
        self.errands.say(&told, Some(&OwnedFd::from(theirs))).expect("it listens");
        (json!(to), ours)
    }

    async fn refuses(&self, why: &Value) -> Value {
        let Ask::Open { number, to } = self.hears().await else { panic!("it asks for something else") };
        let refused = Some(serde_json::from_value(why.clone()).expect("a reason"));
        self.errands.say(&Told::Opened { number, refused }, None).expect("it listens");
        json!(to)
    }

    /// Says on the link's own socket what the agent holds: the answer to its second question.
    async fn holds(&mut self, holds: &Value) {
        let own = self.own.take().expect("it has asked for one");
        own.set_nonblocking(true).expect("a socket");
        let mut own = BufStream::new(tokio::net::UnixStream::from_std(own).expect("a socket"));
        let status = Reply::Status(serde_json::from_value(holds.clone()).expect("what it holds"));
        for (number, reply) in [(1, Reply::Done), (2, status)] {
            let mut asked = String::new();
            let read = own.read_line(&mut asked);
            timeout(PATIENCE, read).await.expect("it asks in time").expect("it asks");
            let answer = serde_json::to_string(&Answer::Answer { number, reply }).expect("JSON") + "\n";
            own.write_all(answer.as_bytes()).await.expect("it reads");
            own.flush().await.expect("it reads");
        }
        self.answered.push(own);
    }
}

async fn a_controller_of_then(name: &str, recorded: &str) {
    let lines = lines(recorded);
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a pair");
    let mut worker =
        Worker { errands: Errands::new(Line::new(theirs)).expect("a line"), own: None, answered: Vec::new() };
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let given = certificate(&key);
    let hello = lines.iter().find(|(_, frame)| parts(frame).0 == "hello").expect("a host greets");
    let inventory = serde_json::from_value(hello.1["hello"]["inventory"].clone()).expect("an inventory");
    // It has had its certificate for so long that it wants another one, where it wanted one then.
    let renews = lines.iter().any(|(_, frame)| frame == "renew");
    let joined = Joined { name: "web-1".to_owned(), authority: given.clone(), certificate: given.clone() };
    let membership = Membership { from: 0, ..Membership::new(joined).expect("a certificate") };
    let mut lasting = Lasting {
        errands: Errands::new(Line::new(ours)).expect("a line"),
        errand: 0,
        key,
        membership: renews.then_some(membership),
        unkept: None,
        inventory,
        streams: Streams::default(),
    };
    // The link, one connection after the other.
    let (dialled, mut dials) = mpsc::unbounded_channel::<DuplexStream>();
    spawn_local(async move {
        while let Some(stream) = dials.recv().await {
            let socket = dial::over(Box::new(stream)).await.expect("it is there");
            let _ = session::serve(socket, &mut lasting).await;
        }
    });
    let mut wire: Option<Wire> = None;
    let mut locals: BTreeMap<u64, (UnixStream, String)> = BTreeMap::new();
    let mut opening: Option<Value> = None;
    let begins = lines.iter().position(|(_, frame)| parts(frame).0 == "hello").expect("a host greets");
    for (by_controller, frame) in &lines[begins..] {
        let (kind, said) = parts(frame);
        if *by_controller {
            let wire = wire.as_mut().expect("a host greets first");
            let mut frame = frame.clone();
            if kind == "renewed" {
                frame["renewed"]["certificate"] = json!(given);
            }
            wire.say(&frame).await;
            match kind.as_str() {
                // From now on the link looks at what its agent holds.
                "welcome" => worker.own = Some(worker.opens().await.1),
                "open" => opening = Some(said["to"].clone()),
                "data" => {
                    let (local, unread) = locals.get_mut(&number(&said)).expect("it was opened");
                    taken(local, unread);
                    comes(local, text(&said)).await;
                    *unread = text(&said).to_owned();
                }
                "end" => {
                    let (local, unread) = locals.get_mut(&number(&said)).expect("it was opened");
                    taken(local, unread);
                    unread.clear();
                    comes(local, "").await;
                }
                "renewed" => {
                    let Ask::Keep(membership) = worker.hears().await else { panic!("it keeps nothing") };
                    assert_eq!(membership.joined.certificate, given);
                    let kept = Told::Kept { until: membership.until, done: true };
                    worker.errands.say(&kept, None).expect("it listens");
                }
                _ => {}
            }
            continue;
        }
        match kind.as_str() {
            "hello" => {
                let (ours, theirs) = connection();
                // The one before ends with this.
                if let Some(before) = wire.take() {
                    before.is_all();
                }
                dialled.send(theirs).expect("it dials");
                let socket = tokio_tungstenite::accept_async(ours).await.expect("it dials");
                wire = Some(Wire { socket, heard: VecDeque::new() });
            }
            "opened" => {
                let (to, local) = worker.opens().await;
                assert_eq!(Some(to), opening.take(), "{name}");
                locals.insert(number(&said), (local, String::new()));
            }
            "close" => match opening.take() {
                Some(wanted) => assert_eq!(worker.refuses(&said["why"]).await, wanted, "{name}"),
                // Whoever goes with something unread breaks the stream off.
                None => drop(locals.remove(&number(&said))),
            },
            "data" => {
                let (local, _) = locals.get_mut(&number(&said)).expect("it was opened");
                local.write_all(text(&said).as_bytes()).expect("there is room");
            }
            "end" => locals[&number(&said)].0.shutdown(Shutdown::Write).expect("it is open"),
            "inventory" => worker.holds(&said["holds"]).await,
            _ => {}
        }
        wire.as_mut().expect("there is a connection").hears(frame).await;
    }
    wire.expect("there was a connection").is_all();
}

#[test]
fn a_controller_of_each_version_has_the_same_conversation_with_the_link_of_today() {
    for (name, recorded) in RECORDED {
        alone(a_controller_of_then(name, recorded));
    }
}
