//! Marks: how the packets of chosen processes or of a user are told apart, in both directions.
//!
//! nftables cannot match a process, and a user only on the way out (kernel: `nft_meta.c`). So each scoped change takes
//! one bit of the socket mark (`SO_MARK`): a BPF link on `sock_create` sets it on sockets made from now on, accepted
//! sockets inherit it from their listener, and sockets that are already open get it through `pidfd_getfd`.
//!
//! The link goes with the worker. Marked sockets stay, so the undo clears the bit on every socket that has it; a bit
//! that no rule asks for has no effect.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{SockProtocol, getsockopt, setsockopt, sockopt};
use squall_experiments::protocol::Refusal;

use super::bpf;
use super::netlink::{Message, Socket, find, u32_at};
use super::process::{Cgroup, Processes, Target};
use super::slot::Levels;
use super::sockets::{Listed, Sockets, Transport};
use super::sys;

/// The bits that are taken, from the first that is free.
const CANDIDATES: std::ops::RangeInclusive<u32> = 20..=27;

/// Whose sockets are marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Those of these processes.
    Processes(Vec<Target>),
    /// Those of a user.
    User(u32),
}

/// A scope that has been looked at and can be marked exactly.
#[derive(Debug)]
pub struct Prepared {
    /// The bit.
    pub bit: u32,
    /// What the reader must know.
    pub notes: Vec<String>,
    whose: Whose,
    open: Vec<(i32, i32)>,
}

/// New sockets of the scope are marked while this lives.
#[derive(Debug)]
pub struct Live {
    /// The bit.
    pub bit: u32,
    _link: OwnedFd,
}

/// Looks whether the scope can be told apart exactly, and chooses a bit. Changes nothing.
pub fn prepare(whose: Whose, taken: &BTreeSet<u32>) -> Result<Prepared, Refusal> {
    if std::fs::metadata("/proc/self/ns/pid")
        .is_ok_and(|ns| std::os::unix::fs::MetadataExt::ino(&ns) != 0xEFFF_FFFC)
    {
        return Err(Refusal::new(
            "a scope by process or user needs the host's own pid namespace",
            "run the agent outside of containers, or choose the traffic by peers and ports",
        ));
    }
    let processes = Processes::everywhere()?;
    let held = processes.sockets();
    let sockets = list()?;
    let mut notes = Vec::new();
    let open = match &whose {
        Whose::Processes(targets) => sockets_of_processes(targets, &held, &sockets)?,
        Whose::User(uid) => sockets_of_user(*uid, &held, &sockets, &processes, &mut notes),
    };
    // Another change may have marked them: each has a bit of its own.
    let ours = taken.iter().fold(0, |all, bit| all | bit);
    if let Some(socket) =
        sockets.iter().find(|socket| socket.mark & !ours != 0 && open.inodes.contains(&socket.inode))
    {
        return Err(Refusal::new(
            format!("a socket of the scope (local port {}) carries a mark already", socket.local.1),
            "its traffic is routed by that mark; choose the traffic by peers and ports",
        ));
    }
    let bit = free_bit(&sockets, taken)?;
    Ok(Prepared { bit, notes, whose, open: open.at })
}

fn list() -> Result<Vec<Listed>, Refusal> {
    Sockets::open()
        .and_then(|mut sockets| sockets.all())
        .map_err(|error| Refusal::bare(format!("cannot list sockets: {error}")))
}

type Held = BTreeMap<i32, Vec<(i32, u32)>>;

/// The open sockets of a scope: their inodes, and where to get each, as pid and descriptor.
struct Open {
    inodes: BTreeSet<u32>,
    at: Vec<(i32, i32)>,
}

/// A socket that others hold too cannot be told apart.
fn sockets_of_processes(targets: &[Target], held: &Held, sockets: &[Listed]) -> Result<Open, Refusal> {
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
            let other = Target::of(*pid).map_or_else(|| format!("pid {pid}"), |target| target.to_string());
            return Err(Refusal::new(
                format!(
                    "the socket on port {} is shared with {other}, so the scope cannot be exact",
                    internet[inode].local.1
                ),
                "select all processes that share it, or choose the traffic by `port`",
            ));
        }
    }
    Ok(Open { inodes: open.keys().copied().collect(), at: open.into_values().collect() })
}

