//! All hosts of the fleet, and the way to each.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use serde::{Serialize, Serializer};
use serde_json::Value;
use squall_experiments::fleet::{Held, Inventory, Kind, Session as Said};
use squall_experiments::protocol::{
    Active, Call, LONGEST_LINE, Lifted, Message, Refusal, Reply, Request, RunId,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex};
use tokio::sync::{mpsc, oneshot};
use tokio::task::coop::unconstrained;
use tokio::time::timeout;

use super::room::Room;
use super::session::Session;

/// How long a host may take to answer a halt.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many bytes of a stream may wait for who reads it.
const WAITING: usize = 16 << 10;
/// How many bytes of a halt may wait on their way: all hosts are halted at once.
const HALTING: usize = 1 << 10;
/// How many kinds of machines are kept once; what the others say is kept for each.
const KINDS: usize = 64;
/// How many streams may wait to be opened on one connection.
const ORDERS: usize = 16;

/// All hosts that have connected, or were [made known](Hub::know). A clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Hub {
    all: Arc<Mutex<All>>,
    room: Room,
    /// How many hosts were cut off.
    cut_off: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct All {
    hosts: BTreeMap<String, Known>,
    preflights: Preflights,
}

#[derive(Debug, Default)]
struct Known {
    /// Without what works there, which is kept once for all hosts that say the same.
    inventory: Inventory,
    preflight: Arc<Value>,
    link: Option<Link>,
    /// How many connections it has had.
    connections: u64,
    session: Session,
    last_contact: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Link {
    orders: mpsc::Sender<Box<Order>>,
    over: oneshot::Sender<Refusal>,
}

/// What a connection is told to do.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) to: Kind,
    pub(super) local: DuplexStream,
    pub(super) opened: oneshot::Sender<Result<(), Refusal>>,
}

/// A connection's side of its place in the hub.
#[derive(Debug)]
pub(super) struct Seat {
    hub: Hub,
    host: String,
    pub(super) number: u64,
    /// How many hosts there are.
    pub(super) fleet: usize,
    pub(super) session: Session,
    /// What the host had of its streams when it came.
    pub(super) theirs: Vec<Held>,
    last_contact: Arc<AtomicU64>,
    pub(super) orders: mpsc::Receiver<Box<Order>>,
    pub(super) over: oneshot::Receiver<Refusal>,
}

/// A host, as far as the controller knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HostInfo {
    /// What it is called: what stands in its certificate.
    pub name: String,
    /// What its owner says of it.
    pub labels: BTreeMap<String, String>,
    /// Where it stands.
    pub zone: Option<String>,
    /// To which part of the whole it belongs.
    pub cell: Option<String>,
    /// The release of its kernel.
    pub kernel: String,
    /// The version of its agent.
    pub version: String,
    /// Whether it is connected now.
    pub connected: bool,
    /// When something was heard of it last: milliseconds since 1970; 0 is never.
    pub last_contact_ms: u64,
    /// What works there.
    #[serde(serialize_with = "shared")]
    pub preflight: Arc<Value>,
    /// What is injected there, by its own last word.
    pub holds: Vec<Active>,
}

impl Hub {
    /// No host is known yet, and there is room for all.
    pub fn new() -> Self {
        Self::default()
    }

    /// No host is known yet, and there is room for so many.
    pub fn within(room: Room) -> Self {
        Hub { room, ..Hub::default() }
    }

    /// Room for hosts, and for runs on them.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// A host belongs to the fleet, though it is not connected.
    pub fn know(&self, host: &str, inventory: Inventory) {
        let known = || Known { inventory, ..Known::default() };
        self.known().hosts.entry(host.to_owned()).or_insert_with(known);
    }

    /// All hosts by name.
    pub fn hosts(&self) -> Vec<HostInfo> {
        let known = self.known();
        let info = |(name, known): (&String, &Known)| {
            let Inventory { labels, zone, cell, kernel, version, holds, .. } = known.inventory.clone();
            HostInfo {
                name: name.clone(),
                labels,
                zone,
                cell,
                kernel,
                version,
                connected: known.link.is_some(),
                last_contact_ms: known.last_contact.load(Ordering::Relaxed),
                preflight: Arc::clone(&known.preflight),
                holds,
            }
        };
        known.hosts.iter().map(info).collect()
    }

    /// Whether a host is connected now.
    pub fn has(&self, host: &str) -> bool {
        self.known().hosts.get(host).is_some_and(|known| known.link.is_some())
    }

