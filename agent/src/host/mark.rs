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

use super::aim::Aim;
use super::bpf::{self, By};
use super::netlink::{Message, Socket, find, u32_at};
use super::open::{Open, Shared, not_covered, sockets_of_processes, sockets_of_user, strangers};
use super::process::{Cgroup, Held, Processes, Target};
use super::slot::Levels;
use super::sockets::{Listed, Sockets};
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
    /// Those that these processes hold and that were made in other control groups than these, by number. No socket that
    /// is made later: its group tells it.
    Strangers(Vec<Target>, BTreeSet<u64>),
    /// Nobody's but those of the agent's own probes, which mark themselves.
    Probes,
}

impl Whose {
    fn processes(&self) -> &[Target] {
        match self {
            Whose::Processes(targets) | Whose::Strangers(targets, _) => targets,
            Whose::User(_) | Whose::Probes => &[],
        }
    }
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
    inodes: BTreeSet<u32>,
}

impl Prepared {
    /// The processes that are marked by their pids.
    pub fn processes(&self) -> &[Target] {
        self.whose.processes()
    }

    /// Whether there is nothing to mark, now or later.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty() && matches!(self.whose, Whose::Strangers(..))
    }
}

/// New sockets of the scope are marked while this lives.
#[derive(Debug)]
pub struct Live {
    /// The bit.
    pub bit: u32,
    /// What could not be marked, for the report.
    pub notes: Vec<String>,
    whose: Whose,
    link: Option<Link>,
}

/// The program that marks new sockets, and whose.
#[derive(Debug)]
struct Link {
    chosen: OwnedFd,
    _program: OwnedFd,
}

/// Looks whether the scope can be told apart exactly, and chooses a bit. Changes nothing.
pub fn prepare(mut whose: Whose, taken: &BTreeSet<u32>, aim: &Aim<'_>) -> Result<Prepared, Refusal> {
    if whose == Whose::Probes {
        let bit = free_bit(&list()?, taken)?;
        return Ok(Prepared { bit, notes: Vec::new(), whose, open: Vec::new(), inodes: BTreeSet::new() });
    }
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
    let open = match &mut whose {
        Whose::Processes(targets) => with_children(targets, &held, &sockets, aim, &mut notes)?,
        Whose::User(uid) => sockets_of_user(*uid, &held, &sockets, &processes, &mut notes),
        Whose::Strangers(targets, groups) => strangers(targets, groups, &held, &sockets, &mut notes),
        Whose::Probes => Open::default(),
    };
    if open.at.is_empty() && matches!(whose, Whose::Strangers(..)) {
        return Ok(Prepared { bit: 0, notes, whose, open: open.at, inodes: open.inodes });
    }
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
    Ok(Prepared { bit, notes, whose, open: open.at, inodes: open.inodes })
}

/// What the processes hold alone. A child of theirs that shares one of their sockets, such as a worker that accepts from its
/// parent's listener, is one of them.
fn with_children(
    targets: &mut Vec<Target>,
    held: &Held,
    sockets: &[Listed],
    aim: &Aim<'_>,
    notes: &mut Vec<String>,
) -> Result<Open, Refusal> {
    let mut joined = Vec::new();
    loop {
        let shared = match sockets_of_processes(targets, held, sockets) {
            Ok(open) => {
                if !joined.is_empty() {
                    let names = joined.iter().map(Target::to_string).collect::<Vec<_>>().join(", ");
                    notes.push(format!("covered too, as they share sockets with their parents: {names}"));
                }
                return Ok(open);
            }
            Err(shared) => shared,
        };
        match Target::of(shared.with) {
            Some(child) if child.descends_from(targets) && aim.may_hit(&child) => {
                joined.push(child.clone());
                targets.push(child);
            }
            _ => return Err(shared.refusal()),
        }
    }
}

fn list() -> Result<Vec<Listed>, Refusal> {
    Sockets::open()
        .and_then(|mut sockets| sockets.all())
        .map_err(|error| Refusal::bare(format!("cannot list sockets: {error}")))
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
    let Prepared { bit, whose, .. } = prepared;
    let link = match whose {
        Whose::Strangers(..) | Whose::Probes => None,
        Whose::Processes(_) | Whose::User(_) => Some(link(whose, *bit)?),
    };
    mark(&prepared.open, *bit);
    let notes = unmarked(prepared)?;
    Ok(Live { bit: *bit, notes, whose: whose.clone(), link })
}

