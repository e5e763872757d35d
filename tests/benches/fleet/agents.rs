//! Hosts that are none: each has a connection of its own to the controller, made as a link makes it, and answers as an agent
//! does that has nothing to do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rcgen::KeyPair;
use squall_agent::fleet::dial::{Socket, ask, member};
use squall_agent::fleet::identity::Membership;
use squall_agent::policy::Policy;
use squall_agent::preflight::Report;
use squall_controller::conductor::boot_ns;
use squall_experiments::evidence::Evidence;
use squall_experiments::fleet::{Frame, Hello, Incoming, Inventory, Outgoing};
use squall_experiments::protocol::{Applied, Call, Lifted, Message as Line, Reply, Request, VERSION};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};
use tokio_tungstenite::tungstenite::Message;

use super::controller::Controller;

/// As a link does: the first pause before it dials again, and the longest.
const PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(30);
/// How long a connection may take to come about.
const CONNECTING: Duration = Duration::from_secs(30);
/// In so many threads hosts live.
const THREADS: usize = 2;

/// One descriptor a host.
pub fn many_descriptors() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let most = hard.max(65_536);
    setrlimit(Resource::RLIMIT_NOFILE, most, most)
        .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard))
        .unwrap();
}

#[derive(Default)]
struct Seen {
    connected: AtomicUsize,
    halted: Mutex<Vec<Instant>>,
    told: Mutex<Vec<Instant>>,
}

/// All hosts, in as many threads as a controller has for them here. It goes on until the process ends, or the herd is dropped.
pub struct Herd {
    seen: Arc<Seen>,
    over: Option<tokio::sync::watch::Sender<()>>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Herd {
    /// Lets all hosts of a controller dial at once.
    pub fn of(controller: &Controller) -> Self {
        let seen = Arc::new(Seen::default());
        let inventory = Inventory {
            labels: BTreeMap::from([
                ("role".to_owned(), "web".to_owned()),
                ("os".to_owned(), "debian".to_owned()),
            ]),
            zone: Some("north-1".to_owned()),
            kernel: "6.1.0-35-amd64".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            preflight: serde_json::to_value(Report::of(&Policy::of_this_host().unwrap())).unwrap(),
            ..Inventory::default()
        };
        let hello = Arc::new(Frame::Hello(Hello { versions: vec![1], inventory, session: None }));
        let key = Arc::new(KeyPair::from_pem(&controller.key.serialize_pem()).unwrap());
        let (members, at) = (controller.members.clone(), controller.agents);
        let (over, ended) = tokio::sync::watch::channel(());
        let share = members.len().div_ceil(THREADS);
        let threads = members.chunks(share).map(|members| {
            let (members, seen, hello, key) =
                (members.to_vec(), Arc::clone(&seen), Arc::clone(&hello), Arc::clone(&key));
            let mut ended = ended.clone();
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    for member in members {
                        let (seen, hello, key) = (Arc::clone(&seen), Arc::clone(&hello), Arc::clone(&key));
                        tokio::spawn(async move { live(at, &member, &key, &hello, &seen).await });
                    }
                    let _ = ended.changed().await;
                });
                runtime.shutdown_background();
            })
        });
        let threads = threads.collect();
        Herd { seen, over: Some(over), threads }
    }

    pub fn connected(&self) -> usize {
        self.seen.connected.load(Ordering::Relaxed)
    }

    /// When each was halted since [`Herd::forget`].
    pub fn halted(&self) -> Vec<Instant> {
        self.seen.halted.lock().unwrap().clone()
    }

    /// When each was told to make a change.
    pub fn told(&self) -> Vec<Instant> {
        self.seen.told.lock().unwrap().clone()
    }

    pub fn forget(&self) {
        self.seen.halted.lock().unwrap().clear();
        self.seen.told.lock().unwrap().clear();
    }
}

