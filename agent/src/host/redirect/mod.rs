//! Redirects: new connections of a scope to a dependency are led through a proxy on the same host.
//!
//! A BPF program on connect(2) puts the address of the proxy's socket in the place of the dependency's: one socket for each
//! address, so that the proxy knows where to go on to without asking anybody, and getpeername(2) still gives the address
//! that was asked for. It is not done by nftables' address translation, which would switch on connection tracking for the
//! whole network namespace, and needs a base chain whose end costs packets that others hold in queues. Connections that
//! are there are not touched: they have been connected.
//!
//! It holds only while its [`lease`] is renewed, and is gone with the descriptors of its links: when the worker ends, and
//! before that as soon as the [`proxy`] has.

pub mod held;
mod leading;
pub mod lease;
mod material;
mod program;
pub mod proxy;
mod resolvers;
pub mod seen;
mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use squall_experiments::ailment::Ailment;
use squall_experiments::change::Redirect;
use squall_experiments::evidence::{Engine, Evidence, Incident, Unit};
use squall_experiments::flow::{Established, Flow};
use squall_experiments::protocol::{Refusal, RunId};

use super::aim::Aim;
use super::means::Means;
use super::peers::Peers;
use super::process::Target;
use super::reach::Reach;
use super::sockets::Listed;
use super::table::Table;
use super::undo::TAG;
use super::whom::Whom;
use super::{disconnect, mark, sys};
use crate::outage::order::{Counts, Task};
use held::{Held, Hold};
use leading::Unled;
use program::Callers;
use proxy::{Proxies, Proxy};
use resolvers::Followed;
pub use resolvers::unseen;
pub use ways::trial;
use ways::{CONNECTIONS, DATAGRAMS, Ways, refused};

/// How often the proxy is asked whether it lives, in nanoseconds.
const LOOK: u64 = 300_000_000;
/// How long counts are waited for that know of all that was led to it.
const MOMENT: Duration = Duration::from_millis(200);

/// A redirect that has been looked at.
#[derive(Debug)]
pub struct Prepared {
    /// What is aimed at, for the report.
    pub targets: Vec<String>,
    /// What the reader must know.
    pub notes: Vec<String>,
    /// Whose connections.
    pub whom: Whom,
    pub(super) peers: Peers,
    redirect: Redirect,
    dependency: BTreeSet<SocketAddr>,
    /// Connections that are reset when it begins.
    connections: Vec<Listed>,
    identity: (u32, u32),
    hold: Hold,
}

/// Looks at the host. Changes nothing.
pub fn prepare(
    redirect: &Redirect,
    tag: &str,
    aim: &Aim<'_>,
    marks: &BTreeSet<u32>,
    held: &Held,
) -> Result<Prepared, Refusal> {
    let flow = &redirect.flow;
    let whom = Whom::of(flow.scope.as_ref(), tag, aim, marks)?;
    if whom.has_ports() || whom.by_interface() {
        return Err(Refusal::new(
            "this scope does not say who calls the dependency",
            "say it with `process`, `unit`, `cgroup`, `user`, `container` or `netns`",
        ));
    }
    material::check(redirect)?;
    let identity = proxy::identity(proxy::ACCOUNT)?;
    let peers = Peers::of(flow, aim)?;
    let (mut targets, mut notes) = (whom.targets.clone(), whom.notes.clone());
    targets.extend(peers.shown());
    let mut redirect = redirect.clone();
    let (dependency, protected) = match &mut redirect.ailment {
        Ailment::Lookup { names, .. } => {
            let resolvers = resolvers::of(flow, names.first().map_or("", String::as_str))?;
            targets = whom.targets.clone();
            targets.extend(resolvers.servers.iter().map(|server| format!("{server} (name server)")));
            notes.extend(resolvers.notes);
            *names = resolvers.names;
            resolvers.servers.into_iter().partition(|server| is_free(*server, aim))
        }
        _ => addresses(&peers, aim),
    };
    notes.extend(protected.iter().map(|address| format!("left alone, as it is protected: {address}")));
    if dependency.is_empty() {
        return Err(Refusal::new(
            "no address of the dependency may be touched",
            "they are protected by this host's policy, or lead to Squall's own controllers",
        ));
    }
    let network = sys::netns_cookie().map_err(refused("read the namespace's cookie"))?;
    if let Some((address, who)) =
        dependency.iter().find_map(|address| Some((address, held.by(network, flow, *address)?)))
    {
        return Err(taken(*address, &who));
    }
    let who = format!("{} ({})", tag.trim_start_matches(TAG).trim_end_matches(';'), in_words(flow));
    let established = disconnect::established(flow, aim, &peers)?;
    let connections = if flow.established == Established::Reset {
        established
    } else {
        notes.push(format!("left alone: {} that had been made before", counted(established.len() as u64)));
        Vec::new()
    };
    let hold = held.begin(network, flow, who);
    Ok(Prepared { targets, notes, whom, peers, redirect, dependency, connections, identity, hold })
}