fn sockets_of_user(
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
    let theirs = processes.of(&squall_experiments::scope::Scope::User(uid.to_string())).unwrap_or_default();
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

/// A bit that no socket carries, that no routing rule looks at, and that no other change has.
fn free_bit(sockets: &[Listed], taken: &BTreeSet<u32>) -> Result<u32, Refusal> {
    let rules = routing_marks()?;
    let matches = |mark: u32, value: u32, mask: u32| mark & mask == value & mask;
    CANDIDATES
        .map(|shift| 1u32 << shift)
        .find(|bit| {
            !taken.contains(bit)
                && sockets.iter().all(|socket| socket.mark & bit == 0)
                && rules.iter().all(|(value, mask)| matches(0, *value, *mask) == matches(*bit, *value, *mask))
        })
        .ok_or_else(|| {
            Refusal::new(
                "no bit of the socket mark is free",
                "other programs or other runs use them; choose the traffic by peers and ports",
            )
        })
}

/// Where levels may stand in the mark: four bits each, none of which a scope may take. From those that other programs
/// use least.
const LEVEL_CANDIDATES: [u32; 6] = [28, 4, 0, 8, 12, 16];

/// Two places of four bits that no socket carries and no routing rule looks at; `None` where there are not two.
///
/// A rule that compares the whole mark leaves none: what is sent again with a level would be routed another way.
pub fn free_levels() -> Result<Option<Levels>, Refusal> {
    let sockets = list()?;
    let rules = routing_marks()?;
    let free = |shift: &u32| {
        let bits = 0xf << shift;
        sockets.iter().all(|socket| socket.mark & bits == 0) && rules.iter().all(|(_, mask)| mask & bits == 0)
    };
    let mut free = LEVEL_CANDIDATES.into_iter().filter(free);
    Ok(free.next().zip(free.next()).map(|(input, output)| Levels { input, output }))
}

/// Values and masks that routing rules look at. Source: `include/uapi/linux/fib_rules.h`.
fn routing_marks() -> Result<Vec<(u32, u32)>, Refusal> {
    const GET_RULE: u16 = 34;
    let rules = Socket::open(SockProtocol::NetlinkRoute)
        .and_then(|mut socket| socket.dump(&Message::new(GET_RULE, 0).raw(&[0; 12])))
        .map_err(|error| Refusal::bare(format!("cannot list routing rules: {error}")))?;
    let mark = |body: &[u8]| {
        let attributes = body.get(12..)?;
        let value = u32_at(find(attributes, 10)?, 0);
        Some((value, find(attributes, 16).map_or(u32::MAX, |mask| u32_at(mask, 0))))
    };
    Ok(rules.iter().filter_map(|rule| mark(&rule.body)).collect())
}

/// Marks: sockets made from now on by the link, then those that are open.
pub fn perform(prepared: &Prepared) -> Result<Live, Refusal> {
    let refused = |what: &str, error: std::io::Error| {
        Refusal::new(
            format!("cannot {what}: {error}"),
            "a scope by process or user needs BPF (CAP_BPF and CAP_NET_ADMIN on the host); choose the traffic by peers \
             and ports",
        )
    };
    let cookie = sys::netns_cookie().map_err(|error| refused("read the namespace's cookie", error))?;
    let program = bpf::marking(&prepared.whose, prepared.bit, cookie);
    let program =
        sys::bpf_load_sock_create(&program).map_err(|error| refused("load the BPF program", error))?;
    let root = File::open(Cgroup::root()?).map_err(|error| refused("open the root control group", error))?;
    let link = sys::bpf_link_sock_create(program.as_fd(), root.as_fd())
        .map_err(|error| refused("attach the BPF program", error))?;
    for (pid, fd) in &prepared.open {
        // A descriptor that was closed meanwhile needs no mark; a new one has got it from the link.
        let _ = with_socket(*pid, *fd, |socket| {
            let mark = getsockopt(socket, sockopt::Mark)?;
            setsockopt(socket, sockopt::Mark, &(mark | prepared.bit))
        });
    }
    Ok(Live { bit: prepared.bit, _link: link })
}

/// Clears the bit on every socket of this namespace that carries it. Says how many, and names those it could not reach.
pub fn clear(bit: u32) -> Result<usize, String> {
    let mut cleared = 0;
    for _ in 0..3 {
        let marked = list().map_err(|error| error.to_string())?;
        let marked: BTreeSet<u32> = marked
            .iter()
            .filter(|socket| socket.mark & bit != 0 && socket.inode != 0)
            .map(|socket| socket.inode)
            .collect();
        if marked.is_empty() {
            return Ok(cleared);
        }
        let held = Processes::everywhere().map_err(|error| error.to_string())?.sockets();
        for (pid, list) in held {
            for (fd, _) in list.iter().filter(|(_, inode)| marked.contains(inode)) {
                let done = with_socket(pid, *fd, |socket| {
                    let mark = getsockopt(socket, sockopt::Mark)?;
                    if mark & bit != 0 {
                        setsockopt(socket, sockopt::Mark, &(mark & !bit))?;
                        cleared += 1;
                    }
                    Ok(())
                });
                if let Err(error) = done {
                    tracing::warn!(pid, fd, %error, "a marked socket could not be reached");
                }
            }
        }
    }
    let left = list().map_err(|error| error.to_string())?;
    let left = left.iter().filter(|socket| socket.mark & bit != 0 && socket.inode != 0);
    let ports: Vec<String> = left.map(|socket| socket.local.1.to_string()).collect();
    if ports.is_empty() {
        Ok(cleared)
    } else {
        Err(format!("sockets on ports {} still carry a mark", ports.join(", ")))
    }
}

/// Does something with another process's socket, through a duplicate of its descriptor.
fn with_socket(
    pid: i32,
    fd: i32,
    act: impl FnOnce(&OwnedFd) -> nix::Result<()>,
) -> Result<(), std::io::Error> {
    use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
    let pid = Pid::from_raw(pid).ok_or_else(|| std::io::Error::other("no such process"))?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let socket = pidfd_getfd(process, fd, PidfdGetfdFlags::empty())?;
    act(&socket)?;
    Ok(())
}
