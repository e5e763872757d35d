//! Witnesses: whether a fault is felt from its target's side, asked by connections and pings of the agent's own, and by
//! what the kernel knows of connections that were there (`tcp_info`).
//!
//! Before the fault this is asked while the supervisor goes on with its work ([`Question`]); during the fault by a thread
//! ([`Live`]) that lives in the target's network namespace and carries the scope's mark. Nothing is said over a connection
//! and nothing that comes is read, so no parser is near the agent's privileges.

mod attempt;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use squall_experiments::change::Change;
use squall_experiments::flow::{Flow, Protocol};
use squall_experiments::protocol::Refusal;
use squall_experiments::scope::Scope;
use squall_experiments::witness::{Connections, Effect, Looks, Testimony, Verify};

use super::aim::{Aim, Network, Resolved};
use super::disconnect;
use super::netns::Netns;
use super::peers::Peers;
use super::sockets::{Listed, Sockets};
use super::view::{Seen, Viewpoint};
use crate::policy::Policy;
use attempt::{Outcome, Plan};

/// As many peers are asked.
const MOST_ASKED: usize = 3;
/// As many attempts are made before a fault, and so far apart.
const BEFORE: (u32, Duration) = (5, Duration::from_millis(40));
/// During one whose effect is the same on each.
const DURING: (u32, Duration) = (12, Duration::from_millis(250));
/// During one that concerns a share of them.
const DURING_LOSS: (u32, Duration) = (140, Duration::from_millis(60));
/// How long an answer is waited for before a fault; during one, what it adds comes on top.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long an answer is waited for at least during a fault.
const LEAST_PATIENCE: Duration = Duration::from_millis(400);
/// As many connections are looked at.
const MOST_CONNECTIONS: usize = 64;
/// How often connections are looked at while a fault is live: to list them takes milliseconds on a busy host.
const LOOK: Duration = Duration::from_millis(900);

/// Who is asked, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// By a TCP connection over which nothing is said.
    Tcp(SocketAddr),
    /// By an ICMP echo request.
    Ping(IpAddr),
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asked::Tcp(address) => write!(f, "TCP {address}"),
            Asked::Ping(address) => write!(f, "ping {address}"),
        }
    }
}

/// What was seen before a fault, by the flow that it concerns and from where that was looked at.
pub type Sights = HashMap<(Viewpoint, Flow), Sight>;

/// What was seen before a fault.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    asked: Vec<Asked>,
    before: Looks,
    slowest: Duration,
    connections: Vec<Listed>,
}

/// What is to be seen before a change is made.
#[derive(Debug)]
pub struct Question {
    flow: Flow,
    /// From where its names are seen.
    from: Viewpoint,
    /// Where; `None` is the agent's own namespace.
    netns: Option<Netns>,
}

impl Question {
    /// Of a change at its site; `None` where no probe is wanted.
    pub(super) fn of(change: &Change, from: Viewpoint, netns: Option<Netns>) -> Option<Self> {
        let flow = change.flow().filter(|flow| flow.verify == Verify::Probe)?;
        Some(Question { flow: flow.clone(), from, netns })
    }

    /// Asks, for seconds at most, on the calling thread. What is wrong with a flow is found out again, and told, when its
    /// change is prepared.
    pub fn ask(all: Vec<Self>, policy: &Policy, seen: &Seen, ours: &BTreeSet<i32>) -> Sights {
        let (mut sights, nothing) = (Sights::new(), Resolved::new());
        for Question { flow, from, netns } in all {
            // Changes of one fault, each for a way of the same packets, ask the same.
            let key = (from, flow);
            if sights.contains_key(&key) {
                continue;
            }
            let (from, flow) = &key;
            let resolved = seen.get(from).unwrap_or(&nothing);
            let look = || Sight::of(flow, &Aim::new(policy, resolved, ours.clone())).ok();
            let sight = match netns {
                None => look(),
                Some(netns) => netns.enter(look).ok().flatten(),
            };
            sights.extend(sight.map(|sight| (key, sight)));
        }
        sights
    }
}

