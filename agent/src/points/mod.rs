//! Stopping points: the named places at which a build for tests can be made to die, hang or lose a right.
//!
//! They stand around everything that the journal knows: each entry, each change, each undo. With the feature
//! `stopping-points` the environment says what happens at which of them (see [`armed`](self)); without it every function
//! here is empty, and neither the names nor the variables are in the program. Only `squall-agent-stopping`, which nobody
//! installs, is built with it.

#[cfg(feature = "stopping-points")]
mod armed;
#[cfg(not(feature = "stopping-points"))]
mod unarmed;

#[cfg(feature = "stopping-points")]
pub use armed::{pass, play, sync, write};
#[cfg(not(feature = "stopping-points"))]
pub use unarmed::{pass, play, sync, write};

/// A place. Worker and guardian both pass those around an entry: the one asks, the other writes.
#[derive(Clone, Copy)]
pub enum Point {
    /// A run is about to be written down.
    BeforeBegin,
    /// It is on disk.
    AfterBegin,
    /// An undo is about to be written down.
    BeforeRecord,
    /// It is on disk, and nothing of what it takes back has been done.
    AfterRecord,
    /// Something has been written, and not synced.
    HalfWritten,
    /// A change was looked at, and nothing is recorded of it.
    BeforePerform,
    /// A change is live.
    AfterPerform,
    /// Everything is about to be taken back by whoever is left.
    BeforeRevert,
    /// One undo is about to be made so.
    BeforeUndo,
    /// It is so.
    AfterUndo,
    /// It is about to be written down that undos are done.
    BeforeUndone,
    /// That is on disk.
    AfterUndone,
    /// The end of a run is about to be written down.
    BeforeEnd,
    /// It is on disk.
    AfterEnd,
    /// A journal of which nothing is left is about to be removed.
    BeforeRemove,
    /// A clean place is about to be cleared.
    BeforeClear,
}

/// Who passes.
#[derive(Clone, Copy)]
pub enum Role {
    /// The parent of the pair.
    Guardian,
    /// Its child.
    Worker,
}
