//! What is never hit, whoever asks: decided on the host, from what the host is now.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use procfs::process::Process as Entry;

use crate::host::descriptors;
use crate::host::process::Target;
use crate::host::sockets::{Listed, Transport};
use crate::policy::{Policy, Wards};

/// Servers by which people reach the host.
const DOORS: [&str; 5] = ["sshd", "sshd-session", "sshd-auth", "dropbear", "dropbearmulti"];
/// Where their programs lie.
const PROGRAMS: [&str; 8] = [
    "/usr/sbin/sshd",
    "/usr/bin/sshd",
    "/usr/lib/openssh/sshd-session",
    "/usr/lib/openssh/sshd-auth",
    "/usr/libexec/openssh/sshd-session",
    "/usr/libexec/openssh/sshd-auth",
    "/usr/sbin/dropbear",
    "/usr/bin/dropbear",
];
/// How the names of Squall's own processes begin.
const OURS: &str = "squall";

/// `PF_KTHREAD` of `include/linux/sched.h`. Their parent has pid 2 only where the machine's pids are seen: in a container
/// that is a process like any other.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// The processes that are protected now, each with the reason.
#[derive(Debug)]
pub struct Veto {
    protected: BTreeMap<i32, String>,
}

impl Veto {
    /// Looks at the host. `clients` are the pids of the commands that are connected.
    pub fn now(policy: &Policy, clients: &BTreeSet<i32>) -> Self {
        let mut protected = BTreeMap::from([(1, "the first process of the host".to_owned())]);
        let stats: Vec<_> = procfs::process::all_processes()
            .map(|all| all.flatten().filter_map(|entry| Some((entry.stat().ok()?, entry))).collect())
            .unwrap_or_default();
        let parents: BTreeMap<i32, i32> = stats.iter().map(|(stat, _)| (stat.pid, stat.ppid)).collect();
        // By the program, not only by its name: what is started through `/proc/self/exe` is called `exe`.
        let own = std::fs::read_link("/proc/self/exe").ok();
        let is_ours = |entry: &Entry| own.is_some() && entry.exe().ok() == own;
        let doors = Doors::of_this_host();
        // What cannot be looked up protects everybody: the policy was read by the same means.
        let wards = Wards::of(policy);
        let warded = |entry: &Entry, name: &str| match &wards {
            Ok(wards) => wards.protect(entry, name),
            Err(refusal) => Some(refusal.what.clone()),
        };
        for (stat, entry) in &stats {
            let name = stat.comm.as_str();
            if stat.flags & KERNEL_THREAD != 0 {
                protected.insert(stat.pid, "a kernel thread".to_owned());
            } else if doors.is(name, entry.pid) {
                protected.insert(stat.pid, "a remote login, by which people reach the host".to_owned());
            } else if (name.starts_with(OURS) || is_ours(entry)) && !is_there_to_suffer(entry) {
                protected.insert(stat.pid, "squall itself".to_owned());
            } else if let Some(why) = warded(entry, name) {
                protected.insert(stat.pid, why);
            }
        }
        let me = i32::try_from(std::process::id()).unwrap_or(0);
        for start in clients.iter().copied().chain([me]) {
            let mut pid = start;
            while pid > 1 {
                let reason = if pid == start { "squall itself" } else { "a parent of squall" };
                protected.entry(pid).or_insert_with(|| reason.to_owned());
                pid = parents.get(&pid).copied().unwrap_or(0);
            }
        }
        Veto { protected }
    }

    /// Splits what a selector found into what may be hit and why the rest may not.
    pub fn apply(&self, targets: Vec<Target>) -> (Vec<Target>, Vec<String>) {
        let mut notes = Vec::new();
        let allowed = targets
            .into_iter()
            .filter(|target| match self.protected.get(&target.pid) {
                Some(reason) => {
                    notes.push(format!("left out {target}: {reason}"));
                    false
                }
                None => true,
            })
            .collect();
        (allowed, notes)
    }
}