impl Sight {
    fn of(flow: &Flow, aim: &Aim<'_>) -> Result<Self, Refusal> {
        let peers = Peers::of(flow, aim)?;
        let connections = connections(flow, aim, &peers)?;
        let asked = asked(flow, aim, &peers, &connections);
        let mut sight = Sight { asked, connections, ..Sight::default() };
        sight.connections.truncate(MOST_CONNECTIONS);
        if !sight.asked.is_empty() {
            let (most, every) = BEFORE;
            let plan = Plan { asked: sight.asked.clone(), mark: 0, most, every, patience: PATIENCE };
            let mut tally = Tally::default();
            attempt::run(&plan, &AtomicBool::new(false), |outcome| tally.add(outcome));
            sight.slowest = Duration::from_micros(tally.times.iter().copied().max().unwrap_or(0));
            sight.before = tally.looks();
        }
        Ok(sight)
    }
}

/// The established connections of a flow with what the kernel knows of them. A connection belongs to no interface.
fn connections(flow: &Flow, aim: &Aim<'_>, peers: &Peers) -> Result<Vec<Listed>, Refusal> {
    match flow.scope {
        Some(Scope::Interface(_)) => Ok(Vec::new()),
        _ if matches!(flow.protocol, Protocol::Icmp | Protocol::Udp) => Ok(Vec::new()),
        _ => disconnect::established(flow, aim, peers),
    }
}

/// Who can be asked from this side: those who are called, at their port; those who are named without a port, by a ping;
/// where nobody is, those to whom connections of the target lead.
fn asked(flow: &Flow, aim: &Aim<'_>, peers: &Peers, connections: &[Listed]) -> Vec<Asked> {
    if matches!(flow.scope, Some(Scope::Port(_))) {
        return Vec::new();
    }
    // On the way in nothing tells to whom an answer to a ping belongs.
    let pings = matches!(flow.protocol, Protocol::Any | Protocol::Icmp)
        && matches!(flow.scope, None | Some(Scope::Interface(_)));
    let connects = matches!(flow.protocol, Protocol::Any | Protocol::Tcp);
    let one = |network: &Network, called: bool| {
        let (address, bits) = network.network?;
        let whole = bits == if address.is_ipv4() { 32 } else { 128 };
        match network.ports.filter(|_| called).map(|ports| SocketAddr::new(address, ports.first)) {
            Some(address) if connects && whole => Some(Asked::Tcp(address)),
            None if pings && whole && network.ports.is_none() => Some(Asked::Ping(address)),
            _ => None,
        }
    };
    let called = peers.to.iter().filter_map(|network| one(network, true));
    let calling = peers.from.iter().filter_map(|network| one(network, false));
    let mut all: Vec<Asked> = called.chain(calling).collect();
    if all.is_empty() && connects {
        let listening = listening();
        let outgoing = connections.iter().filter(|socket| !listening.contains(&socket.local.1));
        all.extend(outgoing.map(|socket| Asked::Tcp(SocketAddr::from(socket.remote))));
    }
    let spared = |asked: &Asked| {
        let (address, port) = match asked {
            Asked::Tcp(address) => (address.ip(), address.port()),
            Asked::Ping(address) => (*address, 0),
        };
        peers.except.iter().any(|network| network.has(address, port)) || aim.protects((address, port))
    };
    let mut few: Vec<Asked> = Vec::new();
    for asked in all.into_iter().filter(|asked| !spared(asked)) {
        if few.len() < MOST_ASKED && !few.contains(&asked) {
            few.push(asked);
        }
    }
    few
}

fn listening() -> BTreeSet<u16> {
    let all = Sockets::open().and_then(|mut sockets| sockets.all()).unwrap_or_default();
    all.iter().filter(|socket| socket.listens()).map(|socket| socket.local.1).collect()
}

#[derive(Debug, Default)]
struct Tally {
    looks: Looks,
    times: Vec<u64>,
}

impl Tally {
    fn add(&mut self, outcome: Outcome) {
        self.looks.tried += 1;
        match outcome {
            Outcome::Answered(took) => {
                self.looks.answered += 1;
                self.times.push(took);
            }
            Outcome::Refused(took) => {
                self.looks.refused += 1;
                self.times.push(took);
            }
            Outcome::Silent => {}
        }
    }

    fn looks(&self) -> Looks {
        Looks { median_us: median(self.times.clone()), ..self.looks.clone() }
    }
}

fn median(mut times: Vec<u64>) -> Option<u64> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

/// What is asked while a change is live.
#[derive(Debug)]
pub struct Prepared {
    sight: Sight,
    effect: Effect,
}

