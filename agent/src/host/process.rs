//! Processes: found by what they are, held by pidfd and start time, so that a recycled pid is never hit.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use procfs::process::Process as Entry;
use serde::{Deserialize, Serialize};
use squall_experiments::protocol::Refusal;
use squall_experiments::scope::{ProcessSelector, Scope};

pub use super::cgroup::Cgroup;
use super::cgroup::Group;
use super::container::Container;
use super::descriptors;
use super::sockets::{Listed, Sockets};

/// One process, so that no other can be taken for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Target {
    /// Its pid.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub start: u64,
    /// Its command name, for people.
    pub name: String,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

impl Target {
    /// The process with this pid, as it is now.
    pub fn of(pid: i32) -> Option<Target> {
        let stat = Entry::new(pid).and_then(|entry| entry.stat()).ok()?;
        Some(Target { pid, start: stat.starttime, name: stat.comm })
    }

    /// Whether one of these is among its parents, now.
    pub fn descends_from(&self, targets: &[Target]) -> bool {
        let mut pid = self.pid;
        while pid > 1 {
            let Ok(stat) = Entry::new(pid).and_then(|entry| entry.stat()) else { return false };
            pid = stat.ppid;
            if targets.iter().any(|target| target.pid == pid) {
                return true;
            }
        }
        false
    }

    /// The process that a scope names by its pid, as long as it lives: whoever is given that pid later is another one. `None`
    /// where the scope names none.
    pub fn named_by(scope: &Scope) -> Option<Target> {
        let Scope::Process(ProcessSelector { pid: Some(pid), .. }) = scope else { return None };
        i32::try_from(*pid).ok().and_then(Target::of)
    }

    /// Whether this very process still exists, and in which state: `R`, `S`, `T` (stopped), `t` (traced), `Z`….
    pub fn state(&self) -> Option<char> {
        let stat = Entry::new(self.pid).and_then(|entry| entry.stat()).ok()?;
        (stat.starttime == self.start).then_some(stat.state)
    }

    /// Whether it runs, or could: it is neither gone nor a zombie.
    pub fn alive(&self) -> bool {
        self.state().is_some_and(|state| !matches!(state, 'Z' | 'X'))
    }

    /// A descriptor for this very process; `None` when it is gone.
    pub fn open(&self) -> Option<OwnedFd> {
        let pid = rustix::process::Pid::from_raw(self.pid)?;
        let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
        // The pid cannot be recycled while the pidfd is held, so looking now settles it.
        self.alive().then_some(fd)
    }
}

/// Which sockets processes hold: descriptor and inode, by pid.
pub type Held = BTreeMap<i32, Vec<(i32, u32)>>;

/// What is seen of all processes of this network namespace at one moment.
#[derive(Debug)]
pub struct Processes {
    entries: Vec<Entry>,
}

impl Processes {
    /// Looks at `/proc`. Processes of other network namespaces, and those that end meanwhile, are left out.
    pub fn here() -> Result<Self, Refusal> {
        let unreadable = |error| Refusal::bare(format!("cannot read `/proc`: {error}"));
        let namespace =
            std::fs::read_link("/proc/thread-self/ns/net").map_err(|error| unreadable(error.to_string()))?;
        let all = procfs::process::all_processes().map_err(|error| unreadable(error.to_string()))?;
        let here = |entry: &Entry| {
            let theirs = std::fs::read_link(format!("/proc/{}/ns/net", entry.pid));
            // Without the right to look (another user's process, no root) it may be here: its owner's rules decide.
            theirs.map_or(nix::unistd::geteuid().as_raw() != 0, |theirs| theirs == namespace)
        };
        Ok(Processes { entries: all.flatten().filter(here).collect() })
    }

    /// Those among which a scope's are looked for: a container is known wherever its network is.
    pub fn reached_by(scope: &Scope) -> Result<Self, Refusal> {
        if matches!(scope, Scope::Container(_)) { Processes::everywhere() } else { Processes::here() }
    }

    /// All processes of the machine: a socket of this namespace may be held by a process of another one.
    pub fn everywhere() -> Result<Self, Refusal> {
        let all = procfs::process::all_processes();
        let all = all.map_err(|error| Refusal::bare(format!("cannot read `/proc`: {error}")))?;
        Ok(Processes { entries: all.flatten().collect() })
    }

