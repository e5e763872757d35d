//! What undos can get at: the sockets that own tables and queues, in each network namespace.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::{AsFd, OwnedFd};

use crate::host::netns::{Id, Netns};
use crate::host::table::Table;
use crate::host::undo::{Duplicates, Undo, Undone};

/// What undos can get at.
#[derive(Debug)]
pub struct Reach {
    /// The journal's own network namespace; `None` where it is gone, and everything in it.
    own: Option<Held>,
    /// Other namespaces, as far as they have been looked for; `None` where one is gone.
    others: BTreeMap<Id, Option<(Netns, Held)>>,
}

/// What is held of one network namespace: its table where there is one, and queues whose reader is dead.
#[derive(Debug, Default)]
struct Held {
    table: Option<Table>,
    queues: Duplicates,
}

impl Held {
    /// Of the calling thread's network namespace, once the agent and its sockets are gone.
    fn here() -> Self {
        Held { table: Table::open().ok(), queues: Duplicates::new() }
    }

    fn take(&mut self, undo: &Undo, socket: OwnedFd) {
        match undo {
            Undo::Queue { number, .. } => {
                self.queues.insert(*number, socket);
            }
            // Each change brings a duplicate of the same one.
            Undo::Table => self.table = Some(Table::adopt(socket)),
            _ => {}
        }
    }

    fn apply(&mut self, undo: &Undo) -> Undone {
        undo.apply(self.table.as_mut(), &mut self.queues)
    }
}

impl Reach {
    /// The calling thread's network namespace, once the agent and its sockets are gone; others are looked for.
    pub fn here() -> Self {
        Reach { own: Some(Held::here()), others: BTreeMap::new() }
    }

    /// Of a namespace that is gone, with everything in it; others are looked for.
    pub fn nowhere() -> Self {
        Reach { own: None, others: BTreeMap::new() }
    }

    /// By duplicates of the sockets of an agent that is dead, each with the undo that it is for.
    pub fn of(held: impl Iterator<Item = (Undo, OwnedFd)>) -> Self {
        let mut own = Held::default();
        let mut others: BTreeMap<Id, Option<(Netns, Held)>> = BTreeMap::new();
        for (undo, socket) in held {
            let Some(netns) = undo.netns() else {
                own.take(undo.inner(), socket);
                continue;
            };
            // The socket itself leads there, also when no process is left inside.
            let other = others.entry(netns).or_insert_with(|| {
                Netns::of_socket(socket.as_fd()).ok().map(|netns| (netns, Held::default()))
            });
            if let Some((_, held)) = other {
                held.take(undo.inner(), socket);
            }
        }
        if own.table.is_none() {
            own.table = Table::open().ok();
        }
        Reach { own: Some(own), others }
    }

    /// Applies one undo where it was recorded.
    pub fn apply(&mut self, undo: &Undo) -> Undone {
        match undo.netns() {
            Some(id) => self.elsewhere(id, undo.inner()),
            None => match &mut self.own {
                Some(held) => held.apply(undo),
                None if undo.within_namespace() => Ok("it went with its network namespace".to_owned()),
                None => Held::default().apply(undo),
            },
        }
    }

    fn elsewhere(&mut self, id: Id, undo: &Undo) -> Undone {
        let barred = |error: std::io::Error| format!("its network namespace cannot be entered: {error}");
        let other = match self.others.entry(id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let held = |netns: Netns| Ok((netns.enter(Held::here)?, netns));
                let found = Netns::find(id).and_then(|found| found.map(held).transpose()).map_err(barred)?;
                entry.insert(found.map(|(held, netns)| (netns, held)))
            }
        };
        match other {
            Some((netns, held)) => netns.enter(|| held.apply(undo)).map_err(barred)?,
            None => Ok("it went with its network namespace".to_owned()),
        }
    }
}
