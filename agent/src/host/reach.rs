//! Whose sockets a scope has on this host, so that two faults at once are told apart exactly.

use std::collections::BTreeSet;
use std::path::PathBuf;

use procfs::process::Process as Entry;
use squall_experiments::flow::Flow;
use squall_experiments::peer::{Peer, PeerHost};
use squall_experiments::protocol::Refusal;
use squall_experiments::scope::Scope;

use super::aim::Resolved;
use super::cgroup::{Group, old_hierarchies};
use super::container::Container;
use super::descriptors;
use super::process::{Processes, uid_of};
use super::sockets::Sockets;

/// See the module.
#[derive(Clone, Debug)]
pub enum Reach {
    /// Those of a control group, of its processes, and of the groups below it.
    Group(Group),
    /// Those of processes and of whom they start.
    Processes(BTreeSet<i32>),
    /// Those that are made by a user.
    User(u32),
}

/// Whether no socket belongs to both scopes, of which the second stands already: `followed` is what it has come to, where
/// that is known.
///
/// A new scope that is not found is refused when it is prepared, whoever stands.
pub fn apart(new: &Scope, standing: &Scope, followed: impl Fn() -> Option<Reach>) -> bool {
    let by_packets = |scope: &Scope| matches!(scope, Scope::Port(_) | Scope::Interface(_));
    if by_packets(new) || by_packets(standing) {
        return new.apart(standing);
    }
    let Ok(new) = Reach::of(new) else { return true };
    let standing = followed().or_else(|| Reach::of(standing).ok());
    standing.is_some_and(|standing| new.apart(&standing))
}

/// The same flow with addresses in the place of names, as far as they are known.
pub fn addressed(flow: &Flow, resolved: &Resolved) -> Flow {
    let peers = |list: &[Peer]| {
        let addresses = |peer: &Peer| match &peer.host {
            PeerHost::Name(name) if resolved.contains_key(name) => resolved[name]
                .iter()
                .map(|address| Peer { host: PeerHost::address(*address), ports: peer.ports })
                .collect(),
            _ => vec![peer.clone()],
        };
        list.iter().flat_map(addresses).collect()
    };
    Flow { to: peers(&flow.to), from: peers(&flow.from), except: peers(&flow.except), ..flow.clone() }
}

impl Reach {
    /// Looks at the host. Changes nothing.
    pub fn of(scope: &Scope) -> Result<Self, Refusal> {
        match scope {
            Scope::Cgroup(_) | Scope::Unit(_) => Group::of(scope).map(Reach::Group),
            Scope::User(user) => uid_of(user).map(Reach::User),
            Scope::Container(name) => {
                let container = Container::find(name)?;
                let pids = || container.processes().into_iter().map(|target| target.pid).collect();
                let group = container.cgroup().map(|group| Reach::Group(Group::New(group)));
                Ok(group.unwrap_or_else(|| Reach::Processes(pids())))
            }
            _ => {
                let found = Processes::here()?.of(scope)?;
                Ok(Reach::Processes(found.into_iter().map(|target| target.pid).collect()))
            }
        }
    }

    /// Whether no socket belongs to both, now or later: what is not sure is no.
    pub fn apart(&self, other: &Reach) -> bool {
        match (self, other) {
            (Reach::Group(a), Reach::Group(b)) => {
                let (above, below) = (a.directory(), b.directory());
                // A process is in a group of each hierarchy: only within one do two directories tell two groups apart.
                hierarchy(a) == hierarchy(b)
                    && a.members().is_disjoint(&b.members())
                    && !above.starts_with(below)
                    && !below.starts_with(above)
                    && strangers(&a.members(), b)
                    && strangers(&b.members(), a)
            }
            (Reach::Group(group), Reach::Processes(pids)) | (Reach::Processes(pids), Reach::Group(group)) => {
                group.members().is_disjoint(pids) && strangers(pids, group)
            }
            (Reach::Processes(a), Reach::Processes(b)) => a.is_disjoint(b),
            (Reach::User(a), Reach::User(b)) => a != b,
            (Reach::User(uid), Reach::Processes(pids)) | (Reach::Processes(pids), Reach::User(uid)) => {
                pids.iter().all(|pid| never(*pid, *uid))
            }
            // Who runs in a group may change with its next process.
            (Reach::User(_), Reach::Group(_)) | (Reach::Group(_), Reach::User(_)) => false,
        }
    }
}

