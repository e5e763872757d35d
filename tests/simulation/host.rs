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
use crate::{Bug, CONTROLLER, PORT};

/// How long a connection may take, and the pause after it.
const CONNECTING: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(400);

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
    let mut lasting = Lasting { errands, errand: 0, key, membership: None, unkept: None, inventory, streams };
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
        let look = worker.next_look();
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
            () = sleep(look) => {}
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
    /// Steps that wait for their instant.
    appointed: Vec<Appointed>,
    /// The newest epoch of each run.
    epochs: BTreeMap<RunId, u64>,
}

struct Injection {
    connection: Connection,
    length: Duration,
    lease: Lease,
    parts: BTreeSet<u32>,
}

struct Appointed {
    at: u64,
    connection: Connection,
    number: u64,
    run: RunId,
    part: u32,
}

impl Worker {
    fn new(host: String, ledger: Ledger, bug: Option<Bug>) -> Self {
        Worker {
            host,
            ledger,
            bug,
            clients: BTreeMap::new(),
            injections: BTreeMap::new(),
            appointed: Vec::new(),
            epochs: BTreeMap::new(),
        }
    }

    /// The host's boot clock, which goes on while it sleeps.
    fn now(&self) -> u64 {
        let now = match self.bug {
            Some(Bug::WrongClock) => turmoil::sim_elapsed().unwrap_or_default(),
            _ => self.ledger.clock(&self.host),
        };
        u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
    }

    fn next_look(&self) -> Duration {
        let due = self.appointed.iter().map(|one| one.at).min();
        due.map_or(LOOK, |due| Duration::from_nanos(due.saturating_sub(self.now())).min(LOOK))
    }

    fn take(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Opened { connection, outgoing, .. } => {
                self.clients.insert(connection, outgoing);
            }
            Incoming::Asked(connection, Call { number, request }) => {
                if let Some(reply) = self
                    .reply(connection, number, request)
                    .unwrap_or_else(|refusal| Some(Reply::Refused(refusal)))
                {
                    self.answer(connection, number, reply);
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

    fn answer(&self, connection: Connection, number: u64, reply: Reply) {
        if let Some(client) = self.clients.get(&connection) {
            let _ = client.send(Message::Answer { number, reply });
        }
    }

    fn mine(&mut self, connection: Connection, run: &RunId) -> Result<&mut Injection, Refusal> {
        let mine = self.injections.get_mut(run).filter(|injection| injection.connection == connection);
        mine.ok_or_else(|| Refusal::bare(format!("there is no run `{run}` of this connection")))
    }

    /// The answer, unless it comes later.
    fn reply(
        &mut self,
        connection: Connection,
        number: u64,
        request: Request,
    ) -> Result<Option<Reply>, Refusal> {
        let now = self.now();
        Ok(Some(match request {
            Request::Hello { .. } => {
                let (state, policy) = (String::new(), "none".to_owned());
                Reply::Hello { version: VERSION, guardian: 1, worker: 2, state, policy, clock_ns: Some(now) }
            }
            Request::Clock => Reply::Clock { now_ns: now },
            Request::Watch { run } => self.mine(connection, &run).map(|_| Reply::Done)?,
            Request::Begin { run, lease_ms, deadline_ms, mandate, .. } => {
                let newest = self.epochs.entry(run.clone()).or_default();
                if mandate.epoch < *newest {
                    return Err(Refusal::bare(format!("`{run}` is at epoch {newest}")));
                }
                *newest = mandate.epoch;
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
            Request::Apply { run, part, at_ns, .. } => {
                if !self.mine(connection, &run)?.parts.insert(part) {
                    return Err(Refusal::bare(format!("part {part} of this run has been applied already")));
                }
                match at_ns {
                    Some(at) if at > now => {
                        self.appointed.push(Appointed { at, connection, number, run, part });
                        return Ok(None);
                    }
                    _ => self.make(&run, part, at_ns.map(|at| now - at)),
                }
            }
            Request::Observe { .. } => Reply::Measured(vec![evidence()]),
            Request::Lift { run, part } => {
                self.call_off(&run, Some(part));
                self.ledger.undone(&self.host, &run, part);
                Reply::Lifted(Lifted { evidence: vec![evidence()], ..Lifted::default() })
            }
            Request::End { run } => Reply::Lifted(self.end(&run)),
            Request::Fence { run, epoch } => {
                let newest = self.epochs.entry(run.clone()).or_default();
                *newest = epoch.max(*newest);
                let lifted = self.end(&run);
                self.ledger.fenced(&self.host, &run);
                Reply::Lifted(lifted)
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
        }))
    }

    fn make(&mut self, run: &RunId, part: u32, late: Option<u64>) -> Reply {
        self.ledger.performed(&self.host, run, part);
        let late_us = late.map(|late| late / 1000);
        Reply::Applied(Applied { made_ns: Some(self.now()), late_us, ..Applied::default() })
    }

    fn call_off(&mut self, run: &RunId, part: Option<u32>) {
        let off = |one: &mut Appointed| one.run == *run && part.is_none_or(|part| part == one.part);
        let off: Vec<Appointed> = self.appointed.extract_if(.., off).collect();
        for Appointed { connection, number, .. } in off {
            self.answer(connection, number, Reply::Refused(Refusal::bare("it was called off")));
        }
    }

    fn end(&mut self, run: &RunId) -> Lifted {
        let injection = self.injections.remove(run);
        let parts = injection.into_iter().flat_map(|injection| injection.parts);
        parts.for_each(|part| self.ledger.undone(&self.host, run, part));
        self.call_off(run, None);
        Lifted::default()
    }

    /// Ends what is over, and begins what is due, as a supervisor's tick does.
    fn look(&mut self) {
        let now = self.now();
        let over = self.injections.iter().filter_map(|(run, one)| Some((run.clone(), one.lease.over(now)?)));
        let over: Vec<_> = if self.bug == Some(Bug::ForgetsLeases) { Vec::new() } else { over.collect() };
        for (run, why) in over {
            let Some(connection) = self.injections.get(&run).map(|one| one.connection) else { continue };
            let lifted = self.end(&run);
            if let Some(client) = self.clients.get(&connection) {
                let _ = client.send(Message::Ended { run, part: None, why: why.to_owned(), lifted });
            }
        }
        let come: Vec<Appointed> = self.appointed.extract_if(.., |one| one.at <= now).collect();
        for Appointed { connection, number, run, part, .. } in come {
            let reply = self.make(&run, part, None);
            self.answer(connection, number, reply);
        }
    }
}

fn evidence() -> Evidence {
    Evidence { matched: 9, impaired: 9, ..Evidence::default() }
}
