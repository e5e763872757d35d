//! Undo records: what the journal holds, and how each is made so. "Make it so", never "toggle".
//!
//! Each is idempotent, is right even if its change never happened, and identifies its object so that a recycled name
//! cannot fool it.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::netns::Id;
use super::process::Target;
use super::qdisc::root::Before;
use super::qdisc::{Device, class, ifb, root};
use super::redirect::proxy;
use super::table::{NAME, Table};
use super::{mark, queue};

/// How to take one thing back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undo {
    /// The table `inet squall` is not there, once no rule of an injection stands in it.
    Table,
    /// No rule whose comment begins so stands in the table.
    Rules(String),
    /// No packet waits in this queue, and nobody reads it.
    Queue {
        /// Its number.
        number: u16,
        /// Its reader takes packets out of the kernel while it holds them: they go with it.
        steals: bool,
    },
    /// No socket of the namespace carries this bit of the mark.
    Mark(u32),
    /// What stood at the root of an interface stands there, once no class of ours stands below ours.
    Root {
        /// Which interface.
        device: Device,
        /// What stood there.
        before: Before,
    },
    /// The device through which what enters is led is not there, once no class of ours stands in it.
    Entry,
    /// No class of ours with this number stands at an interface.
    Class {
        /// Which interface.
        device: Device,
        /// The lower half of its handle.
        minor: u16,
        /// How long what it holds is waited for, in milliseconds.
        wait_ms: u64,
    },
    /// The proxy of an outage does not run; the kernel sees to it when its agent is gone.
    Proxy(Target),
    /// A traced process runs; the kernel sees to it when its tracer is gone.
    Release(Target),
    /// A stopped process goes on.
    Resume(Target),
    /// Another one, in a network namespace that is not the agent's own.
    Within {
        /// Which.
        netns: Id,
        /// What is undone there.
        undo: Box<Undo>,
    },
}

/// Sockets of queues, by number.
pub type Duplicates = BTreeMap<u16, OwnedFd>;

/// What an undo came to: verified words, or what is still there.
pub type Undone = Result<String, String>;

/// The prefix of every injection's rules, by which they are told from carve-outs.
pub const TAG: &str = "squall run ";

impl Undo {
    /// Whether it concerns only what the kernel forgets at a reboot.
    pub fn void_after_reboot(&self) -> bool {
        match self {
            Undo::Table
            | Undo::Rules(_)
            | Undo::Queue { .. }
            | Undo::Mark(_)
            | Undo::Root { .. }
            | Undo::Class { .. }
            | Undo::Entry
            | Undo::Proxy(_)
            | Undo::Release(_)
            | Undo::Resume(_) => true,
            Undo::Within { undo, .. } => undo.void_after_reboot(),
        }
    }

    /// Where it acts; `None` is the agent's own network namespace.
    pub fn netns(&self) -> Option<Id> {
        match self {
            Undo::Within { netns, .. } => Some(*netns),
            _ => None,
        }
    }

    /// What it is, wherever it acts.
    pub fn inner(&self) -> &Undo {
        match self {
            Undo::Within { undo, .. } => undo.inner(),
            undo => undo,
        }
    }

    /// The same without waiting for anything that is still held: where it is, nobody takes it any more.
    pub fn hurried(self) -> Self {
        match self {
            Undo::Class { device, minor, .. } => Undo::Class { device, minor, wait_ms: 0 },
            Undo::Within { netns, undo } => Undo::Within { netns, undo: Box::new(undo.hurried()) },
            undo => undo,
        }
    }

    /// Whether it concerns what goes with a network namespace; everything else is reached from anywhere.
    pub fn within_namespace(&self) -> bool {
        !matches!(self, Undo::Proxy(_) | Undo::Release(_) | Undo::Resume(_))
    }

    /// Whether it is done when the run ends, not when its step does: what stands then is touched by no packet, but still
    /// lets go of those that it holds, and to take it down and make it again would cost others' packets.
    pub fn outlasts_its_step(&self) -> bool {
        matches!(self, Undo::Root { .. } | Undo::Class { .. } | Undo::Entry | Undo::Proxy(_))
    }

    /// Whether it leaves its object alone, and is done all the same, while something else stands in that.
    pub fn spares_what_serves(&self) -> bool {
        matches!(self.inner(), Undo::Table | Undo::Root { .. } | Undo::Entry)
    }

