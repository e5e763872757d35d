//! A host of a simulated fleet: the agent's own link, session, streams, connections and lease; only what they would do to a
//! machine is written into the ledger instead.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use squall_agent::fleet::dial;
use squall_agent::fleet::errand::{Ask, Errands, Told};
use squall_agent::fleet::session::{self, Lasting, Streams};
use squall_agent::lease::Lease;
use squall_agent::line::Line;
use squall_agent::link::{self, Connection, Incoming, Origin};
use squall_experiments::evidence::Evidence;
use squall_experiments::fleet::{Inventory, Kind};
use squall_experiments::protocol::{
    Active, Applied, Call, Lifted, Message, Refusal, Reply, Request, RunId, VERSION,
};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use crate::ledger::{LOOK, Ledger};
use crate::{CONTROLLER, PORT};

/// How long a connection may take, and the pause after it.
const CONNECTING: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(400);

/// Something that is wrong on purpose, so that the simulation can be seen to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Nobody looks whether a lease is over.
    ForgetsLeases,
    /// A part that is asked for again is made again, and the conductor is not told that it was made.
    AppliesAgain,
}

/// Says that the agent died, whatever ended it.
struct Life(Ledger, String);

impl Drop for Life {
    fn drop(&mut self) {
        self.0.died(&self.1);
    }
}

/// Lives until it is crashed.
pub async fn live(name: String, ledger: Ledger, bug: Option<Bug>) -> turmoil::Result {
    let _life = Life(ledger.clone(), name.clone());
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    spawn_local(work(Errands::new(Line::new(theirs))?, Worker::new(name.clone(), ledger.clone(), bug)));
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let inventory = Inventory::default();
    let errands = Errands::new(Line::new(ours))?;
    let streams = Streams::default();
    let mut lasting = Lasting { errands, errand: 0, key, membership: None, inventory, streams };
    loop {
        let dialled = timeout(CONNECTING, async {
            let stream = turmoil::net::TcpStream::connect((CONTROLLER, PORT)).await?;
            dial::over(Box::new(stream)).await
        });
        if let Ok(Ok(socket)) = dialled.await {
            let _ = session::serve(socket, &mut lasting).await;
        }
        sleep(PAUSE).await;
    }
}

