//! Undoing what a dead agent left: needs no daemon, no controller, no network and no configuration.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::host::netns::{Id, Netns};
use crate::host::table::Table;
use crate::host::undo::{Duplicates, Undo, Undone};
use crate::journal::{self, Pending, Unreadable};
use crate::points::{self, Point};
use crate::state::{self, Lock, Place};

/// How long a dying agent may still hold its lock.
const DYING: Duration = Duration::from_secs(1);

/// What a recovery came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What was undone, and how it was verified.
    pub undone: Vec<String>,
    /// What is still there.
    pub stuck: Vec<String>,
    /// Journals that were left alone because a living process holds them: an agent that works, or one that is undoing.
    pub held: Vec<String>,
}

/// Why a recovery did not take place.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The journal cannot be trusted.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// Something is still there.
    #[error("a dead agent left something that could not be undone: {}", .0.join("; "))]
    Stuck(Vec<String>),
    /// The namespace of the journal cannot be entered.
    #[error("cannot enter the network namespace of `{0}`: {1}")]
    Namespace(String, String),
}

/// Looks for journals of dead agents below a state directory, of every network namespace, and replays them.
///
/// What a living agent holds is left alone. Every squall command calls this when it starts.
pub fn at_start(state_dir: Option<&Path>) -> Result<Outcome, RecoverError> {
    let mut all = Outcome::default();
    for place in Place::all(&state::root(state_dir)) {
        // Somebody who may not take the lock (another user) cannot undo either: the owner's next command will.
        // A place where an agent is just being started has nothing to recover, and must not be cleared.
        let Ok(Some(_starting)) = place.starting() else { continue };
        let Some(_lock) = lock_of(&place) else {
            if place.journal().exists() {
                all.held.push(place.journal().display().to_string());
            }
            continue;
        };
        let outcome = with_lock(&place)?;
        points::pass(Point::BeforeClear);
        place.clear();
        all.undone.extend(outcome.undone);
    }
    Ok(all)
}

/// The lock of a place, unless a living agent holds it. One that holds a journal and does not listen is on its way out,
/// and gets a moment: a process that was killed lets go of its lock a little after it can be seen to be dead.
pub fn lock_of(place: &Place) -> Option<Lock> {
    let deadline = Instant::now() + DYING;
    loop {
        if let Some(lock) = place.lock().ok()? {
            return Some(lock);
        }
        let lives = !place.journal().exists() || UnixStream::connect(place.socket()).is_ok();
        if lives || Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Replays the journal of a place whose lock the caller holds, and removes it when nothing is left.
pub fn with_lock(place: &Place) -> Result<Outcome, RecoverError> {
    let outcome =
        if place.is_here() { replay(&place.journal(), &mut Reach::here())? } else { elsewhere(place)? };
    if outcome.stuck.is_empty() {
        points::pass(Point::BeforeRemove);
        let _ = std::fs::remove_file(place.journal());
        Ok(outcome)
    } else {
        Err(RecoverError::Stuck(outcome.stuck))
    }
}

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
    fn here() -> Self {
        Reach { own: Some(Held::here()), others: BTreeMap::new() }
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

    fn apply(&mut self, undo: &Undo) -> Undone {
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

/// Applies everything that is pending in a journal; one failure does not stop the others.
pub fn replay(path: &Path, reach: &mut Reach) -> Result<Outcome, Unreadable> {
    let entries = journal::read(path)?;
    let rebooted =
        matches!(entries.first(), Some(journal::Entry::Header { boot, .. }) if *boot != journal::boot_id());
    let mut outcome = Outcome::default();
    for Pending { run, undo, .. } in journal::pending(&entries) {
        points::pass(Point::BeforeUndo);
        let done = if rebooted && undo.void_after_reboot() {
            Ok("a reboot has undone it".to_owned())
        } else {
            reach.apply(&undo)
        };
        points::pass(Point::AfterUndo);
        match done {
            Ok(what) => outcome.undone.push(format!("{run}: {what}")),
            Err(what) => outcome.stuck.push(format!("{run}: {what}")),
        }
    }
    Ok(outcome)
}

/// Replays the journal of another network namespace: inside it, where one of its processes shows the way. A namespace
/// without processes has no sockets left, and its table went with the socket that owned it.
fn elsewhere(place: &Place) -> Result<Outcome, RecoverError> {
    let path = place.journal();
    let entries = journal::read(&path)?;
    let Some(journal::Entry::Header { namespace, .. }) = entries.first() else {
        return Ok(Outcome::default());
    };
    let link = format!("net:[{namespace}]");
    let name = path.display().to_string();
    let failed = |error: String| RecoverError::Namespace(name.clone(), error);
    let processes = procfs::process::all_processes().map_err(|error| failed(error.to_string()))?;
    let door = processes.flatten().find_map(|process| {
        let ns = format!("/proc/{}/ns/net", process.pid);
        (std::fs::read_link(&ns).ok()?.to_string_lossy() == link).then(|| std::fs::File::open(&ns).ok())?
    });
    let replayed = std::thread::scope(|scope| {
        let replayed = scope.spawn(|| {
            let mut reach = Reach { own: None, others: BTreeMap::new() };
            if let Some(door) = &door {
                nix::sched::setns(door, nix::sched::CloneFlags::CLONE_NEWNET)
                    .map_err(|errno| failed(errno.to_string()))?;
                // Inodes are used again, cookies are not: it may be another namespace by now.
                if place.is_here() {
                    reach = Reach::here();
                }
            }
            Ok(replay(&path, &mut reach)?)
        });
        replayed.join()
    });
    replayed.unwrap_or_else(|_| Err(failed("the recovery panicked".to_owned())))
}