/// What is out, as it was named.
fn in_words(flow: &Flow) -> String {
    flow.to.first().map(ToString::to_string).unwrap_or_default()
}

/// Two outages cannot have the same address at once.
fn taken(address: SocketAddr, who: &str) -> Refusal {
    Refusal::new(
        format!("{address} is led to the proxy of another outage already: run {who}"),
        "wait for it to end, or aim at other callers or another dependency",
    )
}

fn counted(connections: u64) -> String {
    if connections == 1 { "one connection".to_owned() } else { format!("{connections} connections") }
}

/// The addresses of a dependency, and those that are protected.
fn addresses(peers: &Peers, aim: &Aim<'_>) -> (BTreeSet<SocketAddr>, BTreeSet<SocketAddr>) {
    let each = peers.to.iter().filter_map(|peer| {
        let (address, _) = peer.network?;
        Some(SocketAddr::new(address, peer.ports?.first))
    });
    each.partition(|address| is_free(*address, aim))
}

/// Whether nothing protects an address.
fn is_free(address: SocketAddr, aim: &Aim<'_>) -> bool {
    !aim.protects((address.ip(), address.port())) && !aim.links().contains(&address)
}

/// What is counted of it: in which unit, how many came, and to how many something was done. Where a fault is of requests as
/// far as HTTP is spoken, a connection on which it is not counts as one; where it never was, only connections do.
fn told(ailment: &Ailment, counts: &Counts) -> (Unit, u64, u64) {
    match ailment {
        ailment if ailment.is_of_requests() || ailment.is_of_lookups() => {
            (Unit::Requests, counts.requests, counts.requests_harmed)
        }
        ailment if ailment.is_of_either() && counts.requests > 0 => {
            (Unit::Requests, counts.requests + counts.foreign, counts.requests_harmed + counts.harmed)
        }
        _ => (Unit::Connections, counts.came, counts.harmed),
    }
}

/// A redirect that is live.
#[derive(Debug)]
pub struct Live {
    /// Which process carries what is led there.
    proxy: Target,
    whom: Whom,
    mark: Option<mark::Live>,
    peers: Peers,
    task: Task,
    /// Whom the target asks for names, where the fault is about those.
    followed: Option<Followed>,
    ways: Ways,
    hold: Hold,
    began: u64,
    look: u64,
    /// It ended before it was lifted.
    cut_short: Option<String>,
    /// What could not be led to the proxy: that is told once, and tried again.
    unled: BTreeMap<SocketAddr, Unled>,
    incidents: Vec<Incident>,
}

/// Starts a proxy for it: one that holds nothing yet. Where its run is watched, it keeps what it sees.
pub fn start(prepared: &Prepared, seed: u64, watched: Option<&(RunId, u32)>) -> Result<Proxy, Refusal> {
    Proxy::start(prepared.identity, seed, watched)
}