/// Whether a single process is protected by what it is: a server for logins, one of Squall's own, or one that the policy
/// names. Cheaper than to look at the whole host.
pub fn protects(policy: &Policy, target: &Target) -> bool {
    let Ok(entry) = Entry::new(target.pid) else { return false };
    let own = std::fs::read_link("/proc/self/exe").ok();
    let ours = target.name.starts_with(OURS) || own.is_some() && entry.exe().ok() == own;
    (ours && !is_there_to_suffer(&entry))
        || Wards::of(policy).map_or(true, |wards| wards.protect(&entry, &target.name).is_some())
        || Doors::of_this_host().is(&target.name, target.pid)
}

/// The demo's shop and the self-test's victim run in the same binary, and are there to be hit.
fn is_there_to_suffer(entry: &Entry) -> bool {
    entry.cmdline().is_ok_and(|arguments| {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        words.get(1) == Some(&"shop") || words.ends_with(&["self-test", "--be", "sufferer"])
    })
}

/// The TCP ports on which people reach the host: where a remote login really listens. When that cannot be seen, 22.
/// `sockets` are all of this network namespace, `None` where they could not be listed.
pub fn login_ports(sockets: Option<&[Listed]>) -> BTreeSet<u16> {
    let unseen = || BTreeSet::from([22]);
    let Some(sockets) = sockets else { return unseen() };
    // To look through all processes takes milliseconds.
    if !sockets.iter().any(|socket| socket.listens() || socket.established()) {
        return BTreeSet::new();
    }
    let Ok(processes) = procfs::process::all_processes() else { return unseen() };
    let doors = Doors::of_this_host();
    let door = |entry: &Entry| entry.stat().is_ok_and(|stat| doors.is(&stat.comm, entry.pid));
    let inodes = held(processes.flatten().filter(door).map(|entry| entry.pid));
    let theirs = sockets.iter().filter(|socket| inodes.contains(&socket.inode));
    // A listening socket, or a session whose listener lives elsewhere (socket activation).
    theirs.filter(|socket| socket.listens() || socket.established()).map(|socket| socket.local.1).collect()
}

/// The sockets that processes hold, by inode.
fn held(pids: impl Iterator<Item = i32>) -> BTreeSet<u32> {
    pids.filter_map(|pid| descriptors::sockets(pid).ok()).flatten().map(|(_, inode)| inode).collect()
}

/// Where the TCP connections of these processes lead, of those among `sockets`: to a controller. What cannot be seen is
/// none.
pub fn connections(pids: &BTreeSet<i32>, sockets: &[Listed]) -> BTreeSet<SocketAddr> {
    let connected =
        |socket: &&Listed| socket.transport == Transport::Tcp && !socket.listens() && socket.inode != 0;
    // An agent holds a socket for each fault: where nobody is connected they need not be looked through.
    if !sockets.iter().any(|socket| connected(&socket)) {
        return BTreeSet::new();
    }
    let inodes = held(pids.iter().copied());
    let theirs = sockets.iter().filter(connected).filter(|socket| inodes.contains(&socket.inode));
    theirs.map(|socket| SocketAddr::from(socket.remote)).collect()
}

/// Servers for remote logins are known by their name and by their program: a process may call itself anything, and a
/// program may be started by another name.
struct Doors(BTreeSet<(u64, u64)>);

impl Doors {
    fn of_this_host() -> Self {
        let file = |path: &&str| std::fs::metadata(path).ok();
        Doors(PROGRAMS.iter().filter_map(file).map(|file| (file.dev(), file.ino())).collect())
    }

    fn is(&self, name: &str, pid: i32) -> bool {
        // Follows the link to the very file, also where that was replaced by a newer one since.
        let exe = PathBuf::from(format!("/proc/{pid}/exe"));
        let program = |exe: &Path| {
            let path = std::fs::read_link(exe).ok()?;
            let name = path.file_name()?.to_str()?;
            Some(DOORS.contains(&name.strip_suffix(" (deleted)").unwrap_or(name)))
        };
        let file =
            |exe: &Path| std::fs::metadata(exe).is_ok_and(|file| self.0.contains(&(file.dev(), file.ino())));
        DOORS.contains(&name) || program(&exe) == Some(true) || file(&exe)
    }
}
