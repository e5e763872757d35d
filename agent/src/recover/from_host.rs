//! `recover --from-host`: for a host whose journal is damaged or lost.
//!
//! What the whole lines of a damaged journal say is undone; then what bears Squall's marks is taken away, and nothing
//! else. Each step is verified. Where nothing is left the damaged journal is put aside, never removed: it may still tell a
//! person what stood on the host before.

use std::path::{Path, PathBuf};

use squall_experiments::protocol::Refusal;

use super::{Reach, RecoverError, acts_in, apply, locks_of, with_lock};
use crate::host::netns::{NAMED, Netns};
use crate::host::traces::{Trace, Traces};
use crate::host::undo::{Undo, Undone};
use crate::journal::{self, Entry, Unreadable, lines};
use crate::state::{self, Lock, Place};

/// What is wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted<'a> {
    /// Only say what would be done.
    pub dry: bool,
    /// Also in these network namespaces: names of `ip-netns(8)`, or paths.
    pub netns: &'a [String],
}

/// What it came to.
#[derive(Debug, Default)]
pub struct Found {
    /// What was taken away, or would be.
    pub done: Vec<String>,
    /// What is still there.
    pub stuck: Vec<String>,
    /// What was left alone, with why.
    pub left: Vec<String>,
}

impl Found {
    fn take(&mut self, whose: &str, what: &str, done: Undone) {
        match done {
            Ok(done) => self.done.push(format!("{whose}: {done}")),
            Err(error) if error.contains(what) => self.stuck.push(format!("{whose}: {error}")),
            Err(error) => self.stuck.push(format!("{whose}: {what}: {error}")),
        }
    }
}

/// See the module. Looks into the calling thread's network namespace, into those of damaged journals, and into those that
/// are named.
pub fn run(state_dir: Option<&Path>, wanted: &Wanted<'_>) -> Result<Found, Refusal> {
    let root = state::root(state_dir);
    let mut found = Found::default();
    let (mut places, mut held) = (Vec::new(), Vec::new());
    for place in Place::all(&root) {
        match locks_of(&place) {
            Some(locks) => places.push((place, locks)),
            None => held.push(place),
        }
    }
    let lives = |place: &Place| {
        format!("`{}`: an agent lives there, or somebody recovers it", place.directory().display())
    };
    found.left.extend(held.iter().map(lives));
    let mut sweeps = vec![("this network namespace".to_owned(), Netns::here().map_err(unseen)?)];
    for name in wanted.netns {
        let path = if name.contains('/') { PathBuf::from(name) } else { Path::new(NAMED).join(name) };
        let netns = Netns::open(&path).map_err(|error| {
            Refusal::new(
                format!("`{name}` is no network namespace that can be entered: {error}"),
                "look with `ip netns`",
            )
        })?;
        sweeps.push((format!("network namespace `{name}`"), netns));
    }
    let mut damaged = Vec::new();
    for (place, locks) in places {
        replayed(place, locks, wanted.dry, &mut found, &mut damaged, &mut sweeps)?;
    }
    for (name, netns) in &sweeps {
        let id = netns.id();
        if held.iter().any(|place| place.cookie() == Some(id.cookie) || acts_in(place, id)) {
            found.left.push(format!("{name}: an agent acts there"));
        } else {
            netns.enter(|| swept(name, wanted.dry, &mut found)).map_err(unseen)?;
        }
    }
    if !wanted.dry && found.stuck.is_empty() {
        for (place, _locks) in damaged {
            found.left.push(put_aside(&place)?);
        }
    }
    Ok(found)
}

fn unseen(error: std::io::Error) -> Refusal {
    Refusal::new(format!("a network namespace cannot be looked at: {error}"), "it needs root (CAP_SYS_ADMIN)")
}

