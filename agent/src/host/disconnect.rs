//! Destroying established connections.

use std::collections::BTreeSet;

use squall_experiments::change::Disconnect;
use squall_experiments::evidence::{Evidence, Incident, Unit};
use squall_experiments::flow::Flow;
use squall_experiments::protocol::Refusal;
use squall_experiments::scope::Scope;

use super::aim::{Aim, News};
use super::cgroup::Group;
use super::peers::Peers;
use super::process::{Held, Processes, Target, uid_of};
use super::sockets::{Listed, Sockets, Transport};

/// A disconnect that has been looked at.
#[derive(Debug)]
pub struct Prepared {
    /// What is aimed at, for the report.
    pub targets: Vec<String>,
    /// What the reader must know.
    pub notes: Vec<String>,
    pub(super) flow: Flow,
    pub(super) peers: Peers,
    /// Which process the scope means by its pid.
    meant: Option<Target>,
}

/// Looks at the host. Changes nothing.
pub fn prepare(disconnect: &Disconnect, aim: &Aim<'_>) -> Result<Prepared, Refusal> {
    let peers = Peers::of(&disconnect.flow, aim)?;
    let matching = established(&disconnect.flow, aim, &peers)?;
    let mut targets = peers.shown();
    targets.push(format!("{} connections are established now", matching.len()));
    let mut notes = Vec::new();
    if peers.leave_out_loopback() {
        notes.push("loopback is left out: name its addresses to include it".to_owned());
    }
    let meant = disconnect.flow.scope.as_ref().and_then(Target::named_by);
    Ok(Prepared { targets, notes, flow: disconnect.flow.clone(), peers, meant })
}

impl Prepared {
    /// A name has been asked again: from now on its new addresses are meant too. Gives what to tell the reader.
    pub(super) fn hear(&mut self, news: &News) -> Vec<String> {
        if !self.peers.name(&news.name) {
            return Vec::new();
        }
        let joined = self.peers.join(&news.name, &news.addresses);
        news.incidents(&joined)
    }
}

/// Destroys what matches now, and adds it to the evidence.
pub fn perform(
    disconnect: &Disconnect,
    prepared: &Prepared,
    aim: &Aim<'_>,
    after_ms: u64,
    evidence: &mut Evidence,
) -> Result<(), Refusal> {
    evidence.unit = Unit::Sockets;
    if let Some(meant) = prepared.meant.as_ref().filter(|meant| !meant.alive()) {
        let what = format!("{meant} has ended: connections of whoever has its pid are left alone");
        if evidence.incidents.last().is_none_or(|last| last.what != what) {
            evidence.incidents.push(Incident { after_ms, what });
        }
        return Ok(());
    }
    let matching = established(&disconnect.flow, aim, &prepared.peers)?;
    let destroyed = destroy(&matching)?;
    evidence.matched += matching.len() as u64;
    evidence.impaired += destroyed;
    evidence.incidents.push(Incident { after_ms, what: format!("{destroyed} connections destroyed") });
    Ok(())
}

/// Destroys connections, and says how many had not ended by themselves.
pub(super) fn destroy(connections: &[Listed]) -> Result<u64, Refusal> {
    let mut sockets = Sockets::open().map_err(cannot_list)?;
    let mut destroyed = 0;
    for socket in connections {
        let gone = sockets.destroy(socket).map_err(|error| {
            Refusal::new(
                format!("cannot destroy sockets: {error}"),
                "it needs CAP_NET_ADMIN and a kernel with CONFIG_INET_DIAG_DESTROY",
            )
        })?;
        destroyed += u64::from(gone);
    }
    Ok(destroyed)
}

fn cannot_list(error: super::netlink::NetlinkError) -> Refusal {
    Refusal::bare(format!("cannot list sockets: {error}"))
}

/// The established connections that belong to a flow.
pub(super) fn established(flow: &Flow, aim: &Aim<'_>, peers: &Peers) -> Result<Vec<Listed>, Refusal> {
    let connections = Sockets::open().and_then(|mut sockets| sockets.connections()).map_err(cannot_list)?;
    let in_scope = in_scope(flow.scope.as_ref(), aim)?;
    let hit = |socket: &Listed| socket.established() && in_scope(socket) && aim.hits(socket, peers);
    Ok(connections.into_iter().filter(hit).collect())
}

/// How many of them there were when this namespace was last looked at.
pub(super) fn count(flow: &Flow, aim: &Aim<'_>, peers: &Peers) -> Option<usize> {
    let in_scope = in_scope(flow.scope.as_ref(), aim).ok()?;
    let connections = aim.sockets()?.iter().filter(|socket| socket.transport == Transport::Tcp);
    let hit = |socket: &&Listed| socket.established() && aim.hits(socket, peers) && in_scope(socket);
    Some(connections.filter(hit).count())
}

type InScope = Box<dyn Fn(&Listed) -> bool>;

fn in_scope(scope: Option<&Scope>, aim: &Aim<'_>) -> Result<InScope, Refusal> {
    Ok(match scope {
        None => Box::new(|_| true),
        Some(Scope::Port(ports)) => {
            let range = ports.first..=ports.last;
            Box::new(move |socket| range.contains(&socket.local.1))
        }
        Some(Scope::User(user)) => {
            let uid = uid_of(user)?;
            Box::new(move |socket| socket.uid == uid)
        }
        Some(scope @ (Scope::Cgroup(_) | Scope::Unit(_))) => {
            let group = Group::of(scope)?;
            let ids = match &group {
                Group::New(group) => group.ids(),
                Group::Old(_) => BTreeSet::new(),
            };
            let brought = held_alone(&group.members(), &Processes::everywhere()?.sockets());
            Box::new(move |socket| ids.contains(&socket.cgroup) || brought.contains(&socket.inode))
        }
        Some(scope @ (Scope::Process(_) | Scope::Container(_))) => {
            let processes = Processes::reached_by(scope)?;
            let chosen: BTreeSet<i32> =
                aim.processes(&processes, scope)?.targets.iter().map(|target| target.pid).collect();
            let held = processes.sockets();
            let mine = held.iter().filter(|(pid, _)| chosen.contains(pid));
            let inodes: BTreeSet<u32> =
                mine.flat_map(|(_, list)| list.iter().map(|(_, inode)| *inode)).collect();
            Box::new(move |socket| inodes.contains(&socket.inode))
        }
        Some(scope @ Scope::Interface(_)) => {
            return Err(Refusal::new(
                format!("connections cannot be told apart by {scope}: a connection belongs to none"),
                "choose them by their peers, or by the local port, process, user or control group that they belong to",
            ));
        }
        Some(scope) => return Err(Refusal::bare(format!("{scope} is not known to this agent yet"))),
    })
}

/// The sockets that these processes hold and nobody else.
fn held_alone(pids: &BTreeSet<i32>, held: &Held) -> BTreeSet<u32> {
    let of = |inside: bool| {
        let lists = held.iter().filter(move |(pid, _)| pids.contains(pid) == inside);
        lists.flat_map(|(_, list)| list.iter().map(|(_, inode)| *inode)).collect::<BTreeSet<u32>>()
    };
    of(true).difference(&of(false)).copied().collect()
}