/// Leads connections to the proxy, which is ready. Its undo is recorded.
pub fn perform(
    mut prepared: Prepared,
    proxy: &mut Proxy,
    mark: Option<mark::Live>,
    means: &Means,
) -> Result<Live, Refusal> {
    mark.iter().for_each(|mark| prepared.whom.begin(mark));
    let Prepared { whom, peers, redirect, dependency, connections, identity, hold, .. } = prepared;
    let Redirect { flow, ailment, share, tls } = redirect;
    let task = Task { ailment, share: share.fraction() as f32, tls };
    let followed = match &task.ailment {
        // The first is the name itself, the others are what search domains make of it.
        Ailment::Lookup { names, .. } => {
            names.first().map(|name| Followed::new(&flow, name, sys::boot_nanos()))
        }
        _ => None,
    };
    let mut ways = Ways::new()?;
    for address in &dependency {
        // Of what was prepared at once, the first one has it.
        hold.take(*address, &means.held).map_err(|who| taken(*address, &who))?;
        let to = proxy.carry(*address, &task)?;
        ways.lead(*address, to).map_err(refused("fill a BPF map"))?;
    }
    let (level, groups) = whom.groups().map_or((None, BTreeSet::new()), |(level, ids)| (Some(level), ids));
    ways.group(&groups).map_err(refused("fill a BPF map"))?;
    let bit = whom.mark.as_ref().map_or(0, |mark| mark.bit);
    let hooks = [CONNECTIONS, DATAGRAMS].concat();
    let hooks = if task.ailment.is_of_lookups() { &hooks[..] } else { &CONNECTIONS };
    ways.open(Callers { bit, level, except: identity.0 }, hooks, means)?;
    let began = sys::boot_nanos();
    let mut live = Live {
        proxy: proxy.target().clone(),
        whom,
        mark,
        peers,
        task,
        followed,
        ways,
        hold,
        began,
        look: began + LOOK,
        cut_short: None,
        unled: BTreeMap::new(),
        incidents: Vec::new(),
    };
    let watched = live.whom.watch(&means.watch).and_then(|()| means.watch.add(proxy.as_fd()));
    watched.map_err(|error| Refusal::bare(format!("the target cannot be watched: {error}")))?;
    if flow.established == Established::Reset {
        // From here on who comes back is led to the proxy.
        let reset = disconnect::destroy(&connections)?;
        live.happened(format!("reset: {} that had been made before", counted(reset)));
    }
    Ok(live)
}

impl Live {
    /// Which process carries what is led there.
    pub fn proxy(&self) -> &Target {
        &self.proxy
    }

    fn happened(&mut self, what: String) {
        let after_ms = (sys::boot_nanos() - self.began) / 1_000_000;
        self.incidents.push(Incident { after_ms, what });
    }

    /// Whose connections it leads now, where those are followed.
    pub fn reach(&self) -> Option<Reach> {
        self.whom.reach(self.mark.as_ref())
    }

    /// When [`Live::tick`] wants to be called next, on the boot clock.
    pub fn due(&self) -> Option<u64> {
        let look = self.cut_short.is_none().then_some(self.look);
        [look, self.whom.due()].into_iter().flatten().min()
    }