impl Drop for Herd {
    fn drop(&mut self) {
        drop(self.over.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

async fn live(at: SocketAddr, membership: &Membership, key: &KeyPair, hello: &Frame, seen: &Seen) {
    let mut pause = *PAUSE.start();
    loop {
        if let Ok(mut socket) = member(&[at], membership, key, CONNECTING).await
            && let Ok(Frame::Welcome(welcome)) = ask(&mut socket, hello).await
        {
            pause = *PAUSE.start();
            seen.connected.fetch_add(1, Ordering::Relaxed);
            let _ = session(socket, Duration::from_millis(welcome.heartbeat_ms), seen).await;
            seen.connected.fetch_sub(1, Ordering::Relaxed);
        }
        sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
        pause = (pause * 2).min(*PAUSE.end());
    }
}

#[derive(Default)]
struct Stream {
    incoming: Incoming,
    outgoing: Outgoing,
    text: String,
}

impl Stream {
    fn say(&mut self, stream: u64, number: u64, reply: Reply) -> Option<Frame> {
        let text = serde_json::to_string(&Line::Answer { number, reply }).ok()? + "\n";
        let seq = self.outgoing.send(text.clone());
        Some(Frame::Data { stream, seq, text })
    }
}

/// A step that waits for its instant.
struct Appointed {
    at: Instant,
    stream: u64,
    number: u64,
}

fn applied(seen: &Seen) -> Reply {
    seen.told.lock().unwrap().push(Instant::now());
    let targets = vec!["192.0.2.1".to_owned()];
    Reply::Applied(Applied { targets, made_ns: Some(boot_ns()), ..Applied::default() })
}

/// One connection, until it breaks.
async fn session(mut socket: Socket, beat: Duration, seen: &Seen) -> Option<()> {
    let mut streams: BTreeMap<u64, Stream> = BTreeMap::new();
    let mut appointed: Vec<Appointed> = Vec::new();
    let mut tick = interval(beat);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    loop {
        let due = appointed.iter().map(|one| one.at).min();
        let said = tokio::select! {
            message = socket.next() => match message?.ok()? {
                Message::Text(text) => answer(Frame::read(&text).ok()?, &mut streams, &mut appointed, seen)?,
                _ => continue,
            },
            () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                let come = appointed.extract_if(.., |one| one.at <= Instant::now());
                let come: Vec<Appointed> = come.collect();
                let begun = |one: Appointed| streams.get_mut(&one.stream)?.say(one.stream, one.number, applied(seen));
                come.into_iter().filter_map(begun).collect()
            }
            _ = tick.tick() => {
                number += 1;
                vec![Frame::Ping { number }]
            }
        };
        for frame in said {
            socket.feed(Message::text(frame.text())).await.ok()?;
        }
        socket.flush().await.ok()?;
    }
}

fn answer(
    frame: Frame,
    streams: &mut BTreeMap<u64, Stream>,
    appointed: &mut Vec<Appointed>,
    seen: &Seen,
) -> Option<Vec<Frame>> {
    let mut said = Vec::new();
    match frame {
        Frame::Open { stream, .. } => {
            streams.insert(stream, Stream::default());
            said.push(Frame::Opened { stream });
        }
        Frame::Data { stream, seq, text } => {
            let Some(one) = streams.get_mut(&stream) else { return Some(said) };
            one.incoming.take(seq, text.len()).ok()?;
            said.push(Frame::Ack { stream, seq: one.incoming.handed_on()? });
            one.text += &text;
            while let Some((line, rest)) = one.text.split_once('\n') {
                let Call { number, request } = serde_json::from_str(line).ok()?;
                one.text = rest.to_owned();
                if let Request::Apply { at_ns: Some(at_ns), .. } = &request {
                    let ahead = Duration::from_nanos(at_ns.saturating_sub(boot_ns()));
                    appointed.push(Appointed { at: Instant::now() + ahead, stream, number });
                } else {
                    said.extend(one.say(stream, number, reply(&request, seen)));
                }
            }
        }
        Frame::Ack { stream, seq } => {
            streams.get_mut(&stream).map(|one| one.outgoing.acknowledged(seq));
        }
        Frame::End { stream, .. } => {
            said.extend(
                streams.remove(&stream).map(|mut one| Frame::End { stream, seq: one.outgoing.end() }),
            );
        }
        Frame::Close { stream, .. } => drop(streams.remove(&stream)),
        Frame::Ping { number } => said.push(Frame::Pong { number }),
        Frame::Refused(_) => return None,
        _ => {}
    }
    Some(said)
}

fn reply(request: &Request, seen: &Seen) -> Reply {
    let evidence = || vec![Evidence { matched: 9, impaired: 9, ..Evidence::default() }];
    match request {
        Request::Hello { .. } => Reply::Hello {
            version: VERSION,
            guardian: 1,
            worker: 2,
            state: "/var/lib/squall".to_owned(),
            policy: "none".to_owned(),
            clock_ns: Some(boot_ns()),
        },
        Request::Clock => Reply::Clock { now_ns: boot_ns() },
        Request::Apply { .. } => applied(seen),
        Request::Observe { .. } => Reply::Measured(evidence()),
        Request::Lift { .. } => Reply::Lifted(Lifted { evidence: evidence(), ..Lifted::default() }),
        Request::End { .. } => Reply::Lifted(Lifted::default()),
        Request::Halt => {
            seen.halted.lock().unwrap().push(Instant::now());
            Reply::Lifted(Lifted::default())
        }
        Request::Status => Reply::Status(Vec::new()),
        _ => Reply::Done,
    }
}