/// In which hierarchy a group is: `None` is version 2.
fn hierarchy(group: &Group) -> Option<PathBuf> {
    let Group::Old(directory) = group else { return None };
    let roots = old_hierarchies().into_iter().map(|hierarchy| hierarchy.root);
    let above = roots.filter(|root| directory.starts_with(root));
    Some(above.max_by_key(|root| root.as_os_str().len()).unwrap_or_default())
}

/// Whether processes hold no socket that was made in a group. A group of version 1 has no sockets of its own.
fn strangers(pids: &BTreeSet<i32>, group: &Group) -> bool {
    let Group::New(group) = group else { return true };
    let Ok(sockets) = Sockets::open().and_then(|mut sockets| sockets.all()) else { return false };
    let ids = group.ids();
    let made: BTreeSet<u32> =
        sockets.iter().filter(|socket| ids.contains(&socket.cgroup)).map(|socket| socket.inode).collect();
    let holds = |pid: &i32| {
        descriptors::sockets(*pid).is_ok_and(|held| held.iter().any(|(_, inode)| made.contains(inode)))
    };
    made.is_empty() || !pids.iter().any(holds)
}

/// Whether a process makes no socket as this user, and cannot become it.
fn never(pid: i32, uid: u32) -> bool {
    let Ok(status) = Entry::new(pid).and_then(|entry| entry.status()) else { return false };
    let uids = [status.ruid, status.euid, status.suid, status.fuid];
    // No program that it starts makes it another user (prctl(2), PR_SET_NO_NEW_PRIVS), and neither does CAP_SETUID.
    let stays = status.nonewprivs == Some(1) && status.capprm & (1 << 7) == 0;
    stays && uids.iter().all(|own| *own != uid && *own != 0)
}

#[cfg(test)]
mod tests {
    use super::super::cgroup::Cgroup;
    use super::*;

    #[test]
    fn names_are_compared_by_their_addresses() {
        let flow = |peer: &str| Flow { to: vec![peer.parse().unwrap()], ..Flow::default() };
        let resolved = Resolved::from([
            ("db".to_owned(), vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()]),
            ("cache".to_owned(), vec!["10.0.0.2".parse().unwrap()]),
        ]);
        let meet = |a: &str, b: &str| {
            let (a, b) = (addressed(&flow(a), &resolved), addressed(&flow(b), &resolved));
            a.meets(&b, &Scope::apart).is_some()
        };
        assert!(!meet("db", "cache") && !meet("db", "10.0.0.3"));
        assert!(meet("db", "db") && meet("db:443", "10.0.0.1") && meet("db", "fd00::/64"));
        assert!(meet("db", "elsewhere"), "whose addresses are not known");
    }

    #[test]
    fn groups_are_apart_where_none_is_above_the_other() {
        let group = |path: &str| {
            let directory = std::path::Path::new("/nowhere").join(path);
            Reach::Group(Group::New(Cgroup { directory, level: 1, id: 1 }))
        };
        assert!(group("a.slice/b.service").apart(&group("a.slice/c.service")));
        assert!(group("a.slice/b").apart(&group("a.slice/bc")));
        assert!(!group("a.slice").apart(&group("a.slice/c.service")));
        assert!(!group("a.slice/c.service").apart(&group("a.slice")));
    }

    #[test]
    fn a_process_is_a_users_where_it_is_or_could_become_it() {
        let mut sleeper = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = sleeper.id() as i32;
        let mine = nix::unistd::geteuid().as_raw();
        let of = |pids: &[i32]| Reach::Processes(pids.iter().copied().collect());
        let verdicts = (
            of(&[pid]).apart(&Reach::User(mine)),
            of(&[pid]).apart(&Reach::User(mine + 1)),
            of(&[pid]).apart(&of(&[std::process::id() as i32])),
            of(&[pid]).apart(&of(&[pid, 1])),
        );
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        // Root may become anybody, and so may who starts a program that makes him somebody else.
        assert_eq!(verdicts, (false, false, true, false));
        assert!(!of(&[pid]).apart(&Reach::User(mine + 1)), "what is gone says nothing");
    }
}