    /// Looks whether the proxy lives, and follows targets. Called whenever the worker wakes.
    pub fn tick(&mut self, table: Option<&mut Table>, means: &Means, aim: &Aim<'_>) {
        let proxies = &means.proxies;
        if self.cut_short.is_none() {
            let hangs =
                proxies.with(&self.proxy, |proxy| (!proxy.has_ended()).then(|| proxy.hangs())).flatten();
            if hangs != Some(false) {
                // First of all: whoever connects now must reach the dependency.
                self.ways.links.clear();
                self.hold.let_go();
                let why = if hangs.is_some() { "did not answer any more" } else { "has ended" };
                let seconds = (sys::boot_nanos() - self.began) as f64 / 1e9;
                self.cut_short = Some(format!(
                    "its proxy {why} after {seconds:.1} s; from then on connections led to the dependency"
                ));
                self.happened(format!(
                    "the proxy {} {why}: connections are not led to it any more",
                    self.proxy
                ));
                proxies.with(&self.proxy, Proxy::kill);
            } else if self.look <= sys::boot_nanos() {
                self.look = sys::boot_nanos() + LOOK;
                proxies.with(&self.proxy, Proxy::ask);
                self.follow_servers(means, aim);
                self.lead_again(means, aim);
            }
        }
        let Some(table) = table else { return };
        for what in self.whom.follow(table, self.mark.as_mut(), aim) {
            self.happened(what);
        }
        if let Some((_, ids)) = self.whom.groups()
            && let Err(error) = self.ways.group(&ids)
        {
            self.happened(format!("a control group could not be followed: {error}"));
        }
    }

    /// What has been measured.
    pub fn observe(&self, proxies: &Proxies) -> Evidence {
        // First what stands in front: what is on its way to the proxy must not look as if it had passed it by.
        let led = self.ways.led();
        // Of lookups a socket may have none or several, so that sockets show nothing.
        let led = if self.task.ailment.is_of_lookups() { 0 } else { led };
        let counts = proxies.with(&self.proxy, |proxy| proxy.counts(led, MOMENT)).unwrap_or_default();
        let (unit, seen, impaired) = told(&self.task.ailment, &counts);
        let late = matches!(self.task.ailment, Ailment::Late { .. });
        let engine = Engine {
            name: "proxy".to_owned(),
            seen,
            delayed: if late { impaired } else { 0 },
            ..Engine::default()
        };
        let mut notes: Vec<String> = self.mark.iter().flat_map(|mark| mark.notes.iter().cloned()).collect();
        notes.extend(self.whom.told_later());
        if counts.unreached > 0 && self.task.ailment.is_of_lookups() {
            notes.push(format!(
                "lookups that found no room in the proxy, and no answer: {}",
                counts.unreached
            ));
        } else if counts.unreached > 0 {
            let them = counted(counts.unreached);
            notes.push(format!(
                "{them} could not be made on to the dependency: the caller saw an end instead"
            ));
        }
        if counts.open > 0 {
            notes.push(format!("open through the proxy: {}", counted(counts.open)));
        }
        if counts.foreign > 0 && unit == Unit::Requests && self.task.ailment.is_of_either() {
            let them = counted(counts.foreign);
            notes.push(format!(
                "counted as one request each, as they did not speak HTTP in plain text: {them}"
            ));
        } else if counts.foreign > 0 && self.task.ailment.is_of_what_is_read() {
            let them = counted(counts.foreign);
            let what = match self.task {
                Task { ailment: Ailment::Handshake(_), .. } => "TLS",
                Task { tls: Some(_), .. } => "HTTP inside TLS",
                _ => "HTTP in plain text",
            };
            notes.push(format!("carried unharmed, as they did not speak {what}: {them}"));
        }
        if counts.passed > 0 {
            notes.push(format!("passed on unharmed: {} lookups of other names", counts.passed));
        }
        if counts.believed > 0 {
            let them = counted(counts.believed);
            notes
                .push(format!("{them} went on in spite of the certificate: who made them does not check it"));
        }
        Evidence {
            unit,
            // Whoever connects by other ways than connect(2), such as to the proxy's own port, is not counted in front;
            // a connection that the proxy has not met would have had a request at least.
            matched: seen + led.saturating_sub(counts.came),
            impaired,
            incidents: self.incidents.clone(),
            engine: Some(engine),
            cut_short: self.cut_short.clone(),
            notes,
            ..Evidence::default()
        }
    }

    /// Connections lead to the dependency again, and no new socket is marked.
    pub fn let_go(&mut self) {
        self.ways.links.clear();
        self.hold.let_go();
        self.mark = None;
    }
}
