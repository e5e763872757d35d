//! Where a change acts: in the agent's own network namespace, or in that of a container or of a name.
//!
//! A network fault on a container with a network of its own, or on a named namespace, acts *inside*, on everybody. So does
//! nothing else: processes are reached from anywhere, and a container that shares the agent's network is told apart there.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use squall_experiments::change::Change;
use squall_experiments::protocol::Refusal;
use squall_experiments::scope::Scope;

use super::container::{Container, Containers};
use super::netns::{Id, NAMED, Netns};
use super::sys;
use super::watch::Watch;

/// How often a name is looked at, and how often something that has ended is looked for.
const LOOK_NANOS: u64 = 300_000_000;

/// Where a change acts, and as what.
#[derive(Debug)]
pub struct Site {
    /// The namespace; `None` is the agent's own.
    pub at: Option<Id>,
    /// What is done there: inside a container's network its scope is everybody.
    pub change: Change,
    /// What is aimed at, for the report.
    pub targets: Vec<String>,
    /// What the reader must know.
    pub notes: Vec<String>,
    /// What it stands and falls with.
    pub ground: Option<Ground>,
    /// The namespace, until it is entered.
    pub(super) netns: Option<Netns>,
}

/// What a change stands and falls with.
#[derive(Debug)]
pub struct Ground {
    /// For the report.
    pub name: String,
    of: Of,
    look: u64,
}

#[derive(Debug)]
enum Of {
    /// The first process of a container.
    Process(OwnedFd),
    /// The file that stands for a namespace.
    File(PathBuf, Id),
}

impl Site {
    /// Finds it. Changes nothing.
    pub fn of(change: &Change, home: Id) -> Result<Self, Refusal> {
        let own = |ground| Site {
            at: None,
            change: change.clone(),
            targets: Vec::new(),
            notes: Vec::new(),
            ground,
            netns: None,
        };
        match change.flow().and_then(|flow| flow.scope.as_ref()) {
            Some(Scope::Netns(name)) => Site::named(change, name, home),
            Some(Scope::Container(name)) => {
                let all = Containers::running()?;
                let container = all.find(name)?;
                let ground = Ground::container(container)?;
                let netns = Netns::of_process(container.init.pid)
                    .map_err(|error| closed(&format!("the network namespace of {container}"), &error))?;
                if netns.id() == home {
                    return Ok(own(Some(ground)));
                }
                Ok(Site {
                    notes: shared(container, &all),
                    targets: vec![format!("the network of container {container}")],
                    ..Site::inside(change, netns, ground)
                })
            }
            _ => Ok(own(None)),
        }
    }

    /// Looks at another namespace from inside, before the machine has come into it; `None` for the agent's own.
    pub fn look<T>(&self, look: impl FnOnce() -> T) -> Option<std::io::Result<T>> {
        self.netns.as_ref().map(|netns| netns.enter(look))
    }

    fn named(change: &Change, name: &str, home: Id) -> Result<Self, Refusal> {
        let path = if Path::new(name).is_absolute() {
            PathBuf::from(name)
        } else if name.is_empty() || name.contains('/') || matches!(name, "." | "..") {
            return Err(Refusal::new(
                format!("`{name}` names no network namespace"),
                format!("give a name below `{NAMED}`, or the absolute path of a namespace's file"),
            ));
        } else {
            Path::new(NAMED).join(name)
        };
        let netns = Netns::open(&path).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT) => Refusal::new(
                format!("there is no network namespace `{name}` (`{}`)", path.display()),
                "list them with `ip netns`; an absolute path such as `/proc/312/ns/net` is taken, too",
            ),
            Some(libc::EINVAL) => Refusal::new(
                format!("`{}` is no network namespace", path.display()),
                "list them with `ip netns`",
            ),
            _ => closed(&format!("`{}`", path.display()), &error),
        })?;
        if netns.id() == home {
            return Err(Refusal::new(
                format!("`{name}` is the agent's own network namespace"),
                "leave `in:` out: without it a fault concerns this namespace",
            ));
        }
        let shown = format!("network namespace {name}");
        let of = Of::File(path, netns.id());
        let ground = Ground { name: shown.clone(), of, look: sys::boot_nanos() + LOOK_NANOS };
        Ok(Site { targets: vec![shown], ..Site::inside(change, netns, ground) })
    }

    fn inside(change: &Change, netns: Netns, ground: Ground) -> Self {
        Site {
            at: Some(netns.id()),
            change: change.of_everybody(),
            targets: Vec::new(),
            notes: Vec::new(),
            ground: Some(ground),
            netns: Some(netns),
        }
    }
}

fn closed(what: &str, error: &std::io::Error) -> Refusal {
    Refusal::new(
        format!("cannot enter {what}: {error}"),
        "run the agent as root (CAP_SYS_ADMIN and CAP_NET_ADMIN)",
    )
}

/// Who else is inside.
fn shared(container: &Container, all: &Containers) -> Vec<String> {
    let others = all.within(container.network).filter(|other| other.id != container.id);
    let others: Vec<String> = others.map(Container::to_string).collect();
    if others.is_empty() {
        return Vec::new();
    }
    vec![format!("in one network with {container}, as in a pod, and concerned too: {}", others.join(", "))]
}

impl Ground {
    fn container(container: &Container) -> Result<Self, Refusal> {
        let init = container.init.open();
        let init = init.ok_or_else(|| Refusal::bare(format!("container {container} has just ended")))?;
        Ok(Ground { name: format!("container {container}"), of: Of::Process(init), look: u64::MAX })
    }

    /// Wakes the worker when it ends, where it can be watched.
    pub fn watch(&self, watch: &Watch) {
        if let Of::Process(init) = &self.of
            && let Err(error) = watch.add(init)
        {
            tracing::warn!(%error, "the end of {} will be noticed late", self.name);
        }
    }

    /// When it must be looked at, where it cannot be watched, on the boot clock.
    pub fn due(&self) -> Option<u64> {
        (self.look != u64::MAX).then_some(self.look)
    }

    /// Whether it is still there.
    pub fn stands(&mut self) -> bool {
        match &self.of {
            Of::Process(init) => {
                let mut ended = [PollFd::new(init.as_fd(), PollFlags::POLLIN)];
                !poll(&mut ended, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
            }
            Of::File(path, id) => {
                use std::os::unix::fs::MetadataExt;
                self.look = sys::boot_nanos() + LOOK_NANOS;
                std::fs::metadata(path).is_ok_and(|found| found.ino() == id.inode)
            }
        }
    }

    /// When something that has ended is looked for next, on the boot clock.
    pub fn next_look() -> u64 {
        sys::boot_nanos() + LOOK_NANOS
    }
}