/// As many processes are told apart.
const MOST_CHOSEN: u32 = 65_536;

/// Has every socket marked that the chosen make from now on.
fn link(whose: &Whose, bit: u32) -> Result<Link, Refusal> {
    let refused = |what: &str, error: std::io::Error| {
        let help = match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                "it needs root on the host itself (CAP_BPF and CAP_NET_ADMIN, no user namespace) and a kernel that is not \
                 locked down against it; choose the traffic by peers, ports or control group"
            }
            Some(libc::ENOSYS | libc::EINVAL) => {
                "it needs a kernel with CONFIG_CGROUP_BPF (Linux 5.14 or newer); choose the traffic by peers, ports or \
                 control group"
            }
            _ => "choose the traffic by peers, ports or control group",
        };
        Refusal::new(format!("new sockets of the scope cannot be marked: cannot {what}: {error}"), help)
    };
    let cookie = sys::netns_cookie().map_err(|error| refused("read the namespace's cookie", error))?;
    let chosen = sys::bpf_numbers(MOST_CHOSEN).map_err(|error| refused("make a BPF map", error))?;
    let (by, numbers) = match whose {
        Whose::User(uid) => (By::User, vec![*uid]),
        Whose::Processes(targets) => (By::Process, targets.iter().map(|target| target.pid as u32).collect()),
        Whose::Strangers(..) | Whose::Probes => (By::Process, Vec::new()),
    };
    for number in numbers {
        sys::bpf_number(chosen.as_fd(), number, true).map_err(|error| refused("fill a BPF map", error))?;
    }
    let program = bpf::marking(by, chosen.as_fd(), bit, cookie);
    let program = sys::bpf_load(sys::SOCK, sys::SOCK_CREATE, *b"squall_mark\0\0\0\0\0", &program)
        .map_err(|error| refused("load a BPF program", error))?;
    let root = File::open(Cgroup::root()?).map_err(|error| refused("open the root control group", error))?;
    let program = sys::bpf_link(program.as_fd(), root.as_fd(), sys::SOCK_CREATE)
        .map_err(|error| refused("attach the BPF program", error))?;
    Ok(Link { chosen, _program: program })
}

fn mark(open: &[(i32, i32)], bit: u32) {
    for (pid, fd) in open {
        // A descriptor that was closed meanwhile needs no mark; a new one has got it from the link.
        let _ = with_socket(*pid, *fd, |socket| {
            let mark = getsockopt(socket, sockopt::Mark)?;
            setsockopt(socket, sockopt::Mark, &(mark | bit))
        });
    }
}

/// What was open and is there without the bit although it should have it.
fn unmarked(prepared: &Prepared) -> Result<Vec<String>, Refusal> {
    let left = list()?
        .into_iter()
        .filter(|socket| socket.mark & prepared.bit == 0 && prepared.inodes.contains(&socket.inode));
    let ports: BTreeSet<u16> = left.map(|socket| socket.local.1).collect();
    Ok(not_covered(&ports, "open sockets that could not be marked").into_iter().collect())
}

impl Live {
    /// The processes that are marked by their pids.
    pub fn processes(&self) -> &[Target] {
        self.whose.processes()
    }

    /// Marks more processes: what they make from now on, and what they have open and unmarked. Where a socket of theirs is
    /// shared with a process outside of the scope that is refused, and only what they make is marked.
    pub fn extend(&mut self, new: Vec<Target>) -> Result<(), Refusal> {
        self.admit(&new)?;
        let Whose::Processes(targets) = &mut self.whose else { return Ok(()) };
        targets.extend(new);
        let (held, sockets) = (Processes::everywhere()?.sockets(), list()?);
        let open = sockets_of_processes(targets, &held, &sockets).map_err(Shared::refusal)?;
        mark(&open.at, self.bit);
        Ok(())
    }

