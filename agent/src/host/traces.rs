//! Squall's own objects in a network namespace, found by their marks alone: for when no journal tells of them.
//!
//! | object | mark | what tells it from a look-alike |
//! |---|---|---|
//! | nftables table | family `inet`, name `squall` | its owner lives, or its chains are named as ours |
//! | nftables table of what enters | family `netdev`, name `squall` | its owner lives |
//! | inert root with its classes | handle `5a17:` | kind `htb`, at the root, no filters |
//! | device that what enters is led through | name `squall-in` | kind `ifb` |
//! | socket marks | a bit of our range | it is the socket's whole mark, and no routing rule looks at it |
//!
//! Whoever is traced, linked to a BPF program or waits in a queue is let go by the kernel with the agent. A process that
//! was stopped by signal bears no mark: only a journal knows of it.

use std::collections::BTreeSet;
use std::fmt;

use squall_experiments::protocol::Refusal;

use super::mark;
use super::netlink::NetlinkError;
use super::process::{Processes, Target};
use super::qdisc::class::PATIENCE;
use super::qdisc::root::{self, Before, Strays};
use super::qdisc::{Device, Tc, class, ifb};
use super::table::{NAME, Table};
use super::undo::{Undo, Undone};

/// One object of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trace {
    /// The table.
    Table {
        /// The netlink port of the socket that it belongs to; without one it is a copy that somebody loaded.
        owner: Option<u32>,
    },
    /// The table of what enters, by the port of its owner.
    Second(u32),
    /// The device that what enters is led through.
    Entry {
        /// The lower halves of the handles of the classes at its root.
        classes: Vec<u16>,
    },
    /// The inert root of an interface.
    Root {
        /// Which.
        device: Device,
        /// The lower halves of the handles of the classes below it.
        classes: Vec<u16>,
    },
    /// Marked sockets. They have no effect where no rule asks for them.
    Sockets {
        /// The bit of the mark.
        bit: u32,
        /// How many there are.
        count: usize,
    },
}

/// What the calling thread's network namespace bears.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// Ours.
    pub found: Vec<Trace>,
    /// What looks like ours and is not, with why: left alone.
    pub others: Vec<String>,
}

impl Traces {
    /// What is ours beyond doubt, and has an effect or stands in the way.
    pub fn certain() -> Result<Self, Refusal> {
        let mut traces = Traces::default();
        let unseen = |error| Refusal::bare(format!("tables cannot be listed: {error}"));
        // Without nftables there is no table.
        if let Ok(mut table) = Table::open() {
            match table.existing().map_err(unseen)? {
                Some(owner) if owner.is_some() || table.is_built_as_ours().map_err(unseen)? => {
                    traces.found.push(Trace::Table { owner });
                }
                Some(_) => traces.others.push(format!(
                    "a table `inet {NAME}` without an owner and without our chains is somebody else's"
                )),
                None => {}
            }
            match table.existing_second().map_err(unseen)? {
                Some(Some(owner)) => traces.found.push(Trace::Second(owner)),
                Some(None) => {
                    traces.others.push(format!("a table `netdev {NAME}` without an owner is somebody else's"))
                }
                None => {}
            }
        }
        let mut tc = Tc::open()
            .map_err(|error| Refusal::bare(format!("queueing disciplines cannot be listed: {error}")))?;
        let Strays { mut ours, others } = root::strays(&mut tc)?;
        match ifb::find(&mut tc)? {
            Some(link) if link.kind == ifb::KIND => {
                let at = ours.iter().position(|(device, _)| device.index == link.index);
                let classes = at.map(|at| ours.remove(at).1).unwrap_or_default();
                traces.found.push(Trace::Entry { classes });
            }
            Some(_) => traces.others.push(format!("`{}` is no `{}`", ifb::NAME, ifb::KIND)),
            None => {}
        }
        traces.found.extend(ours.into_iter().map(|(device, classes)| Trace::Root { device, classes }));
        traces.others.extend(others);
        Ok(traces)
    }