    /// The names of those that are connected now.
    pub fn connected(&self) -> BTreeSet<String> {
        let known = self.known();
        let connected = known.hosts.iter().filter(|(_, known)| known.link.is_some());
        connected.map(|(name, _)| name.clone()).collect()
    }

    /// A stream to the agent of a host, as lines of [`squall_experiments::protocol`]. It outlives the
    /// connection to the host for [`HOLD`](squall_experiments::fleet::stream::HOLD), if another one follows; when it ends,
    /// the agent reverts what was begun over it.
    ///
    /// Needs no runtime of the caller's. Cancel-safe: what was opened meanwhile is closed again.
    pub async fn agent(&self, host: &str) -> Result<DuplexStream, Refusal> {
        self.join(host, Kind::Agent).await
    }

    /// A stream to a prober that begins now on a host: lines of [`squall_experiments::probe`]. The host's policy decides
    /// as whom it may run, and whether it may start programs. See [`Hub::agent`].
    pub async fn prober(&self, host: &str, user: Option<&str>) -> Result<DuplexStream, Refusal> {
        self.join(host, Kind::Prober { user: user.map(str::to_owned) }).await
    }

    /// Undoes everything of every run on these hosts, or on all that are connected; says what came of it by host. Must be
    /// called in a runtime. Who is not connected, or does not answer within 30 s, reverts by its lease.
    pub async fn halt(&self, hosts: Option<&[String]>) -> BTreeMap<String, Result<Lifted, Refusal>> {
        let hosts: Vec<String> = match hosts {
            Some(hosts) => hosts.to_vec(),
            None => self.connected().into_iter().collect(),
        };
        let halted = hosts.into_iter().map(|host| async move {
            let silent = || unreached(&host, "it did not answer in time");
            let lifted = timeout(PATIENCE, self.halt_one(&host)).await.unwrap_or_else(|_| Err(silent()));
            (host, lifted)
        });
        // No host waits for its turn: together they are more than a task may usually do at once.
        unconstrained(join_all(halted)).await.into_iter().collect()
    }

    /// Ends the connection of a host now: it was revoked. Everything that was begun over it is reverted by the host.
    pub fn cut_off(&self, host: &str) {
        self.cut_off.fetch_add(1, Ordering::SeqCst);
        let mut known = self.known();
        let known = known.hosts.get_mut(host);
        let link = known.and_then(|known| {
            known.session.end(None);
            known.link.take()
        });
        if let Some(link) = link {
            let _ = link.over.send(super::registry::revoked(host));
        }
    }

    /// How many were cut off so far: who sees no more of them after a host was seated than before it was let in missed none.
    pub(super) fn cut_offs(&self) -> u64 {
        self.cut_off.load(Ordering::SeqCst)
    }