    /// Marks the sockets of processes that those of the scope have just started. What they inherited is marked already;
    /// what is not they have made themselves, in the moment before.
    pub fn adopt(&mut self, children: Vec<Target>) -> Result<(), Refusal> {
        self.admit(&children)?;
        let held: Vec<(i32, i32, u32)> = children.iter().flat_map(sockets_of).collect();
        if let Whose::Processes(targets) = &mut self.whose {
            targets.extend(children);
        }
        if held.is_empty() {
            return Ok(());
        }
        let unmarked: BTreeSet<u32> =
            list()?.iter().filter(|socket| socket.mark & self.bit == 0).map(|socket| socket.inode).collect();
        let open = held.into_iter().filter(|(_, _, inode)| unmarked.contains(inode));
        mark(&open.map(|(pid, fd, _)| (pid, fd)).collect::<Vec<_>>(), self.bit);
        Ok(())
    }

    /// The program knows them from now on.
    fn admit(&self, new: &[Target]) -> Result<(), Refusal> {
        let Some(link) = &self.link else { return Ok(()) };
        let unable = |error| Refusal::bare(format!("new sockets cannot be marked: {error}"));
        new.iter().try_for_each(|target| {
            sys::bpf_number(link.chosen.as_fd(), target.pid as u32, true).map_err(unable)
        })
    }

    /// The numbers by which the program knows the chosen.
    pub fn chosen(&self) -> Option<OwnedFd> {
        self.link.as_ref()?.chosen.try_clone().ok()
    }

    /// The program does not know this pid any more.
    pub fn forget(&self, pid: i32) {
        if let Some(link) = &self.link {
            let _ = sys::bpf_number(link.chosen.as_fd(), pid as u32, false);
        }
    }

    /// Forgets who has ended, so that a pid that comes again is nobody's.
    pub fn forget_the_dead(&mut self) {
        if let (Whose::Processes(targets), Some(link)) = (&mut self.whose, &self.link) {
            targets.retain(|target| {
                let alive = target.alive();
                if !alive {
                    let _ = sys::bpf_number(link.chosen.as_fd(), target.pid as u32, false);
                }
                alive
            });
        }
    }
}

/// The sockets that a process holds: its pid, the descriptor and the inode.
fn sockets_of(target: &Target) -> Vec<(i32, i32, u32)> {
    let held = Processes::only(target.pid).sockets();
    let held =
        held.into_iter().flat_map(|(pid, list)| list.into_iter().map(move |(fd, inode)| (pid, fd, inode)));
    held.collect()
}

/// Clears the bit on every socket of this namespace that carries it. Says how many, and names those it could not reach.
pub fn clear(bit: u32) -> Result<usize, String> {
    clear_where(bit, |mark| mark & bit != 0)
}

/// Clears the bit on every socket of this namespace whose mark is nothing but that bit.
pub fn clear_alone(bit: u32) -> Result<usize, String> {
    clear_where(bit, |mark| mark == bit)
}

/// Bits of ours that are the whole mark of some socket of this namespace, each with how many sockets, where no routing
/// rule looks at them.
pub fn strays() -> Result<BTreeMap<u32, usize>, Refusal> {
    let rules = routing_marks()?;
    let candidates: BTreeSet<u32> = CANDIDATES.map(|shift| 1 << shift).collect();
    let mut found = BTreeMap::new();
    for socket in list()?.into_iter().filter(|socket| socket.inode != 0) {
        if candidates.contains(&socket.mark) && rules.iter().all(|(_, mask)| mask & socket.mark == 0) {
            *found.entry(socket.mark).or_default() += 1;
        }
    }
    Ok(found)
}

fn clear_where(bit: u32, is_meant: impl Fn(u32) -> bool) -> Result<usize, String> {
    let mut cleared = 0;
    for _ in 0..3 {
        let listed = list().map_err(|error| error.to_string())?;
        let held = |socket: &&Listed| socket.inode != 0;
        // Not to see a mark is not to know that there is none.
        if listed.iter().any(|socket| held(&socket)) && !listed.iter().any(|socket| socket.mark_shown) {
            return Err("the marks of sockets are not shown: it needs CAP_NET_ADMIN".to_owned());
        }
        let marked: BTreeSet<u32> = listed
            .iter()
            .filter(|socket| is_meant(socket.mark) && socket.inode != 0)
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
                    if is_meant(mark) {
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
    let left = left.iter().filter(|socket| is_meant(socket.mark) && socket.inode != 0);
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