/// What a worker does beside its supervisor: gives the link sockets, and hears connections.
async fn work(errands: Errands, mut worker: Worker) {
    let (inbox, mut incoming) = mpsc::unbounded_channel();
    let inbox = Rc::new(inbox);
    let mut connections = 0;
    loop {
        tokio::select! {
            asked = errands.hear::<Ask>() => match asked {
                Ok(Some((Ask::Open { number, to: Kind::Agent }, _))) => {
                    let Ok((ours, theirs)) = UnixStream::pair() else { return };
                    connections += 1;
                    spawn_local(link::serve(ours, (connections, Origin::Controller), Rc::clone(&inbox)));
                    let _ = errands.say(&Told::Opened { number, refused: None }, Some(&OwnedFd::from(theirs)));
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return,
            },
            Some(incoming) = incoming.recv() => worker.take(incoming),
            () = sleep(LOOK) => {}
        }
        worker.look();
    }
}

/// The rules of the supervisor, over a machine that is a ledger.
struct Worker {
    host: String,
    ledger: Ledger,
    bug: Option<Bug>,
    clients: BTreeMap<Connection, mpsc::UnboundedSender<Message>>,
    injections: BTreeMap<RunId, Injection>,
}

struct Injection {
    connection: Connection,
    length: Duration,
    lease: Lease,
    parts: BTreeSet<u32>,
}

impl Worker {
    fn new(host: String, ledger: Ledger, bug: Option<Bug>) -> Self {
        Worker { host, ledger, bug, clients: BTreeMap::new(), injections: BTreeMap::new() }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.ledger.clock(&self.host).as_nanos()).unwrap_or(u64::MAX)
    }

    fn take(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Opened { connection, outgoing, .. } => {
                self.clients.insert(connection, outgoing);
            }
            Incoming::Asked(connection, Call { number, request }) => {
                let reply = self.reply(connection, request).unwrap_or_else(Reply::Refused);
                if let Some(client) = self.clients.get(&connection) {
                    let _ = client.send(Message::Answer { number, reply });
                }
            }
            Incoming::Closed(connection) => {
                self.clients.remove(&connection);
                let of_it = self.injections.iter().filter(|(_, one)| one.connection == connection);
                let over: Vec<RunId> = of_it.map(|(run, _)| run.clone()).collect();
                if self.bug != Some(Bug::ForgetsLeases) {
                    over.iter().for_each(|run| drop(self.end(run)));
                }
            }
        }
    }

    fn mine(&mut self, connection: Connection, run: &RunId) -> Result<&mut Injection, Refusal> {
        let mine = self.injections.get_mut(run).filter(|injection| injection.connection == connection);
        mine.ok_or_else(|| Refusal::bare(format!("there is no run `{run}` of this connection")))
    }

    fn reply(&mut self, connection: Connection, request: Request) -> Result<Reply, Refusal> {
        let now = self.now();
        Ok(match request {
            Request::Hello { .. } => {
                let (state, policy) = (String::new(), "none".to_owned());
                Reply::Hello { version: VERSION, guardian: 1, worker: 2, state, policy }
            }
            Request::Begin { run, lease_ms, deadline_ms, .. } => {
                if self.injections.contains_key(&run) {
                    return Err(Refusal::bare(format!("`{run}` is here already")));
                }
                let (length, deadline) =
                    (Duration::from_millis(lease_ms), Duration::from_millis(deadline_ms));
                let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
                let lease = Lease::new(now, nanos(length), now.saturating_add(nanos(deadline)));
                self.ledger.renewed(&self.host, &run, length);
                self.injections.insert(run, Injection { connection, length, lease, parts: BTreeSet::new() });
                Reply::Done
            }
            Request::Renew { run } => {
                let injection = self.mine(connection, &run)?;
                injection.lease.renew(now);
                let length = injection.length;
                self.ledger.renewed(&self.host, &run, length);
                Reply::Done
            }
            Request::Apply { run, part, .. } => {
                let again = self.bug == Some(Bug::AppliesAgain);
                let fresh = self.mine(connection, &run)?.parts.insert(part);
                if !fresh {
                    return Err(Refusal::bare(format!("part {part} of this run has been applied already")));
                }
                self.ledger.performed(&self.host, &run, part);
                if again {
                    self.ledger.performed(&self.host, &run, part);
                }
                Reply::Applied(Applied::default())
            }
            Request::Observe { .. } => Reply::Measured(vec![evidence()]),
            Request::Lift { run, part } => {
                if self.mine(connection, &run)?.parts.contains(&part) {
                    self.ledger.undone(&self.host, &run, part);
                }
                Reply::Lifted(Lifted { evidence: vec![evidence()], ..Lifted::default() })
            }
            Request::End { run } => {
                self.mine(connection, &run)?;
                Reply::Lifted(self.end(&run))
            }
            Request::Halt => {
                let all: Vec<RunId> = self.injections.keys().cloned().collect();
                all.iter().for_each(|run| drop(self.end(run)));
                Reply::Lifted(Lifted::default())
            }
            Request::Status => {
                let active = |run: &RunId| Active {
                    run: run.clone(),
                    title: String::new(),
                    expires_s: 1,
                    stuck: false,
                    changes: Vec::new(),
                };
                Reply::Status(self.injections.keys().map(active).collect())
            }
            _ => return Err(Refusal::bare("this is not asked here")),
        })
    }

    fn end(&mut self, run: &RunId) -> Lifted {
        let injection = self.injections.remove(run);
        let parts = injection.into_iter().flat_map(|injection| injection.parts);
        parts.for_each(|part| self.ledger.undone(&self.host, run, part));
        Lifted::default()
    }

    /// Ends what is over, as a supervisor's tick does.
    fn look(&mut self) {
        if self.bug == Some(Bug::ForgetsLeases) {
            return;
        }
        let now = self.now();
        let over = self.injections.iter().filter_map(|(run, one)| Some((run.clone(), one.lease.over(now)?)));
        for (run, why) in over.collect::<Vec<_>>() {
            let Some(connection) = self.injections.get(&run).map(|one| one.connection) else { continue };
            let lifted = self.end(&run);
            if let Some(client) = self.clients.get(&connection) {
                let _ = client.send(Message::Ended { run, part: None, why: why.to_owned(), lifted });
            }
        }
    }
}

fn evidence() -> Evidence {
    Evidence { matched: 9, impaired: 9, ..Evidence::default() }
}