/// Replays the journal of a place, or what can be read of it.
fn replayed(
    place: Place,
    locks: (Lock, Lock),
    dry: bool,
    found: &mut Found,
    damaged: &mut Vec<(Place, (Lock, Lock))>,
    sweeps: &mut Vec<(String, Netns)>,
) -> Result<(), Refusal> {
    let path = place.journal();
    let whose = format!("`{}`", path.display());
    let entries = match journal::read(&path) {
        Ok(entries) if dry => entries,
        Ok(_) => {
            match with_lock(&place) {
                Ok(outcome) => {
                    place.clear();
                    found.done.extend(outcome.undone.into_iter().map(|what| format!("{whose}: {what}")));
                }
                Err(RecoverError::Stuck(stuck)) => {
                    found.stuck.extend(stuck.into_iter().map(|what| format!("{whose}: {what}")));
                }
                Err(error) => found.stuck.push(error.to_string()),
            }
            return Ok(());
        }
        Err(error @ Unreadable::Io { .. }) => {
            found.stuck.push(error.to_string());
            return Ok(());
        }
        Err(error @ Unreadable::Damaged { .. }) => {
            let bytes = journal::bytes(&path).ok().flatten().unwrap_or_default();
            let entries = lines::salvage(&bytes);
            found.left.push(format!("{error}; {} of its lines are whole", entries.len()));
            entries
        }
    };
    // The directory's name tells the namespace also where the header does not.
    let home =
        if place.is_here() { Some(Netns::here()) } else { Netns::with_cookie(place.cookie()).transpose() };
    let home = home.transpose().map_err(unseen)?;
    if dry {
        for pending in journal::pending(&entries) {
            found.done.push(format!("{whose}: {}: {}", pending.run, pending.undo));
        }
    } else {
        let boot = journal::boot_id().map_err(unseen)?;
        let rebooted = entries
            .iter()
            .any(|entry| matches!(entry, Entry::Header { boot: theirs, .. } if *theirs != boot));
        let replay = |mut reach: Reach| apply(&entries, rebooted, |undo: &Undo| reach.apply(undo));
        let outcome = match &home {
            Some(home) => home.enter(|| replay(Reach::here())).map_err(unseen)?,
            None => replay(Reach::nowhere()),
        };
        found.done.extend(outcome.undone.into_iter().map(|what| format!("{whose}: {what}")));
        found.stuck.extend(outcome.stuck.into_iter().map(|what| format!("{whose}: {what}")));
        damaged.push((place, locks));
    }
    // What its lost lines may have told of.
    let inner = entries.iter().filter_map(|entry| match entry {
        Entry::Undo { undo, .. } => undo.netns(),
        _ => None,
    });
    let inner = inner.filter_map(|id| Netns::find(id).ok().flatten());
    for netns in home.into_iter().chain(inner) {
        if !sweeps.iter().any(|(_, known)| known.id() == netns.id()) {
            sweeps.push((format!("network namespace {}", netns.id().inode), netns));
        }
    }
    Ok(())
}

/// Takes away what bears our marks in the calling thread's network namespace.
fn swept(name: &str, dry: bool, found: &mut Found) {
    let traces = match Traces::all() {
        Ok(traces) => traces,
        Err(refusal) => return found.stuck.push(format!("{name}: {}", refusal.what)),
    };
    found.left.extend(traces.others.iter().map(|what| format!("{name}: {what}")));
    for trace in &traces.found {
        if dry {
            found.done.push(format!("{name}: {trace}"));
        } else {
            found.take(name, &trace.to_string(), trace.remove());
        }
    }
    if let Ok(after) = Traces::all()
        && !dry
    {
        let still = |trace: &&Trace| {
            let kind = std::mem::discriminant(*trace);
            traces.found.iter().any(|before| std::mem::discriminant(before) == kind)
        };
        let still = after.found.iter().filter(still).map(|trace| format!("{name}: {trace} is still there"));
        found.stuck.extend(still);
    }
}

/// Keeps a damaged journal under another name.
fn put_aside(place: &Place) -> Result<String, Refusal> {
    let from = place.journal();
    let free =
        (1..).map(|number| place.directory().join(format!("damaged-{number}"))).find(|to| !to.exists());
    let to = free.unwrap_or_else(|| place.directory().join("damaged"));
    std::fs::rename(&from, &to).map_err(|error| {
        Refusal::bare(format!("the damaged journal `{}` cannot be put aside: {error}", from.display()))
    })?;
    place.clear();
    Ok(format!("the damaged journal is kept as `{}`", to.display()))
}
