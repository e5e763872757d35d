//! Undoing what a dead agent left: needs no daemon, no controller, no network and no configuration.

pub mod from_host;
pub mod reach;

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use squall_experiments::exit::Exit;
use squall_experiments::protocol::Refusal;

use crate::host::netns::{Id, Netns};
use crate::host::traces::Traces;
use crate::host::undo::{Undo, Undone};
use crate::journal::{self, Pending, Unreadable};
use crate::points::{self, Point};
use crate::state::{self, Lock, Place};
pub use reach::Reach;

/// How long a dying agent may still hold its lock, and the kernel what belonged to it.
const DYING: Duration = Duration::from_secs(2);

/// What a recovery came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What was undone, and how it was verified.
    pub undone: Vec<String>,
    /// What is still there.
    pub stuck: Vec<String>,
    /// Journals, and what else of an agent, that were left alone because a living process holds their place: an agent that
    /// works, one that is undoing, or another recovery.
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
    /// Squall's marks are on this host, and no journal knows of them.
    #[error("this host bears marks of Squall's that no journal knows of: {}", .0.join("; "))]
    Unrecorded(Vec<String>),
}

impl RecoverError {
    /// What to do.
    pub fn help(&self) -> &'static str {
        match self {
            RecoverError::Unreadable(Unreadable::Io { .. }) => {
                "make it readable; nothing was assumed to be clean, and the journal stays where it is"
            }
            RecoverError::Unreadable(Unreadable::Damaged { .. }) => {
                "nothing was assumed to be clean, and the journal stays where it is: `squall-agent recover --from-host` \
                 undoes what its whole lines say and what bears Squall's marks, and puts it aside"
            }
            RecoverError::Stuck(_) => {
                "the journal stays where it is: see to the cause, then `squall-agent recover`"
            }
            RecoverError::Namespace(..) => "run `squall-agent recover` as root (CAP_SYS_ADMIN)",
            RecoverError::Unrecorded(_) => {
                "nothing is injected beside them: `squall-agent recover --from-host` takes them away, `--dry-run` only \
                 lists them"
            }
        }
    }

    /// As a reason not to begin.
    pub fn refusal(&self) -> Refusal {
        let exit = match self {
            RecoverError::Stuck(_) => Exit::Modified,
            _ => Exit::Refused,
        };
        Refusal { exit: exit as u8, ..Refusal::new(self.to_string(), self.help()) }
    }
}