/// Looks whether the effect of a change can be shown; `None` where that is not wanted, or where its target has come back
/// and nobody was asked before. Changes nothing.
pub fn prepare(change: &Change, aim: &Aim<'_>) -> Result<Option<Prepared>, Refusal> {
    let Some(flow) = change.flow().filter(|flow| flow.verify == Verify::Probe) else { return Ok(None) };
    let effect = Effect::of(change).ok_or_else(|| {
        Refusal::new("no probe shows the effect of this change", "leave `verify` out: the counters show it")
    })?;
    let Some(sight) = aim.sight(flow) else { return Ok(None) };
    if sight.asked.is_empty() && sight.connections.is_empty() {
        return Err(Refusal::new(
            "nobody can be asked whether the fault is felt: no peer is named with address and port, and no connection is open",
            "name one with `to:`, or leave `verify` out: the counters show the effect",
        ));
    }
    Ok(Some(Prepared { sight: sight.clone(), effect }))
}

impl Prepared {
    /// For the report.
    pub fn note(&self) -> String {
        let asked: Vec<String> = self.sight.asked.iter().map(ToString::to_string).collect();
        match asked.as_slice() {
            [] => "the effect is looked for on connections that are open".to_owned(),
            all => format!("probes of the agent's own ask for the effect: {}", all.join(", ")),
        }
    }

    /// Asks from now on, with the scope's mark (0 is none). The rules are in.
    pub fn begin(self, mark: u32) -> Live {
        let Prepared { sight, effect } = self;
        let (most, every) = if matches!(effect, Effect::Lost(_)) { DURING_LOSS } else { DURING };
        let added = if let Effect::Later(by) = effect { Duration::from_micros(by) } else { Duration::ZERO };
        let patience = LEAST_PATIENCE + sight.slowest * 2 + added * 3;
        let plan = Plan { asked: sight.asked.clone(), mark, most, every, patience };
        let live =
            Live { sight, effect, stop: Arc::default(), tally: Arc::default(), known: None, looked: None };
        if !plan.asked.is_empty() {
            let (stop, tally) = (Arc::clone(&live.stop), Arc::clone(&live.tally));
            // It stays in the network namespace of the thread that starts it.
            let witness = std::thread::Builder::new().name("witness".into()).stack_size(256 << 10);
            let spawned = witness.spawn(move || {
                attempt::run(&plan, &stop, |outcome| {
                    tally.lock().unwrap_or_else(PoisonError::into_inner).add(outcome);
                });
            });
            if let Err(error) = spawned {
                tracing::warn!(%error, "nobody asks whether the fault is felt");
            }
        }
        live
    }
}

/// Asks while it lives.
#[derive(Debug)]
pub struct Live {
    sight: Sight,
    effect: Effect,
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    known: Option<Connections>,
    looked: Option<Instant>,
}

impl Live {
    /// What was seen so far.
    pub fn testimony(&mut self) -> Testimony {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            self.looked = Some(Instant::now());
            self.known = self.look();
        }
        let during = self.tally.lock().unwrap_or_else(PoisonError::into_inner).looks();
        let asked = self.sight.asked.iter().map(ToString::to_string).collect();
        let before = self.sight.before.clone();
        Testimony { asked, before, during, connections: self.known, ..Testimony::default() }
            .judged(self.effect)
    }

    /// What has become of the connections that were there.
    fn look(&self) -> Option<Connections> {
        let before = &self.sight.connections;
        if before.is_empty() {
            return None;
        }
        let now = Sockets::open().and_then(|mut sockets| sockets.connections()).ok()?;
        let now = now.iter().filter_map(|socket| Some((before.iter().find(|old| old.is(socket))?, socket)));
        let now: Vec<(&Listed, &Listed)> = now.collect();
        let rtt =
            |all: &mut dyn Iterator<Item = &Listed>| median(all.map(|socket| socket.rtt_us.into()).collect());
        let sent_again =
            now.iter().map(|(old, new)| u64::from(new.sent_again.saturating_sub(old.sent_again)));
        Some(Connections {
            before: before.len() as u32,
            during: now.len() as u32,
            rtt_before_us: rtt(&mut before.iter()).unwrap_or(0),
            rtt_during_us: rtt(&mut now.iter().map(|(_, new)| *new)).unwrap_or(0),
            sent_again: sent_again.sum(),
        })
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}
