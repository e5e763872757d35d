//! Destroying established connections.

use std::collections::BTreeSet;

use squall_experiments::change::Disconnect;
use squall_experiments::evidence::{Evidence, Incident, Unit};
use squall_experiments::protocol::Refusal;
use squall_experiments::scope::Scope;

use super::aim::{Aim, Network};
use super::process::{Cgroup, Processes, uid_of};
use super::sockets::{Listed, Sockets};

/// A disconnect that has been looked at.
#[derive(Debug)]
pub struct Prepared {
    /// What is aimed at, for the report.
    pub targets: Vec<String>,
    /// What the reader must know.
    pub notes: Vec<String>,
    to: Vec<Network>,
    from: Vec<Network>,
}

/// Looks at the host. Changes nothing.
pub fn prepare(disconnect: &Disconnect, aim: &Aim<'_>) -> Result<Prepared, Refusal> {
    let to = aim.networks(&disconnect.flow.to)?;
    let from = aim.networks(&disconnect.flow.from)?;
    let matching = matching(disconnect, aim, &to, &from)?;
    let mut targets: Vec<String> = to.iter().chain(&from).map(ToString::to_string).collect();
    targets.push(format!("{} connections are established now", matching.len()));
    let mut notes = Vec::new();
    if to.iter().chain(&from).any(Network::leaves_out_loopback) || (to.is_empty() && from.is_empty()) {
        notes.push("loopback is left out: name its addresses to include it".to_owned());
    }
    Ok(Prepared { targets, notes, to, from })
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
    let matching = matching(disconnect, aim, &prepared.to, &prepared.from)?;
    let mut sockets = Sockets::open().map_err(cannot_list)?;
    let mut destroyed = 0;
    for socket in &matching {
        let gone = sockets.destroy(socket).map_err(|error| {
            Refusal::new(
                format!("cannot destroy sockets: {error}"),
                "it needs CAP_NET_ADMIN and a kernel with CONFIG_INET_DIAG_DESTROY",
            )
        })?;
        destroyed += u64::from(gone);
    }
    evidence.matched += matching.len() as u64;
    evidence.impaired += destroyed;
    evidence.incidents.push(Incident { after_ms, what: format!("{destroyed} connections destroyed") });
    Ok(())
}

fn cannot_list(error: super::netlink::NetlinkError) -> Refusal {
    Refusal::bare(format!("cannot list sockets: {error}"))
}

fn matching(
    disconnect: &Disconnect,
    aim: &Aim<'_>,
    to: &[Network],
    from: &[Network],
) -> Result<Vec<Listed>, Refusal> {
    let connections = Sockets::open().and_then(|mut sockets| sockets.connections()).map_err(cannot_list)?;
    let in_scope: Box<dyn Fn(&Listed) -> bool> = match &disconnect.flow.scope {
        None => Box::new(|_| true),
        Some(Scope::Port(ports)) => {
            let range = ports.first..=ports.last;
            Box::new(move |socket| range.contains(&socket.local.1))
        }
        Some(Scope::User(user)) => {
            let uid = uid_of(user)?;
            Box::new(move |socket| socket.uid == uid)
        }
        Some(Scope::Cgroup(path)) => {
            let ids = Cgroup::find(path)?.ids();
            Box::new(move |socket| ids.contains(&socket.cgroup))
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
        Some(scope) => return Err(Refusal::bare(format!("{scope} is not known to this agent yet"))),
    };
    let hit = |socket: &Listed| socket.established() && in_scope(socket) && aim.hits(socket, to, from);
    Ok(connections.into_iter().filter(hit).collect())
}