    fn known(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn join(&self, host: &str, to: Kind) -> Result<DuplexStream, Refusal> {
        let (ours, theirs) = duplex(WAITING);
        self.open(host, to, theirs).await?;
        Ok(ours)
    }

    async fn open(&self, host: &str, to: Kind, local: DuplexStream) -> Result<(), Refusal> {
        let orders = self.known().hosts.get(host).and_then(|known| Some(known.link.as_ref()?.orders.clone()));
        let gone = || unreached(host, "it is not connected");
        let orders = orders.ok_or_else(gone)?;
        let (opened, answer) = oneshot::channel();
        orders.send(Box::new(Order { to, local, opened })).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Undoes a run on a host, which refuses it in an earlier epoch from then on.
    pub async fn fence(&self, host: &str, run: &RunId, epoch: u64) -> Result<Lifted, Refusal> {
        let silent = || unreached(host, "it did not answer in time");
        let fenced = self.lift(host, Request::Fence { run: run.clone(), epoch });
        timeout(PATIENCE, fenced).await.unwrap_or_else(|_| Err(silent()))
    }

    async fn halt_one(&self, host: &str) -> Result<Lifted, Refusal> {
        self.lift(host, Request::Halt).await
    }

    /// Asks a host's agent for something that undoes.
    async fn lift(&self, host: &str, request: Request) -> Result<Lifted, Refusal> {
        let lost = |error: io::Error| unreached(host, &error.to_string());
        let (mut stream, theirs) = duplex(HALTING);
        self.open(host, Kind::Agent, theirs).await?;
        // Without a greeting: an agent that knows another version of the protocol is to undo, too.
        let mut line =
            serde_json::to_string(&Call { number: 1, request }).map_err(|error| lost(error.into()))?;
        line.push('\n');
        stream.write_all(line.as_bytes()).await.map_err(lost)?;
        let mut reader = BufReader::with_capacity(HALTING, stream);
        loop {
            let mut line = Vec::new();
            let mut limited = (&mut reader).take(LONGEST_LINE as u64 + 1);
            limited.read_until(b'\n', &mut line).await.map_err(lost)?;
            if !line.ends_with(b"\n") {
                return Err(unreached(host, "the stream to it ended"));
            }
            match serde_json::from_slice(&line).map_err(|error| lost(error.into()))? {
                Message::Answer { reply: Reply::Refused(refusal), .. } => return Err(refusal),
                Message::Answer { reply: Reply::Lifted(lifted), .. } => return Ok(lifted),
                _ => {}
            }
        }
    }

    /// A host has connected; `resumes` is whether it knows of sessions, `theirs` the one that it had. Its older connection
    /// ends. Gives what it is to be told of its session.
    pub(super) fn seat(
        &self,
        host: &str,
        mut inventory: Inventory,
        resumes: bool,
        theirs: Option<Said>,
    ) -> (Seat, Option<Said>) {
        let (orders, ordered) = mpsc::channel(ORDERS);
        let (over, overs) = oneshot::channel();
        let mut known = self.known();
        let preflight = known.preflights.keep(std::mem::take(&mut inventory.preflight));
        let one = known.hosts.entry(host.to_owned()).or_default();
        one.connections += 1;
        one.inventory = inventory;
        one.preflight = preflight;
        if let Some(older) = one.link.replace(Link { orders, over }) {
            let _ = older.over.send(Refusal::bare(format!("`{host}` has connected anew")));
        }
        let (number, last_contact) = (one.connections, one.last_contact.clone());
        let session = one.session.clone();
        let fleet = known.hosts.len();
        drop(known);
        let told = session.take_over(number, resumes, theirs.as_ref());
        let seat = Seat {
            hub: self.clone(),
            host: host.to_owned(),
            number,
            fleet,
            session,
            theirs: theirs.map(|theirs| theirs.streams).unwrap_or_default(),
            last_contact,
            orders: ordered,
            over: overs,
        };
        seat.heard();
        (seat, told)
    }
}

impl Seat {
    /// Something came from the host.
    pub(super) fn heard(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_contact.store(u64::try_from(now.as_millis()).unwrap_or(0), Ordering::Relaxed);
    }

    /// The host says what it is now.
    pub(super) fn is_now(&self, mut inventory: Inventory) {
        let mut all = self.hub.known();
        let said = std::mem::take(&mut inventory.preflight);
        let preflight = (!said.is_null()).then(|| all.preflights.keep(said));
        if let Some(known) = all.hosts.get_mut(&self.host)
            && known.connections == self.number
        {
            known.inventory = inventory;
            known.preflight = preflight.unwrap_or_else(|| Arc::clone(&known.preflight));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.session.lost(self.number);
        if let Some(known) = self.hub.known().hosts.get_mut(&self.host)
            && known.connections == self.number
        {
            known.link = None;
        }
    }
}

/// What hosts say of what works on them, each text of it once: it is some kilobytes, and the same on all machines of a kind.
#[derive(Debug, Default)]
struct Preflights(Vec<Arc<Value>>);

impl Preflights {
    fn keep(&mut self, said: Value) -> Arc<Value> {
        if let Some(kept) = self.0.iter().find(|kept| ***kept == said) {
            return Arc::clone(kept);
        }
        self.0.retain(|kept| Arc::strong_count(kept) > 1);
        let said = Arc::new(said);
        if self.0.len() < KINDS {
            self.0.push(Arc::clone(&said));
        }
        said
    }
}

fn shared<S: Serializer>(value: &Arc<Value>, serializer: S) -> Result<S::Ok, S::Error> {
    value.serialize(serializer)
}

/// That a host cannot be reached, and why.
pub(crate) fn unreached(host: &str, why: &str) -> Refusal {
    Refusal::new(
        format!("`{host}` cannot be reached: {why}"),
        "look at its agent's log; what was begun there ends with its lease",
    )
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn a_halt_is_on_its_way_to_all_hosts_before_anything_else_is_done() {
        let hub = Hub::new();
        let seat = |number| hub.seat(&format!("host-{number}"), Inventory::default(), true, None).0;
        // More than a task does before it gives way to others.
        let mut seats: Vec<Seat> = (0..1_000).map(seat).collect();
        let mut halt = pin!(hub.halt(None));
        tokio::select! {
            biased;
            _ = &mut halt => panic!("nobody has answered"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(seats.iter_mut().filter_map(|seat| seat.orders.try_recv().ok()).count(), 1_000);
    }
}
