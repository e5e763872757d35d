//! Sockets that are open when a fault begins: which belong to a scope, and who holds them.

use std::collections::{BTreeMap, BTreeSet};

use squall_experiments::protocol::Refusal;
use squall_experiments::scope::Scope;

use super::process::{Held, Processes, Target};
use super::sockets::{Listed, Transport};

/// The open sockets of a scope: their inodes, and where to get each, as pid and descriptor.
#[derive(Default)]
pub struct Open {
    /// The inodes.
    pub inodes: BTreeSet<u32>,
    /// Where to get each.
    pub at: Vec<(i32, i32)>,
}

/// Somebody outside of a scope holds one of its sockets too: it cannot be told apart.
#[derive(Debug)]
pub struct Shared {
    /// The other process.
    pub with: i32,
    port: u16,
}

impl Shared {
    /// For the reader.
    pub fn refusal(self) -> Refusal {
        let Shared { with, port } = self;
        let other = Target::of(with).map_or_else(|| format!("pid {with}"), |target| target.to_string());
        Refusal::new(
            format!("the socket on port {port} is shared with {other}, so the scope cannot be exact"),
            "select all processes that share it, or choose the traffic by `port`",
        )
    }
}

/// Those that the processes hold, and nobody else.
pub fn sockets_of_processes(targets: &[Target], held: &Held, sockets: &[Listed]) -> Result<Open, Shared> {
    let pids: BTreeSet<i32> = targets.iter().map(|target| target.pid).collect();
    let internet: BTreeMap<u32, &Listed> = sockets.iter().map(|socket| (socket.inode, socket)).collect();
    let mut open = BTreeMap::new();
    for (pid, list) in held.iter().filter(|(pid, _)| pids.contains(pid)) {
        for (fd, inode) in list.iter().filter(|(_, inode)| internet.contains_key(inode)) {
            open.insert(*inode, (*pid, *fd));
        }
    }
    for (pid, list) in held.iter().filter(|(pid, _)| !pids.contains(pid)) {
        if let Some((_, inode)) = list.iter().find(|(_, inode)| open.contains_key(inode)) {
            return Err(Shared { with: *pid, port: internet[inode].local.1 });
        }
    }
    Ok(Open { inodes: open.keys().copied().collect(), at: open.into_values().collect() })
}

/// Those that were made by the user. Listeners of others that its processes hold are said not to be covered.
pub fn sockets_of_user(
    uid: u32,
    held: &Held,
    sockets: &[Listed],
    processes: &Processes,
    notes: &mut Vec<String>,
) -> Open {
    let wanted: BTreeSet<u32> = sockets
        .iter()
        .filter(|socket| socket.uid == uid && socket.inode != 0)
        .map(|socket| socket.inode)
        .collect();
    let foreign: BTreeMap<u32, &Listed> = sockets
        .iter()
        .filter(|socket| socket.uid != uid && socket.listens() && socket.transport == Transport::Tcp)
        .map(|socket| (socket.inode, socket))
        .collect();
    let theirs = processes.of(&Scope::User(uid.to_string())).unwrap_or_default();
    let theirs: BTreeSet<i32> = theirs.iter().map(|target| target.pid).collect();
    let mut open = BTreeMap::new();
    let mut inherited = BTreeSet::new();
    for (pid, list) in held {
        for (fd, inode) in list {
            if wanted.contains(inode) {
                open.entry(*inode).or_insert((*pid, *fd));
            } else if let Some(listener) = foreign.get(inode).filter(|_| theirs.contains(pid)) {
                inherited.insert(listener.local.1);
            }
        }
    }
    for port in inherited {
        notes.push(format!(
            "not covered: connections accepted from now on by the listener on port {port}, which belongs to another user"
        ));
    }
    Open { inodes: wanted, at: open.into_values().collect() }
}

/// What the processes hold that was made outside of their groups. A socket that somebody else holds too is not theirs
/// alone, unless that is the first process, which only keeps a listener for them. What was made inside and is held by
/// others is theirs for the kernel.
pub fn strangers(
    targets: &[Target],
    groups: &BTreeSet<u64>,
    held: &Held,
    sockets: &[Listed],
    notes: &mut Vec<String>,
) -> Open {
    let pids: BTreeSet<i32> = targets.iter().map(|target| target.pid).collect();
    let made: BTreeMap<u32, &Listed> =
        sockets.iter().filter(|socket| socket.inode != 0).map(|socket| (socket.inode, socket)).collect();
    let mut holders: BTreeMap<u32, Vec<(i32, i32)>> = BTreeMap::new();
    for (pid, list) in held {
        for (fd, inode) in list.iter().filter(|(_, inode)| made.contains_key(inode)) {
            holders.entry(*inode).or_default().push((*pid, *fd));
        }
    }
    let (mut open, mut shared, mut away) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    for (inode, at) in holders {
        let mine = at.iter().find(|(pid, _)| pids.contains(pid));
        let others = at.iter().any(|(pid, _)| *pid != 1 && !pids.contains(pid));
        let socket = made[&inode];
        match (mine, groups.contains(&socket.cgroup)) {
            (Some(_), false) if others => drop(shared.insert(socket.local.1)),
            (Some(place), false) => drop(open.insert(inode, *place)),
            (None, true) => drop(away.insert(socket.local.1)),
            _ => {}
        }
    }
    notes.extend(not_covered(&shared, "sockets made outside that are shared with processes outside"));
    if !open.is_empty() {
        let ports: BTreeSet<u16> = open.keys().map(|inode| made[inode].local.1).collect();
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let count = open.len();
        notes.push(format!(
            "{count} sockets that were made before their process joined are covered (local ports {})",
            ports.join(", ")
        ));
    }
    if !away.is_empty() {
        let ports: Vec<String> = away.iter().map(u16::to_string).collect();
        notes.push(format!(
            "covered too: sockets made inside that only processes outside hold now (local ports {})",
            ports.join(", ")
        ));
    }
    Open { inodes: open.keys().copied().collect(), at: open.into_values().collect() }
}

/// A note on sockets at these local ports; none without any.
pub fn not_covered(ports: &BTreeSet<u16>, why: &str) -> Option<String> {
    let list: Vec<String> = ports.iter().map(u16::to_string).collect();
    (!ports.is_empty()).then(|| format!("not covered: {why} (local ports {})", list.join(", ")))
}