/// Looks for journals of dead agents below a state directory, of every network namespace, and replays them; then looks
/// whether the calling thread's namespace bears marks that no journal knows of.
///
/// What a living agent holds is left alone. A journal that cannot be replayed does not keep the others from being so.
/// Every squall command that acts on this host or looks at it calls this when it starts (docs/safety.md).
pub fn at_start(state_dir: Option<&Path>) -> Result<Outcome, RecoverError> {
    let root = state::root(state_dir);
    let mut all = Outcome::default();
    let mut failed = None;
    for place in Place::all(&root) {
        // Somebody who may not take the locks (another user) cannot undo either: the owner's next command will.
        let Some(_locks) = locks_of(&place) else {
            all.held.extend(kept(&place).map(|path| path.display().to_string()));
            continue;
        };
        match with_lock(&place) {
            Ok(outcome) => {
                points::pass(Point::BeforeClear);
                place.clear();
                all.undone.extend(outcome.undone);
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    compare(&root, false)?;
    Ok(all)
}

/// Refuses where no agent answers in the calling thread's network namespace and its journal is still there: somebody who
/// lives undoes it, and has not come to an end.
pub fn nothing_kept(state_dir: Option<&Path>) -> Result<(), Refusal> {
    let journal = Place::here(&state::root(state_dir))?.journal();
    if !journal.exists() {
        return Ok(());
    }
    let what = format!("no agent answers, and its journal `{}` is not undone yet", journal.display());
    let help = "somebody is just undoing it: ask again in a moment, or `squall-agent recover`";
    Err(Refusal { exit: Exit::Modified as u8, ..Refusal::new(what, help) })
}

/// Looks whether the calling thread's network namespace bears marks of ours that no journal knows of: what a journal
/// that is lost, or cut at the end of a line, would have named. `locked`: the caller holds this namespace's lock.
///
/// Whoever may not look there cannot change anything there either.
pub fn compare(root: &Path, locked: bool) -> Result<(), RecoverError> {
    let deadline = Instant::now() + DYING;
    loop {
        let found = Traces::certain().unwrap_or_default().found;
        if found.is_empty() || known(root, locked) {
            return Ok(());
        }
        // The kernel takes away what belonged to a process a little after it can be seen to be dead.
        if Instant::now() > deadline {
            return Err(RecoverError::Unrecorded(found.iter().map(ToString::to_string).collect()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a living agent below a state directory acts in the calling thread's network namespace.
fn known(root: &Path, locked: bool) -> bool {
    let Ok(here) = Netns::here() else { return false };
    let lives = |place: &Place| matches!(place.lock(), Ok(None));
    Place::all(root).iter().any(|place| match place.is_here() {
        true => !locked && lives(place),
        false => lives(place) && acts_in(place, here.id()),
    })
}

/// Whether what is pending in a place's journal concerns another namespace.
fn acts_in(place: &Place, netns: Id) -> bool {
    let entries = journal::read(&place.journal()).unwrap_or_default();
    journal::pending(&entries).iter().any(|pending| pending.undo.netns() == Some(netns))
}

/// Both locks of a place, that of who starts or recovers first, unless somebody who lives holds one of them. Who does not
/// listen is on its way out, or is undoing, and gets a moment.
pub fn locks_of(place: &Place) -> Option<(Lock, Lock)> {
    // Where an agent is just being started there is nothing to recover, and nothing may be cleared.
    Some((in_time(place, Place::starting)?, lock_of(place)?))
}

/// The lock of a place, unless a living agent holds it: one that listens. Who does not is given a moment, as above.
pub fn lock_of(place: &Place) -> Option<Lock> {
    in_time(place, Place::lock)
}

/// A lock of a place. A process that was killed lets go of it a little after it can be seen to be dead: its files are
/// closed last. So whatever an agent leaves is a reason to wait, also where it has not yet got as far as to a journal.
fn in_time(place: &Place, lock: impl Fn(&Place) -> io::Result<Option<Lock>>) -> Option<Lock> {
    let deadline = Instant::now() + DYING;
    loop {
        if let Some(lock) = lock(place).ok()? {
            return Some(lock);
        }
        let lives = place.remains().is_none() || UnixStream::connect(place.socket()).is_ok();
        if lives || Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What is kept from a recovery: the journal of who lives, or what another one is about to remove.
fn kept(place: &Place) -> Option<PathBuf> {
    let idle = !place.journal().exists() && UnixStream::connect(place.socket()).is_ok();
    place.remains().filter(|_| !idle)
}

/// Replays the journal of a place whose lock the caller holds, and removes it when nothing is left.
pub fn with_lock(place: &Place) -> Result<Outcome, RecoverError> {
    let path = place.journal();
    let outcome = match journal::read(&path)?.first() {
        Some(journal::Entry::Header { boot, namespace, .. }) => {
            if place.cookie().is_some_and(|cookie| cookie != namespace.cookie) {
                let what = format!("it is the journal of another network namespace ({})", namespace.cookie);
                return Err(Unreadable::Damaged { path, line: 1, what }.into());
            }
            let rebooted = *boot != now(&path)?;
            inside(place, *namespace, rebooted, |reach| replay(&path, reach, || {}))??
        }
        _ => Outcome::default(),
    };
    if outcome.stuck.is_empty() {
        points::pass(Point::BeforeRemove);
        let _ = std::fs::remove_file(path);
        Ok(outcome)
    } else {
        Err(RecoverError::Stuck(outcome.stuck))
    }
}

fn now(path: &Path) -> Result<String, Unreadable> {
    journal::boot_id().map_err(|source| Unreadable::Io { path: path.to_owned(), source })
}

/// Does something in the network namespace of a place, where it still is: behind one of its processes, or a name.
fn inside<T>(
    place: &Place,
    namespace: Id,
    rebooted: bool,
    act: impl FnOnce(&mut Reach) -> T,
) -> Result<T, RecoverError> {
    if place.is_here() {
        return Ok(act(&mut Reach::here()));
    }
    let failed =
        |error: io::Error| RecoverError::Namespace(place.journal().display().to_string(), error.to_string());
    // Numbers of an earlier boot are nobody's.
    let found = if rebooted { None } else { Netns::find(namespace).map_err(failed)? };
    match found {
        Some(netns) => netns.enter(|| act(&mut Reach::here())).map_err(failed),
        None => Ok(act(&mut Reach::nowhere())),
    }
}

/// Applies everything that is pending in a journal; one failure does not stop the others. `next` is called before each.
pub fn replay(path: &Path, reach: &mut Reach, mut next: impl FnMut()) -> Result<Outcome, Unreadable> {
    let entries = journal::read(path)?;
    let now = now(path)?;
    let rebooted = matches!(entries.first(), Some(journal::Entry::Header { boot, .. }) if *boot != now);
    let undo = |undo: &Undo| {
        next();
        reach.apply(undo)
    };
    Ok(apply(&entries, rebooted, undo))
}

/// Applies what is pending among some entries, in its order.
pub fn apply(entries: &[journal::Entry], rebooted: bool, mut undo: impl FnMut(&Undo) -> Undone) -> Outcome {
    let mut outcome = Outcome::default();
    for Pending { run, undo: pending, .. } in journal::pending(entries) {
        points::pass(Point::BeforeUndo);
        let done = if rebooted && pending.void_after_reboot() {
            Ok("a reboot has undone it".to_owned())
        } else {
            undo(&pending)
        };
        points::pass(Point::AfterUndo);
        match done {
            Ok(what) => outcome.undone.push(format!("{run}: {what}")),
            Err(what) => outcome.stuck.push(format!("{run}: {what}")),
        }
    }
    outcome
}

#[cfg(test)]
mod tests;