    /// Makes it so in the calling thread's network namespace, wherever it was recorded, then looks whether it is. `table`
    /// is the owning socket or a duplicate, where there is one; `queues` are duplicates of the sockets of queues whose
    /// reader is dead.
    pub fn apply(&self, table: Option<&mut Table>, queues: &mut Duplicates) -> Undone {
        match self {
            Undo::Table => match table {
                Some(table) => remove_table(table),
                None => Ok("no nftables here, so no table".to_owned()),
            },
            Undo::Rules(tag) => match table {
                Some(table) => remove_rules(table, tag),
                None => Ok("no nftables here, so no rules".to_owned()),
            },
            Undo::Queue { number, steals } => drain(*number, *steals, queues),
            Undo::Mark(bit) => {
                mark::clear(*bit).map(|count| format!("no socket is marked any more ({count} were)"))
            }
            Undo::Root { device, before } => root::undo(device, before),
            Undo::Entry => ifb::undo(),
            Undo::Class { device, minor, wait_ms } => {
                class::undo(device, *minor, Duration::from_millis(*wait_ms))
            }
            Undo::Proxy(process) => proxy::gone(process),
            Undo::Release(target) => released(target),
            Undo::Resume(target) => resume(target),
            Undo::Within { undo, .. } => undo.apply(table, queues),
        }
    }
}

impl fmt::Display for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Undo::Table => write!(f, "the table `inet {NAME}`"),
            Undo::Rules(tag) => write!(f, "rules `{tag}`"),
            Undo::Queue { number, .. } => write!(f, "what waits in queue {number}"),
            Undo::Mark(bit) => write!(f, "sockets with the mark {bit:#x}"),
            Undo::Root { device, .. } => write!(f, "the root of `{device}`"),
            Undo::Entry => write!(f, "the device `{}`", ifb::NAME),
            Undo::Class { device, minor, .. } => write!(f, "class {minor:x} of `{device}`"),
            Undo::Proxy(process) => write!(f, "{process}, the proxy of an outage"),
            Undo::Release(target) => write!(f, "{target}, paused"),
            Undo::Resume(target) => write!(f, "{target}, stopped"),
            Undo::Within { netns, undo } => write!(f, "in network namespace {}: {undo}", netns.inode),
        }
    }
}

/// Lets everything go that waits in a queue whose reader is dead; the queue itself goes with the duplicate.
fn drain(number: u16, steals: bool, queues: &mut Duplicates) -> Undone {
    let lost = if steals { "; what its reader was about to send is lost, how much is not known" } else { "" };
    let Some(socket) = queues.get(&number) else {
        return Ok(format!("queue {number} went with the agent, and what waited in it is lost{lost}"));
    };
    queue::drain(socket.as_fd(), number)
        .map_err(|error| format!("queue {number} cannot be emptied: {error}"))?;
    queues.remove(&number);
    Ok(format!("what waited in queue {number} went on its way{lost}"))
}

fn remove_rules(table: &mut Table, tag: &str) -> Undone {
    let removed = table.remove(tag).map_err(|error| format!("rules `{tag}` cannot be removed: {error}"))?;
    match removed.left {
        0 => {
            let rules = if removed.rules == 1 { "rule" } else { "rules" };
            Ok(format!("{} {rules} removed, none left", removed.rules))
        }
        left => Err(format!("{left} chains of rules `{tag}` are still in `inet {NAME}`")),
    }
}

fn remove_table(table: &mut Table) -> Undone {
    let unknown = |error| format!("the table `inet {NAME}` cannot be looked at: {error}");
    if table.serves().map_err(unknown)? {
        return Ok(format!("the table `inet {NAME}` stays for another run"));
    }
    if table.existing().map_err(unknown)?.is_none() {
        return Ok(format!("the table `inet {NAME}` is gone"));
    }
    let refused = table.delete().err();
    // A table of another socket goes with that socket: give a dying owner a moment.
    for _ in 0..40 {
        if table.existing().map_err(unknown)?.is_none() {
            return Ok(format!("the table `inet {NAME}` is gone"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let why = refused.map(|error| format!(" ({error})")).unwrap_or_default();
    Err(format!("the table `inet {NAME}` is still there{why}"))
}

fn released(target: &Target) -> Undone {
    for _ in 0..50 {
        match target.state() {
            Some('t') => std::thread::sleep(Duration::from_millis(10)),
            Some('T') => {
                return Ok(format!("{target} is not traced; it is stopped, as others want it"));
            }
            Some(_) => return Ok(format!("{target} runs")),
            None => return Ok(format!("{target} has ended meanwhile")),
        }
    }
    Err(format!("{target} is still traced"))
}

fn resume(target: &Target) -> Undone {
    let ended = || Ok(format!("{target} has ended meanwhile"));
    let Some(pidfd) = target.open() else { return ended() };
    // Also where it does not look stopped: a stop that has been sent and not been taken yet would come later, and this one
    // takes it back (signal(7): SIGCONT discards pending stop signals).
    match pidfd_send_signal(pidfd, Signal::CONT) {
        Err(rustix::io::Errno::SRCH) => return ended(),
        sent => sent.map_err(|error| format!("{target} cannot be continued: {error}"))?,
    }
    for _ in 0..50 {
        if target.state() != Some('T') {
            return Ok(format!("{target} runs"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(format!("{target} is still stopped"))
}