    /// With what is ours by the range of its mark, and has no effect.
    pub fn all() -> Result<Self, Refusal> {
        let mut traces = Traces::certain()?;
        let sockets = mark::strays()?.into_iter();
        traces.found.extend(sockets.map(|(bit, count)| Trace::Sockets { bit, count }));
        Ok(traces)
    }
}

impl Trace {
    /// Takes it away, and looks whether it is gone.
    pub fn remove(&self) -> Undone {
        match self {
            Trace::Table { owner: Some(port) } => self.owned(*port, Table::existing),
            Trace::Second(port) => self.owned(*port, Table::existing_second),
            Trace::Table { owner: None } => {
                let mut table = Table::open().map_err(|error| format!("{self}: {error}"))?;
                table.delete().map_err(|error| format!("{self} cannot be removed: {error}"))?;
                Undo::Table.apply(Some(&mut table), &mut Default::default())
            }
            Trace::Entry { classes } => {
                let mut tc = Tc::open().map_err(|error| format!("{self}: {error}"))?;
                if let Some(link) = ifb::find(&mut tc).map_err(|refusal| refusal.what)? {
                    let device = Device { index: link.index, name: link.name };
                    for minor in classes {
                        class::undo(&device, *minor, PATIENCE)?;
                    }
                }
                ifb::undo()
            }
            Trace::Root { device, classes } => {
                let mut done = Vec::new();
                for minor in classes {
                    done.push(class::undo(device, *minor, PATIENCE)?);
                }
                done.push(root::undo(device, &Before::Default)?);
                Ok(done.join("; "))
            }
            Trace::Sockets { bit, .. } => {
                let count = mark::clear_alone(*bit)?;
                Ok(format!("{count} sockets do not carry the mark {bit:#x} any more"))
            }
        }
    }
}

impl Trace {
    /// What belongs to a socket goes with it, and cannot be taken from it.
    fn owned(
        &self,
        port: u32,
        look: impl Fn(&mut Table) -> Result<Option<Option<u32>>, NetlinkError>,
    ) -> Undone {
        let holders = holders(port);
        // It may belong to somebody who is just dying.
        let gone = Table::open().is_ok_and(|mut table| matches!(look(&mut table), Ok(None)));
        match (gone, holders.as_slice()) {
            (true, _) => Ok(format!("{self} went with its owner")),
            (false, []) => Err(format!("{self} is held by a process that cannot be seen from here")),
            (false, all) => Err(format!(
                "{self} is held by {}: it goes when that process ends",
                all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            )),
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trace::Table { owner: Some(port) } => {
                write!(f, "the table `inet {NAME}`, owned by netlink port {port}")
            }
            Trace::Second(port) => write!(f, "the table `netdev {NAME}`, owned by netlink port {port}"),
            Trace::Entry { .. } => write!(f, "the device `{}`", ifb::NAME),
            Trace::Table { owner: None } => write!(f, "a table `inet {NAME}` with our chains and no owner"),
            Trace::Root { device, classes } => {
                write!(f, "an inert root on `{device}` with {} classes", classes.len())
            }
            Trace::Sockets { bit, count } => write!(f, "{count} sockets with the mark {bit:#x}"),
        }
    }
}

/// The processes that hold a netlink socket of this namespace, by its port.
///
/// Source: `net/netlink/af_netlink.c`, `netlink_native_seq_show`: protocol is the second column, port the third, the
/// inode the last.
fn holders(port: u32) -> Vec<Target> {
    const NETFILTER: &str = "12";
    let text = std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap_or_default();
    let inodes: BTreeSet<u32> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|columns| columns.get(1) == Some(&NETFILTER) && columns.get(2) == Some(&&*port.to_string()))
        .filter_map(|columns| columns.last()?.parse().ok())
        .collect();
    let held = Processes::everywhere().map(|all| all.sockets()).unwrap_or_default();
    let holds = |list: &[(i32, u32)]| list.iter().any(|(_, inode)| inodes.contains(inode));
    held.iter().filter(|(_, list)| holds(list)).filter_map(|(pid, _)| Target::of(*pid)).collect()
}