    /// One process; none where it has ended.
    pub fn only(pid: i32) -> Self {
        Processes { entries: Entry::new(pid).into_iter().collect() }
    }

    fn targets(&self, mut matches: impl FnMut(&Entry) -> bool) -> Vec<Target> {
        let target = |entry: &Entry| {
            let stat = entry.stat().ok()?;
            let target = Target { pid: entry.pid, start: stat.starttime, name: stat.comm };
            (!matches!(stat.state, 'Z' | 'X')).then_some(target)
        };
        let mut targets: Vec<Target> =
            self.entries.iter().filter(|entry| matches(entry)).filter_map(target).collect();
        targets.sort();
        targets
    }

    /// The processes of a scope, sorted by pid. An empty answer is for the caller to refuse.
    pub fn of(&self, scope: &Scope) -> Result<Vec<Target>, Refusal> {
        match scope {
            Scope::Process(selector) => self.selected(selector),
            Scope::User(user) => {
                let uid = uid_of(user)?;
                Ok(self.targets(|entry| entry.status().is_ok_and(|status| status.euid == uid)))
            }
            Scope::Cgroup(_) | Scope::Unit(_) => {
                let members = Group::of(scope)?.members();
                Ok(self.targets(|entry| members.contains(&entry.pid)))
            }
            Scope::Port(_) | Scope::Interface(_) | Scope::Netns(_) => {
                Err(Refusal::bare(format!("{scope} chooses traffic, not processes")))
            }
            Scope::Container(name) => Ok(Container::find(name)?.processes()),
        }
    }

    fn selected(&self, selector: &ProcessSelector) -> Result<Vec<Target>, Refusal> {
        if selector.is_empty() {
            return Err(Refusal::new(
                "an empty process selector would match everything",
                "give at least one of `exe`, `name`, `args`, `pid`, `listening`",
            ));
        }
        let args = selector.args.as_deref().map(regex::Regex::new).transpose();
        let args =
            args.map_err(|error| Refusal::bare(format!("`args` is no regular expression: {error}")))?;
        let listeners = match selector.listening {
            None => None,
            Some(port) => Some(self.holders(|socket| socket.listens() && socket.local.1 == port)?),
        };
        Ok(self.targets(|entry| {
            let name = |name: &String| entry.stat().is_ok_and(|stat| stat.comm == *name);
            let exe = |exe: &String| entry.exe().is_ok_and(|found| found == *PathBuf::from(exe));
            let arguments = || entry.cmdline().map(|list| list.join(" ")).unwrap_or_default();
            selector.pid.is_none_or(|pid| i64::from(pid) == i64::from(entry.pid))
                && selector.name.as_ref().is_none_or(name)
                && selector.exe.as_ref().is_none_or(exe)
                && args.as_ref().is_none_or(|args| args.is_match(&arguments()))
                && listeners.as_ref().is_none_or(|holders| holders.contains(&entry.pid))
        }))
    }

    /// The processes that hold a socket which matches.
    fn holders(&self, matches: impl Fn(&Listed) -> bool) -> Result<BTreeSet<i32>, Refusal> {
        let sockets = Sockets::open().and_then(|mut sockets| sockets.all());
        let sockets = sockets.map_err(|error| Refusal::bare(format!("cannot list sockets: {error}")))?;
        let inodes: BTreeSet<u32> =
            sockets.iter().filter(|socket| matches(socket)).map(|socket| socket.inode).collect();
        let held = self.sockets();
        let holds = |list: &[(i32, u32)]| list.iter().any(|(_, inode)| inodes.contains(inode));
        Ok(held.into_iter().filter(|(_, list)| holds(list)).map(|(pid, _)| pid).collect())
    }

    /// Which sockets each process holds: descriptor and inode, by pid.
    pub fn sockets(&self) -> Held {
        let of = |entry: &Entry| Some((entry.pid, descriptors::sockets(entry.pid).ok()?));
        self.entries.iter().filter_map(of).filter(|(_, sockets)| !sockets.is_empty()).collect()
    }
}

/// A user's number. An unknown name is refused.
pub fn uid_of(user: &str) -> Result<u32, Refusal> {
    if let Ok(uid) = user.parse() {
        return Ok(uid);
    }
    match nix::unistd::User::from_name(user) {
        Ok(Some(found)) => Ok(found.uid.as_raw()),
        _ => Err(Refusal::new(format!("there is no user `{user}` on this host"), "see `getent passwd`")),
    }
}
