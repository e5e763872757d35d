//! What is never hit, whoever asks: decided on the host, from what the host is now.

use std::collections::{BTreeMap, BTreeSet};

use procfs::process::{FDTarget, Process as Entry};

use crate::host::process::Target;
use crate::host::sockets::Sockets;
use crate::policy::Policy;

/// Servers by which people reach the host.
const DOORS: [&str; 3] = ["sshd", "sshd-session", "dropbear"];
/// How the names of Squall's own processes begin.
const OURS: &str = "squall";

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
        for (stat, entry) in &stats {
            let name = stat.comm.as_str();
            if stat.pid == 2 || stat.ppid == 2 {
                protected.insert(stat.pid, "a kernel thread".to_owned());
            } else if DOORS.contains(&name) {
                protected.insert(stat.pid, "a remote login, by which people reach the host".to_owned());
            } else if (name.starts_with(OURS) || is_ours(entry)) && !is_demo_shop(entry) {
                protected.insert(stat.pid, "squall itself".to_owned());
            } else if policy.protects_process(name) {
                protected.insert(stat.pid, "protected by this host's policy".to_owned());
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

/// The demo's shop runs in the same binary, and is there to be hit.
fn is_demo_shop(entry: &Entry) -> bool {
    entry.cmdline().is_ok_and(|arguments| arguments.get(1).is_some_and(|verb| verb == "shop"))
}

/// The TCP ports on which people reach the host: where a remote login really listens. When that cannot be seen, 22.
pub fn login_ports() -> BTreeSet<u16> {
    let unseen = || BTreeSet::from([22]);
    let Ok(sockets) = Sockets::open().and_then(|mut all| all.all()) else { return unseen() };
    // To look through all processes takes milliseconds.
    if !sockets.iter().any(|socket| socket.listens() || socket.established()) {
        return BTreeSet::new();
    }
    let Ok(processes) = procfs::process::all_processes() else { return unseen() };
    let door = |entry: &Entry| entry.stat().is_ok_and(|stat| DOORS.contains(&stat.comm.as_str()));
    let held =
        processes.flatten().filter(door).filter_map(|entry| entry.fd().ok()).flat_map(Iterator::flatten);
    let inodes: BTreeSet<u32> = held
        .filter_map(|info| match info.target {
            FDTarget::Socket(inode) => u32::try_from(inode).ok(),
            _ => None,
        })
        .collect();
    let theirs = sockets.iter().filter(|socket| inodes.contains(&socket.inode));
    // A listening socket, or a session whose listener lives elsewhere (socket activation).
    theirs.filter(|socket| socket.listens() || socket.established()).map(|socket| socket.local.1).collect()
}
